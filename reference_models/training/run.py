"""One training run: from its options through data and training to results and figures."""

import json
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from reference_models import paths
from reference_models.data.images import VOID, Data, Images, Streamed, TestSet
from reference_models.data.sets import Sources, load
from reference_models.errors import InputError
from reference_models.files import Arrays, fingerprint, make_folder, write_arrays, write_json
from reference_models.measures import per_image
from reference_models.measures.saliency import one_line
from reference_models.networks.options import RelationOptions
from reference_models.options import Options
from reference_models.papers.relations import PAIRS, mutual_information
from reference_models.papers.schema import CONTROLS
from reference_models.provenance import versions
from reference_models.training import figures
from reference_models.training.frameworks import new_trainer
from reference_models.training.lock import LOCK, locked
from reference_models.training.loop import train
from reference_models.training.processes import together
from reference_models.training.score import (
    Rows,
    curves_of,
    flatten_rows,
    inference_seconds,
    means_of,
    prior_maps,
    priors_for,
    score,
)
from reference_models.training.stopping import Clock
from reference_models.training.trained import RUN_WEIGHTS, Network, load_finished_run
from reference_models.training.trainer import Trainer


@dataclass(frozen=True)
class Shared:
    """Cache for the runs of one process: decoded data, and features of frozen backbones."""

    data: dict[tuple[Sources, int, int], Data] = field(default_factory=dict)
    features: dict[str, list[Any]] = field(default_factory=dict)


def run(options: Options, shared: Shared, check: Clock, results: Path | None = None) -> None:
    """Train and measure; write the run folder and, for an unmodified recipe, its results.

    results: The folder of the results. Default: that of the options, or results/runs.
    """
    # First, so that a missing package is reported before anything is computed.
    versions(options.backend)
    with together():
        trainer = new_trainer(options, shared.features)
        with locked(options.folder) if trainer.is_main_process else nullcontext():
            place = results or options.results or paths.RUNS
            run_locked(options, trainer, shared, check, place)


def run_locked(
    options: Options,
    trainer: Trainer,
    shared: Shared,
    check: Clock,
    results: Path,
) -> None:
    """Do the work of `run`, in a folder that is locked."""
    begun, recipe, folder = time.monotonic(), options.chosen_recipe, options.folder
    has_results = options.is_unmodified and recipe.system != "small"
    if has_results:  # Before the training, as it may be impossible.
        make_folder(results, "--results")
    data = load_data(options, shared)
    if trainer.is_main_process:
        claim_run_folder(folder, options, data)
        announce(options, data, trainer.device)
    reading = time.monotonic() - begun

    start = starting_weights(options)
    if start is not None:
        trainer.load(start)
    network, history = train(options, trainer, data.train, data.validation, folder, check)
    if not trainer.is_main_process:
        return
    *earlier, made_with = history.parts
    about = {
        **options.as_json(),
        "inverted": network.inverted,
        "backbone_sha256": options.backbone_sha256,
    }
    write_arrays(folder / RUN_WEIGHTS, trainer.weights(), about)
    begun = time.monotonic()
    scored = score(network, data.tests, check, recipe.exact)
    rows = {**means_of(scored), **pair_rows(options, data.train, history.losses)}
    named = flatten_rows(rows)
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
        "inverted": network.inverted,
        "validation_correlation": network.correlation,
        "measures": rows,
        "curves": curves_of(scored, started=bool(recipe.test_priors)),
        "seconds": {
            "data": round(reading, 1),
            "training": round(history.seconds, 1),
            "evaluation": round(time.monotonic() - begun, 1),
        },
        **inference_seconds(trainer, data.tests[0].images),
        **made_with,
        **({"earlier": earlier} if earlier else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "weights_sha256": fingerprint(trainer.weights()),
        **({} if start is None else {"start_sha256": fingerprint(start)}),
        "loss_curve": curve(history.losses),
    }
    write_json(folder / "run.json", report)
    if has_results:
        file = results / f"{options.name}.json"
        # Written first: the run counts as done once its JSON file exists.
        per_image.write(per_image.beside(file), scored, started=bool(recipe.test_priors))
        write_json(file, report)
        print(f"results for the report written to {file}")
    title = f"{recipe.name} ({options.backend})"
    if history.losses:
        figures.loss_curve(history.losses, title, folder / "loss.png")
    contact_sheet(network, data.tests[0], title, folder / "sheet.png")
    for note in network.notes:
        print(f"note: {note}")
    if earlier:
        print('note: resumed on another device or with other code, see "earlier" in run.json')
    print(f"{history.seconds:.0f} s of training on {trainer.device}; written to {folder}/")


def starting_weights(options: Options) -> Arrays | None:
    """The weights that training starts from, if the recipe names a trained one."""
    recipe = options.chosen_recipe.start
    return None if recipe is None else load_finished_run(recipe, options).trainer.weights()


def announce(options: Options, data: Data, device: str) -> None:
    """Print the recipe, the figures it is compared with, notes on the data, and their counts."""
    recipe = options.chosen_recipe
    print(f"{recipe.name}: {recipe.about}")
    if recipe.paper is not None and options.is_unmodified:
        print(f"compared with {recipe.paper}")
    for note in (*data.notes, *without_priors(options, data)):
        print(f"note: {note}")
    if isinstance(data.train, Streamed):
        print(
            f"note: the training images take more than {options.memory_gb:g} GB (--memory-gb), so "
            "their files are decoded again in every step"
        )
    if options.scale == "paper" and device == "cpu":
        print(
            "note: the paper scale is meant for a GPU; on this CPU it will take long, and before "
            "the first step a line says how many hours or days"
        )
    print("images: " + ", ".join(f"{count} {name}" for name, count in data.counts().items()))


def load_data(options: Options, shared: Shared | None = None) -> Data:
    """Load the recipe's data sets, or --data, with the prior maps that training starts from."""
    recipe, plan = options.chosen_recipe, options.plan
    is_named = options.data is None and recipe.train != "scenes"
    detectors = {
        prior
        for priors in recipe.test_priors.values()
        for prior in priors
        if prior not in CONTROLS and not prior.startswith("run:")
    }
    is_trained = plan.steps > 0 or recipe.start is None
    needs_images = is_trained and not recipe.learns_on_tests
    sources = Sources(
        train=options.data or recipe.train,
        tests=recipe.tests if is_named else (),
        learns_on_tests=recipe.learns_on_tests,
        archives=options.archive_folder,
        is_trained=is_trained,
        memory_gb=options.memory_gb,
        # A network that learns on the test images, or no more, does not need the training set.
        train_images=1 if is_named and not needs_images else plan.train_images,
        test_images=plan.test_images,
        test_priors=tuple(sorted(detectors)) if is_named else (),
        regions=recipe.regions,
    )
    cache = {} if shared is None else shared.data
    # The choice of images from a named set does not depend on the seed.
    key = (sources, plan.size, 0 if is_named else options.seed)
    if key not in cache:
        cache.clear()  # Only one at a time: large ones take gigabytes.
        cache[key] = load(*key)
    data = cache[key]
    if recipe.learns_on_tests and is_named:
        test = data.tests[0]
        data = replace(data, train=test.images)
        assert recipe.train_prior is not None
        maps = prior_maps(recipe.train_prior, test, options)
    elif recipe.train_prior is not None and is_named:
        maps = prior_maps(recipe.train_prior, data.train, options)
    else:
        return data
    other = (recipe.train_prior or "").partition("run:")[2]
    computed_by = fingerprint(load_finished_run(other, options).trainer.weights()) if other else ""
    return replace(data, train=data.train.with_priors(maps), computed_by=computed_by)


def without_priors(options: Options, data: Data) -> list[str]:
    """A note if a network needs prior maps and the user's data has none."""
    if options.data is None or not options.chosen_recipe.test_priors:
        return []
    recipe, scale = options.chosen_recipe, options.scale
    if any(priors_for(recipe, test, scale) != ("centre",) for test in data.tests):
        return []
    return [f"{options.data} has no priors/: a Gaussian at the centre is used as every prior map"]


def curve(losses: list[float], points: int = 200) -> list[float]:
    """Means of the losses over `points` equal intervals of steps."""
    if not losses:
        return []
    intervals = np.array_split(np.array(losses), min(points, len(losses)))
    return [round(float(interval.mean()), 6) for interval in intervals]


def pair_rows(options: Options, images: Images | Streamed, losses: list[float]) -> Rows:
    """What the relation model's pairs are worth: the share of the pixels taken as foreground that
    are foreground in the mask (R §5.5), and the mutual information in training."""
    network = options.chosen_recipe.network(options.plan).options
    if not isinstance(network, RelationOptions):
        return {}
    rows: dict[str, dict[str, float]] = {}
    for name, threshold in (
        ("certain foreground", network.certain),
        ("approximate foreground", network.foreground),
    ):
        # The masks where the prior passes the threshold and the pixel counts.
        taken = [
            part.masks[(part.priors / np.float32(255) >= threshold) & (part.labels != VOID)]
            for part in images.parts()
        ]
        if count := sum(map(len, taken)):
            rows[name] = {"true_foreground": float(sum(map(np.sum, taken)) / count)}
    if network.balance and losses:
        estimates = np.array([mutual_information(loss) for loss in losses])
        tenth = -(-len(losses) // 10)
        rows["first tenth"] = {"mutual_information": float(estimates[:tenth].mean())}
        rows["last tenth"] = {"mutual_information": float(estimates[-tenth:].mean())}
    return {PAIRS: rows}


def contact_sheet(network: Network, test: TestSet, title: str, path: Path) -> None:
    """Write a sheet of the first eight test images: image, mask, prior map if the network uses one,
    maps, and the weight of each pixel in the loss."""
    options = network.options
    shown = test.images.take(range(min(8, len(test.images))))
    columns = [("image", shown.images)]
    if options.chosen_recipe.regions > 2:
        columns.append(("one annotator's regions", figures.per_image(shown.labels.astype(float))))
    else:
        columns.append(("mask", shown.masks if shown.counted is None else grey_void(shown)))
    priors = priors_for(options.chosen_recipe, test, options.scale)
    if priors:
        maps = prior_maps(priors[0], test, options)[: len(shown)]
        shown = replace(shown, priors=maps)
        columns.append((f"prior: {priors[0]}", maps / 255))
    columns += [
        (name, figures.per_image(maps.astype(float)) if name == "regions" else maps)
        for name, maps in network.maps(shown).items()
    ]
    weights = figures.per_image(network.trainer.pixel_weights(shown))
    columns.append(("weight in the loss", weights))
    heading = (
        f"{title}, test images. Weight of a pixel:\n"
        "|∂ loss / ∂ network output| summed over channels, maximum 1 per image"
    )
    figures.sheet([(name, np.asarray(view)) for name, view in columns], heading, path)


def grey_void(images: Images) -> np.ndarray:
    """The masks, `(N, S, S)` in [0, 1], with void in grey."""
    return np.where(images.labels == VOID, 0.5, images.masks)


def claim_run_folder(folder: Path, options: Options, data: Data) -> None:
    """Make the run folder, or check that an existing one has the same options and data."""
    as_json = json.loads(json.dumps(options.as_json()))
    wanted = as_json | {"data_sha256": data.sha256, "backbone_sha256": options.backbone_sha256}
    record = folder / "options.json"
    if record.is_file():
        try:
            stored = json.loads(record.read_text(encoding="utf-8"))
            old, new = stored | stored.get("schedule", {}), wanted | wanted["schedule"]
        except (ValueError, TypeError, AttributeError):
            raise InputError(
                f"{record} is damaged; delete {folder} to restart the run, or pass another --out"
            ) from None
        differing = [key for key in new if key != "schedule" and new[key] != old.get(key)]
        if differing:
            changes = ", ".join(f"{key} {old.get(key)!r} -> {new[key]!r}" for key in differing)
            raise InputError(f"{folder} holds a different run ({changes}); pass another --out")
    elif folder.exists() and not (folder.is_dir() and all(map(is_partial_file, folder.iterdir()))):
        raise InputError(f"{folder} exists and is not a run folder; pass another --out")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, wanted)


def is_partial_file(path: Path) -> bool:
    """Whether a killed run left this file behind; see `atomic_path` and `locked`."""
    return path.name == LOCK or (path.name.startswith(".") and path.suffix == ".partial")
