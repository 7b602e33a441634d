"""Trained networks on disk: run folders, weights files and bundled models."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from reference_models import paths
from reference_models.data.images import Images, Streamed
from reference_models.errors import InputError, lacks_memory
from reference_models.files import array_names, read_about, read_arrays, sha256_of
from reference_models.options import Backend, Device, Options, bundled_backbone
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import PRIORS, ScaleName
from reference_models.training.frameworks import new_trainer
from reference_models.training.trainer import Trainer

RUN_WEIGHTS = "weights.safetensors"

MEANINGFUL = 0.63
"""Correlation of maps and masks above which a run has found the objects. Among the 200 runs of
docs/losses/cas.md, those that found the objects ended above 0.65, and those that got stuck ended
below 0.60."""


@dataclass(frozen=True)
class Network:
    """A trained network and the options it was trained with."""

    options: Options
    trainer: Trainer
    inverted: bool = False
    """True if one minus the map correlates with the validation masks; `maps` returns it then."""
    correlation: float | None = None
    """Correlation of the map with the validation masks; None if training determines the map."""

    @property
    def notes(self) -> list[str]:
        """Warnings for anyone who uses the maps."""
        notes = []
        if self.inverted:
            notes.append(
                "one minus the map is used, as it fits the validation masks (recorded as inverted)"
            )
        if self.correlation is not None and self.correlation < MEANINGFUL:
            notes.append(
                "the map hardly shows the objects: its correlation with the masks of the "
                f"validation images is {self.correlation:.2f}, below {MEANINGFUL}; train with "
                "another --seed, which helps if the run got stuck (docs/losses/cas.md)"
            )
        return notes

    def maps(self, images: Images | Streamed) -> dict[str, np.ndarray]:
        """The trainer's maps, computed in batches, and inverted if `inverted`."""
        parts = [self.trainer.maps(part) for part in self.batches(images)]
        joined = {name: np.concatenate([maps[name] for maps in parts]) for name in parts[0]}
        return {name: 1 - maps for name, maps in joined.items()} if self.inverted else joined

    def descriptors(self, images: Images | Streamed) -> np.ndarray:
        """The trainer's descriptors, computed in batches."""
        return np.concatenate([self.trainer.descriptors(part) for part in self.batches(images)])

    def batches(self, images: Images | Streamed) -> list[Images]:
        """The images in parts of at most the trainer's inference batch."""
        count = -(-len(images) // self.trainer.inference_batch)
        return [images.take(part) for part in np.array_split(np.arange(len(images)), count)]

    def main_map(self, images: Images | Streamed) -> np.ndarray:
        return next(iter(self.maps(images).values()))


# Loading -----------------------------------------------------------------------------------------


def load_network(
    model: str,
    device: Device = "auto",
    archives: Path | None = None,
    backend: Backend | None = None,
) -> Network:
    """Load the network of a bundled model, a run folder or a weights file.

    backend: Framework to compute in. Default: the one that the network was trained in.
    """
    file = weights_file(model)
    options = options_of(file, device, archives)
    if backend is not None:
        options = replace(options, backend=backend)
    return restore_network(file, options)


def load_finished_run(recipe: str, options: Options) -> Network:
    """Load another recipe's network, trained unmodified at the scale and seed of `options`."""
    other = Options(
        recipe=recipe,
        backend=options.backend,
        scale=options.scale,
        seed=options.seed,
        archives=options.archives,
        device=options.device,
    )
    sibling = options.folder.parent / other.name / RUN_WEIGHTS
    file = sibling if sibling.is_file() else other.folder / RUN_WEIGHTS
    if not weights_match(file, other):
        fault = "comes from a different run of it" if file.is_file() else "does not exist"
        raise InputError(
            f"{options.recipe} starts from the trained {recipe}, but {file} {fault}; first run "
            f"python -m reference_models.train {recipe} --backend {options.backend} "
            f"--scale {options.scale} --seed {options.seed}"
        )
    return restore_network(file, other)


def restore_network(file: Path, options: Options) -> Network:
    """Build the network of the options and load a file's weights into it."""
    backbone = shared_backbone(file, options)
    if backbone is None:
        trainer = new_trainer(options, imagenet=False)
    else:
        trainer = new_trainer(replace(options, archives=backbone.parent))
    try:
        trainer.load(read_arrays(file))
    except (InputError, RuntimeError) as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{file} does not fit the current recipe {options.recipe} ({error}); retrain it"
        ) from None
    return Network(options, trainer, inverted=read_about(file).get("inverted") is True)


def shared_backbone(file: Path, options: Options) -> Path | None:
    """The file of the ImageNet weights that a network with a frozen backbone was trained on.

    None if the network has no backbone, or its own file holds all weights.
    """
    backbone = options.plan.backbone
    if backbone is None or any(name.startswith("backbone.") for name in array_names(file)):
        return None
    bundled = bundled_backbone(backbone.name)
    recorded = read_about(file).get("backbone_sha256")
    if recorded is None:  # Older files do not say it.
        return bundled if file.parent == paths.WEIGHTS else options.backbone_file
    found = [each for each in (options.archive_folder / bundled.name, bundled) if each.is_file()]
    for each in found:
        if sha256_of(each) == recorded:
            return each
    raise InputError(
        f"{file} was trained on other ImageNet weights than those of "
        f"{' and '.join(map(str, found)) or 'no file here'}; pass --archives FOLDER with the "
        f"{bundled.name} of its training"
    )


def weights_match(file: Path, options: Options) -> bool:
    """True if the file holds the final weights of a run with these options."""
    if not file.is_file():
        return False
    about, wanted = read_about(file), as_stored(options)
    return all(about.get(key) == wanted[key] for key in wanted if key != "device")


def as_stored(options: Options) -> dict[str, Any]:
    """The options as they are read back from a JSON file."""
    stored: dict[str, Any] = json.loads(json.dumps(options.as_json()))
    return stored


def options_of(file: Path, device: Device, archives: Path | None = None) -> Options:
    """Options that rebuild the network of a weights file."""
    about = read_about(file)
    try:
        name, schedule = about["recipe"], about["schedule"]
        if name not in RECIPES:
            raise InputError(
                f"{file} was trained with recipe {name!r}, which no longer exists; pass another"
            )
        backbone = schedule["backbone"] or {}
        check_stored(file, about)
        try:
            options = Options(
                recipe=name,
                backend=about["backend"],
                scale=about["scale"],
                size=schedule["size"],
                backbone=backbone.get("name"),
                padding=backbone.get("padding"),
                device=device,
                archives=archives,
            )
        except InputError as error:
            raise InputError(f"{file} has impossible options ({error}); retrain it") from None
        plan = as_stored(options)["schedule"]
        fits = all(plan[key] == schedule[key] for key in ("backbone", "backbone_rate", "options"))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} does not say which network it holds ({type(error).__name__}: {error}); pass a "
            f"{RUN_WEIGHTS} that `python -m reference_models.train` wrote"
        ) from None
    if not fits:
        raise InputError(
            f"{file} was trained with layer sizes that recipe {name} no longer has; retrain it"
        )
    return options


def check_stored(file: Path, about: dict[str, Any]) -> None:
    """Raise an error unless what a weights file says of its network is of the right types."""
    schedule = about["schedule"]
    backbone, inverted = schedule["backbone"] or {}, about.get("inverted", False)
    for key, value, allowed in (
        ("backend", about["backend"], get_args(Backend)),
        ("scale", about["scale"], get_args(ScaleName)),
        ("padding", backbone.get("padding", "end"), ("both", "end")),
    ):
        if value not in allowed:
            raise InputError(
                f"{file} has {key} {value!r}, which must be one of {', '.join(allowed)}; retrain "
                "the network"
            )
    for key, value, kind in (("size", schedule["size"], int), ("inverted", inverted, bool)):
        if type(value) is not kind:
            raise InputError(
                f"{file} has {key} {value!r}, which must be of type {kind.__name__}; retrain the "
                "network"
            )


# Bundled models ----------------------------------------------------------------------------------


def bundled_models() -> list[str]:
    """Names of the models in reference_models/weights."""
    names = (path.stem for path in sorted(paths.WEIGHTS.glob("*.safetensors")))
    return [name for name in names if not name.endswith(".fp16")]


def refuse_two_meanings(model: str) -> None:
    """Raise an error if the user names a bundled model and a path here has that name too."""
    if model in bundled_models() and Path(model).exists():
        raise InputError(
            f"{model} is both a bundled model and {Path(model).absolute()}; pass that whole path, "
            "or rename it to use the bundled model"
        )


def weights_file(model: str) -> Path:
    """The weights file of a bundled model or a run folder, or the file itself."""
    if model in bundled_models():
        return paths.WEIGHTS / f"{model}.safetensors"
    path = Path(model)
    file = path / RUN_WEIGHTS if path.is_dir() else path
    if file.is_file():
        return file
    if path.is_dir():
        raise InputError(
            f"{path} holds no {RUN_WEIGHTS}: it is not a run folder, or its training has not "
            "finished; pass the folder of a finished run"
        )
    names = ", ".join(bundled_models()) or "none"
    raise InputError(
        f"--model {model} is neither a run folder nor a bundled model; pass a run folder or one of "
        f"the bundled models: {names}"
    )


def default_model() -> str | None:
    """The bundled model with the highest weighted F among those that need no prior map.

    Models of medium scale are preferred to those of small scale, which are measured on fewer
    images.
    """
    merits = {}
    for name in bundled_models():
        about = read_about(paths.WEIGHTS / f"{name}.safetensors")
        recipe, results = RECIPES.get(about["recipe"]), results_file(about)
        if recipe and not recipe.test_priors and recipe.regions == 2 and results.is_file():
            _, row = main_measures(json.loads(results.read_text(encoding="utf-8")))
            merits[name] = (about["scale"] == "medium", row["weighted_f"])
    return max(merits, key=merits.__getitem__, default=None)


def results_file(about: dict[str, Any]) -> Path:
    """The results file of the run that trained these weights; `about` is the file's metadata."""
    names = ("recipe", "backend", "scale", "seed")
    return paths.RUNS / f"{Options(**{name: about[name] for name in names}).name}.json"


def main_measures(results: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The name of the first test set, and the measures of the main map on it."""
    test, maps = next(iter(results["measures"].items()))
    return test, next(row for name, row in maps.items() if name not in PRIORS)
