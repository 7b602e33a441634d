"""Command-line options of a training run."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from reference_models import paths
from reference_models.errors import InputError
from reference_models.files import sha256_of
from reference_models.networks.options import BackboneName, blocks_like
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import Recipe, Scale, ScaleName, as_json
from reference_models.paths import DATA

Backend = Literal["torch", "jax"]
Device = Literal["auto", "cpu", "cuda"]


MOST_SIDE = 4096
"""Greatest side in pixels of the square that images are resized to."""


@dataclass(frozen=True)
class Options:
    """Train the network of one recipe and measure it on its test sets.

    The default recipe trains a small encoder–decoder with the CAS loss on generated scenes: a
    striped or checked object in front of smooth blobs. A run writes weights.safetensors, run.json
    (measures and settings), loss.png (loss curve) and sheet.png (test images with their maps) to
    its run folder. Rerunning a stopped command resumes from its last checkpoint.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RECIPE]")] = "scenes-cas"
    """Recipe to train; --recipes lists all recipes."""
    recipes: bool = False
    """Print all recipes and exit."""
    backend: Backend = "torch"
    """Framework to train in: PyTorch or JAX (Flax)."""
    scale: ScaleName = "medium"
    """Size of the run. On two CPU cores, small takes about three minutes and medium one to two
    hours (MEnet longer). paper trains a paper's own network as the paper does, and needs a GPU. A
    line before the first step of a long training says how many hours it will take."""
    data: Literal["scenes"] | Path | None = None
    """Your own data in place of the recipe's: a folder or zip with images/ and masks/ paired by
    file name (recipes regions-* need segmentations/NAME_ANNOTATOR.png instead of masks/), and
    optionally priors/ and splits/. The word "scenes" selects generated scenes."""
    archives: Path | None = None
    """Folder of the data set archives and ImageNet weights. Default: data/."""
    backbone: BackboneName | None = None
    """Backbone to use in place of the recipe's. Its features are taken from its own blocks at the
    same strides."""
    backbone_weights: Path | None = None
    """ImageNet weights of the backbone: a safetensors file with torchvision's parameter names.
    Default: BACKBONE.fp16.safetensors in --archives, or else in reference_models/weights."""
    padding: Annotated[Literal["both", "end"] | None, tyro.conf.Suppress] = None
    """Padding of MobileNetV2's strided convolutions. Default: "both" with --backbone-weights, as
    torchvision's weights need it, and otherwise the recipe's."""
    out: Path | None = None
    """Run folder. Default: runs/RECIPE-BACKEND-SCALE-SEED."""
    results: Path | None = None
    """Folder for the results of an unmodified recipe, which the report reads. Default:
    results/runs."""
    minutes: float | None = None
    """Time budget: after this many minutes, finish the current step (or the current few hundred
    images when measuring), save, and exit with status 75. Rerun the command to resume. Ctrl-C
    (status 130), SIGTERM (143) and SIGHUP (129) do the same in the training steps, and end the run
    at once while data are read or measured."""
    seed: int = 0
    """Seed of the generated scenes, data splits, batch order and initial weights."""
    device: Device = "auto"
    """Device to compute on; auto uses a GPU if one is available."""
    size: int | None = None
    """Side in pixels of the square that every image is resized to; a multiple of 32 (of 4 for
    recipes scenes-*). Default: the recipe's."""
    steps: int | None = None
    """Number of training steps. Default: the recipe's."""
    batch: int | None = None
    """Images per training step. Default: the recipe's."""
    learning_rate: float | None = None
    """Peak learning rate of the one-cycle schedule. Default: the recipe's."""
    train_images: int | None = None
    """Maximum number of training images (or generated scenes). Default: the recipe's."""
    test_images: int | None = None
    """Maximum number of images per test set. Default: the recipe's."""
    swap_labels: float | None = None
    """Fraction of the training images, from 0 to 1, whose foreground and background labels are
    swapped. Default: the recipe's."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints."""
    memory_gb: float = 8.0
    """Memory for the decoded training images, and for those of each test set, in GB (10⁹ bytes).
    Larger sets are decoded as they are needed: in every training step, read ahead by grain."""
    answer_seconds: float = 60.0
    """For several processes that train together: a process ends if another one gives no sign of
    life for this many seconds. A slow step is no reason, since a thread gives the signs."""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise InputError(
                f"unknown recipe {self.recipe!r}; `python -m reference_models.train --recipes` "
                "lists all recipes" + _near(self.recipe)
            )
        if self.scale not in self.chosen_recipe.scales:
            raise InputError(
                f"{self.recipe} has no {self.scale} scale; choose --scale "
                f"{' or '.join(self.chosen_recipe.scales)}, or a recipe that has one: "
                f"{', '.join(recipes_at(self.scale))}"
            )
        if self.data == "scenes" and self.chosen_recipe.regions > 2:
            raise InputError(
                f"--data scenes has masks, but {self.recipe} learns regions; pass a folder or zip "
                "with images/ and segmentations/"
            )
        if self.chosen_recipe.at(self.scale).backbone is None:
            flags = {
                "--backbone": self.backbone,
                "--backbone-weights": self.backbone_weights,
            }
            unused = [flag for flag, value in flags.items() if value is not None]
            if unused:
                raise InputError(f"{self.recipe} has no backbone; omit {' and '.join(unused)}")
        if self.minutes is not None and self.minutes < 0:
            raise InputError(f"--minutes must not be negative, got {self.minutes}")
        step = 4 if self.plan.backbone is None and self.chosen_recipe.system == "small" else 32
        if not 16 <= self.plan.size <= MOST_SIDE or self.plan.size % step:
            raise InputError(
                f"--size must be a multiple of {step}, at least 16 and at most {MOST_SIDE}, got "
                f"{self.plan.size}"
            )
        for flag, value in (
            ("steps", self.plan.steps),
            ("batch", self.plan.batch),
            ("train-images", self.plan.train_images),
            ("test-images", self.plan.test_images),
        ):
            # A recipe may have no steps of its own.
            least = 0 if flag == "steps" and not self.chosen_recipe.at(self.scale).steps else 1
            if value is not None and value < least:
                raise InputError(f"--{flag} must be at least {least}, got {value}")
        one_at_most = min(self.plan.batch, self.plan.train_images or self.plan.batch) < 2
        if one_at_most and self.chosen_recipe.network(self.plan).options.normalises_one_pixel:
            raise InputError(
                f"--batch and --train-images must be at least 2 for {self.recipe} at {self.scale} "
                "scale, which normalises a map of 1 x 1 over the batch; pass larger ones"
            )
        if not 0 <= self.swap_share <= 1:
            raise InputError(f"--swap-labels must lie in 0..1, got {self.swap_share}")
        if not self.plan.rate > 0:
            raise InputError(f"--learning-rate must be positive, got {self.plan.rate}")
        if not self.answer_seconds >= 3:
            raise InputError(f"--answer-seconds must be at least 3, got {self.answer_seconds}")
        if not self.memory_gb >= 0:
            raise InputError(f"--memory-gb must not be negative, got {self.memory_gb}")
        if self.seed < 0:
            raise InputError(f"--seed must not be negative, got {self.seed}")

    @property
    def chosen_recipe(self) -> Recipe:
        return RECIPES[self.recipe]

    @property
    def plan(self) -> Scale:
        """The recipe's settings at this scale, with the changes from the command line."""
        options = {
            "size": self.size,
            "steps": self.steps,
            "batch": self.batch,
            "rate": self.learning_rate,
            "train_images": self.train_images,
            "test_images": self.test_images,
        }
        changed: dict[str, Any] = {
            name: value for name, value in options.items() if value is not None
        }
        if self.size is not None:
            changed["crop"] = None
        backbone = self.chosen_recipe.at(self.scale).backbone
        if self.backbone is not None and backbone is not None and self.backbone != backbone.name:
            taps = blocks_like(backbone.taps, backbone.name, self.backbone)
            backbone = replace(backbone, name=self.backbone, taps=taps)
        if backbone is not None:
            own = self.backbone_weights is not None and backbone.name == "mobilenet_v2"
            padding = self.padding or ("both" if own else backbone.padding)
            changed["backbone"] = replace(backbone, padding=padding)
        return replace(self.chosen_recipe.at(self.scale), **changed)

    @property
    def has_bundled_backbone(self) -> bool:
        """True if weights of the backbone come with the code, as those of MobileNetV2 do."""
        backbone = self.plan.backbone
        return backbone is not None and bundled_backbone(backbone.name).is_file()

    @property
    def swap_share(self) -> float:
        return self.chosen_recipe.swap_labels if self.swap_labels is None else self.swap_labels

    @property
    def is_unmodified(self) -> bool:
        """True if no option changes the recipe; only such runs are compared with the papers."""
        return (
            self.data is None
            and (self.backbone_weights is None or not self.has_bundled_backbone)
            and self.plan == self.chosen_recipe.at(self.scale)
            and self.swap_share == self.chosen_recipe.swap_labels
        )

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / self.name

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.backend}-{self.scale}-{self.seed}"

    @property
    def archive_folder(self) -> Path:
        return self.archives or DATA

    @property
    def backbone_file(self) -> Path:
        """File with the ImageNet weights of the backbone."""
        assert self.plan.backbone is not None
        return find_backbone(self.plan.backbone.name, self.archive_folder, self.backbone_weights)

    @property
    def backbone_sha256(self) -> str | None:
        """Digest of the ImageNet weights: the archive's and the bundled ones are rounded
        differently."""
        if self.plan.backbone is None:
            return None
        return sha256_of(self.backbone_file)

    def as_json(self) -> dict[str, object]:
        """The options that affect the result, and no others, so that runs can be compared."""
        data = str(self.data.resolve()) if isinstance(self.data, Path) else self.data
        return {
            "recipe": self.recipe,
            "backend": self.backend,
            "scale": self.scale,
            "seed": self.seed,
            "device": self.device,
            "data": data,
            "swap_labels": self.swap_share,
            "schedule": as_json(self.plan),
        }


def recipes_at(scale: ScaleName) -> list[str]:
    """Names of the recipes that have this scale."""
    return [name for name, recipe in RECIPES.items() if scale in recipe.scales]


def recipe_list() -> str:
    """Every recipe and what its network learns from, a line each."""
    return "\n".join(f"{recipe.name:44}{recipe.about}" for recipe in RECIPES.values())


def find_backbone(name: str, archives: Path, file: Path | None = None) -> Path:
    """The file with a backbone's ImageNet weights: `file` if it is passed, or else the one in the
    archives folder, or else the bundled one."""
    bundled = bundled_backbone(name)
    candidates = [file] if file else [archives / bundled.name, bundled]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"the ImageNet weights of {name} are missing: {candidates[0]} does not exist; pass "
        "--backbone-weights FILE.safetensors (torchvision's names) or --archives FOLDER"
    )


def bundled_backbone(name: str) -> Path:
    """The place of a backbone's weights that come with the code, if any."""
    return paths.WEIGHTS / f"{name}.fp16.safetensors"


def _near(name: str) -> str:
    close = [recipe for recipe in RECIPES if recipe.startswith(name)][:3]
    close = close or get_close_matches(name, RECIPES, n=3, cutoff=0.5)
    return f". Did you mean {' or '.join(close)}?" if close else ""
