"""Data classes of the papers: recipes, scales, printed figures, tables, claims and bounds."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from reference_models.errors import InputError
from reference_models.networks.options import (
    BLOCKS,
    OMITTED_AT_DEFAULT,
    PAPER_NETWORKS,
    Backbone,
    NetworkSpec,
    OptionValue,
    SystemName,
    network_options,
)

ScaleName = Literal["small", "medium", "paper"]
Figures = Mapping[str, float]
"""Printed values by measure."""


@dataclass(frozen=True)
class Paper:
    """A row of a paper's table, with its figures by test set (and corruption), then by measure."""

    table: str
    row: str
    figures: Mapping[str, Figures] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = (
            f"{test} " + ", ".join(f"{name} {value}" for name, value in values.items())
            for test, values in self.figures.items()
        )
        return f"{self.table}, {self.row}: {'; '.join(parts)}"


# How a network is trained ------------------------------------------------------------------------


@dataclass(frozen=True)
class Adam:
    """Adam with PyTorch's constants."""

    name: str = field(default="Adam", init=False)


@dataclass(frozen=True)
class SGD:
    """Gradient descent: v ← momentum · v + g + weight_decay · w, then w ← w − rate · v.

    momentum: above 0 and below 1.
    """

    momentum: float
    weight_decay: float = 0.0
    name: str = field(default="SGD", init=False)


@dataclass(frozen=True)
class OneCycle:
    """A half cosine up from rate/25 over the first 30 % of the steps, then one down to rate/1e4."""

    name: str = field(default="OneCycle", init=False)


@dataclass(frozen=True)
class Constant:
    """The same rate in every step."""

    name: str = field(default="Constant", init=False)


@dataclass(frozen=True)
class Polynomial:
    """rate · (1 − step / steps)^power."""

    power: float
    name: str = field(default="Polynomial", init=False)


@dataclass(frozen=True)
class Stage:
    """A part of a training, at a constant rate."""

    epochs: int
    """Length, relative to the other stages: `Scale.steps` is divided in this proportion."""
    share: float
    """Learning rate as a share of the scale's `rate`."""
    frozen: bool = False
    """Keep the backbone's weights as they are in this stage."""


@dataclass(frozen=True)
class Stages:
    """One stage after the other."""

    stages: tuple[Stage, ...]
    name: str = field(default="Stages", init=False)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image's pixels in [0, 1], drawn for each image (W §5.1).

    In this order: contrast, x ← ½ + (1 + c)(x − ½); colour, each channel times its own factor;
    Gaussian noise. The result is clipped to [0, 1]. W takes the three from Dosovitskiy et al.
    (FlowNet, ICCV 2015) and prints no ranges, so the defaults are FlowNet's; its gamma and
    brightness are not among W's changes. W permutes the changes at random, and here their order is
    fixed.
    """

    contrast: tuple[float, float] = (-0.8, 0.4)
    """Range of c."""
    color: tuple[float, float] = (0.5, 2.0)
    """Range of the factors."""
    noise: float = 0.04
    """Greatest standard deviation of the noise; it is drawn between 0 and this value."""


@dataclass(frozen=True)
class Scale:
    """Sizes and duration of a run. On two cores `small` takes minutes, `medium` about an hour;
    `paper` needs a GPU."""

    size: int
    """Side in pixels of the square images in training and testing."""
    steps: int
    """0: the network is not trained before its tests."""
    batch: int
    rate: float
    """Greatest learning rate; `schedule` says how it changes."""
    backbone: Backbone | None = None
    backbone_rate: float = 0.0
    """Learning rate of the backbone as a share of the head's. 0: the backbone is frozen, and its
    features are computed only once, unless `augmentation` changes the images."""
    crop: int | None = None
    """Side of random crops in training. None: whole images."""
    train_images: int | None = None
    test_images: int | None = None
    """Maximum number of images of each test set, spread evenly. None: all."""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    """Sizes of the network."""
    optimizer: Adam | SGD = field(default=Adam(), metadata=OMITTED_AT_DEFAULT)
    schedule: OneCycle | Constant | Polynomial | Stages = field(
        default=OneCycle(), metadata=OMITTED_AT_DEFAULT
    )
    flips: bool = field(default=True, metadata=OMITTED_AT_DEFAULT)
    """Flip half of the training images left to right."""
    enlarge_crops: bool = field(default=False, metadata=OMITTED_AT_DEFAULT)
    """Resize crops to `size`: images and priors bilinearly, labels to the nearest pixel."""
    augmentation: Augmentation | None = field(default=None, metadata=OMITTED_AT_DEFAULT)

    @property
    def is_frozen(self) -> bool:
        """True if the backbone never changes."""
        return self.backbone is not None and self.backbone_rate == 0


def as_json(value: Any) -> Any:
    """A dataclass as it is stored in results: its fields by name.

    Fields that were added later are omitted at their defaults, so that older results stay valid.
    """
    if is_dataclass(value):
        return {
            one.name: as_json(getattr(value, one.name))
            for one in fields(value)
            if one.metadata != OMITTED_AT_DEFAULT or getattr(value, one.name) != one.default
        }
    if isinstance(value, tuple):
        return [as_json(one) for one in value]
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Recipe:
    """A network with its loss, its data and its scales."""

    name: str
    system: SystemName
    loss: str
    about: str
    """The supervision of the network, in a phrase that continues "learns from"."""
    small: Scale | None
    medium: Scale | None
    """None, as `small`: the recipe needs weights that do not come with the code."""
    paper_scale: Scale | None = None
    """The paper's own network, trained as the paper trains it. None: the paper trains no such
    system, or trains it on data that cannot be had."""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    """Options of the network besides its loss and sizes."""
    train: str = "duts-tr"
    tests: tuple[str, ...] = ("ecssd",)
    corruptions: tuple[str, ...] = ()
    """Distortions of the first test set; the network is tested on each of them and on all clean
    test sets."""
    swap_labels: float = 0.0
    """Share of the training images whose two labels are exchanged."""
    train_prior: str | None = None
    """Prior maps of the training images, named as in `test_priors`."""
    test_priors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Prior maps that the network starts from, by test set: a detector's name, "centre", "truth"
    (the mask itself, as a control), or "run:RECIPE" for the maps of that trained recipe."""
    dense_crf: bool = False
    """Also measure the prior maps refined by a dense CRF."""
    learns_on_tests: bool = False
    """Train on the test images themselves, from their priors."""
    label_free: bool = False
    """The loss cannot tell a map from its inverse; validation images decide which one is used."""
    regions: int = 2
    """Maximum number of regions per image. More than 2: general segmentation, measured against
    every annotator."""
    start: str | None = None
    """The recipe from whose trained weights training starts. Default: new weights."""
    exact: bool = False
    """Also measure weighted F exactly as defined, and as the loss approximates it."""
    further: tuple[Literal["features", "sparse", "contours"], ...] = ()
    """Further measures: distances between the features of the two regions, and how binary the maps
    are; the share of sparse descriptors; F of the contours of label maps."""
    paper: Paper | None = None

    def __post_init__(self) -> None:
        for name in self.scales:
            self.network(self.at(name))

    def network(self, scale: Scale) -> NetworkSpec:
        """The network at one of the recipe's scales, or at a modified one, with checked options."""
        try:
            options = network_options(self.system, {**self.options, **scale.options})
            return NetworkSpec(self.loss, options, scale.backbone)
        except InputError as error:
            raise InputError(f"recipe {self.name}: {error}") from None

    @property
    def scales(self) -> tuple[ScaleName, ...]:
        """Names of the scales that the recipe has."""
        return tuple(self._by_name)

    def at(self, scale: ScaleName) -> Scale:
        """The scale of this name, which must be one of `scales`."""
        if scale not in self._by_name:
            raise InputError(f"{self.name} has no {scale} scale; choose {' or '.join(self.scales)}")
        return self._by_name[scale]

    @property
    def _by_name(self) -> dict[ScaleName, Scale]:
        scales: dict[ScaleName, Scale | None] = {
            "small": self.small,
            "medium": self.medium,
            "paper": self.paper_scale,
        }
        return {name: scale for name, scale in scales.items() if scale is not None}


# Scales ------------------------------------------------------------------------------------------

# MobileNetV2 with outputs of strides 2 to 32, and of strides 4 to 32.
FIVE = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"])
FOUR = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"][1:])
SALIENCY_TESTS = ("ecssd", "pascal-s", "duts-te")


def small(backbone: Backbone | None, steps: int = 385, rate: float = 1e-3, **options: Any) -> Scale:
    """A frozen backbone, 1,540 training images at 160 px, and 300 images of each test set."""
    return Scale(
        size=160,
        steps=steps,
        batch=16,
        rate=rate,
        backbone=backbone,
        train_images=1540,
        test_images=300,
        options=options,
    )


def medium(
    backbone: Backbone | None, steps: int = 1960, rate: float = 3e-3, **options: Any
) -> Scale:
    """A fine-tuned backbone, crops of 192 px from all training images at 224 px, whole test sets.

    1960 steps are six epochs of the 10,452 training images of DUTS-TR.
    """
    return Scale(
        size=224,
        crop=192,
        steps=steps,
        batch=32,
        rate=rate,
        backbone=backbone,
        backbone_rate=0.2 if backbone else 0.0,
        options=options,
    )


def paper_scale(network: str, **training: Any) -> Scale:
    """A paper's own network, by its name in `PAPER_NETWORKS`, on all images of all test sets."""
    chosen = PAPER_NETWORKS[network]
    return Scale(backbone=chosen.backbone, options=chosen.options, **training)


# Claims ------------------------------------------------------------------------------------------

SALIENCY = ("mae", "max_f", "f")
WEIGHTED = ("weighted_f_exact", "weighted_f_loss", "weighted_f")
CONTOURS = ("contour_ods", "contour_ois")
SEGMENTATION = ("covering", "rand", "variation_of_information", "regions")
SETS = {
    "duts-tr": "DUTS-TR",
    "ecssd": "ECSSD",
    "pascal-s": "PASCAL-S",
    "duts-te": "DUTS-TE",
    "bsds500": "BSDS500",
    "outex": "Outex mosaics",
}
"""Names of the data sets as printed."""
THIRDS = ("smallest third", "middle third", "largest third")
"""Thirds of the images of a test set, by the share of their pixels that is object. Rows of the test
"ecssd, smallest third" are computed from the measures of each image."""
CONTROLS = ("centre", "truth")
"""Control priors: a map without information about the image, and the mask itself."""
PRIORS = ("prior", "prior, cut at 1/2")
"""Names of the maps that are the prior itself, and the prior cut at ½."""


@dataclass(frozen=True)
class Row:
    """A row of a table: one map of a recipe on a test set, and the paper's figures for it."""

    label: str
    recipe: str
    test: str
    map: str | None = None
    """None: the main map of the network."""
    paper: Figures | None = field(default=None, hash=False)
    """None: the figures of the recipe's `paper` for this test set."""


@dataclass(frozen=True)
class Table:
    """A table of measures. folded: hidden until the reader opens it."""

    title: str
    rows: tuple[Row, ...]
    measures: tuple[str, ...] = SALIENCY
    folded: bool = False


@dataclass(frozen=True)
class Effects:
    """Differences between rows, the first minus the second, paired by seed."""

    pairs: tuple[tuple[Row, Row], ...]
    measures: tuple[str, ...] = SALIENCY


@dataclass(frozen=True)
class Bound:
    """Bounds on a measure of a row, or on its difference from another row, paired by seed.

    The maintainers set them for the runs of this repository. minus: The row that is subtracted, or
    None. low, high: Bounds on the mean over seeds. per_seed_min: Lower bound on every seed's value.
    """

    of: Row
    minus: Row | None
    measure: str
    low: float = -math.inf
    high: float = math.inf
    per_seed_min: float = -math.inf


@dataclass(frozen=True)
class EqualWeights:
    """Two recipes whose weights must be equal bit for bit, on a CPU and with equal seeds."""

    first: str
    second: str


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, our tables for it, and the bounds that our results must keep.

    paper: The claim in words, and how it is tested here. why: An explanation of the results. split:
    What has a row of its own, and so its own verdict, in the table of verdicts: each network and
    map that the bounds are about, or each test set. Default: the whole claim has one row. effect:
    What the paper reports, in a few words, if our difference has no printed counterpart.
    """

    title: str
    paper: str
    tables: tuple[Table, ...]
    effects: Effects
    bounds: tuple[Bound, ...] = ()
    equal_weights: tuple[EqualWeights, ...] = ()
    why: str = ""
    split: Literal["network", "test"] | None = None
    effect: str = ""


def row(recipe: str, test: str = "ecssd", label: str = "", **more: Any) -> Row:
    """A row of a recipe. label: Default: the recipe's name."""
    return Row(label or recipe, recipe, test, **more)


def on(test: str, recipe: str, label: str = "") -> Row:
    """A row of a recipe on a test set; its label names the set. label: Default: the recipe's."""
    return row(recipe, test, f"{label or recipe}, {SETS[test]}")


def at_least(
    of: Row, minus: Row | None, measure: str, low: float, per_seed_min: float = -math.inf
) -> Bound:
    """A lower bound on the mean, and one on every seed."""
    return Bound(of, minus, measure, low=low, per_seed_min=per_seed_min)


def at_most(of: Row, minus: Row | None, measure: str, high: float) -> Bound:
    """An upper bound on the mean."""
    return Bound(of, minus, measure, high=high)


def within(of: Row, minus: Row, measure: str, margin: float) -> Bound:
    """Bounds at equal distances from 0, on the difference of two rows."""
    return Bound(of, minus, measure, low=-margin, high=margin)


def per_set(recipes: Iterable[str], measures: tuple[str, ...] = SALIENCY) -> tuple[Table, ...]:
    """One table for each saliency test set; all but that of ECSSD are folded."""
    names = tuple(recipes)
    return tuple(
        Table(SETS[test], tuple(row(name, test) for name in names), measures, test != "ecssd")
        for test in ("ecssd", "pascal-s", "duts-te")
    )


def number(value: float) -> str:
    """A value with three decimals, as the papers print it: .837."""
    text = f"{abs(value):.3f}"
    text = text[1:] if text.startswith("0") else text
    return f"−{text}" if round(value, 3) < 0 else text
