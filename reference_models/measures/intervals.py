"""Bootstrap intervals of means over test images, and of differences of two means."""

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
    minuends: Sequence[Measured],
    subtrahends: Sequence[Measured] | None,
    measures: Sequence[str],
) -> dict[str, Interval]:
    """The 95 % percentile interval of a mean, or of a paired difference of means, by measure.

    Each run is reduced to its mean over images (max F: the highest point of its mean curve), and
    several seeds to the mean over their runs.

    minuends: One recipe's runs on a test set, one per seed. subtrahends: Another recipe's runs on
    the same test set, with the same seeds in the same order, to be subtracted; None for the
    interval of `minuends` alone.

    A resample draws images with replacement, the same images for all runs. If there are several
    seeds, it also draws seeds, independently of the images and the same ones for both recipes
    (Owen, The Pigeonhole Bootstrap, AOAS 2007). Two or three seeds underestimate the spread over
    seeds, so report their standard deviation too. The resamples are the same in every call.
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

    def statistic(images: np.ndarray, *seeds: np.ndarray, axis: int = -1) -> np.ndarray:
        """The values `(measures, B)` of B resamples.

        images: indices `(B, N)`. seeds: indices `(B, S)`, if there are several seeds.
        """
        weights = draw_counts(images)
        values = []
        for functions in mean_functions:
            by_run = np.array([mean(weights) for mean in functions])
            first, second = by_run[: len(minuends)], by_run[len(minuends) :]
            by_seed = first - second if subtrahends is not None else first
            if seeds:
                by_seed = np.take_along_axis(by_seed, seeds[0].T, axis=0)
            values.append(by_seed.mean(axis=0))
        return np.array(values)

    data = [np.arange(len(stems))]
    if len(minuends) > 1:
        data.append(np.arange(len(minuends)))
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
