"""The field's measures of a set of saliency maps, most of them by pysodmetrics."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
    Smeasure,
    WeightedFmeasure,
)

from reference_models.errors import InputError
from reference_models.machine import cores

NAMES = ("mae", "f", "max_f", "weighted_f", "s", "e", "auroc")
EXACT = ("weighted_f_exact", "weighted_f_loss")
WORTH_A_POOL = 200  # Images; fewer are measured before the processes have started.
AT_ONCE = 8  # Images that a process is given.


Maps = np.ndarray | Sequence[np.ndarray]
Row = dict[str, float | np.ndarray]
"""The measures of one image; max F and E as curves of 256."""


Measures = dict[str, float]
"""Means over images in [0, 1]: the lower the MAE and the higher the others, the better.

mae: Mean absolute error.
f: F with β² = 0.3 at the threshold min(2 × the map's mean, 1).
max_f: The highest point of the mean F curve over 256 thresholds, β² = 0.3.
weighted_f: Margolin's weighted F with β² = 1, as pysodmetrics computes it.
s: S-measure, α = 0.5.
e: The highest point of the mean E-measure curve over 256 thresholds. Like max F, it does not
    depend on one threshold: at 2 × the mean, a constant map of 0.5 is entirely background. The
    paper divides by one pixel fewer, so it may slightly exceed 1.
auroc: Area under the ROC curve of each image.
weighted_f_exact: Weighted F by the paper's equations, `weighted_fbeta_score`.
weighted_f_loss: 1 − `weighted_fbeta_loss` with its defaults: squared errors, windowed distance.
"""


def measure(
    maps: Maps,
    masks: Maps,
    *,
    exact: bool = False,
    only: Sequence[str] | None = None,
    workers: int | None = None,
) -> Measures:
    """Compare maps with masks, image by image, and take means.

    maps: `(N, S, S)` or N of `(H, W)`; floats in [0, 1], bool, or uint8 from 0 to 255.
    masks: `(N, H, W)` or N of `(H, W)`, bool, each of its own size. A map of another size is
    resized to its mask, bilinearly (with antialiasing where it shrinks).
    exact: adds the two of `EXACT`. only: the names wanted, by default all of `NAMES`.
    workers: processes; by default one per core for more than 200 images. They are spawned, so a
    script that measures that many needs `if __name__ == "__main__"`.

    Maps are rounded to 8 bits, as if saved. They are not stretched to 0..1 per image, which is
    what pysodmetrics does by default: a map that is unsure would be scored as if it were sure.
    An image whose mask is all background counts in the MAE alone; F is 0/0 there. One whose mask
    is all object is left out of the AUROC.
    """
    names = tuple(only) if only is not None else NAMES + EXACT * exact
    return means(measure_each(maps, masks, names, workers), names)


def measure_each(
    maps: Maps,
    masks: Maps,
    names: Sequence[str] = NAMES,
    workers: int | None = None,
) -> list[Row]:
    """As `measure`, a row per image. A measure that is not defined for an image has no value."""
    if unknown := [name for name in names if name not in NAMES + EXACT]:
        raise InputError(f"there are no measures {unknown}; there are {NAMES + EXACT}")
    if len(maps) != len(masks) or len(masks) == 0:
        raise InputError(
            f"each map needs one mask and at least one is needed, "
            f"got {len(maps)} maps and {len(masks)} masks"
        )
    if workers is None:
        workers = cores() if len(masks) > WORTH_A_POOL else 1
    rows = partial(rows_of, names=tuple(names))
    if workers == 1:
        return rows(0, maps, masks)
    starts = range(0, len(maps), AT_ONCE)
    parts = [slice(start, start + AT_ONCE) for start in starts]
    try:
        found = [pool(workers).submit(rows, part.start, maps[part], masks[part]) for part in parts]
        return [row for some in found for row in some.result()]
    except BaseException:  # A fault, or Ctrl-C.
        end_pool(workers)
        raise


def rows_of(first: int, maps: Maps, masks: Maps, names: tuple[str, ...]) -> list[Row]:
    """first: the number of the first image, for messages."""
    return [
        one_image(first + place, saliency, mask, names)
        for place, (saliency, mask) in enumerate(zip(maps, masks, strict=True))
    ]


def means(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Measures:
    """Over the images for which a measure is defined; of a curve the highest point."""
    found: Measures = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        if not values:
            raise InputError(f"{name} is not defined: no mask has both object and background")
        found[name] = float(np.max(np.mean(values, axis=0)))
    return found


def one_image(index: int, saliency: np.ndarray, mask: np.ndarray, names: tuple[str, ...]) -> Row:
    """The measures that are defined for this image."""
    if np.ndim(mask) != 2 or mask.dtype != bool:
        raise InputError(
            f"masks[{index}] must be bool (height, width), got {mask.dtype} {np.shape(mask)}; "
            "write mask > 0 for 0/1 and mask >= 128 for 0/255"
        )
    values = eight_bit(saliency, mask.shape, f"maps[{index}]")
    unit = values / 255
    row: Row = {}
    if "mae" in names:
        row["mae"] = float(MAE().cal_mae(unit, mask))
    if not mask.any():
        return row
    if "f" in names or "max_f" in names:
        handler = FmeasureHandler(
            with_dynamic="max_f" in names, with_adaptive="f" in names, beta=0.3
        )
        FmeasureV2({"f": handler}).step(unit, mask, normalize=False)
        if "f" in names:
            row["f"] = float(handler.adaptive_results[0])
        if "max_f" in names:
            row["max_f"] = handler.dynamic_results[0]
    if "weighted_f" in names:
        weighted = WeightedFmeasure(beta=1)
        weighted.step(unit, mask, normalize=False)
        row["weighted_f"] = float(weighted.get_results()["wfm"])
    if "s" in names:
        row["s"] = float(Structure(alpha=0.5).cal_sm(unit, mask))
    if "e" in names:
        alignment = Emeasure()
        alignment.step(unit, mask, normalize=False)
        row["e"] = alignment.get_results()["em"]["curve"]
    if "auroc" in names and not mask.all():
        row["auroc"] = auroc(values, mask)
    if not set(EXACT).isdisjoint(names):
        row |= exact_weighted_f(unit, mask, names)
    return row


def eight_bit(saliency: np.ndarray, shape: tuple[int, int], name: str = "map") -> np.ndarray:
    """A map `(H, W)` at the size `shape`, as uint8 from 0 to 255."""
    if np.ndim(saliency) != 2:
        raise InputError(f"{name} must be (height, width), got the shape {np.shape(saliency)}")
    kind = saliency.dtype
    if kind == np.uint8:
        values = saliency
    elif kind.kind in "bf":
        values = 255 * np.asarray(saliency, np.float64)
        # A thousandth is what half precision may leave; NaN fails the comparison too.
        if not (values.min() >= -0.255 and values.max() <= 255.255):
            raise InputError(
                f"{name} must lie in 0..1, got {values.min() / 255:.4g}..{values.max() / 255:.4g}; "
                "give logits to a sigmoid first, and 8-bit maps as uint8"
            )
    else:
        raise InputError(f"{name} must be floats in 0..1, bool, or uint8 in 0..255, got {kind}")
    if values.shape != shape:
        size = (shape[1], shape[0])
        floating = Image.fromarray(values.astype(np.float32))
        values = np.asarray(floating.resize(size, Image.Resampling.BILINEAR))
    if values.dtype == np.uint8:
        return values
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


class Structure(Smeasure):
    """An object within the last row or column leaves quadrants empty; pysodmetrics gives NaN."""

    def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
        return super().ssim(pred, gt) if pred.size else 0.0


def auroc(values: np.ndarray, mask: np.ndarray) -> float:
    """The area under the ROC curve of a uint8 map, whose mask has both classes.

    It is the share of pairs, one pixel on the object and one off it, that are in order; equal
    values count half. How often each of the 256 values occurs on and off the object says it all.
    """
    counts = np.bincount(values.ravel() + 256 * mask.ravel().astype(np.int64), minlength=512)
    off, on = counts.reshape(2, 256)
    below = off.cumsum() - off
    return float((on * (below + off / 2)).sum() / (on.sum() * off.sum()))


def exact_weighted_f(unit: np.ndarray, mask: np.ndarray, names: tuple[str, ...]) -> Row:
    import torch

    from saliency_losses.torch import weighted_fbeta_loss, weighted_fbeta_score

    probs, target = torch.from_numpy(unit)[None, None], torch.from_numpy(mask.copy())[None, None]
    row: Row = {}
    if "weighted_f_exact" in names:
        row["weighted_f_exact"] = float(weighted_fbeta_score(probs, target))
    if "weighted_f_loss" in names:
        row["weighted_f_loss"] = 1 - float(weighted_fbeta_loss(probs, target))
    return row


@cache
def pool(workers: int) -> ProcessPoolExecutor:
    """Kept for the next set of maps: the processes take seconds to start."""
    spawn = multiprocessing.get_context("spawn")  # A fork would copy the threads' locks.
    executor = ProcessPoolExecutor(workers, mp_context=spawn, initializer=begin_worker)
    # Ctrl-C is for the process that waits for the others, also while they start: they inherit
    # what is blocked here.
    with no_interrupts():
        for _ in range(workers):
            executor.submit(int)
    return executor


def end_pool(workers: int) -> None:
    """At once: without this Python would first start every worker and do all that is queued.

    Nothing is cancelled, as Python 3.11 then hangs: it hands the loss of the workers to the tasks
    that are left, and fails at a cancelled one.
    """
    executor = pool(workers)
    pool.cache_clear()
    for process in list(executor._processes.values()):  # Python 3.14 has a public way.
        process.terminate()


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the block has ended. Windows cannot do that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """Take one thread, as cores are shared out among processes, and end with the parent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: BaseProcess) -> None:
    """However the parent dies: it may not live to send its workers home."""
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
}


def one_line(row: Mapping[str, float]) -> str:
    """The measures that a reader looks at first, or all where the row has others."""
    first = [name for name in ("mae", "f", "max_f", "weighted_f") if name in row] or list(row)
    labels = (LABELS.get(name, name.replace("_", " ")) for name in first)
    return "   ".join(f"{label} {row[name]:.3f}" for label, name in zip(labels, first, strict=True))
