"""Intervals of means over test images and over seeds, and of differences of two means."""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np
from scipy.stats import bootstrap, t

from reference_models.errors import InputError
from reference_models.measures.per_image import Measured

Interval = tuple[float, float]
LEVEL = 0.95
RESAMPLES = 999


def interval(by_seed: Sequence[float], over_images: float | None) -> Interval | None:
    """The 95 % interval of a mean over seeds, or None if it is of one seed and no images.

    It takes the spread over seeds by Student's t, and that over the test images, which all seeds
    share, by its standard error; the squares of both half-widths are added.

    by_seed: The value of each seed. over_images: From `standard_errors`; None if not known.
    """
    count = len(by_seed)
    if count < 2 and over_images is None:
        return None
    tail = (1 + LEVEL) / 2
    images = statistics.NormalDist().inv_cdf(tail) * (over_images or 0.0)
    seeds = 0.0
    if count > 1:
        seeds = float(t.ppf(tail, count - 1)) * statistics.stdev(by_seed) / math.sqrt(count)
    mean, half = statistics.fmean(by_seed), math.hypot(images, seeds)
    return mean - half, mean + half


def standard_errors(
    minuends: Sequence[Measured],
    subtrahends: Sequence[Measured] | None,
    measures: Sequence[str],
) -> dict[str, float]:
    """The standard error, over test images, of a mean or of a paired difference of means.

    Each run is reduced to its mean over images (max F: the highest point of its mean curve), and
    several seeds to the mean over their runs. A bootstrap draws images with replacement, the same
    images for all runs. The resamples are the same in every call.

    minuends: One recipe's runs on a test set, one per seed. subtrahends: Another recipe's runs on
    the same test set, with the same seeds in the same order, to be subtracted; None for the
    standard error of `minuends` alone.
    """
    runs = [*minuends, *(subtrahends or ())]
    stems = runs[0].stems
    for run in runs:
        for first, second in zip_longest(stems, run.stems):
            if first != second:
                raise InputError(
                    "a paired difference needs runs measured on the same images in the same order, "
                    f"got {first} in one and {second} in another; measure them again"
                )
    if subtrahends is not None and len(subtrahends) != len(minuends):
        raise InputError(
            f"each seed needs a run of both recipes, got {len(minuends)} and {len(subtrahends)}; "
            "train the missing runs"
        )
    mean_functions = [[means(run.values[measure]) for run in runs] for measure in measures]

    def statistic(images: np.ndarray, axis: int = -1) -> np.ndarray:
        """The values `(measures, B)` of B resamples. images: indices `(B, N)`."""
        weights = draw_counts(images)
        values = []
        for functions in mean_functions:
            by_run = np.array([mean(weights) for mean in functions])
            first, second = by_run[: len(minuends)], by_run[len(minuends) :]
            by_seed = first - second if subtrahends is not None else first
            values.append(by_seed.mean(axis=0))
        return np.array(values)

    found = bootstrap(
        [np.arange(len(stems))],
        statistic,
        n_resamples=RESAMPLES,
        batch=500,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).standard_error
    return {measure: float(found[place]) for place, measure in enumerate(measures)}


def draw_counts(images: np.ndarray) -> np.ndarray:
    """Number of times each of the N images was drawn in each of B resamples, `(B, N)`."""
    draws, count = images.shape
    places = images + count * np.arange(draws)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * count)
    return counts.reshape(draws, count).astype(float)


def means(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from weights `(B, N)` of the images to B weighted means.

    Images for which the measure is not defined are skipped. The mean of a curve is reduced to its
    highest point.
    """
    defined = ~np.isnan(values[:, :1])
    columns = np.hstack([np.where(defined, values, 0), defined])

    def mean(weights: np.ndarray) -> np.ndarray:
        sums = weights @ columns
        return (sums[:, :-1] / sums[:, -1:]).max(axis=1)

    return mean
