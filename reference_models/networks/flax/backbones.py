"""The four backbones in Flax, the same as in `reference_models.networks.torch.backbones`.

Parameters carry torchvision's names (`reference_models.networks.flax.weights`)."""

from functools import partial, reduce
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.nn import relu, relu6
from safetensors.numpy import load_file

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
from reference_models.networks.flax.system import conv, he
from reference_models.networks.flax.weights import from_torch, to_torch
from reference_models.networks.options import BLOCKS, BackboneName


class Backbone(nnx.Module):
    """Images `(N, H, W, 3)` in [0, 1] to the list of the taps' outputs, from fine to coarse.

    Initial weights are He's, and good for tests only: load a file with `load_backbone`.
    """

    def __init__(self, name: BackboneName, layers: Layers, taps: tuple[int, ...]) -> None:
        kept, self.unused = layers.until_last(taps, name)
        self.name, self.taps = name, tuple(taps)
        self.channels = tuple(layers.channels[tap] for tap in taps)
        self.strides = tuple(layers.strides[tap] for tap in taps)
        self.order = tuple(kept)
        if name == "resnet101":
            for layer, module in kept.items():
                setattr(self, layer, module)
        else:
            self.features = nnx.Dict(kept)

    def __call__(self, images: Array) -> list[Array]:
        mean, std = (np.array(each, np.float32).reshape(1, 1, 1, 3) for each in (MEAN, STD))
        x = (images - mean) / std
        outputs = []
        layers = self if self.name == "resnet101" else self.features
        for place, layer in enumerate(self.order):
            x = getattr(layers, layer)(x)
            if place in self.taps:
                outputs.append(x)
        return outputs


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load a safetensors file with torchvision's names; half precision becomes single."""
    state = nnx.state(backbone)
    arrays = read_weights(path, load_file, backbone, to_torch(state))
    nnx.update(backbone, from_torch(state, arrays))


# The four networks ------------------------------------------------------------------------------


def mobilenet_v2(
    taps: tuple[int, ...] = (3, 6, 13, 17),
    output_stride: int = 32,
    padding: Literal["both", "end"] = "both",
    *,
    rngs: nnx.Rngs,
) -> Backbone:
    """MobileNetV2 of width 1; 19 layers."""
    layers = Layers(output_stride)
    layers.add(convolution(3, 32, 3, *layers.step(2), padding=padding, rngs=rngs), 32)
    fan_in = 32
    for expansion, channels, repeats, stride in MOBILENET_V2:
        for place in range(repeats):
            asked = stride if place == 0 else 1
            own, side = layers.step(asked), padding if asked == 2 else "both"
            block = InvertedResidual(fan_in, channels, expansion, *own, side, rngs=rngs)
            layers.add(block, channels)
            fan_in = channels
    layers.add(convolution(320, 1280, 1, rngs=rngs), 1280)
    return Backbone("mobilenet_v2", layers, taps)


def squeezenet1_0(taps: tuple[int, ...] = BLOCKS["squeezenet1_0"], *, rngs: nnx.Rngs) -> Backbone:
    """SqueezeNet 1.0; 13 layers, of which 6 and 11 are pooling."""
    layers = Layers()
    stride, _ = layers.step(2)
    layers.add(conv(3, 96, 7, rngs=rngs, stride=stride, padding=0, kernel_init=he), 96)
    layers.add(relu, 96)
    fan_in = 96
    for squeeze, expand in SQUEEZENET1_0:
        if squeeze:
            layers.add(Fire(fan_in, squeeze, expand, rngs=rngs), 2 * expand)
            fan_in = 2 * expand
        else:
            # One more at the end is PyTorch's `ceil_mode`.
            layers.add(MaxPool(3, *layers.step(2), around=(0, 1)), fan_in)
    return Backbone("squeezenet1_0", layers, taps)


def vgg16(
    taps: tuple[int, ...] = BLOCKS["vgg16"], output_stride: int = 32, *, rngs: nnx.Rngs
) -> Backbone:
    """VGG-16 without batch normalisation; 31 layers."""
    layers = Layers(output_stride)
    fan_in = 3
    for channels, repeats in VGG16:
        for _ in range(repeats):
            d = layers.dilation
            layers.add(conv(fan_in, channels, 3, rngs=rngs, dilation=d, kernel_init=he), channels)
            layers.add(relu, channels)
            fan_in = channels
        stride, dilation = layers.step(2)
        around = (0, 0) if stride == 2 else (0, dilation)
        layers.add(MaxPool(2, stride, dilation, around), channels)
    return Backbone("vgg16", layers, taps)


def resnet101(
    taps: tuple[int, ...] = BLOCKS["resnet101"], output_stride: int = 32, *, rngs: nnx.Rngs
) -> Backbone:
    """ResNet-101, the 3 x 3 convolution striding; 8 layers."""
    layers = Layers(output_stride)
    stride, _ = layers.step(2)
    first = conv(3, 64, 7, rngs=rngs, stride=stride, bias=False, kernel_init=he)
    layers.add(first, 64, "conv1")
    layers.add(StoredNorm(64), 64, "bn1")
    layers.add(relu, 64, "relu")
    layers.add(MaxPool(3, *layers.step(2), around=(1, 1)), 64, "maxpool")
    fan_in = 64
    for stage, (width, repeats) in enumerate(RESNET101):
        blocks = []
        for place in range(repeats):
            own = layers.step(2 if stage > 0 and place == 0 else 1)
            blocks.append(Bottleneck(fan_in, width, *own, rngs=rngs))
            fan_in = 4 * width
        layers.add(nnx.Sequential(*blocks), fan_in, f"layer{stage + 1}")
    return Backbone("resnet101", layers, taps)


# Their parts ------------------------------------------------------------------------------------


class Stored(nnx.Variable):
    """What comes with the weights and is not learnt."""


class StoredNorm(nnx.Module):
    """Batch normalisation by its stored statistics, in training too."""

    def __init__(self, channels: int, weight: float = 1.0) -> None:
        self.weight = nnx.Param(jnp.full(channels, weight, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.running_mean = Stored(jnp.zeros(channels, jnp.float32))
        self.running_var = Stored(jnp.ones(channels, jnp.float32))

    def __call__(self, x: Array) -> Array:
        scale = self.weight * jax.lax.rsqrt(self.running_var + 1e-5)
        mean, scale, bias = (
            each.reshape(1, 1, 1, -1) for each in (self.running_mean, scale, self.bias)
        )
        return ((x - mean) * scale + bias).astype(x.dtype)


class Depthwise(nnx.Module):
    """A 3 x 3 convolution of each channel by itself."""

    def __init__(
        self, channels: int, stride: int, dilation: int, around: tuple[int, int], rngs: nnx.Rngs
    ) -> None:
        self.stride, self.dilation, self.around = stride, dilation, around
        self.kernel = nnx.Param(he(rngs.params(), (3, 3, 1, channels), jnp.float32))

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...]
        seen = views(x.astype(kernel.dtype), 3, self.stride, self.dilation, self.around)
        # On a CPU XLA's own convolution in groups takes 20 times as long.
        return sum(
            view * weight for view, weight in zip(seen, kernel.reshape(9, 1, 1, 1, -1), strict=True)
        )


class MaxPool(nnx.Module):
    """The maximum over a square, padded with zeros, which change none after a ReLU.

    Equal values share the gradient, which PyTorch gives to the first.
    """

    def __init__(self, kernel: int, stride: int, dilation: int, around: tuple[int, int]) -> None:
        self.kernel, self.stride, self.dilation, self.around = kernel, stride, dilation, around

    def __call__(self, x: Array) -> Array:
        # XLA's own windows take 5 times as long on a CPU, and have no gradient when dilated.
        return reduce(jnp.maximum, views(x, self.kernel, self.stride, self.dilation, self.around))


def views(
    x: Array, kernel: int, stride: int, dilation: int, around: tuple[int, int]
) -> list[Array]:
    """What each place of a square kernel sees of `(N, H, W, C)`, row by row.

    around: the zeros before and after each row and column.
    """
    x = jnp.pad(x, ((0, 0), around, around, (0, 0)))
    height, width = (side - dilation * (kernel - 1) for side in x.shape[1:3])
    starts = [dilation * place for place in range(kernel)]
    return [
        x[:, top : top + height : stride, left : left + width : stride]
        for top in starts
        for left in starts
    ]


def convolution(
    fan_in: int,
    fan_out: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    depthwise: bool = False,
    padding: Literal["both", "end"] = "both",
    *,
    rngs: nnx.Rngs,
) -> nnx.Sequential:
    """MobileNetV2's convolution, normalisation and ReLU6."""
    reach = dilation * (kernel // 2)
    around = (reach, reach) if padding == "both" else (0, 2 * reach)
    if depthwise:
        filters = Depthwise(fan_out, stride, dilation, around, rngs)
    else:
        filters = conv(
            fan_in,
            fan_out,
            kernel,
            rngs=rngs,
            stride=stride,
            dilation=dilation,
            padding=(around, around),
            bias=False,
            kernel_init=he,
        )
    return nnx.Sequential(filters, StoredNorm(fan_out), relu6)


class InvertedResidual(nnx.Module):
    """MobileNetV2's block: expand, filter each channel, project."""

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        expansion: int,
        stride: int,
        dilation: int,
        padding: Literal["both", "end"],
        *,
        rngs: nnx.Rngs,
    ) -> None:
        width = expansion * fan_in
        expand = [] if expansion == 1 else [convolution(fan_in, width, 1, rngs=rngs)]
        self.conv = nnx.Sequential(
            *expand,
            convolution(width, width, 3, stride, dilation, True, padding, rngs=rngs),
            conv(width, fan_out, rngs=rngs, bias=False, kernel_init=he),
            StoredNorm(fan_out),
        )
        self.residual = fan_in == fan_out

    def __call__(self, x: Array) -> Array:
        return x + self.conv(x) if self.residual else self.conv(x)


class Fire(nnx.Module):
    """SqueezeNet's module: 1 x 1 down, then 1 x 1 and 3 x 3 up, side by side."""

    def __init__(self, fan_in: int, squeeze: int, expand: int, *, rngs: nnx.Rngs) -> None:
        self.squeeze = conv(fan_in, squeeze, rngs=rngs, kernel_init=he)
        self.expand1x1 = conv(squeeze, expand, rngs=rngs, kernel_init=he)
        self.expand3x3 = conv(squeeze, expand, 3, rngs=rngs, kernel_init=he)

    def __call__(self, x: Array) -> Array:
        x = relu(self.squeeze(x))
        return relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], axis=-1))


class Bottleneck(nnx.Module):
    """ResNet's block: 1 x 1 down, 3 x 3, 1 x 1 up to four times the width, plus the input."""

    def __init__(
        self, fan_in: int, width: int, stride: int, dilation: int, *, rngs: nnx.Rngs
    ) -> None:
        fan_out = 4 * width
        plain = partial(conv, rngs=rngs, bias=False, kernel_init=he)
        self.conv1 = plain(fan_in, width)
        self.bn1 = StoredNorm(width)
        self.conv2 = plain(width, width, 3, stride=stride, dilation=dilation)
        self.bn2 = StoredNorm(width)
        self.conv3 = plain(width, fan_out)
        # Without statistics of its own a random network of 33 sums would grow a million times.
        self.bn3 = StoredNorm(fan_out, weight=0.25)
        if stride == 1 and fan_in == fan_out:
            self.downsample = None
        else:
            self.downsample = nnx.Sequential(
                plain(fan_in, fan_out, stride=stride), StoredNorm(fan_out)
            )

    def __call__(self, x: Array) -> Array:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))
