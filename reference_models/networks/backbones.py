"""What the backbones of both frameworks share: their sizes, the bookkeeping of layers, the check of
a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reference_models.errors import InputError
from reference_models.files import misfits
from reference_models.networks.options import BLOCKS, BackboneName

# ImageNet's mean and standard deviation of red, green and blue.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The blocks of MobileNetV2: expansion, channels, how many, stride of the first.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# SqueezeNet's fire modules: channels between, and of each kind behind; (0, channels) is pooling.
SQUEEZENET1_0 = (
    (0, 96),
    (16, 64),
    (16, 64),
    (32, 128),
    (0, 256),
    (32, 128),
    (48, 192),
    (48, 192),
    (64, 256),
    (0, 512),
    (64, 256),
)
# Of VGG-16 and ResNet-101 the channels (before the fourfold) and layers of each stage.
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
RESNET101 = ((64, 3), (128, 4), (256, 23), (512, 3))


class Layers:
    """The layers of a network under construction, with the channels and the stride of each.

    Once the stride would exceed `output_stride`, a layer that strides keeps its own dilation and
    the layers after it are dilated instead: their outputs at every other pixel are those of the
    network that strides.
    """

    def __init__(self, output_stride: int = 32) -> None:
        if output_stride not in (8, 16, 32):
            raise InputError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        self.limit, self.stride, self.dilation = output_stride, 1, 1
        self.modules: dict[str, Any] = {}
        self.channels: list[int] = []
        self.strides: list[int] = []

    def add(self, module: Any, channels: int, name: str | None = None) -> None:
        self.modules[name or str(len(self.modules))] = module
        self.channels.append(channels)
        self.strides.append(self.stride)

    def step(self, stride: int) -> tuple[int, int]:
        """Stride and dilation for a layer that strides, and what holds after it."""
        dilation = self.dilation
        if self.stride * stride > self.limit:
            self.dilation *= stride
            return 1, dilation
        self.stride *= stride
        return stride, dilation

    def until_last(
        self, taps: tuple[int, ...], name: BackboneName
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The layers up to the last tap, and what a file may hold beside their parameters."""
        count = len(self.modules)
        if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < count:
            raise InputError(
                f"taps of {name} must be layers from 0 to {count - 1} in rising order, got {taps}; "
                f"its blocks end at {BLOCKS[name]}"
            )
        names = list(self.modules)
        kept, beyond = names[: taps[-1] + 1], names[taps[-1] + 1 :]
        prefix = "" if name == "resnet101" else "features."
        unused = (*(f"{prefix}{layer}." for layer in beyond), "classifier.", "fc.")
        return {layer: self.modules[layer] for layer in kept}, unused


def read_weights(
    path: Path, load: Callable[[Path], dict[str, Any]], backbone: Any, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """The arrays of a safetensors file that a backbone wants, by torchvision's names.

    Classifier, layers beyond the last tap and `num_batches_tracked` are passed over. All else must
    agree in name and shape, or an `InputError` lists what does not.
    """
    try:
        file = load(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors ({error}); of a .pth file, save the state_dict "
            "with safetensors.torch.save_file"
        ) from None
    given = {
        name: array
        for name, array in file.items()
        if not name.startswith(backbone.unused) and not name.endswith(".num_batches_tracked")
    }
    if found := misfits(given, wanted):
        raise InputError(f"{path} does not hold torchvision's {backbone.name}: {found}")
    return given
