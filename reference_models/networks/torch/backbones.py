"""Backbones in PyTorch: MobileNetV2, VGG-16 and ResNet-101, with torchvision's parameter names.

A backbone takes images in [0, 1], normalises them, and returns the outputs of chosen layers, its
taps. Layers are counted from 0 in the order of `features` in torchvision's models; in VGG-16 its
first two fully connected layers follow. Those of ResNet-101 are conv1, bn1, relu, maxpool, layer1
to layer4. Layers beyond the last tap are not built. The sides of a tap are those of the image
divided by the stride, for multiples of 32; a fully connected layer has one pixel, and stride 0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, relu

from reference_models.networks.backbones import (
    CONNECTED,
    COUNTER,
    MEAN,
    STD,
    VGG16,
    VGG16_CONNECTED,
    VGG16_SIDE,
    Layers,
    mobilenet_v2_blocks,
    read_weights,
    resnet101_stages,
)
from reference_models.networks.options import BLOCKS, BackboneName
from reference_models.networks.torch.system import FeatureExtractor


class Backbone(FeatureExtractor):
    """Images `(N, 3, H, W)` in [0, 1] to the list of the taps' outputs, from fine to coarse.

    Weights are drawn by He's initialiser; load pretrained ones with `load_backbone`.
    """

    mean: Tensor
    std: Tensor
    standardize: Literal["imagenet", "image"] = "imagenet"
    """See `reference_models.networks.options.Backbone`."""

    def __init__(self, name: BackboneName, layers: Layers, taps: tuple[int, ...]) -> None:
        super().__init__()
        kept, self.unused = layers.until_last(taps, name)
        self.name, self.taps = name, tuple(taps)
        self.channels = tuple(layers.channels[tap] for tap in taps)
        self.strides = tuple(layers.strides[tap] for tap in taps)
        if name == "resnet101":
            for layer, module in kept.items():
                self.add_module(layer, module)
        else:
            connected = {k: kept.pop(k) for k in list(kept) if k.startswith(CONNECTED)}
            self.features = nn.ModuleDict(kept)
            if connected:
                self.classifier = nn.ModuleDict(
                    {name.removeprefix(CONNECTED): layer for name, layer in connected.items()}
                )
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        per_image = self.standardize == "image"
        x = standardized(images) if per_image else (images - self.mean) / self.std
        outputs = []
        for place, layer in enumerate(self.layers()):
            x = layer(x)
            if place in self.taps:
                outputs.append(x)
        return outputs

    def layers(self) -> Iterator[nn.Module]:
        if self.name == "resnet101":
            yield from self.children()
        else:
            for part in self.children():
                yield from part.children()


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load a safetensors file with torchvision's names; half precision is converted to single."""
    wanted = {name: t for name, t in backbone.state_dict().items() if not name.endswith(COUNTER)}
    # Not strict: PyTorch counts batches, but nothing here reads the count.
    backbone.load_state_dict(read_weights(path, load_file, backbone, wanted), strict=False)


def standardized(images: Tensor) -> Tensor:
    """Each image with mean 0 and variance 1 over all its values; a constant image becomes 0."""
    variance, mean = torch.var_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / (variance + 1e-10).sqrt()


# The three networks ------------------------------------------------------------------------------


def mobilenet_v2(
    taps: tuple[int, ...] = (3, 6, 13, 17),
    output_stride: int = 32,
    padding: Literal["both", "end"] = "both",
) -> Backbone:
    """MobileNetV2 of width 1 (Sandler et al., CVPR 2018); 19 layers.

    padding: where strided convolutions are padded: on both sides as in torchvision, or on the
        right and bottom only as in TensorFlow. It must match the weights.
    """
    layers = Layers(output_stride)
    layers.add(convolution(3, 32, 3, *layers.step(2), padding=padding), 32)
    for block in mobilenet_v2_blocks(layers, padding):
        layers.add(InvertedResidual(*block), block.fan_out)
    layers.add(convolution(320, 1280, 1), 1280)
    return Backbone("mobilenet_v2", layers, taps)


def vgg16(taps: tuple[int, ...] = BLOCKS["vgg16"], output_stride: int = 32) -> Backbone:
    """VGG-16 without batch normalisation (Simonyan and Zisserman, ICLR 2015); 33 layers.

    Each convolution and each ReLU is a layer: the ReLU of conv3_3 is layer 15. Layers 31 and 32 are
    the fully connected fc6 and fc7 with their ReLUs, without dropout. Poolings that would exceed
    `output_stride` are omitted, and the convolutions after them dilated (L §3.3).
    """
    layers = Layers(output_stride)
    fan_in = 3
    for channels, repeats in VGG16:
        for _ in range(repeats):
            d = layers.dilation
            layers.add(nn.Conv2d(fan_in, channels, 3, padding=d, dilation=d), channels)
            layers.add(nn.ReLU(), channels)
            fan_in = channels
        pools = layers.step(2)[0] == 2
        layers.add(nn.MaxPool2d(2) if pools else nn.Identity(), channels)
    # These have 119 million weights, so they are made only if they are used.
    used = bool(taps) and taps[-1] >= len(layers.modules)
    for name, side in (("classifier.0", VGG16_SIDE), ("classifier.3", 1)):
        layer = FullyConnected(fan_in, VGG16_CONNECTED, side) if used else None
        layers.add(layer, VGG16_CONNECTED, name, stride=0)
        fan_in = VGG16_CONNECTED
    return Backbone("vgg16", layers, taps)


def resnet101(
    taps: tuple[int, ...] = BLOCKS["resnet101"],
    output_stride: int = 32,
    normalise_batch: bool = False,
) -> Backbone:
    """ResNet-101 (He et al., CVPR 2016) with strides in the 3 x 3 convolutions; 8 layers.

    normalise_batch: Normalise a training batch by its own statistics, and keep their running means
        for evaluation, in place of statistics that never change.
    """
    layers = Layers(output_stride)
    norm = nn.BatchNorm2d if normalise_batch else StoredNorm
    layers.add(nn.Conv2d(3, 64, 7, layers.step(2)[0], padding=3, bias=False), 64, "conv1")
    layers.add(norm(64), 64, "bn1")
    layers.add(nn.ReLU(), 64, "relu")
    layers.add(nn.MaxPool2d(3, layers.step(2)[0], padding=1), 64, "maxpool")
    for stage, blocks in enumerate(resnet101_stages(layers), start=1):
        modules = [Bottleneck(*block, norm) for block in blocks]
        layers.add(nn.Sequential(*modules), 4 * blocks[0].width, f"layer{stage}")
    return Backbone("resnet101", layers, taps)


# Their layers ------------------------------------------------------------------------------------


class StoredNorm(nn.Module):
    """Batch normalisation that uses its stored statistics in training too, so that an output does
    not depend on the other images of the batch."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class FullyConnected(nn.Linear):
    """A fully connected layer and its ReLU, from maps averaged to `side` x `side` to one pixel.

    At 224 px VGG-16 has maps of 7 x 7, whose averages are the maps themselves.
    """

    def __init__(self, channels: int, fan_out: int, side: int) -> None:
        super().__init__(channels * side**2, fan_out)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.side, self.side):
            x = adaptive_avg_pool2d(x, self.side)
        return relu(super().forward(x.flatten(1)))[:, :, None, None]


def convolution(
    fan_in: int,
    fan_out: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Literal["both", "end"] = "both",
) -> nn.Sequential:
    """Convolution, normalisation and ReLU6 of MobileNetV2."""
    reach = dilation * (kernel // 2)
    around = (reach, reach, reach, reach) if padding == "both" else (0, 2 * reach, 0, 2 * reach)
    layers = nn.Sequential()
    # Named, because torchvision's numbers do not count the padding.
    layers.add_module("pad", nn.ZeroPad2d(around))
    kind = nn.Conv2d if stride == dilation == 1 else Float32OnCPU
    conv = kind(fan_in, fan_out, kernel, stride, dilation=dilation, groups=groups, bias=False)
    for place, layer in enumerate((conv, StoredNorm(fan_out), nn.ReLU6())):
        layers.add_module(str(place), layer)
    return layers


class Float32OnCPU(nn.Conv2d):
    """A convolution that computes in float32 on a CPU, even under autocast: in bfloat16 the
    gradient of a depthwise or first convolution with stride or dilation takes 2 to 25 times as
    long (PyTorch 2.13, AMD EPYC)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class InvertedResidual(nn.Module):
    """Block of MobileNetV2: expand, convolve each channel, project."""

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        expansion: int,
        stride: int,
        dilation: int,
        padding: Literal["both", "end"],
    ) -> None:
        super().__init__()
        width = expansion * fan_in
        expand = [] if expansion == 1 else [convolution(fan_in, width, 1)]
        self.conv = nn.Sequential(
            *expand,
            convolution(width, width, 3, stride, dilation, groups=width, padding=padding),
            nn.Conv2d(width, fan_out, 1, bias=False),
            StoredNorm(fan_out),
        )
        # A block with stride always changes the number of channels, so this test is enough.
        self.residual = fan_in == fan_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class Bottleneck(nn.Module):
    """Block of ResNet: 1 x 1 to `width` channels, 3 x 3, 1 x 1 to 4 `width`, plus the input."""

    def __init__(
        self,
        fan_in: int,
        width: int,
        stride: int,
        dilation: int,
        norm: type[StoredNorm | nn.BatchNorm2d],
    ) -> None:
        super().__init__()
        fan_out = 4 * width
        self.conv1 = nn.Conv2d(fan_in, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, fan_out, 1, bias=False)
        self.bn3 = norm(fan_out)
        if norm is StoredNorm:
            # Without batch statistics, random activations would grow about 10^6-fold through 33
            # residual sums.
            nn.init.constant_(self.bn3.weight, 0.25)
        self.downsample = None
        if stride != 1 or fan_in != fan_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), norm(fan_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))
