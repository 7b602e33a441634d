"""Network options: losses, layer sizes and backbones, shared by both frameworks.

A `NetworkSpec` determines a network: its training loss, its options and its backbone. The letters
W, C, M, L and R cite the papers listed in README.md.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from reference_models.errors import InputError

SystemName = Literal[
    "small", "menet", "metric-head", "fully-convolutional", "zoomout", "anchors", "relations"
]
OptionValue = int | float | str | bool | tuple[int, ...]
# Metadata of dataclass fields that results omit where they have their default.
OMITTED_AT_DEFAULT = {"omitted": "at default"}

# Backbones ---------------------------------------------------------------------------------------

BackboneName = Literal["mobilenet_v2", "vgg16", "resnet101"]
# The layers of each backbone whose outputs have strides 2, 4, 8, 16 and 32.
BLOCKS: dict[BackboneName, tuple[int, ...]] = {
    "mobilenet_v2": (1, 3, 6, 13, 17),
    "vgg16": (4, 9, 16, 23, 30),
    "resnet101": (2, 4, 5, 6, 7),
}


def blocks_like(taps: Sequence[int], of: BackboneName, to: BackboneName) -> tuple[int, ...]:
    """The blocks of another backbone that have the strides of these layers."""
    last = len(BLOCKS[of]) - 1
    places = {min(bisect_left(BLOCKS[of], tap), last) for tap in taps}
    return tuple(BLOCKS[to][place] for place in sorted(places))


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
    ones need "end", torchvision's "both"."""
    standardize: Literal["imagenet", "image"] = field(
        default="imagenet", metadata=OMITTED_AT_DEFAULT
    )
    """Subtract ImageNet's mean colour and divide by its standard deviations, or ("image") give
    each image mean 0 and variance 1 over all its values (C §4.2)."""


# Options of each network -------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkOptions:
    """Options of a network besides its loss and its backbone."""

    LOSSES: ClassVar[tuple[str, ...]] = ()
    """The training losses that the network has."""
    HAS_BACKBONE: ClassVar[bool] = True
    """Whether the network stands on a pretrained backbone."""

    @property
    def normalises_backbone(self) -> bool:
        """Whether batch normalisation in ResNet-101 uses the statistics of the training batch."""
        return False

    @property
    def normalises_one_pixel(self) -> bool:
        """Whether batch normalisation sees a map of 1 x 1, so that a batch needs two images."""
        return False

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
    direct: bool = False
    """Upsample each tap to the finest one in a single step, as in W, not over the taps between."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width, hidden=self.hidden)
        check_choice("squeeze", self.squeeze, (True, False))
        check_choice("direct", self.direct, (True, False))


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
    normalised: bool = False
    """torchvision's layers, with ResNet-101: batch normalisation in the head and, by the statistics
    of the batch, in the backbone; and a 3 x 3 convolution after the pyramid of "deeplab"."""

    def __post_init__(self) -> None:
        check_choice("head", self.head, ("fcn", "deeplab"))
        check_integers(2, channels=self.channels, regions=self.regions)
        check_integers(1, width=self.width)
        check_sizes("rates", self.rates)
        check_shares(alpha=self.alpha)
        check_choice("normalised", self.normalised, (True, False))

    @property
    def normalises_backbone(self) -> bool:
        return self.normalised

    @property
    def normalises_one_pixel(self) -> bool:
        return self.normalised and self.head == "deeplab"

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
DEEPEST_SIDE = 7
"""Side of the paper's deepest map before it is reduced to 1 x 1, at images of 224 px."""
SizeChange = Literal["same", "half", "double"]
"""Effect of a residual unit on the size of a map."""


@dataclass(frozen=True)
class MEnetOptions(NetworkOptions):
    """MEnet, trained from scratch (M §2.1)."""

    LOSSES = get_args(MEnetLoss)
    HAS_BACKBONE = False

    width: int = 12
    """Channels at stride 2, or at stride 1 in "paper", doubled with each further step."""
    widest: int = 96
    """Upper limit of the channels."""
    blocks: int = 1
    """Residual blocks of two convolutions at each scale; 2 in the paper."""
    layout: Literal["light", "paper"] = "light"
    """The light network of the small and medium scales, or the paper's with deconvolutions."""
    multi_scale: bool = True
    """False omits the maps of 13 scales: the logits come from the decoder ("CE-plain" of M
    Table 4), and there are no features."""
    last: int = 3
    """Side of the kernels of the last convolutions, odd."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width, widest=self.widest, blocks=self.blocks, last=self.last)
        if self.last % 2 == 0:
            raise InputError(f"last must be odd, got {self.last}; pass 1, 3 or 5")
        check_choice("layout", self.layout, ("light", "paper"))
        check_choice("multi_scale", self.multi_scale, (True, False))

    @property
    def normalises_one_pixel(self) -> bool:
        return self.layout == "paper"

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
    normalised: bool = False
    """Batch normalisation after every convolution and a ReLU after every layer, as in L §3.2."""

    def __post_init__(self) -> None:
        check_integers(1, width=self.width, embedding=self.embedding, stride=self.stride)
        check_integers(1, steps=self.steps)
        check_choice("all_rounds", self.all_rounds, (True, False))
        check_choice("region_embedding", self.region_embedding, ("conv", "fc"))
        check_choice("selection", self.selection, ("hard", "soft"))
        check_choice("normalised", self.normalised, (True, False))
        check_shares(flip=self.flip)


RelationLoss = Literal["js-mi"]
LONGEST_GRADIENT = 1.0
"""Limit of the gradient's norm in steps on one image, which diverge on some images otherwise."""


@dataclass(frozen=True)
class RelationOptions(NetworkOptions):
    """The relation model (R §4)."""

    LOSSES = get_args(RelationLoss)

    width: int = 16
    """Channels of each tap after its projection; 0 omits the projection, as in the paper."""
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
    the binary cross-entropy of R eq. 6, and in the paper's network."""
    certain_at_test: float | None = None
    """`certain` at test, which R Table 4 varies. Default: the value in training."""
    steps_per_image: int = 0
    """Steps of gradient descent on each test image and its prior alone, from the network's weights,
    before the maps are computed: 10 in R Table 3, from new weights."""
    rate_per_image: float = 0.2
    """Learning rate of these steps."""

    def __post_init__(self) -> None:
        check_integers(0, width=self.width)
        check_integers(1, embedding=self.embedding, stride=self.stride)
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


# The papers' own networks ------------------------------------------------------------------------


class PaperNetwork(NamedTuple):
    """The backbone and the options of a network as its paper prints it."""

    options: Mapping[str, OptionValue]
    backbone: Backbone | None = None


# The ReLUs after the 13 convolutions of VGG-16, and after fc7.
VGG16_LAYERS = (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29, 32)

RESNET101_AT_8 = Backbone(
    "resnet101", BLOCKS["resnet101"][-1:], output_stride=8, standardize="image"
)

# R §4.1 and §5.3: 32 channels at half the size, a discriminator of five convolutions, and
# cross-entropy over all pairs.
RELATIONS: dict[str, OptionValue] = {
    "width": 0,
    "stride": 2,
    "rates": (6, 12, 18),
    "critic": (64, 64, 64, 64),
    "balance": False,
}
R_LAYERS = (0, 3, 13, 17)

PAPER_NETWORKS: dict[str, PaperNetwork] = {
    # M §2.1 and §3.2; the widths are those of the authors' program.
    "menet": PaperNetwork({"layout": "paper", "width": 32, "widest": 1024, "blocks": 2}),
    # C §4.1: the standard FCN-ResNet-101 and DeepLab-v3.
    "fcn": PaperNetwork({"head": "fcn", "width": 512, "normalised": True}, RESNET101_AT_8),
    "deeplab": PaperNetwork(
        {"head": "deeplab", "width": 256, "rates": (12, 24, 36), "normalised": True},
        RESNET101_AT_8,
    ),
    # W §4: n = 64, and predictions at 224 x 224. The classifier's width is not printed.
    "zoomout": PaperNetwork(
        {"width": 64, "hidden": 64, "direct": True}, Backbone("vgg16", VGG16_LAYERS)
    ),
    # L §3.3: C = 64, D = 512, and embeddings at the resolution of the image.
    "anchors": PaperNetwork(
        {"width": 64, "embedding": 512, "stride": 1, "normalised": True},
        Backbone("vgg16", BLOCKS["vgg16"], output_stride=8),
    ),
    "relations": PaperNetwork(RELATIONS, Backbone("mobilenet_v2", R_LAYERS)),
    # R §5.4, for the comparison with L.
    "relations-vgg": PaperNetwork(
        RELATIONS, Backbone("vgg16", blocks_like(R_LAYERS, "mobilenet_v2", "vgg16"))
    ),
}
"""The networks whose departures from the papers are named in the docstrings of their classes."""


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
