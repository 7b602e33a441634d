"""Four classification networks as feature extractors, their parameters named as torchvision's are.

A backbone takes images in [0, 1], normalises them, and returns the outputs of chosen layers, its
taps, counted from 0 in the order of `torchvision.models`' `features`; for ResNet-101, whose stages
stand side by side, in the order conv1, bn1, relu, maxpool, layer1 to layer4. Layers beyond the last
tap are not built. A side that is a multiple of 32 is divided by the stride, except in SqueezeNet,
which does not pad its first convolution.
"""

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu

from reference_models.networks.backbones import (
    MEAN,
    MOBILENET_V2,
    RESNET101,
    SQUEEZENET1_0,
    STD,
    VGG16,
    Layers,
    read_weights,
)
from reference_models.networks.options import BLOCKS, BackboneName


class Backbone(nn.Module):
    """Images `(N, 3, H, W)` in [0, 1] to the list of the taps' outputs, from fine to coarse.

    Initial weights are He's, and good for tests only: load a file with `load_backbone`.
    """

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
            self.features = nn.ModuleDict(kept)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = (images - self.mean) / self.std
        outputs = []
        layers = self if self.name == "resnet101" else self.features
        for place, layer in enumerate(layers.children()):
            x = layer(x)
            if place in self.taps:
                outputs.append(x)
        return outputs


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load a safetensors file with torchvision's names; half precision becomes single."""
    backbone.load_state_dict(read_weights(path, load_file, backbone, backbone.state_dict()))


# The four networks ------------------------------------------------------------------------------


def mobilenet_v2(
    taps: tuple[int, ...] = (3, 6, 13, 17),
    output_stride: int = 32,
    padding: Literal["both", "end"] = "both",
) -> Backbone:
    """MobileNetV2 of width 1 (Sandler et al., CVPR 2018); 19 layers.

    padding: where the convolutions that stride are padded: on both sides, as torchvision does, or
    on the right and bottom only, as TensorFlow does; weights work best with their own.
    """
    layers = Layers(output_stride)
    layers.add(convolution(3, 32, 3, *layers.step(2), padding=padding), 32)
    fan_in = 32
    for expansion, channels, repeats, stride in MOBILENET_V2:
        for place in range(repeats):
            asked = stride if place == 0 else 1
            own, side = layers.step(asked), padding if asked == 2 else "both"
            layers.add(InvertedResidual(fan_in, channels, expansion, *own, side), channels)
            fan_in = channels
    layers.add(convolution(320, 1280, 1), 1280)
    return Backbone("mobilenet_v2", layers, taps)


def squeezenet1_0(taps: tuple[int, ...] = BLOCKS["squeezenet1_0"]) -> Backbone:
    """SqueezeNet 1.0 (Iandola et al., 2016); 13 layers, of which 6 and 11 are pooling.

    Its first convolution and its pooling do not pad: 160 pixels come out as 77, 38, 19 and 9.
    """
    layers = Layers()
    layers.add(nn.Conv2d(3, 96, 7, stride=layers.step(2)[0]), 96)
    layers.add(nn.ReLU(), 96)
    fan_in = 96
    for squeeze, expand in SQUEEZENET1_0:
        if squeeze:
            layers.add(Fire(fan_in, squeeze, expand), 2 * expand)
            fan_in = 2 * expand
        else:
            layers.add(nn.MaxPool2d(3, layers.step(2)[0], ceil_mode=True), fan_in)
    return Backbone("squeezenet1_0", layers, taps)


def vgg16(taps: tuple[int, ...] = BLOCKS["vgg16"], output_stride: int = 32) -> Backbone:
    """VGG-16 without batch normalisation (Simonyan and Zisserman, ICLR 2015); 31 layers.

    Convolutions are layers of their own, the ReLU after each too: conv3_3's is layer 15.
    """
    layers = Layers(output_stride)
    fan_in = 3
    for channels, repeats in VGG16:
        for _ in range(repeats):
            d = layers.dilation
            layers.add(nn.Conv2d(fan_in, channels, 3, padding=d, dilation=d), channels)
            layers.add(nn.ReLU(), channels)
            fan_in = channels
        stride, dilation = layers.step(2)
        pool = nn.MaxPool2d(2, stride, dilation=dilation)
        # Zeros change no maximum after a ReLU.
        pad = nn.ZeroPad2d((0, dilation, 0, dilation))
        layers.add(pool if stride == 2 else nn.Sequential(pad, pool), channels)
    return Backbone("vgg16", layers, taps)


def resnet101(taps: tuple[int, ...] = BLOCKS["resnet101"], output_stride: int = 32) -> Backbone:
    """ResNet-101 (He et al., CVPR 2016), the 3 x 3 convolution striding; 8 layers."""
    layers = Layers(output_stride)
    layers.add(nn.Conv2d(3, 64, 7, layers.step(2)[0], padding=3, bias=False), 64, "conv1")
    layers.add(StoredNorm(64), 64, "bn1")
    layers.add(nn.ReLU(), 64, "relu")
    layers.add(nn.MaxPool2d(3, layers.step(2)[0], padding=1), 64, "maxpool")
    fan_in = 64
    for stage, (width, repeats) in enumerate(RESNET101):
        blocks = []
        for place in range(repeats):
            own = layers.step(2 if stage > 0 and place == 0 else 1)
            blocks.append(Bottleneck(fan_in, width, *own))
            fan_in = 4 * width
        layers.add(nn.Sequential(*blocks), fan_in, f"layer{stage + 1}")
    return Backbone("resnet101", layers, taps)


# Their parts ------------------------------------------------------------------------------------


class StoredNorm(nn.Module):
    """Batch normalisation by its stored statistics, in training too, so that no output depends on
    the other images of a batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def convolution(
    fan_in: int,
    fan_out: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Literal["both", "end"] = "both",
) -> nn.Sequential:
    """MobileNetV2's convolution, normalisation and ReLU6."""
    reach = dilation * (kernel // 2)
    around = (reach, reach, reach, reach) if padding == "both" else (0, 2 * reach, 0, 2 * reach)
    layers = nn.Sequential()
    # The padding stands outside of torchvision's count.
    layers.add_module("pad", nn.ZeroPad2d(around))
    kind = nn.Conv2d if stride == dilation == 1 else Float32OnCPU
    conv = kind(fan_in, fan_out, kernel, stride, dilation=dilation, groups=groups, bias=False)
    for place, layer in enumerate((conv, StoredNorm(fan_out), nn.ReLU6())):
        layers.add_module(str(place), layer)
    return layers


class Float32OnCPU(nn.Conv2d):
    """A convolution that a CPU computes in float32 even under autocast. There the gradient of a
    depthwise or first convolution that strides or dilates takes 2 to 25 times as long in bfloat16
    (PyTorch 2.13, AMD EPYC)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, filter each channel, project."""

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
        # No block of the network strides and keeps its channels.
        self.residual = fan_in == fan_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class Fire(nn.Module):
    """SqueezeNet's module: 1 x 1 down, then 1 x 1 and 3 x 3 up, side by side."""

    def __init__(self, fan_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(fan_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.squeeze(x))
        return relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class Bottleneck(nn.Module):
    """ResNet's block: 1 x 1 down, 3 x 3, 1 x 1 up to four times the width, plus the input."""

    def __init__(self, fan_in: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        fan_out = 4 * width
        self.conv1 = nn.Conv2d(fan_in, width, 1, bias=False)
        self.bn1 = StoredNorm(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = StoredNorm(width)
        self.conv3 = nn.Conv2d(width, fan_out, 1, bias=False)
        self.bn3 = StoredNorm(fan_out)
        # Without statistics of its own a random network of 33 sums would grow a million times.
        nn.init.constant_(self.bn3.weight, 0.25)
        self.downsample = None
        if stride != 1 or fan_in != fan_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), StoredNorm(fan_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))
