"""A trained network on every test of its recipe: clean and corrupted images, given priors."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reference_models.data.corruption import corrupt
from reference_models.data.images import Images, TestSet
from reference_models.data.pictures import centre_prior
from reference_models.measures.per_image import Each
from reference_models.measures.saliency import EXACT, NAMES, Row, means, measure_each
from reference_models.measures.segmentation import NAMES as SEGMENTATION
from reference_models.measures.segmentation import segmentation_each
from reference_models.options import Options
from reference_models.papers.schema import CONTROLS, Recipe
from reference_models.training.stopping import Clock
from reference_models.training.trained import Network, load_finished_run
from reference_models.training.trainer import Trainer

AT_ONCE = 500
"""Images measured before anyone is asked whether time is over."""
Rows = dict[str, dict[str, dict[str, float]]]
"""Means by test set (with its corruption or prior), map, and measure."""
Scored = dict[str, Each]
"""Every image's measures, by test set (with its corruption or prior)."""


def score(network: Network, tests: Sequence[TestSet], check: Clock, exact: bool = False) -> Scored:
    """Measure every map on every test set.

    check: Called every few hundred images. exact: Also measure weighted F as defined.
    """
    recipe = network.options.chosen_recipe
    found: Scored = {}

    def measured(test: TestSet, maps: dict[str, np.ndarray]) -> Each:
        names = NAMES + EXACT * exact
        rows: dict[str, list[Row]] = {}
        for name, values in maps.items():
            rows[name] = []
            for begin in range(0, len(values), AT_ONCE):
                check()
                part = slice(begin, begin + AT_ONCE)
                rows[name] += measure_each(values[part], test.truth[part], names)
        return Each(test.images.names, names, rows)

    for test in tests:
        if recipe.regions > 2:
            check()
            regions = network.maps(test.images)["regions"]
            rows = {"regions": segmentation_each(regions, test.truth)}
            found[test.name] = Each(test.images.names, SEGMENTATION, rows)
        elif priors := priors_for(recipe, test):
            for prior in priors:
                check()
                given = replace(test.images, priors=prior_maps(prior, test, network.options))
                before = given.priors / 255
                maps = {"prior": before, "prior, cut at 1/2": before >= 0.5, **network.maps(given)}
                found[f"{test.name}, {prior}"] = measured(test, maps)
        else:
            for corruption in ("", *recipe.corruptions):
                check()
                pixels = corrupt(test.images.images, corruption, seed=0)
                name = f"{test.name}, {corruption}" if corruption else test.name
                maps = network.maps(replace(test.images, images=pixels))
                found[name] = measured(test, maps)
    return found


def means_of(scored: Scored) -> Rows:
    return {
        test: {name: means(rows, each.measures) for name, rows in each.maps.items()}
        for test, each in scored.items()
    }


def flatten_rows(rows: Rows) -> list[tuple[str, dict[str, float]]]:
    """Each row with the name of its test set and map."""
    return [(f"{test}: {name}", row) for test, maps in rows.items() for name, row in maps.items()]


def inference_seconds(trainer: Trainer, images: Images, repeats: int = 5) -> dict[str, float]:
    """Seconds per image from pixels in memory to maps, the network alone, by how many images are
    given at once: the fastest of several calls, as other work on the machine only ever adds."""
    found = {}
    for batch in (1, 8):
        given = images.take(np.arange(batch) % len(images))
        trainer.maps(given)  # The first call compiles and allocates.
        taken = []
        for _ in range(repeats):
            begun = time.perf_counter()
            trainer.maps(given)
            taken.append(time.perf_counter() - begun)
        found[str(batch)] = round(min(taken) / batch, 5)
    return found


def priors_for(recipe: Recipe, test: TestSet) -> tuple[str, ...]:
    """The priors a test set is promoted from, by name; none where the network needs no prior."""
    if not recipe.test_priors:
        return ()
    named = recipe.test_priors.get(test.name, ())
    there = [p for p in named if p in test.priors or p.startswith("run:")]
    if not there:  # A set of the user's, whatever it is called.
        return tuple(test.priors) or ("centre",)
    return (*there, *(p for p in named if p in CONTROLS))


def prior_maps(name: str, of: TestSet | Images, options: Options) -> np.ndarray:
    """The prior maps of that name, uint8 `(N, S, S)` from 0 to 255."""
    images = of.images if isinstance(of, TestSet) else of
    if name == "centre":
        return np.broadcast_to(centre_prior(images.images.shape[1]), images.labels.shape)
    if name == "truth":
        return 255 * images.masks.astype(np.uint8)
    if name.startswith("run:"):
        maps = load_finished_run(name.removeprefix("run:"), options).main_map(images)
        low, high = (limit(axis=(1, 2), keepdims=True) for limit in (maps.min, maps.max))
        return np.rint(255 * (maps - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)
    return of.priors[name]
