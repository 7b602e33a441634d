"""What is trained, on what, how long, and which row of which paper's table it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from reference_models.errors import InputError
from reference_models.networks.options import (  # noqa: F401  Others import them from here.
    BLOCKS,
    CHANNELS,
    Backbone,
    BackboneName,
    NetworkSpec,
    OptionValue,
    SystemName,
    network_options,
)

ScaleName = Literal["small", "medium"]
Figures = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Paper:
    """A row of a paper's table. Figures by test set (or test set and corruption) and measure."""

    table: str
    row: str
    figures: Figures = field(default_factory=dict)

    def __str__(self) -> str:
        told = (
            f"{test} " + ", ".join(f"{name} {value}" for name, value in values.items())
            for test, values in self.figures.items()
        )
        return f"{self.table}, {self.row}: {'; '.join(told)}"


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
    options: Mapping[str, OptionValue] = field(default_factory=dict)
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
    options: Mapping[str, OptionValue] = field(default_factory=dict)
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

    def __post_init__(self) -> None:
        for scale in (self.small, self.medium):
            self.network(scale)

    def network(self, scale: Scale) -> NetworkSpec:
        """The network at one of the recipe's scales, or at a changed one; its options checked."""
        try:
            options = network_options(self.system, {**self.options, **scale.options})
            return NetworkSpec(self.loss, options, scale.backbone)
        except InputError as error:
            raise InputError(f"recipe {self.name}: {error}") from None

    def at(self, scale: ScaleName) -> Scale:
        return self.small if scale == "small" else self.medium


# Scales ------------------------------------------------------------------------------------------

FIVE = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"])
FOUR = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"][1:])
SALIENCY_TESTS = ("ecssd", "pascal-s", "duts-te")


def small(backbone: Backbone | None, steps: int = 385, rate: float = 1e-3, **options) -> Scale:
    """Frozen features of 1,540 images at 160 px; 300 images of each test set."""
    return Scale(
        size=160, steps=steps, batch=16, rate=rate, backbone=backbone,
        train_images=1540, test_images=300, options=options,
    )  # fmt: skip


def medium(backbone: Backbone | None, steps: int = 1960, rate: float = 3e-3, **options) -> Scale:
    """The whole training set at 224 px in crops of 192, the backbone fine-tuned; whole test sets.

    1960 steps are six times the 10,452 images of DUTS-TR that train.
    """
    return Scale(
        size=224, crop=192, steps=steps, batch=32, rate=rate, backbone=backbone,
        backbone_rate=0.2 if backbone else 0.0, options=options,
    )  # fmt: skip


# The README's network on generated scenes --------------------------------------------------------

SCENES = Scale(size=64, steps=600, batch=16, rate=3e-3, train_images=600)


def scenes(loss: str, about: str, **more) -> Recipe:
    return Recipe(
        f"scenes-{loss}", "small", loss, about, SCENES, SCENES, train="scenes", tests=("scenes",),
        **more,
    )  # fmt: skip


def on_scenes() -> list[Recipe]:
    return [
        scenes("cas", "the masks, but not which side of a mask is the object: that is chosen on "
               "validation images", label_free=True),
        scenes("metric", "the masks: cross-entropy on two channels plus the metric loss on sixteen "
               "features"),
        scenes("weighted-fbeta", "the masks"),
        scenes("anchor", "the masks, with a fifth of the pixels flipped for the anchors; at test "
               "from a prior map", test_priors={"scenes": ("generated",)}),
        scenes("js-mi", "the confident pixels of prior maps alone; masks serve the measures only",
               test_priors={"scenes": ("generated",)}),
        scenes("cross-entropy", "the masks"),
        scenes("class-agnostic-cross-entropy", "the masks, each image up to the exchange of its "
               "two classes; the salient channel is chosen on validation images", label_free=True),
    ]  # fmt: skip


# W: squeezed zoomout network ---------------------------------------------------------------------

W_TABLE_1 = {
    "ce": Paper("W Table 1", "SZN_CE", {
        "ecssd": {"mae": 0.069, "auroc": 0.981, "max_f": 0.905, "weighted_f_exact": 0.796},
        "pascal-s": {"mae": 0.106, "auroc": 0.954, "max_f": 0.833, "weighted_f_exact": 0.657},
    }),
    "af": Paper("W Table 1", "SZN_F", {
        "ecssd": {"mae": 0.073, "auroc": 0.980, "max_f": 0.908, "weighted_f_exact": 0.827},
        "pascal-s": {"mae": 0.109, "auroc": 0.954, "max_f": 0.839, "weighted_f_exact": 0.680},
    }),
}  # fmt: skip
W_TABLE_4 = {
    "af-no-a": (0.976, 0.836, "no A"),
    "af-no-b": (0.975, 0.835, "no B"),
    "ce-2x-foreground": (0.976, 0.834, "cross-entropy, 2x foreground weight"),
    "ce-2x-background": (0.974, 0.797, "cross-entropy, 2x background weight"),
    "ce-band": (0.973, 0.807, "cross-entropy, 3 px don't-care band"),
}


def zoomout() -> list[Recipe]:
    losses = {
        "ce": "cross-entropy",
        "af": "the weighted F-beta loss as the library has it by default (W eq. 7-10)",
        "exact": "the exact measure as a loss: absolute error, Euclidean distance",
        "dice": "soft Dice, the control of the exact measure",
        "af-no-a": "the weighted F-beta loss without A",
        "af-no-b": "the weighted F-beta loss without B",
        "ce-2x-foreground": "cross-entropy, the object's pixels counted twice",
        "ce-2x-background": "cross-entropy, the background's pixels counted twice",
        "ce-band": "cross-entropy, three pixels around the object's border not counted",
        "af-absolute": "the weighted F-beta loss with absolute error",
        "af-euclidean": "the weighted F-beta loss with Euclidean distance",
        "af-unit-kernel": "the weighted F-beta loss, its kernel normalised to sum 1",
        "exact-unit-kernel": "the exact measure as a loss, its kernel normalised to sum 1",
    }
    papers = W_TABLE_1 | {
        loss: Paper("W Table 4", row, {"msra-b": {"auroc": auroc, "weighted_f_exact": f}})
        for loss, (auroc, f, row) in W_TABLE_4.items()
    }
    return [
        Recipe(
            f"zoomout-{loss}", "zoomout", loss, f"the masks, by {about}",
            small(FIVE, rate=3e-3, width=16), medium(FIVE, width=32, hidden=32),
            tests=SALIENCY_TESTS, exact=True, paper=papers.get(loss),
        )
        for loss, about in losses.items()
    ]  # fmt: skip


# C: fully convolutional networks, class-agnostic losses ------------------------------------------


def c_figures(duts: tuple, ecssd: tuple, pascal: tuple) -> Figures:
    sets = {"duts-te": duts, "ecssd": ecssd, "pascal-s": pascal}
    return {name: {"f": f, "mae": mae} for name, (f, mae) in sets.items()}


C_TABLES = {
    ("fcn", "ce", "swapped"): Paper("C Table 1", "ResNet-CE", c_figures(
        (0.427, 0.191), (0.625, 0.178), (0.592, 0.206))),
    ("fcn", "cace", "swapped"): Paper("C Table 1", "ResNet-CACE", c_figures(
        (0.808, 0.103), (0.803, 0.114), (0.754, 0.150))),
    ("fcn", "cas", "swapped"): Paper("C Table 1", "ResNet-CAS", c_figures(
        (0.836, 0.077), (0.837, 0.085), (0.773, 0.126))),
    ("deeplab", "cas", "swapped"): Paper("C Table 1", "DeepLab-CAS", c_figures(
        (0.868, 0.064), (0.875, 0.068), (0.810, 0.110))),
    ("fcn", "ce", "clean"): Paper("C Table 2", "ResNet-CE", c_figures(
        (0.919, 0.055), (0.905, 0.068), (0.876, 0.091))),
    ("fcn", "cas", "clean"): Paper("C Table 2", "ResNet-CAS", c_figures(
        (0.871, 0.071), (0.888, 0.071), (0.840, 0.112))),
    ("deeplab", "ce", "clean"): Paper("C Table 2", "DeepLab-CE", c_figures(
        (0.847, 0.070), (0.867, 0.069), (0.805, 0.110))),
    ("deeplab", "cas", "clean"): Paper("C Table 2", "DeepLab-CAS", c_figures(
        (0.850, 0.070), (0.864, 0.072), (0.800, 0.111))),
}  # fmt: skip


def fully_convolutional() -> list[Recipe]:
    losses = {
        "ce": "cross-entropy",
        "cace": "cross-entropy up to the exchange of labels per image",
        "cace-pixel": "cross-entropy up to the exchange of labels per pixel",
        "cas": "the CAS loss",
    }
    return [
        Recipe(
            f"{head}-{loss}-{labels}", "fully-convolutional", loss,
            f"the masks{', swapped in half of the images' * (labels == 'swapped')}, by {about}",
            small(FOUR, rate=3e-3), medium(FOUR),
            options={"head": head}, tests=SALIENCY_TESTS,
            swap_labels=0.5 * (labels == "swapped"), label_free=loss != "ce",
            paper=C_TABLES.get((head, loss, labels)),
        )
        for head in ("fcn", "deeplab")
        for loss, about in losses.items()
        for labels in ("clean", "swapped")
    ]  # fmt: skip


def general_segmentation() -> list[Recipe]:
    return [
        Recipe(
            f"regions-{loss}-{channels}", "fully-convolutional", loss,
            f"the regions one person drew, at most 16 an image, by {about}, {channels} channels",
            small(FOUR, steps=300, rate=3e-3), medium(FOUR, steps=1200),
            options={"head": "fcn", "channels": channels, "regions": 16},
            train="bsds500", tests=("bsds500",), regions=16,
        )
        for loss, about in (("cas", "the CAS loss"), ("ce", "cross-entropy on region numbers"))
        for channels in (4, 8)
    ]  # fmt: skip


# M: MEnet, and the metric loss on pretrained features --------------------------------------------

DISTORTED = ("noise 0.02", "noise 0.07", "noise 0.15", "noise 0.29", "jpeg 3", "jpeg 6", "jpeg 20")
M_TABLE_4 = {
    "ce-plain": Paper("M Table 4", "CE-plain", {"ecssd": {"f": 0.794, "mae": 0.093}}),
    "ce": Paper("M Table 4", "CE-only", {"ecssd": {"f": 0.855, "mae": 0.072}}),
    "metric-hard-negatives": Paper("M Tables 3 and 4", "MEnet", {
        "ecssd": {"f": 0.880, "mae": 0.060},
        "ecssd, noise of random variance": {"f": 0.716},
        "ecssd, jpeg of random quality": {"f": 0.792},
    }),
}  # fmt: skip


def menet() -> list[Recipe]:
    scratch = {
        "ce-plain": ("ce", False, "cross-entropy, no features of 13 scales"),
        "ce": ("ce", True, "cross-entropy"),
        "metric": ("metric", True, "cross-entropy and the metric loss"),
        "metric-hard-negatives": (
            "metric-hard-negatives",
            True,
            "cross-entropy and the metric loss on hard negatives",
        ),
    }
    head = {
        "ce": "cross-entropy",
        "metric": "cross-entropy and the metric loss",
        "metric-pairwise": "cross-entropy and the metric loss between all pairs (M eq. 2)",
        "metric-hard-negatives": "cross-entropy and the metric loss on hard negatives",
        "metric-stop-gradient": "cross-entropy and the metric loss, its means held constant",
    }
    return [
        Recipe(
            f"menet-{name}", "menet", loss, f"the masks, from scratch, by {about}",
            Scale(size=96, steps=300, batch=16, rate=3e-3, train_images=1540, test_images=300,
                  options={"width": 12}),
            # Eight times the images: 90 minutes on two cores.
            Scale(size=192, crop=160, steps=5230, batch=16, rate=3e-3,
                  options={"width": 16, "widest": 128}),
            options={"multi_scale": multi_scale}, corruptions=DISTORTED,
            paper=M_TABLE_4.get(name),
        )
        for name, (loss, multi_scale, about) in scratch.items()
    ] + [
        Recipe(
            f"metric-head-{loss}", "metric-head", loss,
            f"the masks, on pretrained features, by {about}",
            small(FOUR, rate=3e-3), medium(FOUR), corruptions=DISTORTED,
        )
        for loss, about in head.items()
    ]  # fmt: skip


# L: anchors ---------------------------------------------------------------------------------------

WEAK = ("drfi", "hs", "rc", "chs")
CONTROLS = ("centre", "truth")
L_TABLE_3 = Paper("L Table 3", "DRFI promoted", {"ecssd, drfi": {"f": 0.814, "mae": 0.087}})


def anchors() -> list[Recipe]:
    variants = {
        "anchors": (0.05, "conv", "hard", "5 % of the pixels flipped for the anchors"),
        "anchors-no-flips": (0.0, "conv", "hard", "no pixel flipped for the anchors"),
        "anchors-flips-20": (0.2, "conv", "hard", "20 % of the pixels flipped for the anchors"),
        "anchors-flips-20-soft": (0.2, "conv", "soft", "20 % flips, tested with soft regions"),
        "anchors-fc": (0.05, "fc", "hard", "5 % flips, fully connected region embedding"),
    }
    priors = {"ecssd": (*WEAK, *CONTROLS), "pascal-s": ("run:fcn-ce-clean",)}
    dilated = Backbone("mobilenet_v2", BLOCKS["mobilenet_v2"], output_stride=8)
    # Seven priors of each test image are promoted, so there are fewer images.
    few = replace(small(dilated, steps=400, width=16, embedding=32), test_images=200)
    # Stride 8, as in L, costs 2.5 times as much when the backbone is trained as well.
    whole = medium(replace(dilated, output_stride=16), width=16, embedding=32)
    return [
        Recipe(
            name, "anchors", "anchors", f"the masks, {about}; at test from a prior map",
            few, whole,
            options={"flip": flip, "region_embedding": embedding, "selection": selection},
            tests=("ecssd", "pascal-s"), test_priors=priors,
            paper=L_TABLE_3 if name == "anchors" else None,
        )
        for name, (flip, embedding, selection, about) in variants.items()
    ] + [
        Recipe(
            "anchors-ce", "anchors", "ce", "the masks, by cross-entropy on the anchors' network",
            few, whole, tests=("ecssd", "pascal-s"),
        )
    ]  # fmt: skip


# R: relations ------------------------------------------------------------------------------------


def relations() -> list[Recipe]:
    taps = Backbone("mobilenet_v2", (0, 3, 13, 17))
    priors = {"ecssd": WEAK, "pascal-s": ("run:fcn-ce-clean",)}
    # As in R §5.3 on DUTS-TE: that network's maps of its own training images would be too good.
    return [
        Recipe(
            "relations", "relations", "js-mi",
            "another network's maps of images new to it, no mask; at test from a prior map",
            replace(small(taps, steps=300), test_images=200), medium(taps, steps=980),
            train="duts-te", train_prior="run:fcn-ce-clean",
            tests=("ecssd", "pascal-s"), test_priors=priors,
        ),
        *(
            Recipe(
                f"relations-self-{detector}", "relations", "js-mi",
                f"the maps of {detector.upper()} on the test images themselves, no mask",
                small(taps, steps=400), medium(taps, steps=400), train_prior=detector,
                train="ecssd", learns_on_tests=True, test_priors={"ecssd": (detector,)},
            )
            for detector in ("drfi", "hs", "rc")
        ),
    ]  # fmt: skip


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *on_scenes(), *zoomout(), *fully_convolutional(), *general_segmentation(), *menet(),
        *anchors(), *relations(),
    )
}  # fmt: skip
