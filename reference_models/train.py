"""`python -m reference_models.train RECIPE`: train a network, measure it, show it."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import tyro

from reference_models import paths
from reference_models.commands import command
from reference_models.data.sets import Data, Sources, load
from reference_models.files import alone, claim, fingerprint, write_arrays, write_json
from reference_models.measures import per_image
from reference_models.measures.saliency import one_line
from reference_models.options import Options
from reference_models.papers.recipes import CONTROLS, RECIPES
from reference_models.provenance import commit, hardware, versions
from reference_models.training import figures
from reference_models.training.loop import (
    Clock,
    OutOfTime,
    Trained,
    Trainer,
    asked_to_stop,
    clock,
    train,
)
from reference_models.training.score import (
    WEIGHTS,
    described,
    finished,
    inference_seconds,
    means_of,
    prior_of,
    score,
    starts_from,
)
from reference_models.training.trainers import new_trainer


@dataclass(frozen=True)
class Shared:
    """What runs in one process need not compute twice: decoded data, features of frozen nets."""

    data: dict[tuple[Sources, int, int], Data] = field(default_factory=dict)
    features: dict = field(default_factory=dict)


def main() -> None:
    begun = time.monotonic()
    with command():
        options = tyro.cli(
            Options,
            prog="python -m reference_models.train",
            config=(
                tyro.conf.FlagCreatePairsOff,
                tyro.conf.HelptextFromCommentsOff,
            ),
        )
        if options.recipes:
            for recipe in RECIPES.values():
                print(f"{recipe.name:44}{recipe.about}")
            return
        check = clock(options.minutes, begun, asked_to_stop())
        try:
            run(options, Shared(), check, options.results or paths.RUNS)
        except OutOfTime:
            print("stopped; the same command goes on from the last step")
            raise


def run(options: Options, shared: Shared, check: Clock, results: Path = paths.RUNS) -> None:
    """Train; leave weights, figures and run.json in the run folder, and a row for the report."""
    # First of all, so that a package that is missing is missed before anything is computed.
    made_with = {"versions": versions(options.backend), "commit": commit()}
    trainer = new_trainer(options, shared.features)
    with alone(options.folder) if trainer.is_main_process else nullcontext():
        run_alone(options, trainer, shared, check, results, made_with)


def run_alone(
    options: Options,
    trainer: Trainer,
    shared: Shared,
    check: Clock,
    results: Path,
    made_with: dict[str, object],
) -> None:
    """`run` in a folder that no other process writes to. made_with: versions and commit."""
    begun, recipe, folder = time.monotonic(), options.chosen_recipe, options.folder
    data = load_data(options, shared)
    if trainer.is_main_process:
        claim(folder, options, data)
        print(f"{recipe.name}: {recipe.about}")
        if recipe.paper is not None and options.is_unmodified:
            print(f"answers {recipe.paper}")
        for note in (*data.notes, *without_priors(options, data)):
            print(f"note: {note}")
        print("images: " + ", ".join(f"{count} {name}" for name, count in data.counts().items()))
    read = time.monotonic() - begun

    trained = train(options, trainer, data.train, data.validation, folder, check)
    if not trainer.is_main_process:
        return
    about = {**options.as_json(), "inverted": trained.inverted}
    write_arrays(folder / WEIGHTS, trainer.weights(), about)
    begun = time.monotonic()
    scored = score(trained, data, options, check, recipe.exact)
    rows = means_of(scored)
    named = described(rows)
    width = max(len(name) for name, _ in named) + 2
    for name, row in named:
        print(f"{name:{width}}{one_line(row)}")

    report = {
        **options.as_json(),
        "about": recipe.about,
        "notes": list(data.notes),
        "images": data.counts(),
        "data_sha256": data.sha256,
        "backbone_sha256": options.backbone_sha256,
        "parameters": trainer.parameters,
        "inverted": trained.inverted,
        "validation_correlation": trained.correlation,
        "measures": rows,
        "seconds": {
            "data": round(read, 1),
            "training": round(trained.seconds, 1),
            "evaluation": round(time.monotonic() - begun, 1),
        },
        "inference_seconds": inference_seconds(trainer, data.tests[0].images),
        "device": f"{trainer.device}: {hardware(trainer.device)}",
        "precision": trainer.precision,
        **made_with,
        "date": datetime.now(UTC).date().isoformat(),
        "weights_sha256": fingerprint(trainer.weights()),
        "loss_curve": curve(trained.losses),
    }
    write_json(folder / "run.json", report)
    if options.is_unmodified and recipe.system != "small":
        results.mkdir(parents=True, exist_ok=True)
        file = results / f"{options.name}.json"
        # First, as the run counts as done once its JSON is there.
        per_image.write(per_image.beside(file), scored, started=bool(recipe.test_priors))
        write_json(file, report)
        print(f"a result of the recipe as it stands: {file}")
    title = f"{recipe.name} ({options.backend})"
    figures.loss_curve(trained.losses, title, folder / "loss.png")
    contact_sheet(options, data, trained, title, folder / "sheet.png")
    for note in trained.notes:
        print(f"note: {note}")
    print(f"{trained.seconds:.0f} s of training on {trainer.device}; written to {folder}/")


def load_data(options: Options, shared: Shared | None = None) -> Data:
    """The recipe's sets, or what --data names, with the priors that training starts from."""
    recipe, plan = options.chosen_recipe, options.plan
    given = options.data
    named = given is None and recipe.train != "scenes"
    detectors = {
        prior
        for priors in recipe.test_priors.values()
        for prior in priors
        if prior not in CONTROLS and not prior.startswith("run:")
    }
    sources = Sources(
        train=given or recipe.train,
        tests=recipe.tests if named else (),
        learns_on_tests=recipe.learns_on_tests,
        archives=options.archive_folder,
        # Where the test images are learnt on, the others of the training set are not looked at.
        train_images=1 if recipe.learns_on_tests and named else plan.train_images,
        test_images=plan.test_images,
        test_priors=tuple(sorted(detectors)) if named else (),
        regions=recipe.regions,
    )
    known = {} if shared is None else shared.data
    # Which images of a named set are used does not depend on the seed.
    key = (sources, plan.size, 0 if named else options.seed)
    if key not in known:
        known.clear()  # One at a time: the large ones take gigabytes.
        known[key] = load(*key)
    data = known[key]
    if recipe.learns_on_tests and named:
        test = data.tests[0]
        data = replace(data, train=test.images)
        maps = prior_of(recipe.train_prior, test, options)
    elif recipe.train_prior is not None and named:
        maps = prior_of(recipe.train_prior, data.train, options)
    else:
        return data
    other = (recipe.train_prior or "").partition("run:")[2]
    computed_by = fingerprint(finished(other, options).trainer.weights()) if other else ""
    return replace(data, train=replace(data.train, priors=maps), computed_by=computed_by)


def without_priors(options: Options, data: Data) -> list[str]:
    """What a network that needs priors makes do with on a set of the user's that has none."""
    if options.data is None or not options.chosen_recipe.test_priors:
        return []
    if any(starts_from(options.chosen_recipe, test) != ("centre",) for test in data.tests):
        return []
    return [f"{options.data} has no priors/: a Gaussian at the centre stands for every prior map"]


def curve(losses: list[float], points: int = 200) -> list[float]:
    """Means over equal runs of steps."""
    runs = np.array_split(np.array(losses), min(points, len(losses)))
    return [round(float(run.mean()), 6) for run in runs]


def contact_sheet(options: Options, data: Data, trained: Trained, title: str, path: Path) -> None:
    """The first eight test images: image, mask, prior where used, maps, weight in the loss."""
    test = data.tests[0]
    shown = test.images.take(range(min(8, len(test.images))))
    columns = [("image", shown.images)]
    if options.chosen_recipe.regions > 2:
        columns.append(("regions of a person", figures.per_image(shown.labels.astype(float))))
    else:
        columns.append(("mask", shown.masks))
    priors = starts_from(options.chosen_recipe, test)
    if priors:
        maps = prior_of(priors[0], test, options)[: len(shown)]
        shown = replace(shown, priors=maps)
        columns.append((f"prior: {priors[0]}", maps / 255))
    columns += [
        (name, figures.per_image(maps.astype(float)) if name == "regions" else maps)
        for name, maps in trained.maps(shown).items()
    ]
    weights = figures.per_image(trained.trainer.pixel_weights(shown))
    columns.append(("weight in the loss", weights))
    heading = (
        f"{title}, test images. Weight of a pixel:\n"
        "|∂ loss / ∂ network output| summed over channels, maximum 1 per image"
    )
    figures.sheet([(name, np.asarray(view)) for name, view in columns], heading, path)


if __name__ == "__main__":
    main()
