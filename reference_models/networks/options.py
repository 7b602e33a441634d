"""Names, losses and backbones of the networks, the same in both frameworks."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

SystemName = Literal[
    "small", "menet", "metric-head", "fully-convolutional", "zoomout", "anchors", "relations"
]
BackboneName = Literal["mobilenet_v2", "squeezenet1_0", "vgg16", "resnet101"]
# The blocks of each backbone whose outputs have strides 2, 4, 8, 16 and 32;
# SqueezeNet ends at 16.
BLOCKS: dict[BackboneName, tuple[int, ...]] = {
    "mobilenet_v2": (1, 3, 6, 13, 17),
    "squeezenet1_0": (1, 5, 10, 12),
    "vgg16": (4, 9, 16, 23, 30),
    "resnet101": (2, 4, 5, 6, 7),
}


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


SmallLoss = Literal[
    "metric",
    "cas",
    "weighted-fbeta",
    "anchor",
    "js-mi",
    "cross-entropy",
    "class-agnostic-cross-entropy",
]

# What the small network puts out: two logits and features, two logits, one, or an embedding.
CHANNELS: dict[SmallLoss, int] = {
    "metric": 2 + 16,
    "cas": 2,
    "weighted-fbeta": 1,
    "anchor": 16,
    "js-mi": 16,
    "cross-entropy": 2,
    "class-agnostic-cross-entropy": 2,
}


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
    """What a weighted F-beta loss consists of; as it stands, W's AF of §3."""

    error: Literal["squared", "absolute"] = "squared"
    a: Literal["printed", "unit", "off"] = "printed"
    """The kernel of eq. 3: with the constant as printed, with unit sum, or none."""
    b: Literal["window", "euclidean", "off"] = "window"
    """The distance of eq. 4: within 5 pixels as in §3, exact, or none."""


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

MEnetLoss = Literal[
    "ce", "metric", "metric-pairwise", "metric-hard-negatives", "metric-stop-gradient"
]
"""Cross-entropy alone, or plus the metric loss of unit features: by the means (eq. 3), over all
pairs (eq. 2), on equally many pixels of both regions (§3.2), or with the means held constant."""
FEATURES = 16
