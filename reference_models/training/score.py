"""Measures of a trained network on test sets: clean and corrupted images, and prior maps."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from reference_models.data.corruption import corrupt
from reference_models.data.images import Images, Streamed, TestPart, TestSet
from reference_models.data.pictures import centre_prior
from reference_models.measures.contours import NAMES as CONTOURS
from reference_models.measures.contours import contours_each
from reference_models.measures.features import NAMES as DISTANCES
from reference_models.measures.features import distances_each
from reference_models.measures.per_image import Each
from reference_models.measures.saliency import (
    BINARY,
    CURVES,
    EXACT,
    NAMES,
    Row,
    mean_curves,
    means,
    measure_each,
)
from reference_models.measures.segmentation import NAMES as SEGMENTATION
from reference_models.measures.segmentation import segmentation_each
from reference_models.measures.sparsity import sparse_share, sparse_share_of_map
from reference_models.options import Options
from reference_models.papers.recipes import has_prior
from reference_models.papers.schema import CONTROLS, Recipe, ScaleName
from reference_models.training.dense_crf import dense_crf
from reference_models.training.stopping import Clock
from reference_models.training.trained import Network, load_finished_run
from reference_models.training.trainer import Trainer

CHUNK = 500
"""Number of images measured between two checks of the time budget."""
CURVES_FROM_PRIORS = 4
"""The number of maps with curves in a test that starts from priors: the prior, the prior cut at ½,
and the network's first two maps."""
Rows = dict[str, dict[str, dict[str, float]]]
"""Mean values by test set (with its corruption or prior), map, and measure."""
Scored = dict[str, Each]
"""The measures of each image, by test set (with its corruption or prior)."""


def score(network: Network, tests: Sequence[TestSet], check: Clock, exact: bool = False) -> Scored:
    """Measure every map on every test set.

    check: Called every few hundred images. exact: Also measure weighted F exactly as defined.
    """
    recipe = network.options.chosen_recipe
    scored: Scored = {}

    def measured(part: TestPart, maps: dict[str, np.ndarray]) -> Each:
        names = NAMES + EXACT * exact + BINARY * ("features" in recipe.further)
        rows: dict[str, list[Row]] = {}
        for name, values in maps.items():
            rows[name] = []
            for begin in range(0, len(values), CHUNK):
                check()
                place = slice(begin, begin + CHUNK)
                rows[name] += measure_each(
                    values[place], part.truth[place], names + CURVES, voids=part.voids[place]
                )
            if "sparse" in recipe.further:
                counted = part.images.counted
                for index, (row, saliency) in enumerate(zip(rows[name], values, strict=True)):
                    here = None if counted is None else counted[index]
                    if here is None or here.any():
                        row["sparse"] = sparse_share_of_map(saliency, here)
        names += ("sparse",) * ("sparse" in recipe.further)
        return Each(part.images.names, names, rows, tuple(object_shares(part)))

    def from_prior(part: TestPart) -> Each:
        start = part.images.priors / 255
        maps = {"prior": start, "prior, cut at 1/2": start >= 0.5, **network.maps(part.images)}
        if recipe.dense_crf:
            maps["dense CRF"] = dense_crf(part.images.images, start)
        return measured(part, maps)

    def corrupted(part: TestPart, corruption: str) -> Each:
        pixels = corrupt(part.images.images, corruption, seed=0, places=part.places)
        return measured(part, network.maps(replace(part.images, images=pixels)))

    for test in tests:
        if recipe.regions > 2:
            check()
            scored[test.name] = joined(score_regions(network, part) for part in test.parts())
        elif priors := priors_for(recipe, test, network.options.scale):
            for prior in priors:
                check()
                maps = prior_maps(prior, test, network.options)
                started = replace(test, images=test.images.with_priors(maps))
                scored[f"{test.name}, {prior}"] = joined(map(from_prior, started.parts()))
        else:
            corruptions = recipe.corruptions if test is tests[0] else ()
            for corruption in ("", *corruptions):
                check()
                name = f"{test.name}, {corruption}" if corruption else test.name
                scored[name] = joined(corrupted(part, corruption) for part in test.parts())
            if "features" in recipe.further:
                check()
                each = joined(distances(network, part) for part in test.parts())
                # At the size of the features a small object can vanish, even in every image.
                if any(each.maps["features"]):
                    scored[f"{test.name}, features"] = each
    return scored


def object_shares(part: TestPart) -> Iterator[float]:
    """The share of the counted pixels of each mask that are object; 0 if none counts."""
    for mask, void in zip(part.truth, part.voids or [None] * len(part.truth), strict=True):
        counted = mask.size if void is None else np.count_nonzero(~void)
        yield np.count_nonzero(mask) / max(1, counted)


def joined(parts: Iterable[Each]) -> Each:
    """The measures of consecutive parts of a test set."""
    first, *others = parts
    if not others:
        return first
    parts = [first, *others]
    shares = None
    if first.object_share is not None:
        shares = tuple(share for part in parts for share in part.object_share or ())
    return Each(
        stems=tuple(stem for part in parts for stem in part.stems),
        measures=first.measures,
        maps={name: [row for part in parts for row in part.maps[name]] for name in first.maps},
        object_share=shares,
    )


def distances(network: Network, part: TestPart) -> Each:
    """The distances between the features of a network."""
    rows = [
        row
        for images in network.batches(part.images)
        for row in distances_each(network.trainer.descriptors(images), images.masks, images.counted)
    ]
    return Each(part.images.names, DISTANCES, {"features": rows})


def score_regions(network: Network, part: TestPart) -> Each:
    """The measures of label maps, and those that the recipe asks for besides."""
    further = network.options.chosen_recipe.further
    names: tuple[str, ...] = SEGMENTATION
    regions = network.maps(part.images)["regions"]
    rows: list[Row] = [dict(row) for row in segmentation_each(regions, part.truth)]
    if further:
        descriptors = network.descriptors(part.images)
    if "sparse" in further:
        names += ("sparse",)
        for row, each in zip(rows, descriptors, strict=True):
            row["sparse"] = sparse_share(each)
    if "contours" in further:
        names += CONTOURS
        for row, more in zip(rows, contours_each(regions, descriptors, part.truth), strict=True):
            row |= more
    return Each(part.images.names, names, {"regions": rows})


def means_of(scored: Scored) -> Rows:
    return {
        test: {name: means(rows, each.measures) for name, rows in each.maps.items()}
        for test, each in scored.items()
    }


def curves_of(
    scored: Scored, started: bool = False
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Mean precision and recall by test set and map; see `mean_curves`.

    started: The tests start from priors, so only their first maps have curves.
    """
    return {
        test: {
            name: mean_curves(rows)
            for name, rows in list(each.maps.items())[: CURVES_FROM_PRIORS if started else None]
        }
        for test, each in scored.items()
        if each.object_share is not None
    }


def flatten_rows(rows: Rows) -> list[tuple[str, dict[str, float]]]:
    """Each row with its name, "TEST SET: MAP"."""
    return [(f"{test}: {name}", row) for test, maps in rows.items() for name, row in maps.items()]


def inference_seconds(
    trainer: Trainer, images: Images | Streamed, repeats: int = 5
) -> dict[str, dict[str, float]]:
    """Seconds per image from pixels in memory to maps, and to the features of the backbone alone.

    By what is timed, then by batch size. The fastest of several calls counts, as other work on the
    machine can only add time; the two take turns, so that it slows both alike.
    """
    timed: dict[str, Callable[[Images], object]] = {"inference_seconds": trainer.maps}
    if trainer.plan.backbone is not None:
        timed["backbone_seconds"] = trainer.backbone_features
    seconds: dict[str, dict[str, float]] = {name: {} for name in timed}
    for batch in (1, 8):
        chosen = images.take(np.arange(batch) % len(images))
        durations: dict[str, list[float]] = {name: [] for name in timed}
        for repeat in range(1 + repeats):
            for name, compute in timed.items():
                begun = time.perf_counter()
                compute(chosen)
                if repeat:  # The first call compiles and allocates.
                    durations[name].append(time.perf_counter() - begun)
        for name, taken in durations.items():
            seconds[name][str(batch)] = round(min(taken) / batch, 5)
    return seconds


def priors_for(recipe: Recipe, test: TestSet, scale: ScaleName) -> tuple[str, ...]:
    """Names of the prior maps that the network starts from; empty if it needs no prior map."""
    if not recipe.test_priors:
        return ()
    named = recipe.test_priors.get(test.name, ()) if test.is_named else ()
    priors = [p for p in named if has_prior(p, scale)]
    available = [p for p in priors if p in test.priors or p.startswith("run:")]
    if not available:  # The user's own data, whatever its name.
        return tuple(test.priors) or ("centre",)
    return (*available, *(p for p in priors if p in CONTROLS))


def prior_maps(name: str, source: TestSet | Images | Streamed, options: Options) -> np.ndarray:
    """The prior maps with this name (see `Recipe.test_priors`), uint8 `(N, S, S)` in 0..255."""
    images = source.images if isinstance(source, TestSet) else source
    if name == "centre":
        side = images.side
        return np.broadcast_to(centre_prior(side), (len(images), side, side))
    if name == "truth":
        return np.concatenate([255 * part.masks.astype(np.uint8) for part in images.parts()])
    if name.startswith("run:"):
        network = load_finished_run(name.removeprefix("run:"), options)
        return np.concatenate([stretched(network.main_map(part)) for part in images.parts()])
    assert isinstance(source, TestSet)
    return source.priors[name]


def stretched(maps: np.ndarray) -> np.ndarray:
    """Each map from 0 to 255, uint8."""
    low, high = (limit(axis=(1, 2), keepdims=True) for limit in (maps.min, maps.max))
    return np.rint(255 * (maps - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)
