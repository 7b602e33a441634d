"""Network options: losses, layer sizes and backbones, shared by both frameworks.

A `NetworkSpec` determines a network: its training loss, its options and its backbone. The letters
W, C, M, L and R cite the papers listed in README.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from reference_models.errors import InputError

SystemName = Literal[
    "small", "menet", "metric-head", "fully-convolutional", "zoomout", "anchors", "relations"
]
OptionValue = int | float | str | bool

# Backbones ---------------------------------------------------------------------------------------

BackboneName = Literal["mobilenet_v2", "vgg16", "resnet101"]
# The layers of each backbone whose outputs have strides 2, 4, 8, 16 and 32.
BLOCKS: dict[BackboneName, tuple[int, ...]] = {
    "mobilenet_v2": (1, 3, 6, 13, 17),
    "vgg16": (4, 9, 16, 23, 30),
    "resnet101": (2, 4, 5, 6, 7),
}


@dataclass(frozen=True)
class Backbone:
    """The pretrained network under a system."""

    name: BackboneName
    taps: tuple[int, ...]
    """The layers whose outputs the system receives, in rising order."""
    output_stride: int = 32
    """The largest stride. Layers that would exceed it are dilated instead."""
    padding: Literal["both", "end"] = "end"
    """Padding of MobileNetV2's strided convolutions, which must match the weights: the bundled
    ones need "end" (89.0 % of the classes correct; 85.5 % with "both"), torchvision's "both"."""


# Options of each network -------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkOptions:
    """Options of a network besides its loss and its backbone."""

    LOSSES: ClassVar[tuple[str, ...]] = ()
    """The training losses that the network has."""
    HAS_BACKBONE: ClassVar[bool] = True
    """Whether the network stands on a pretrained backbone."""

    def check_loss(self, loss: str) -> None:
        """Raise `InputError` if the network cannot be trained with this loss and these options."""
        if loss not in self.LOSSES:
            raise InputError(f"unknown loss {loss!r}; choose one of {', '.join(self.LOSSES)}")


SmallLoss = Literal[
    "metric",
    "cas",
    "weighted-fbeta",
    "anchor",
    "js-mi",
    "cross-entropy",
    "class-agnostic-cross-entropy",
]
# Output channels of the small network: two logits and features, two logits, one, or an embedding.
CHANNELS: dict[SmallLoss, int] = {
    "metric": 2 + 16,
    "cas": 2,
    "weighted-fbeta": 1,
    "anchor": 16,
    "js-mi": 16,
    "cross-entropy": 2,
    "class-agnostic-cross-entropy": 2,
}


@dataclass(frozen=True)
class SmallOptions(NetworkOptions):
    """The small encoder–decoder, whose sizes are fixed."""

    LOSSES = get_args(SmallLoss)
    HAS_BACKBONE = False


ZoomoutLoss = Literal[
    "ce",
    "ce-2x-foreground",
    "ce-2x-background",
    "ce-band",
    "dice",
    "af",
    "af-no-a",
    "af-no-b",
    "af-unit-kernel",
    "af-absolute",
    "af-euclidean",
    "exact",
    "exact-unit-kernel",
]


class FBeta(NamedTuple):
    """The parts of a weighted F-beta loss; the defaults are W's AF (§3)."""

    error: Literal["squared", "absolute"] = "squared"
    a: Literal["printed", "unit", "off"] = "printed"
    """The kernel of eq. 3: with the constant as printed, with sum 1, or absent."""
    b: Literal["window", "euclidean", "off"] = "window"
    """The distance of eq. 4: within 5 pixels as in §3, exact, or absent."""

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `weighted_fbeta_loss` in either backend.

        With b="off" the caller adds `distance_weights` of ones, an array of its framework.
        """
        return {
            # The kernel as printed with θ = 1 is 1.6 at its centre, so AE > E and A has no effect.
            "theta": 1 if self.a == "off" else 9,
            "normalize_kernel": self.a == "unit",
            "error": self.error,
            "distance": "euclidean" if self.b == "euclidean" else "window",
        }


FBETA: dict[ZoomoutLoss, FBeta] = {
    "dice": FBeta("absolute", a="off", b="off"),
    "af": FBeta(),
    "af-no-a": FBeta(a="off"),
    "af-no-b": FBeta(b="off"),
    "af-unit-kernel": FBeta(a="unit"),
    "af-absolute": FBeta("absolute"),
    "af-euclidean": FBeta(b="euclidean"),
    "exact": FBeta("absolute", b="euclidean"),
    "exact-unit-kernel": FBeta("absolute", a="unit", b="euclidean"),
}


@dataclass(frozen=True)
class ZoomoutOptions(NetworkOptions):
    """The squeezed zoomout network (W §4)."""

    LOSSES = get_args(ZoomoutLoss)

    width: int = 16
    """Filters of each size in a squeeze module: W's n, which is 64 in the paper."""
    hidden: int = 32
    """Channels between the two layers of the classifier."""
    squeeze: bool = True
    """False omits the squeeze modules: the classifier reads the taps themselves, as in the zoomout
    network from which W starts."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width, hidden=self.hidden)
        check_choice("squeeze", self.squeeze, (True, False))


FullyConvolutionalLoss = Literal[
    "ce", "cace", "cace-pixel", "cas", "discriminative", "triplet", "magnet"
]
"""Cross-entropy; cross-entropy with the labels or with exchanged labels, whichever is smaller for
each image ("cace") or each pixel ("cace-pixel"); the class-agnostic loss; or a loss of metric
learning on the same softmax outputs.

In general segmentation "ce" uses the region's number, modulo the channels, as the class: regions
have no other class, which is the point of the comparison."""


@dataclass(frozen=True)
class FullyConvolutionalOptions(NetworkOptions):
    """A segmentation head on pretrained features (C §4.1)."""

    LOSSES = get_args(FullyConvolutionalLoss)

    head: Literal["fcn", "deeplab"] = "fcn"
    """Layers on the deepest tap: one convolution ("fcn"), or parallel dilated convolutions and the
    average over the image ("deeplab", DeepLab-v3)."""
    channels: int = 2
    """Output channels: the classes, or the components of the descriptor."""
    regions: int = 2
    """Number of region labels, 2 for salient objects. Above 2, "cas" averages over the regions and
    their pairs, so that images with many regions do not outweigh the others."""
    width: int = 32
    """Hidden channels."""
    rates: tuple[int, ...] = (1, 2, 3)
    """Dilations of "deeplab", in pixels of the deepest tap."""
    alpha: float = 0.5
    """Weight of the uniformer in "cas"."""

    def __post_init__(self) -> None:
        check_choice("head", self.head, ("fcn", "deeplab"))
        check_integers(2, channels=self.channels, regions=self.regions)
        check_integers(1, width=self.width)
        check_sizes("rates", self.rates)
        check_shares(alpha=self.alpha)

    def check_loss(self, loss: str) -> None:
        super().check_loss(loss)
        if loss in ("cace", "cace-pixel") and (self.channels, self.regions) != (2, 2):
            raise InputError(
                f"loss={loss!r} compares two classes, so channels and regions must be 2, "
                f"got {self.channels} and {self.regions}; use loss='cas' for more"
            )


MEnetLoss = Literal[
    "ce",
    "metric",
    "metric-pairwise",
    "metric-hard-negatives",
    "metric-stop-gradient",
    "metric-printed",
    "metric-alone",
]
"""Cross-entropy alone, or plus the metric loss of unit features: by the means (M eq. 3), over all
pairs (M eq. 2), on equally many pixels of both regions (M §3.2), or with constant means. "printed"
omits the unit length, as M eq. 3 does. "alone" trains the network by the metric loss alone; the
saliency head, which M eq. 5 needs, is fitted to it by cross-entropy without a gradient to it."""
FEATURES = 16
"""Channels of the features that the metric loss compares."""


@dataclass(frozen=True)
class MEnetOptions(NetworkOptions):
    """MEnet, trained from scratch (M §2.1)."""

    LOSSES = get_args(MEnetLoss)
    HAS_BACKBONE = False

    width: int = 12
    """Channels at stride 2, doubled with each further step; 64 gives the paper's size."""
    widest: int = 96
    """Upper limit of the channels."""
    blocks: int = 1
    """Residual blocks of two convolutions at each scale; 2 in the paper."""
    multi_scale: bool = True
    """False omits the maps of 13 scales: the logits come from the decoder ("CE-plain" of M
    Table 4), and there are no features."""
    last: int = 3
    """Side of the kernels of the last convolutions, odd."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width, widest=self.widest, blocks=self.blocks, last=self.last)
        if self.last % 2 == 0:
            raise InputError(f"last must be odd, got {self.last}; pass 1, 3 or 5")
        check_choice("multi_scale", self.multi_scale, (True, False))

    def check_loss(self, loss: str) -> None:
        super().check_loss(loss)
        if loss != "ce" and not self.multi_scale:
            raise InputError(
                f"multi_scale=False gives no features, which loss={loss!r} needs; use loss='ce'"
            )


@dataclass(frozen=True)
class MetricHeadOptions(NetworkOptions):
    """MEnet's two heads on pretrained features."""

    LOSSES = get_args(MEnetLoss)

    width: int = 32
    """Channels of the decoder."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width)


AnchorLoss = Literal["anchors", "ce"]
"""The anchor softmax loss, or cross-entropy on two channels computed from the pixel embedding."""


@dataclass(frozen=True)
class AnchorOptions(NetworkOptions):
    """The anchor network (L §3)."""

    LOSSES = get_args(AnchorLoss)

    width: int = 16
    """C, the channels of each block after upsampling."""
    embedding: int = 32
    """D, the channels of the pixel embedding and of the anchors."""
    stride: int = 4
    """Stride of the common resolution: 1 in the paper."""
    region_embedding: Literal["conv", "fc"] = "conv"
    """Embedding of a region: "conv" averages convolved features over the region; "fc" averages
    first and applies fully connected layers to the average (both in L Fig. 4)."""
    flip: float = 0.05
    """Probability that the label of a pixel is exchanged before the anchors are computed."""
    steps: int = 5
    """T, the number of promotions at test: each computes anchors from a map, and a map from the
    anchors."""
    all_rounds: bool = False
    """True returns the maps of all T promotions at test, not only of the last and the first."""
    selection: Literal["hard", "soft"] = "hard"
    """Salient region of a map at test: "hard" takes the pixels of at least twice the map's mean;
    "soft" weights every pixel by the map and its complement."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width, embedding=self.embedding, stride=self.stride)
        check_integers(1, steps=self.steps)
        check_choice("all_rounds", self.all_rounds, (True, False))
        check_choice("region_embedding", self.region_embedding, ("conv", "fc"))
        check_choice("selection", self.selection, ("hard", "soft"))
        check_shares(flip=self.flip)


RelationLoss = Literal["js-mi"]
LONGEST_GRADIENT = 1.0
"""Limit of the gradient's norm in steps on one image, which diverge on some images otherwise."""


@dataclass(frozen=True)
class RelationOptions(NetworkOptions):
    """The relation model (R §4)."""

    LOSSES = get_args(RelationLoss)

    width: int = 16
    """Channels of each tap after its projection."""
    embedding: int = 32
    """Channels of a pixel's feature: 32 in the paper."""
    stride: int = 4
    """Stride of the common resolution: 2 in the paper."""
    rates: tuple[int, ...] = (1, 3, 6)
    """Dilations of the parallel convolutions, in pixels of the common resolution."""
    critic: tuple[int, ...] = (64, 64)
    """Channels of the critic's hidden layers, one entry for each layer."""
    certain: float = 0.9
    """Pixels with a prior of at least this value contribute to the foreground vector."""
    foreground: float = 0.8
    """Pixels with a prior of at least this value are taken to be salient."""
    background: float = 0.3
    """Pixels with a prior of at most this value are taken to be background."""
    balance: bool = True
    """Give both kinds of pair the same weight, whatever their numbers. False pools all pairs, as in
    the binary cross-entropy of R eq. 6."""
    certain_at_test: float | None = None
    """`certain` at test, which R Table 4 varies. Default: the value in training."""
    steps_per_image: int = 0
    """Steps of gradient descent on each test image and its prior alone, from the network's weights,
    before the maps are computed: 10 in R Table 3, from new weights."""
    rate_per_image: float = 0.2
    """Learning rate of these steps."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width, embedding=self.embedding, stride=self.stride)
        check_sizes("rates", self.rates)
        check_sizes("critic", self.critic)
        check_shares(certain=self.certain, foreground=self.foreground, background=self.background)
        if self.certain_at_test is not None:
            check_shares(certain_at_test=self.certain_at_test)
        check_choice("balance", self.balance, (True, False))
        check_integers(0, steps_per_image=self.steps_per_image)
        if not self.rate_per_image > 0:
            raise InputError(f"rate_per_image must be positive, got {self.rate_per_image!r}")


NETWORK_OPTIONS: dict[SystemName, type[NetworkOptions]] = {
    "small": SmallOptions,
    "menet": MEnetOptions,
    "metric-head": MetricHeadOptions,
    "fully-convolutional": FullyConvolutionalOptions,
    "zoomout": ZoomoutOptions,
    "anchors": AnchorOptions,
    "relations": RelationOptions,
}


def network_options(system: SystemName, values: Mapping[str, OptionValue]) -> NetworkOptions:
    """The options of a system from their names and values."""
    options = NETWORK_OPTIONS[system]
    known = [field.name for field in fields(options)]
    if unknown := [name for name in values if name not in known]:
        raise InputError(
            f"the network {system!r} has no option {unknown[0]!r}; "
            + (f"its options are {', '.join(known)}" if known else "omit it")
        )
    return options(**values)


# A whole network ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkSpec:
    """The training loss, the options and the backbone that determine a network."""

    loss: str
    options: NetworkOptions
    backbone: Backbone | None = None

    def __post_init__(self) -> None:
        self.options.check_loss(self.loss)
        if self.backbone is None and self.options.HAS_BACKBONE:
            raise InputError(f"{type(self.options).__name__} need a backbone; name one")
        if self.backbone is not None and not self.options.HAS_BACKBONE:
            raise InputError(f"{type(self.options).__name__} take no backbone; omit it")


# Checks of values --------------------------------------------------------------------------------


def check_integers(least: int, **values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_sizes(name: str, values: tuple[int, ...]) -> None:
    if not isinstance(values, tuple) or not all(isinstance(v, int) and v >= 1 for v in values):
        raise InputError(f"{name} must be a tuple of integers of at least 1, got {values!r}")


def check_shares(**values: float) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"{name} must lie in 0..1, got {value!r}")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")
