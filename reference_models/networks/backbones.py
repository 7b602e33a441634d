"""Layer tables, taps and weight files of the backbones, shared by both frameworks."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors import SafetensorError

from reference_models.errors import InputError
from reference_models.files import describe_mismatch
from reference_models.networks.options import BLOCKS, BackboneName

# ImageNet's mean and standard deviation of red, green and blue.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Stages of MobileNetV2: expansion, channels, number of blocks, stride of the first block.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Stages of VGG-16: channels, number of convolutions. Its first fully connected layer sees the last
# stage at 7 x 7; that layer and the second have 4096 channels.
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
VGG16_SIDE, VGG16_CONNECTED = 7, 4096
# Stages of ResNet-101: width, number of blocks. A block has four times the width in channels.
RESNET101 = ((64, 3), (128, 4), (256, 23), (512, 3))


# Prefix of the names of VGG-16's fully connected layers, and suffix of PyTorch's number of batches.
CONNECTED, COUNTER = "classifier.", ".num_batches_tracked"


class Layers:
    """The layers of a network under construction, with the channels and the stride of each.

    Beyond `output_stride`, strides become dilations of the following layers, so that every second
    output equals the strided network's.
    """

    def __init__(self, output_stride: int = 32) -> None:
        if output_stride not in (8, 16, 32):
            raise InputError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        self.limit, self.stride, self.dilation = output_stride, 1, 1
        self.modules: dict[str, Any] = {}
        self.channels: list[int] = []
        self.strides: list[int] = []

    def add(
        self, module: Any, channels: int, name: str | None = None, stride: int | None = None
    ) -> None:
        self.modules[name or str(len(self.modules))] = module
        self.channels.append(channels)
        self.strides.append(self.stride if stride is None else stride)

    def step(self, stride: int) -> tuple[int, int]:
        """Return the stride and dilation of the next layer, and update those after it."""
        dilation = self.dilation
        if self.stride * stride > self.limit:
            self.dilation *= stride
            return 1, dilation
        self.stride *= stride
        return stride, dilation

    def until_last(
        self, taps: tuple[int, ...], name: BackboneName
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The layers up to the last tap, and the prefixes of the other names in a weight file."""
        count = len(self.modules)
        if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < count:
            raise InputError(
                f"taps of {name} must be layers from 0 to {count - 1} in rising order, got {taps}; "
                f"its blocks end at {BLOCKS[name]}"
            )
        names = list(self.modules)
        kept, beyond = names[: taps[-1] + 1], names[taps[-1] + 1 :]
        prefix = "" if name == "resnet101" else "features."
        uses_connected = kept[-1].startswith(CONNECTED)
        unused = (
            *(f"{prefix}{layer}." for layer in beyond if not layer.startswith(CONNECTED)),
            *(f"{layer}." for layer in beyond if layer.startswith(CONNECTED)),
            "classifier.6." if uses_connected else CONNECTED,
            "fc.",
        )
        return {layer: self.modules[layer] for layer in kept}, unused


class MobileBlock(NamedTuple):
    """Arguments of one `InvertedResidual` of MobileNetV2."""

    fan_in: int
    fan_out: int
    expansion: int
    stride: int
    dilation: int
    padding: Literal["both", "end"]


def mobilenet_v2_blocks(layers: Layers, padding: Literal["both", "end"]) -> Iterator[MobileBlock]:
    """The blocks in order; the caller adds each to `layers` before it takes the next."""
    fan_in = 32
    for expansion, channels, repeats, first_stride in MOBILENET_V2:
        for place in range(repeats):
            stride = first_stride if place == 0 else 1
            side = padding if stride == 2 else "both"
            yield MobileBlock(fan_in, channels, expansion, *layers.step(stride), side)
            fan_in = channels


class ResidualBlock(NamedTuple):
    """Arguments of one `Bottleneck` of ResNet-101."""

    fan_in: int
    width: int
    stride: int
    dilation: int


def resnet101_stages(layers: Layers) -> Iterator[list[ResidualBlock]]:
    """The stages in order; the caller adds each to `layers` before it takes the next."""
    fan_in = 64
    for stage, (width, repeats) in enumerate(RESNET101):
        blocks = []
        for place in range(repeats):
            stride = 2 if stage > 0 and place == 0 else 1
            blocks.append(ResidualBlock(fan_in, width, *layers.step(stride)))
            fan_in = 4 * width
        yield blocks


def read_weights(
    path: Path, load: Callable[[Path], dict[str, Any]], backbone: Any, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the arrays of a backbone from a safetensors file with torchvision's names.

    Classifier, layers beyond the last tap and `num_batches_tracked` are ignored. All other names
    and shapes must match `wanted`; otherwise an `InputError` lists the differences.
    """
    try:
        file = load(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors ({error}); load a .pth file with torch.load and "
            "save its state_dict with safetensors.torch.save_file"
        ) from None
    arrays = {
        name: array
        for name, array in file.items()
        if not name.startswith(backbone.unused) and not name.endswith(COUNTER)
    }
    if differences := describe_mismatch(arrays, wanted):
        repair = "choose a file of this network"
        if not any(name.startswith(CONNECTED) for name in arrays) and all(
            name in arrays or name.startswith(CONNECTED) for name in wanted
        ):
            repair = "choose a file with the fully connected layers, which this network uses"
        raise InputError(
            f"{path} does not hold torchvision's {backbone.name}: {differences}; {repair}"
        )
    return arrays
