"""What a run can be told on the command line."""

from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from reference_models.errors import InputError
from reference_models.networks.options import BLOCKS, BackboneName
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import Recipe, Scale, ScaleName
from reference_models.paths import DATA, WEIGHTS


@dataclass(frozen=True)
class Options:
    """Train one recipe, measure it, show it.

    Without a recipe: a small encoder–decoder with the CAS loss on generated scenes, a striped or
    checked object on smooth blobs. The run folder receives weights.safetensors, run.json, loss.png
    and sheet.png. A command that was stopped goes on from its last checkpoint when it is given
    again. `python -m reference_models.train --recipes` lists the recipes.
    """

    recipe: Annotated[str, tyro.conf.Positional] = "scenes-cas"
    """Which recipe to train."""
    recipes: bool = False
    """List the recipes and stop."""
    backend: Literal["torch", "jax"] = "torch"
    """The framework to train in."""
    scale: ScaleName = "medium"
    """On two cores small ends within three minutes; medium takes up to an hour (MEnet 90 minutes),
    minutes on a GPU."""
    data: Literal["scenes"] | Path | None = None
    """Train and test on this instead: a folder or zip with images/ and masks/ of equal stems (or
    segmentations/, STEM_PERSON, for the recipes regions-…) and optional priors/ and splits/; or
    the word scenes for generated ones."""
    archives: Path | None = None
    """The folder of the named data sets and backbones; by default data/."""
    backbone: BackboneName | None = None
    """Another backbone than the recipe's, tapped at its own blocks."""
    backbone_weights: Path | None = None
    """Its ImageNet weights, a safetensors file with torchvision's names; by default
    BACKBONE.fp16.safetensors among the archives, else the copy in reference_models/weights."""
    padding: Annotated[Literal["both", "end"] | None, tyro.conf.Suppress] = None
    """Padding of MobileNetV2's strided convolutions. Default: the recipe's, or "both", which
    torchvision's weights need, with --backbone-weights."""
    out: Path | None = None
    """The run folder; by default runs/RECIPE-BACKEND-SCALE-SEED."""
    results: Path | None = None
    """Where a row for the report goes, if the recipe is run as it stands; by default
    results/runs."""
    minutes: float | None = None
    """Stop cleanly once so many minutes are over, after the step in hand or a few hundred measured
    images, with exit status 75; the same command goes on later. Ctrl-C stops as cleanly (130), as
    do SIGTERM (143) and SIGHUP (129)."""
    seed: int = 0
    """Decides scenes, splits, order of batches and initial weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    size: int | None = None
    """Side in pixels to which everything is made square, if not the recipe's; a multiple of 4, of
    32 with a backbone."""
    steps: int | None = None
    """Training steps, if not the recipe's."""
    batch: int | None = None
    """Images per step, if not the recipe's."""
    learning_rate: float | None = None
    """The peak of the one-cycle schedule, if not the recipe's."""
    train_images: int | None = None
    """At most so many training images (or generated scenes), if not the recipe's."""
    test_images: int | None = None
    """At most so many images of each test set, if not the recipe's."""
    swap_labels: float | None = None
    """Share of the training images, from 0 to 1, whose two labels are exchanged."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints."""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise InputError(
                f"there is no recipe {self.recipe!r}; `python -m reference_models.train --recipes` "
                "lists them" + _near(self.recipe)
            )
        if self.data == "scenes" and self.chosen_recipe.regions > 2:
            raise InputError(
                f"--data scenes has masks, and {self.recipe} learns regions; give a folder or zip "
                "with images/ and segmentations/"
            )
        if self.chosen_recipe.at(self.scale).backbone is None:
            given = {
                "--backbone": self.backbone,
                "--backbone-weights": self.backbone_weights,
            }
            unused = [flag for flag, value in given.items() if value is not None]
            if unused:
                raise InputError(f"{self.recipe} has no backbone; leave {', '.join(unused)} out")
        if self.minutes is not None and self.minutes < 0:
            raise InputError(f"--minutes must not be negative, got {self.minutes}")
        step = 4 if self.plan.backbone is None and self.chosen_recipe.system == "small" else 32
        if self.plan.size < 16 or self.plan.size % step:
            raise InputError(
                f"--size must be a multiple of {step}, at least 16, got {self.plan.size}"
            )
        for flag, value in (
            ("steps", self.plan.steps),
            ("batch", self.plan.batch),
            ("train-images", self.plan.train_images),
            ("test-images", self.plan.test_images),
        ):
            if value is not None and value < 1:
                raise InputError(f"--{flag} must be at least 1, got {value}")
        if not 0 <= self.swap_share <= 1:
            raise InputError(f"--swap-labels must lie in 0..1, got {self.swap_share}")
        if not self.plan.rate > 0:
            raise InputError(f"--learning-rate must be positive, got {self.plan.rate}")
        if self.seed < 0:
            raise InputError(f"--seed must not be negative, got {self.seed}")

    @property
    def chosen_recipe(self) -> Recipe:
        return RECIPES[self.recipe]

    @property
    def plan(self) -> Scale:
        """The recipe's scale, with what the command line changes in it."""
        given = {
            "size": self.size,
            "steps": self.steps,
            "batch": self.batch,
            "rate": self.learning_rate,
            "train_images": self.train_images,
            "test_images": self.test_images,
        }
        changed: dict[str, Any] = {
            name: value for name, value in given.items() if value is not None
        }
        if self.size is not None:
            changed["crop"] = None
        there = self.chosen_recipe.at(self.scale).backbone
        if self.backbone is not None and there is not None and self.backbone != there.name:
            taps = BLOCKS[self.backbone][-len(there.taps) :]
            there = replace(there, name=self.backbone, taps=taps)
        if there is not None:
            padding = self.padding or ("both" if self.backbone_weights else there.padding)
            changed["backbone"] = replace(there, padding=padding)
        return replace(self.chosen_recipe.at(self.scale), **changed)

    @property
    def swap_share(self) -> float:
        return self.chosen_recipe.swap_labels if self.swap_labels is None else self.swap_labels

    @property
    def is_unmodified(self) -> bool:
        """True for the recipe as it stands: only such a run answers a row of a paper's table."""
        return (
            self.data is None
            and self.backbone_weights is None
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
        """The ImageNet weights of the backbone."""
        assert self.plan.backbone is not None
        return find_backbone(self.plan.backbone.name, self.archive_folder, self.backbone_weights)

    @property
    def backbone_sha256(self) -> str | None:
        """Which ImageNet weights these are: the archive's and the copy differ in their digits."""
        if self.plan.backbone is None:
            return None
        return sha256(self.backbone_file.read_bytes()).hexdigest()

    def as_json(self) -> dict[str, object]:
        """What decides the result, and nothing else, so that two runs can be compared."""
        data = str(self.data.resolve()) if isinstance(self.data, Path) else self.data
        return {
            "recipe": self.recipe,
            "backend": self.backend,
            "scale": self.scale,
            "seed": self.seed,
            "device": self.device,
            "data": data,
            "swap_labels": self.swap_share,
            "schedule": asdict(self.plan),
        }


def find_backbone(name: str, archives: Path, file: Path | None = None) -> Path:
    """The ImageNet weights of a backbone: the file itself, or by name, first among the archives,
    then among the bundled weights."""
    bundled = WEIGHTS / f"{name}.fp16.safetensors"
    archived = archives / bundled.name
    file = file or (archived if archived.is_file() else bundled)
    if not file.is_file():
        raise InputError(
            f"the ImageNet weights of {name} are missing: {archived} does not exist; pass "
            "--backbone-weights FILE.safetensors (torchvision's names) or --archives FOLDER"
        )
    return file


def _near(name: str) -> str:
    close = [known for known in RECIPES if known.startswith(name)][:3]
    close = close or get_close_matches(name, RECIPES, n=3, cutoff=0.5)
    return f". Did you mean {' or '.join(close)}?" if close else ""
