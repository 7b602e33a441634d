"""A trained network on every test of its recipe: clean and corrupted images, given priors."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from reference_models.data.corruption import corrupt
from reference_models.data.sets import Data, Images, TestSet, centre_prior
from reference_models.errors import InputError
from reference_models.files import read_about, read_arrays
from reference_models.measures.per_image import Each
from reference_models.measures.saliency import EXACT, NAMES, means, measure_each
from reference_models.measures.segmentation import NAMES as SEGMENTATION
from reference_models.measures.segmentation import segmentation_each
from reference_models.options import Options
from reference_models.papers.recipes import CONTROLS, Recipe
from reference_models.training.loop import Clock, Trained, Trainer
from reference_models.training.trainers import new_trainer

WEIGHTS = "weights.safetensors"
AT_ONCE = 500
"""Images measured before anyone is asked whether time is over."""
Rows = dict[str, dict[str, dict[str, float]]]
"""Means by test set (with its corruption or prior), map, and measure."""
Scored = dict[str, Each]
"""Every image's measures, by test set (with its corruption or prior)."""


def score(
    trained: Trained, data: Data, options: Options, check: Clock, exact: bool = False
) -> Scored:
    """Measure every map; `check` is called every few hundred images. exact: also weighted F as
    defined."""
    recipe, found = options.chosen_recipe, {}

    def measured(test: TestSet, maps: dict[str, np.ndarray]) -> Each:
        names, rows = NAMES + EXACT * exact, {}
        for name, values in maps.items():
            rows[name] = []
            for begin in range(0, len(values), AT_ONCE):
                check()
                part = slice(begin, begin + AT_ONCE)
                rows[name] += measure_each(values[part], test.truth[part], names)
        return Each(test.images.names, names, rows)

    for test in data.tests:
        if recipe.regions > 2:
            check()
            maps = trained.maps(test.images)["regions"]
            rows = {"regions": segmentation_each(maps, test.truth)}
            found[test.name] = Each(test.images.names, SEGMENTATION, rows)
        elif priors := starts_from(recipe, test):
            for prior in priors:
                check()
                given = replace(test.images, priors=prior_of(prior, test, options))
                before = given.priors / 255
                maps = {"prior": before, "prior, cut at 1/2": before >= 0.5, **trained.maps(given)}
                found[f"{test.name}, {prior}"] = measured(test, maps)
        else:
            for corruption in ("", *recipe.corruptions):
                check()
                pixels = corrupt(test.images.images, corruption, seed=0)
                name = f"{test.name}, {corruption}" if corruption else test.name
                maps = trained.maps(replace(test.images, images=pixels))
                found[name] = measured(test, maps)
    return found


def means_of(scored: Scored) -> Rows:
    return {
        test: {name: dict(means(rows, each.measures)) for name, rows in each.maps.items()}
        for test, each in scored.items()
    }


def described(rows: Rows) -> list[tuple[str, dict[str, float]]]:
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


def starts_from(recipe: Recipe, test: TestSet) -> tuple[str, ...]:
    """The priors a test set is promoted from, by name; none where the network needs no prior."""
    if not recipe.test_priors:
        return ()
    named = recipe.test_priors.get(test.name, ())
    there = [p for p in named if p in test.priors or p.startswith("run:")]
    if not there:  # A set of the user's, whatever it is called.
        return tuple(test.priors) or ("centre",)
    return (*there, *(p for p in named if p in CONTROLS))


def prior_of(name: str, of: TestSet | Images, options: Options) -> np.ndarray:
    """The prior maps of that name, uint8 `(N, S, S)` from 0 to 255."""
    images = of.images if isinstance(of, TestSet) else of
    if name == "centre":
        return np.broadcast_to(centre_prior(images.images.shape[1]), images.labels.shape)
    if name == "truth":
        return 255 * images.masks.astype(np.uint8)
    if name.startswith("run:"):
        maps = finished(name.removeprefix("run:"), options).main_map(images)
        low, high = (limit(axis=(1, 2), keepdims=True) for limit in (maps.min, maps.max))
        return np.rint(255 * (maps - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)
    return of.priors[name]


def finished(recipe: str, options: Options) -> Trained:
    """The network of another recipe, trained before as it stands, at the same scale and seed."""
    other = Options(
        recipe=recipe,
        backend=options.backend,
        scale=options.scale,
        seed=options.seed,
        archives=options.archives,
        device=options.device,
    )
    beside = options.folder.parent / other.name / WEIGHTS
    file = beside if beside.is_file() else other.folder / WEIGHTS
    if not trained_as(file, other):
        fault = "is of another run of that recipe" if file.is_file() else "does not exist"
        raise InputError(
            f"{options.recipe} starts from the maps of {recipe}, but {file} {fault}; train it "
            f"first: python -m reference_models.train {recipe} --backend {options.backend} "
            f"--scale {options.scale} --seed {options.seed}"
        )
    return restored(file, other)


def trained_as(file: Path, options: Options) -> bool:
    """Whether the file holds the weights that a run of these options ends with."""
    if not file.is_file():
        return False
    about, wanted = read_about(file), as_stored(options)
    return all(about.get(key) == wanted[key] for key in wanted if key != "device")


def as_stored(options: Options) -> dict[str, object]:
    return json.loads(json.dumps(options.as_json()))


def restored(file: Path, options: Options) -> Trained:
    """The network of a weights file."""
    weights = read_arrays(file)
    whole = any(name.startswith("backbone.") for name in weights)
    trainer = new_trainer(options, imagenet=not whole)
    try:
        trainer.load(weights)
    except (InputError, RuntimeError) as error:
        raise InputError(
            f"{file} does not fit {options.recipe} as it is now; train it again ({error})"
        ) from None
    inverted = read_about(file).get("inverted", False)
    return Trained(trainer, [], 0.0, inverted=bool(inverted))
