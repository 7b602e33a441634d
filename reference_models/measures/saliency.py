"""Standard measures of saliency maps, image by image, computed by this library."""

import math
import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image

from reference_models.errors import InputError, count
from reference_models.machine import cores

NAMES = ("mae", "f", "max_f", "weighted_f", "s", "e", "auroc", "miou")
EXACT = ("weighted_f_exact", "weighted_f_loss")
CURVES = ("precision", "recall")
BINARY = ("binary",)
MOST_WITHOUT_POOL = 200  # Measuring this many images takes less time than starting processes.
IMAGES_PER_TASK = 8


Maps = np.ndarray | Sequence[np.ndarray]
Pair = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""A map, its mask and the void pixels, if there are any."""
Row = dict[str, float | np.ndarray]
"""The measures of one image; max F, E, precision and recall are curves over the 256 thresholds,
from 255 down to 0."""


Measures = dict[str, float]
"""Means over images, in [0, 1]. Lower is better for the MAE, higher for all others.

mae: Mean absolute error.
f: F with β² = 0.3, at the threshold min(2 × the map's mean, 1).
max_f: Highest point of the mean F curve over 256 thresholds, β² = 0.3.
weighted_f: Margolin's weighted F with β = 1. Where several object pixels are equally near, the
    field's program takes any of them, and we the first; in one image this changes up to 3e-4.
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

    Maps are rounded to 8 bits, as if they had been saved. Unlike the default of the field's program
    (pysodmetrics), they are not stretched to 0..1 per image, because an uncertain map would then
    score like a certain one.
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
    if len(maps) != len(masks) or len(masks) == 0:
        raise InputError(
            f"maps and masks must be equal in number, and at least 1, got "
            f"{count(len(maps), 'map')} and {count(len(masks), 'mask')}; pass a mask for each map"
        )

    def read(index: int) -> Pair:
        return maps[index], masks[index], voids[index] if voids else None

    return list(measure_stream(read, len(masks), names, workers))


def measure_stream(
    read: Callable[[int], Pair], number: int, names: Sequence[str], workers: int | None = None
) -> Iterator[Row]:
    """The measures of image after image, of which few are in memory at a time; see `measure`.

    read: Returns map, mask and void pixels (or None) of an index below `number`.
    """
    every = (*NAMES, *EXACT, *BINARY, *CURVES)
    if unknown := [name for name in names if name not in every]:
        raise InputError(
            f"{count(len(unknown), 'unknown measure')}: {', '.join(unknown)}; choose from "
            f"{', '.join(every)}"
        )
    if workers is None:
        workers = cores() if number > MOST_WITHOUT_POOL else 1
    if workers == 1:
        for index in range(number):
            yield from rows_of(index, [read(index)], tuple(names))
        return
    waiting: deque[Future[list[Row]]] = deque()
    try:
        for first in range(0, number, IMAGES_PER_TASK):
            images = [read(index) for index in range(first, min(first + IMAGES_PER_TASK, number))]
            waiting.append(pool(workers).submit(rows_of, first, images, tuple(names)))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        end_pool(workers)
        raise InputError(
            "a process that measures maps was killed, perhaps for lack of memory; close other "
            "programs and run the same command again"
        ) from None
    except BaseException:  # An error, or Ctrl-C.
        end_pool(workers)
        raise


def rows_of(first: int, images: Sequence[Pair], names: tuple[str, ...]) -> list[Row]:
    """The measures of consecutive images. first: index of the first one, for error messages."""
    with one_thread():
        return [measure_image(first + place, *image, names) for place, image in enumerate(images)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, so that equal images have equal bits in any process."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def means(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Measures:
    """The mean of each measure over the images that define it, or the mean curve's maximum."""
    totals: dict[str, Any] = {}
    images: Counter[str] = Counter()
    for row in rows:
        for name in names:
            if name in row:
                totals[name] = totals.get(name, 0.0) + np.asarray(row[name], np.float64)
                images[name] += 1
    averages: Measures = {}
    for name in names:
        if not images[name]:
            raise InputError(
                f"{name} is not defined, because no mask has both object and background; check the "
                "masks"
            )
        averages[name] = float(np.max(totals[name] / images[name]))
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
    counted = np.ones(mask.shape, bool) if void is None else ~void
    pixels, objects = int(counted.sum()), int((mask & counted).sum())
    asked = set(names)
    if not pixels:
        asked = set()
    elif not objects:
        asked &= {"mae", "binary"}
    if pixels == 1:  # The E-measure divides by the number of pixels less one.
        asked.discard("e")
    if objects == pixels:
        asked.discard("auroc")
    return measures_of(values, mask, None if void is None else counted, asked)


OURS = {
    "max_f": "f_curve",
    "e": "e_curve",
    "precision": "precision_curve",
    "recall": "recall_curve",
} | {name: name for name in ("mae", "f", "weighted_f", "s", "auroc")}
"""What the library calls these measures."""


def measures_of(
    values: np.ndarray, mask: np.ndarray, counted: np.ndarray | None, names: Set[str]
) -> Row:
    """Measures of a map of 8 bits that are all defined. counted: None counts all pixels."""
    import torch

    from saliency_losses.torch import weighted_fbeta_loss, weighted_fbeta_score
    from saliency_losses.torch.measures import iou, saliency_measures

    probs = torch.from_numpy(values / 255)[None, None]
    target = torch.from_numpy(mask.copy())[None, None]
    kept = None if counted is None else torch.from_numpy(counted)[None]
    row: Row = {}
    if ours := [name for name in OURS if name in names]:
        found = saliency_measures(probs, target, names=[OURS[name] for name in ours], mask=kept)
        for name in ours:
            measured = found[OURS[name]].numpy()
            row[name] = measured[::-1] if measured.ndim else float(measured)
    if "miou" in names:
        cut = probs >= 0.5
        both = (torch.cat([x, ~x], dim=1) for x in (cut, target))
        row["miou"] = float(iou(*(x.double() for x in both), mask=kept))
    if "binary" in names:
        shares = (values <= 0.1 * 255) | (values >= 0.9 * 255)
        row["binary"] = float(shares[counted if counted is not None else ...].mean())
    if "weighted_f_exact" in names:
        row["weighted_f_exact"] = float(weighted_fbeta_score(probs, target, mask=kept))
    if "weighted_f_loss" in names:
        row["weighted_f_loss"] = 1 - float(weighted_fbeta_loss(probs, target, mask=kept))
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
        return resized(values.astype(np.float32), *shape)
    return values if values.dtype == np.uint8 else np.rint(values).astype(np.uint8)


STRIP = 16
"""Rows computed at once, so that no floats of the full size are stored: of 12 megapixels, they
take longer than all of the computation."""


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """The map as uint8 `(height, width)`: resized as Pillow does, bilinearly, with antialiasing
    where it becomes smaller, then rounded. values: float32, of at least -0.5 and below 255.5."""
    size = (width, min(height, len(values)))
    rows = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    if height == len(rows):
        return np.rint(rows).astype(np.uint8)
    centres = (np.arange(height) + 0.5) * (len(rows) / height) - 0.5
    centres = centres.clip(0, len(rows) - 1)[:, None]
    rows, places = rows.astype(np.float64), np.arange(len(rows))
    result = np.empty((height, width), np.uint8)
    for top in range(0, height, STRIP):
        at = centres[top : top + STRIP]
        near = slice(int(at[0, 0]), int(at[-1, 0]) + 2)
        weights = np.maximum(1 - abs(at - places[near]), 0)
        strip = (weights @ rows[near]).astype(np.float32)  # As Pillow rounds its result.
        result[top : top + STRIP] = np.rint(strip)
    return result


def mean_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Mean precision and recall over the images with an object, at the thresholds 255, 250, …, 0.

    The precision of an image without a pixel at or above the threshold is 0.
    """
    return {
        name: np.mean([row[name] for row in rows if name in row], axis=0)[::5].round(4).tolist()
        for name in CURVES
    }


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
