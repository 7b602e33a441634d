"""Backbones in Flax, equal to those of `reference_models.networks.torch.backbones`.

`reference_models.networks.flax.weights` gives their parameters torchvision's names.
"""

from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.nn import relu, relu6
from safetensors.numpy import load_file

from reference_models.networks.backbones import (
    CONNECTED,
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
from reference_models.networks.flax.system import (
    BatchNorm,
    FeatureExtractor,
    Linear,
    average_to,
    conv,
    he,
)
from reference_models.networks.flax.weights import from_torch, to_torch
from reference_models.networks.options import BLOCKS, BackboneName


class Backbone(FeatureExtractor):
    """Images `(N, H, W, 3)` in [0, 1] to the list of the taps' outputs, from fine to coarse.

    Weights are drawn by He's initialiser; load pretrained ones with `load_backbone`.
    """

    standardize: Literal["imagenet", "image"] = "imagenet"
    """See `reference_models.networks.options.Backbone`."""

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
            connected = {k: kept.pop(k) for k in self.order if k.startswith(CONNECTED)}
            self.features = nnx.Dict(kept)
            if connected:
                self.classifier = nnx.Dict(
                    {name.removeprefix(CONNECTED): layer for name, layer in connected.items()}
                )

    def __call__(self, images: Array) -> list[Array]:
        if self.standardize == "image":
            x = standardized(images)
        else:
            mean, std = (np.array(each, np.float32).reshape(1, 1, 1, 3) for each in (MEAN, STD))
            x = (images - mean) / std
        outputs = []
        for place, name in enumerate(self.order):
            x = self.layer(name)(x)
            if place in self.taps:
                outputs.append(x)
        return outputs

    def layer(self, name: str) -> Callable[[Array], Array]:
        if name.startswith(CONNECTED):
            found = getattr(self.classifier, name.removeprefix(CONNECTED))
        else:
            found = getattr(self if self.name == "resnet101" else self.features, name)
        return cast(Callable[[Array], Array], found)


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load a safetensors file with torchvision's names; half precision is converted to single."""
    state = nnx.state(backbone)
    arrays = read_weights(path, load_file, backbone, to_torch(state))
    nnx.update(backbone, from_torch(state, arrays))


def standardized(images: Array) -> Array:
    """Each image with mean 0 and variance 1 over all its values; a constant image becomes 0."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return (images - mean) / jnp.sqrt(images.var(axis=(1, 2, 3), keepdims=True) + 1e-10)


# The three networks ------------------------------------------------------------------------------


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
    for block in mobilenet_v2_blocks(layers, padding):
        layers.add(InvertedResidual(*block, rngs=rngs), block.fan_out)
    layers.add(convolution(320, 1280, 1, rngs=rngs), 1280)
    return Backbone("mobilenet_v2", layers, taps)


def vgg16(
    taps: tuple[int, ...] = BLOCKS["vgg16"], output_stride: int = 32, *, rngs: nnx.Rngs
) -> Backbone:
    """VGG-16 without batch normalisation; 33 layers."""
    layers = Layers(output_stride)
    fan_in = 3
    for channels, repeats in VGG16:
        for _ in range(repeats):
            d = layers.dilation
            layers.add(conv(fan_in, channels, 3, rngs=rngs, dilation=d, kernel_init=he), channels)
            layers.add(relu, channels)
            fan_in = channels
        pools = layers.step(2)[0] == 2
        layers.add(MaxPool(2, 2, around=(0, 0)) if pools else unchanged, channels)
    # These have 119 million weights, so they are made only if they are used.
    used = bool(taps) and taps[-1] >= len(layers.modules)
    for name, side in (("classifier.0", VGG16_SIDE), ("classifier.3", 1)):
        layer = FullyConnected(fan_in, VGG16_CONNECTED, side, rngs) if used else None
        layers.add(layer, VGG16_CONNECTED, name, stride=0)
        fan_in = VGG16_CONNECTED
    return Backbone("vgg16", layers, taps)


def resnet101(
    taps: tuple[int, ...] = BLOCKS["resnet101"],
    output_stride: int = 32,
    normalise_batch: bool = False,
    *,
    rngs: nnx.Rngs,
) -> Backbone:
    """ResNet-101 with strides in the 3 x 3 convolutions; 8 layers.

    normalise_batch: Normalise a training batch by its own statistics.
    """
    layers = Layers(output_stride)
    stride, _ = layers.step(2)
    first = conv(3, 64, 7, rngs=rngs, stride=stride, bias=False, kernel_init=he)
    layers.add(first, 64, "conv1")
    layers.add(BatchNorm(64, rngs) if normalise_batch else StoredNorm(64), 64, "bn1")
    layers.add(relu, 64, "relu")
    layers.add(MaxPool(3, layers.step(2)[0], around=(1, 1)), 64, "maxpool")
    for stage, blocks in enumerate(resnet101_stages(layers), start=1):
        modules = [Bottleneck(*block, normalise_batch, rngs=rngs) for block in blocks]
        layers.add(nnx.Sequential(*modules), 4 * blocks[0].width, f"layer{stage}")
    return Backbone("resnet101", layers, taps)


# Their layers ------------------------------------------------------------------------------------


class Stored(nnx.Variable[Any]):
    """A stored statistic: part of the weights, but not learnt."""


class StoredNorm(nnx.Module):
    """Batch normalisation that uses its stored statistics in training too."""

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
    """A 3 x 3 convolution of each channel separately."""

    def __init__(
        self, channels: int, stride: int, dilation: int, around: tuple[int, int], rngs: nnx.Rngs
    ) -> None:
        self.stride, self.dilation, self.around = stride, dilation, around
        self.kernel = nnx.Param(he(rngs.params(), (3, 3, 1, channels), jnp.float32))

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...]
        inputs = views(x.astype(kernel.dtype), 3, self.stride, self.dilation, self.around)
        # On a CPU XLA's grouped convolution takes 20 times as long.
        return sum(
            view * weight
            for view, weight in zip(inputs, kernel.reshape(9, 1, 1, 1, -1), strict=True)
        )


class MaxPool(nnx.Module):
    """The maximum over a square; the padding zeros do not change a maximum after a ReLU.

    Equal values share the gradient, whereas PyTorch gives it to the first.
    """

    def __init__(self, kernel: int, stride: int, around: tuple[int, int]) -> None:
        self.kernel, self.stride, self.around = kernel, stride, around

    def __call__(self, x: Array) -> Array:
        # XLA's window reduction takes 5 times as long on a CPU.
        return reduce(jnp.maximum, views(x, self.kernel, self.stride, 1, self.around))


def unchanged(x: Array) -> Array:
    return x


class FullyConnected(Linear):
    """A fully connected layer and its ReLU, from maps averaged to `side` x `side` to one pixel."""

    def __init__(self, channels: int, fan_out: int, side: int, rngs: nnx.Rngs) -> None:
        super().__init__(channels * side**2, fan_out, kernel_init=he, rngs=rngs)
        self.side = side

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        x = average_to(x, self.side)
        # The order of PyTorch's weights: channel by channel.
        flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return relu(super().__call__(flat))[:, None, None]


def views(
    x: Array, kernel: int, stride: int, dilation: int, around: tuple[int, int]
) -> list[Array]:
    """The inputs `(N, H, W, C)` of each place of a square kernel, row by row.

    around: zeros before and after each row and column.
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
    """Convolution, normalisation and ReLU6 of MobileNetV2."""
    reach = dilation * (kernel // 2)
    around = (reach, reach) if padding == "both" else (0, 2 * reach)
    filters: nnx.Module
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
    """Block of MobileNetV2: expand, convolve each channel, project."""

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


class Bottleneck(nnx.Module):
    """Block of ResNet: 1 x 1 to `width` channels, 3 x 3, 1 x 1 to 4 `width`, plus the input."""

    def __init__(
        self,
        fan_in: int,
        width: int,
        stride: int,
        dilation: int,
        normalise_batch: bool,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        fan_out = 4 * width
        plain = partial(conv, rngs=rngs, bias=False, kernel_init=he)

        def norm(channels: int, weight: float = 1.0) -> nnx.Module:
            return BatchNorm(channels, rngs) if normalise_batch else StoredNorm(channels, weight)

        self.conv1 = plain(fan_in, width)
        self.bn1 = norm(width)
        self.conv2 = plain(width, width, 3, stride=stride, dilation=dilation)
        self.bn2 = norm(width)
        self.conv3 = plain(width, fan_out)
        # Without batch statistics, random activations would grow about 10^6-fold through 33
        # residual sums.
        self.bn3 = norm(fan_out, weight=0.25)
        if stride == 1 and fan_in == fan_out:
            self.downsample = None
        else:
            self.downsample = nnx.Sequential(plain(fan_in, fan_out, stride=stride), norm(fan_out))

    def __call__(self, x: Array) -> Array:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))
