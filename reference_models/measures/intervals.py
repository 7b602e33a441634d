"""How sure a mean over test images, or a difference of two, is: bootstrap intervals."""

from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np
from scipy.stats import bootstrap

from reference_models.errors import InputError
from reference_models.measures.per_image import Measured

Interval = tuple[float, float]
LEVEL = 0.95
RESAMPLES = 999


def intervals(
    of: Sequence[Measured], minus: Sequence[Measured] | None, measures: Sequence[str]
) -> dict[str, Interval]:
    """The 95 % percentile interval of each measure: of one run's mean, or of a paired difference.

    of, minus: the same test in runs of equal seeds, in that order; without `minus` the values of
    `of` themselves. The value of several seeds is the mean over seeds of each one's mean over
    images (max F: of the highest point of its mean curve).

    A resample draws images with replacement, the same ones for all runs. Where there are several
    seeds it also draws seeds, independently of the images and the same ones for `of` and `minus`
    (Owen, The Pigeonhole Bootstrap, AOAS 2007). Of two or three seeds it sees too little spread:
    their standard deviation belongs beside it. The resamples are the same in every call.
    """
    runs = [*of, *(minus or ())]
    stems = runs[0].stems
    for run in runs:
        for first, second in zip_longest(stems, run.stems):
            if first != second:
                raise InputError(
                    "a paired difference needs runs that were measured on the same images in the "
                    f"same order, got {first} in one and {second} in the other"
                )
    if minus is not None and len(minus) != len(of):
        raise InputError(f"each seed needs both runs, got {len(of)} and {len(minus)}")
    of_images = {measure: [means(run.values[measure]) for run in runs] for measure in measures}

    def statistic(images: np.ndarray, *seeds: np.ndarray, axis: int = -1) -> np.ndarray:
        """images `(B, N)` and seeds `(B, S)`, drawn; returns `(measures, B)`."""
        weights = drawn(images)
        found = []
        for each in of_images.values():
            by_run = np.array([mean(weights) for mean in each])
            first, second = by_run[: len(of)], by_run[len(of) :]
            by_seed = first - second if minus is not None else first
            if seeds:
                by_seed = np.take_along_axis(by_seed, seeds[0].T, axis=0)
            found.append(by_seed.mean(axis=0))
        return np.array(found)

    data = [np.arange(len(stems))]
    if len(of) > 1:
        data.append(np.arange(len(of)))
    low, high = bootstrap(
        data,
        statistic,
        n_resamples=RESAMPLES,
        batch=500,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return {
        measure: (float(low[place]), float(high[place])) for place, measure in enumerate(measures)
    }


def drawn(images: np.ndarray) -> np.ndarray:
    """How often each of the N images was drawn, `(B, N)`."""
    draws, count = images.shape
    places = images + count * np.arange(draws)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * count)
    return counts.reshape(draws, count).astype(float)


def means(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The function that gives, for weights `(B, N)`, the means over the images for which the
    measure is defined; of curves, the highest points."""
    defined = ~np.isnan(values[:, :1])
    columns = np.hstack([np.where(defined, values, 0), defined])

    def mean(weights: np.ndarray) -> np.ndarray:
        sums = weights @ columns
        return (sums[:, :-1] / sums[:, -1:]).max(axis=1)

    return mean
