"""The parts of a paper's file: recipes and their scales, printed figures, claims and bounds."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SystemName = Literal[
    "small", "menet", "metric-head", "fully-convolutional", "zoomout", "anchors", "relations"
]
ScaleName = Literal["small", "medium"]
BackboneName = Literal["mobilenet_v2", "squeezenet1_0", "vgg16", "resnet101"]
# The blocks of each backbone whose outputs have strides 2, 4, 8, 16 and 32;
# SqueezeNet ends at 16.
BLOCKS: dict[BackboneName, tuple[int, ...]] = {
    "mobilenet_v2": (1, 3, 6, 13, 17),
    "squeezenet1_0": (1, 5, 10, 12),
    "vgg16": (4, 9, 16, 23, 30),
    "resnet101": (2, 4, 5, 6, 7),
}
Figures = Mapping[str, float]
"""By measure."""


@dataclass(frozen=True)
class Paper:
    """A row of a paper's table. Figures by test set (or test set and corruption) and measure."""

    table: str
    row: str
    figures: Mapping[str, Figures] = field(default_factory=dict)

    def __str__(self) -> str:
        told = (
            f"{test} " + ", ".join(f"{name} {value}" for name, value in values.items())
            for test, values in self.figures.items()
        )
        return f"{self.table}, {self.row}: {'; '.join(told)}"


@dataclass(frozen=True)
class Backbone:
    """The pretrained network under a system: the blocks whose outputs it hands on."""

    name: BackboneName
    taps: tuple[int, ...]
    output_stride: int = 32
    padding: Literal["both", "end"] = "end"
    """Of MobileNetV2's strided convolutions: the one with which its weights were trained. Those of
    the archives want it at the end (89.0 % of the classes right, against 85.5 %), torchvision's
    on both sides."""


@dataclass(frozen=True)
class Scale:
    """How large and how long. On two cores `small` ends within minutes, `medium` within an hour."""

    size: int
    """Side in pixels of the square images in training and testing."""
    steps: int
    batch: int
    rate: float
    """The peak of the one-cycle learning rate."""
    backbone: Backbone | None = None
    backbone_rate: float = 0.0
    """The backbone's share of the learning rate. 0: frozen, its features are computed once."""
    crop: int | None = None
    """Side of random crops in training; None: whole images."""
    train_images: int | None = None
    test_images: int | None = None
    """At most so many images, evenly spread; None: all."""
    options: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    """The system's own sizes."""


@dataclass(frozen=True)
class Recipe:
    name: str
    system: SystemName
    loss: str
    about: str
    """What the network learns from, in a sentence."""
    small: Scale
    medium: Scale
    options: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    """The system's own options, besides its loss and sizes."""
    train: str = "duts-tr"
    tests: tuple[str, ...] = ("ecssd",)
    corruptions: tuple[str, ...] = ()
    """What the test images suffer, each in turn, besides the clean test."""
    swap_labels: float = 0.0
    """Share of the training images whose two labels are exchanged."""
    train_prior: str | None = None
    test_priors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Maps that the network starts from, by test set. A prior is a detector's name, "centre",
    "truth" (the mask itself, as a control), or "run:RECIPE", the maps of that trained recipe."""
    learns_on_tests: bool = False
    """True where the network is trained on the test images themselves, from their priors."""
    label_free: bool = False
    """True where a map may come out inverted; its sense is then chosen on validation images."""
    regions: int = 2
    """More than 2: general segmentation, measured against every annotator."""
    exact: bool = False
    """Also measure weighted F exactly as defined, and as the loss approximates it."""
    paper: Paper | None = None

    def at(self, scale: ScaleName) -> Scale:
        return self.small if scale == "small" else self.medium


# Scales ------------------------------------------------------------------------------------------

FIVE = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"])
FOUR = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"][1:])
SALIENCY_TESTS = ("ecssd", "pascal-s", "duts-te")


def small(backbone: Backbone | None, steps: int = 385, rate: float = 1e-3, **options: Any) -> Scale:
    """Frozen features of 1,540 images at 160 px; 300 images of each test set."""
    return Scale(
        size=160, steps=steps, batch=16, rate=rate, backbone=backbone,
        train_images=1540, test_images=300, options=options,
    )  # fmt: skip


def medium(
    backbone: Backbone | None, steps: int = 1960, rate: float = 3e-3, **options: Any
) -> Scale:
    """The whole training set at 224 px in crops of 192, the backbone fine-tuned; whole test sets.

    1960 steps are six times the 10,452 images of DUTS-TR that train.
    """
    return Scale(
        size=224, crop=192, steps=steps, batch=32, rate=rate, backbone=backbone,
        backbone_rate=0.2 if backbone else 0.0, options=options,
    )  # fmt: skip


# Claims ------------------------------------------------------------------------------------------

SALIENCY = ("mae", "max_f", "f")
WEIGHTED = ("weighted_f_exact", "weighted_f_loss", "weighted_f")
SEGMENTATION = ("covering", "rand", "variation_of_information", "regions")
SETS = {
    "duts-tr": "DUTS-TR", "ecssd": "ECSSD", "pascal-s": "PASCAL-S", "duts-te": "DUTS-TE",
    "bsds500": "BSDS500",
}  # fmt: skip
CONTROLS = ("centre", "truth")
"""Priors that know nothing and everything."""
PRIORS = ("prior", "prior, cut at 1/2")


@dataclass(frozen=True)
class Row:
    """One map of one recipe on one test set, and what the paper has for it."""

    label: str
    recipe: str
    test: str
    map: str | None = None
    """None: the main one."""
    paper: Figures | None = field(default=None, hash=False)
    """None: what the recipe's own paper has for this test set."""


@dataclass(frozen=True)
class Table:
    title: str
    rows: tuple[Row, ...]
    measures: tuple[str, ...] = SALIENCY
    folded: bool = False


@dataclass(frozen=True)
class Effects:
    """Differences of rows, first minus second, paired by seed."""

    pairs: tuple[tuple[Row, Row], ...]
    measures: tuple[str, ...] = SALIENCY


@dataclass(frozen=True)
class Bound:
    """The range expected of one row's value, or of its difference to a second row.

    The maintainers set it for the runs of this repository. Differences are paired by seed. The mean
    over seeds must lie in `low..high`, and no seed may lie below `per_seed_min`.
    """

    of: Row
    minus: Row | None
    measure: str
    low: float = -math.inf
    high: float = math.inf
    per_seed_min: float = -math.inf


@dataclass(frozen=True)
class EqualWeights:
    """Two recipes that must end with bit-identical weights on a CPU, given the same seed."""

    first: str
    second: str


@dataclass(frozen=True)
class Claim:
    title: str
    paper: str
    tables: tuple[Table, ...]
    effects: Effects
    bounds: tuple[Bound, ...] = ()
    equal_weights: tuple[EqualWeights, ...] = ()
    why: str = ""


def row(recipe: str, test: str = "ecssd", label: str = "", **more: Any) -> Row:
    return Row(label or recipe, recipe, test, **more)


def at_least(
    of: Row, minus: Row | None, measure: str, low: float, per_seed_min: float = -math.inf
) -> Bound:
    return Bound(of, minus, measure, low=low, per_seed_min=per_seed_min)


def at_most(of: Row, minus: Row | None, measure: str, high: float) -> Bound:
    return Bound(of, minus, measure, high=high)


def within(of: Row, minus: Row, measure: str, margin: float) -> Bound:
    return Bound(of, minus, measure, low=-margin, high=margin)


def per_set(recipes: Iterable[str], measures: tuple[str, ...] = SALIENCY) -> tuple[Table, ...]:
    """A table for each saliency test set, all but ECSSD folded."""
    names = tuple(recipes)
    return tuple(
        Table(SETS[test], tuple(row(name, test) for name in names), measures, test != "ecssd")
        for test in ("ecssd", "pascal-s", "duts-te")
    )


def number(value: float) -> str:
    """Three digits, as the papers print them: .837."""
    text = f"{abs(value):.3f}"
    text = text[1:] if text.startswith("0") else text
    return f"−{text}" if round(value, 3) < 0 else text
