"""Standard measures of saliency maps, most of them computed by pysodmetrics."""

import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image
from py_sod_metrics import (
    MAE,
    Emeasure,
    FmeasureHandler,
    FmeasureV2,
    PrecisionHandler,
    RecallHandler,
    Smeasure,
    WeightedFmeasure,
)

from reference_models.errors import InputError, count
from reference_models.machine import cores

NAMES = ("mae", "f", "max_f", "weighted_f", "s", "e", "auroc", "miou")
EXACT = ("weighted_f_exact", "weighted_f_loss")
CURVES = ("precision", "recall")
BINARY = ("binary",)
MOST_WITHOUT_POOL = 200  # Measuring this many images takes less time than starting processes.
IMAGES_PER_TASK = 8


Maps = np.ndarray | Sequence[np.ndarray]
Row = dict[str, float | np.ndarray]
"""The measures of one image; max F, E, precision and recall are curves over the 256 thresholds,
from 255 down to 0."""


Measures = dict[str, float]
"""Means over images, in [0, 1]. Lower is better for the MAE, higher for all others.

mae: Mean absolute error.
f: F with β² = 0.3, at the threshold min(2 × the map's mean, 1).
max_f: Highest point of the mean F curve over 256 thresholds, β² = 0.3.
weighted_f: Margolin's weighted F with β² = 1, as pysodmetrics computes it.
s: S-measure, α = 0.5.
e: Highest point of the mean E-measure curve over 256 thresholds. Like max F, it does not depend on
    one threshold: at the threshold 2 × the mean, a constant map of 0.5 is entirely background. The
    paper divides by the number of pixels minus 1, so the value may slightly exceed 1.
auroc: Area under the ROC curve.
miou: Mean of the intersection over union of the object and that of the background, the map cut at
    ½. (W Table 3 prints a MIoU without its formula; W Figure 6 cuts at ½.)
weighted_f_exact: Weighted F by the equations of its paper, `weighted_fbeta_score`.
weighted_f_loss: 1 − `weighted_fbeta_loss` with its defaults (squared errors, windowed distance).
binary: Share of the map's values that are at most .1 or at least .9; higher is not better.
"""


def measure(
    maps: Maps,
    masks: Maps,
    *,
    exact: bool = False,
    only: Sequence[str] | None = None,
    workers: int | None = None,
    voids: Sequence[np.ndarray | None] = (),
) -> Measures:
    """Compare maps with masks, and return the means of the measures over images.

    maps: `(N, S, S)`, or N arrays `(H, W)`; floats in [0, 1], bool, or uint8 from 0 to 255.
    masks: `(N, H, W)`, or N arrays `(H, W)` that may differ in size; bool. If a map has another
    size than its mask, it is resized bilinearly to the mask's size (with antialiasing).
    exact: Also compute the measures in `EXACT`. only: Names of the measures. Default: `NAMES`.
    workers: Number of processes. Default: one per core for more than 200 images, otherwise one.
    Processes are spawned, so a script that uses several needs `if __name__ == "__main__"`.
    voids: For each image the pixels that do not count, bool `(H, W)`, or None. Default: none.

    Maps are rounded to 8 bits, as if they had been saved. Unlike pysodmetrics' default, they are
    not stretched to 0..1 per image, because an uncertain map would then score like a certain one.
    An image whose mask is all background counts in the MAE only, because its F is 0/0. An image
    whose mask is all object does not count in the AUROC.

    Void pixels have no influence: all means, thresholds, areas and centres of a measure are those
    of the counted pixels, and the quadrants of the S-measure hold these alone. For the weighted F,
    void is background without error, as with `mask` in `weighted_fbeta_score`. An image that is
    entirely void counts nowhere.
    """
    names = tuple(only) if only is not None else NAMES + EXACT * exact
    return means(measure_each(maps, masks, names, workers, voids), names)


def measure_each(
    maps: Maps,
    masks: Maps,
    names: Sequence[str] = NAMES,
    workers: int | None = None,
    voids: Sequence[np.ndarray | None] = (),
) -> list[Row]:
    """The measures of each image; see `measure`. Measures not defined for an image are missing."""
    every = (*NAMES, *EXACT, *BINARY, *CURVES)
    if unknown := [name for name in names if name not in every]:
        raise InputError(
            f"{count(len(unknown), 'unknown measure')}: {', '.join(unknown)}; choose from "
            f"{', '.join(every)}"
        )
    if len(maps) != len(masks) or len(masks) == 0:
        raise InputError(
            f"maps and masks must be equal in number, and at least 1, got "
            f"{count(len(maps), 'map')} and {count(len(masks), 'mask')}; pass a mask for each map"
        )
    if workers is None:
        workers = cores() if len(masks) > MOST_WITHOUT_POOL else 1
    rows = partial(rows_of, names=tuple(names))
    if workers == 1:
        return rows(0, maps, masks, voids)
    starts = range(0, len(maps), IMAGES_PER_TASK)
    parts = [slice(start, start + IMAGES_PER_TASK) for start in starts]
    arguments = [(part.start, maps[part], masks[part], voids[part]) for part in parts]
    try:
        tasks = [pool(workers).submit(rows, *each) for each in arguments]
        return [row for task in tasks for row in task.result()]
    except BrokenProcessPool:
        end_pool(workers)
        raise InputError(
            "a process that measures maps was killed, perhaps for lack of memory; close other "
            "programs and run the same command again"
        ) from None
    except BaseException:  # An error, or Ctrl-C.
        end_pool(workers)
        raise


def rows_of(
    first: int,
    maps: Maps,
    masks: Maps,
    voids: Sequence[np.ndarray | None],
    names: tuple[str, ...],
) -> list[Row]:
    """The measures of consecutive images. first: index of the first one, for error messages."""
    voids = voids or [None] * len(masks)
    return [
        measure_image(first + index, saliency, mask, void, names)
        for index, (saliency, mask, void) in enumerate(zip(maps, masks, voids, strict=True))
    ]


# The E-measure divides by one pixel fewer than there are, which matters in very small masks.
ROUNDING = 1e-6
MOST = {
    "e": 2.0,
    "within_object": 2.0,
    "within_background": 2.0,
    "between": 4.0,
    "within_to_between": 2.0,
    "variation_of_information": math.inf,
    "regions": math.inf,
}


def means(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Measures:
    """The mean of each measure over the images that define it, or the mean curve's maximum."""
    averages: Measures = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        if not values:
            raise InputError(
                f"{name} is not defined, because no mask has both object and background; check the "
                "masks"
            )
        averages[name] = float(np.max(np.mean(values, axis=0)))
        if not -ROUNDING <= averages[name] <= MOST.get(name, 1.0) + ROUNDING:
            raise InputError(f"{name} is {averages[name]}, which no maps can have; check the maps")
    return averages


def measure_image(
    index: int,
    saliency: np.ndarray,
    mask: np.ndarray,
    void: np.ndarray | None,
    names: tuple[str, ...],
) -> Row:
    """The measures that are defined for this image. index: for error messages."""
    if np.ndim(mask) != 2 or mask.dtype != bool:
        raise InputError(
            f"masks[{index}] must be bool (height, width), got {mask.dtype} {np.shape(mask)}; "
            "write mask > 0 for a 0/1 mask, or mask >= 128 for a 0/255 mask"
        )
    values = eight_bit(saliency, mask.shape, f"maps[{index}]")
    unit = values / 255
    structure = Structure(alpha=0.5)
    whole, whole_mask = unit, mask
    if void is not None:
        counted = ~void
        # Measures that do not depend on places see the counted pixels as one row.
        values, unit, mask = (x[counted][None] for x in (values, unit, mask & counted))
        whole, whole_mask = np.where(void, 0, whole), whole_mask & counted
        structure.places = np.nonzero(counted)
    row: Row = {}
    if not mask.size:
        return row
    if "mae" in names:
        row["mae"] = float(MAE().cal_mae(unit, mask))
    if "binary" in names:
        row["binary"] = float(((unit <= 0.1) | (unit >= 0.9)).mean())
    if not mask.any():
        return row
    handlers: dict[str, Any] = {}
    if "f" in names or "max_f" in names:
        handlers["f"] = FmeasureHandler(
            with_dynamic="max_f" in names, with_adaptive="f" in names, beta=0.3
        )
    if "precision" in names:
        handlers["precision"] = PrecisionHandler(with_dynamic=True, with_adaptive=False)
    if "recall" in names:
        handlers["recall"] = RecallHandler(with_dynamic=True, with_adaptive=False)
    if handlers:
        FmeasureV2(handlers).step(unit, mask, normalize=False)
    if "f" in names:
        row["f"] = float(handlers["f"].adaptive_results[0])
    if "max_f" in names:
        row["max_f"] = handlers["f"].dynamic_results[0]
    row |= {name: handlers[name].dynamic_results[0] for name in CURVES if name in names}
    if "weighted_f" in names:
        weighted = WeightedFmeasure(beta=1)
        weighted.step(whole, whole_mask, normalize=False)
        row["weighted_f"] = float(weighted.get_results()["wfm"])
    if "s" in names:
        row["s"] = float(structure.cal_sm(unit, mask))
    if "e" in names and mask.size > 1:  # It divides by the number of pixels less one.
        alignment = Emeasure()
        alignment.step(unit, mask, normalize=False)
        row["e"] = alignment.get_results()["em"]["curve"]
    if "auroc" in names and not mask.all():
        row["auroc"] = auroc(values, mask)
    if "miou" in names:
        row["miou"] = mean_iou(unit >= 0.5, mask)
    if not set(EXACT).isdisjoint(names):
        row |= exact_weighted_f(whole, whole_mask, void, names)
    return row


def eight_bit(saliency: np.ndarray, shape: tuple[int, int], name: str = "map") -> np.ndarray:
    """The map as uint8 from 0 to 255, resized to `shape`. name: for error messages."""
    if np.ndim(saliency) != 2:
        raise InputError(
            f"{name} must be (height, width), got shape {np.shape(saliency)}; drop batch and "
            "channel axes"
        )
    kind = saliency.dtype
    if kind == np.uint8:
        values = saliency
    elif kind.kind in "bf":
        values = 255 * np.asarray(saliency, np.float64)
        # Half precision may exceed the bounds by a thousandth. NaN fails the comparison too.
        if not (values.min() >= -0.255 and values.max() <= 255.255):
            raise InputError(
                f"{name} must lie in 0..1, got {values.min() / 255:.4g}..{values.max() / 255:.4g}; "
                "apply a sigmoid to logits, and pass 8-bit maps as uint8"
            )
    else:
        raise InputError(
            f"{name} must be floats in 0..1, bool, or uint8 in 0..255, got {kind}; convert it"
        )
    if values.shape != shape:
        size = (shape[1], shape[0])
        floating = Image.fromarray(values.astype(np.float32))
        values = np.asarray(floating.resize(size, Image.Resampling.BILINEAR))
    if values.dtype == np.uint8:
        return values
    values = np.clip(values, 0, 255)
    return np.rint(values, out=values).astype(np.uint8)


class Structure(Smeasure):
    """The S-measure, also for an object in the last row or column only, and for images with void.

    In the first case some quadrants of the map are empty; pysodmetrics returns NaN for them.
    """

    places: tuple[np.ndarray, ...] | None = None
    """Rows and columns of the counted pixels, if map and mask hold these alone, in one row."""

    def region(self, pred: np.ndarray, gt: np.ndarray) -> float:
        if self.places is None:
            return float(super().region(pred, gt))
        halves = []
        for place in self.places:
            centre = place[gt[0]].mean().round() + 1
            halves.append((place < centre, place >= centre))
        quadrants = [rows & columns for rows in halves[0] for columns in halves[1]]
        return sum(self.ssim(pred[:, q], gt[:, q]) * q.mean() for q in quadrants)

    def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
        return super().ssim(pred, gt) if pred.size else 0.0


def auroc(values: np.ndarray, mask: np.ndarray) -> float:
    """The area under the ROC curve of a uint8 map. The mask must have object and background.

    This is the share of pairs of an object pixel and a background pixel in which the object pixel
    has the higher value; ties count half. It follows from the histograms of the 256 values.
    """
    counts = np.bincount(values.ravel() + 256 * mask.ravel().astype(np.int64), minlength=512)
    background, foreground = counts.reshape(2, 256)
    below = background.cumsum() - background
    ordered = (foreground * (below + background / 2)).sum()
    return float(ordered / (foreground.sum() * background.sum()))


def mean_iou(cut: np.ndarray, mask: np.ndarray) -> float:
    """Mean IoU of the two classes of a bool map; the IoU of a class that neither has is 1."""
    unions = [(cut | mask).sum(), (~cut | ~mask).sum()]
    intersections = [(cut & mask).sum(), (~cut & ~mask).sum()]
    pairs = zip(intersections, unions, strict=True)
    return float(np.mean([shared / union if union else 1.0 for shared, union in pairs]))


def mean_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Mean precision and recall over the images with an object, at the thresholds 255, 250, …, 0.

    The precision of an image without a pixel at or above the threshold is 0, as in pysodmetrics.
    """
    return {
        name: np.mean([row[name] for row in rows if name in row], axis=0)[::5].round(4).tolist()
        for name in CURVES
    }


def exact_weighted_f(
    unit: np.ndarray, mask: np.ndarray, void: np.ndarray | None, names: tuple[str, ...]
) -> Row:
    """The measures in `EXACT`, by this library. unit: the map in [0, 1]."""
    import torch

    from saliency_losses.torch import weighted_fbeta_loss, weighted_fbeta_score

    probs, target = torch.from_numpy(unit)[None, None], torch.from_numpy(mask.copy())[None, None]
    counted = None if void is None else torch.from_numpy(~void)[None]
    row: Row = {}
    if "weighted_f_exact" in names:
        row["weighted_f_exact"] = float(weighted_fbeta_score(probs, target, mask=counted))
    if "weighted_f_loss" in names:
        row["weighted_f_loss"] = 1 - float(weighted_fbeta_loss(probs, target, mask=counted))
    return row


@cache
def pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes, kept for the next set of maps because they take seconds to start."""
    spawn = multiprocessing.get_context(
        "spawn"
    )  # A forked process would inherit locks that are held.
    executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=begin_worker)
    # Only the parent process reacts to Ctrl-C. Workers inherit the blocked signal, so that this
    # holds while they start too.
    with no_interrupts():
        for _ in range(workers):
            executor.submit(int)
    return executor


def end_pool(workers: int) -> None:
    """Stop the workers now. Python itself would first start all of them and finish the queue.

    The queued tasks are not cancelled, because Python 3.11 then hangs: it passes the loss of the
    workers on to every queued task, and fails at a cancelled one.
    """
    executor = pool(workers)
    pool.cache_clear()
    for process in list(executor._processes.values()):  # Python 3.14 has a public method.
        process.terminate()


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block. On Windows this is impossible and does nothing."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """Make a worker use one thread, since each core has a worker, and end with its parent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: BaseProcess) -> None:
    """End this process when its parent ends, even if the parent is killed."""
    parent.join()
    os._exit(1)


LABELS = {
    "mae": "MAE",
    "f": "F",
    "max_f": "max F",
    "weighted_f": "weighted F",
    "s": "S",
    "e": "max E",
    "auroc": "AUROC",
    "weighted_f_exact": "weighted F, exact",
    "weighted_f_loss": "weighted F, as in the loss",
    "miou": "mean IoU",
    "binary": "share near 0 or 1",
    "within_object": "within the object",
    "within_background": "within the background",
    "between": "between the regions",
    "within_to_between": "larger within / between",
}


def one_line(row: Mapping[str, float]) -> str:
    """The main saliency measures in one line of text, or all measures of a label map."""
    names = [name for name in ("mae", "f", "max_f", "weighted_f") if name in row] or list(row)
    labels = (LABELS.get(name, name.replace("_", " ")) for name in names)
    return "   ".join(f"{label} {row[name]:.3f}" for label, name in zip(labels, names, strict=True))
