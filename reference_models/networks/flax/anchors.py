"""The anchor network (Zeng et al., CVPR 2018; "L"), in Flax.

`reference_models.networks.torch.anchors` is the same.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import relu

from reference_models.errors import InputError
from reference_models.networks.flax.system import (
    Batch,
    System,
    conv,
    cross_entropy,
    linear,
    resize,
    shrink,
)
from saliency_losses.jax import (
    anchor_probabilities,
    anchor_softmax_loss,
    flip_labels,
    region_anchors,
    update_prior,
)


class AnchorNetwork(System):
    """Every block's features brought to one resolution, a pixel and a region embedding (L §3.3–4).

    Args as in `reference_models.networks.torch.anchors`.
    """

    def __init__(
        self,
        loss: Literal["anchors", "ce"],
        backbone: nnx.Module,
        width: int = 16,
        embedding: int = 32,
        stride: int = 4,
        region_embedding: Literal["conv", "fc"] = "conv",
        flip: float = 0.05,
        steps: int = 5,
        selection: Literal["hard", "soft"] = "hard",
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, the first promotion, got {steps}")
        self.name = loss
        self.backbone = backbone
        self.embedding = embedding
        self.region_embedding = region_embedding
        self.flip = flip
        self.steps = steps
        self.selection = selection
        self.blocks = nnx.List(
            [
                rescaling(channels, width, tapped, stride, rngs=rngs)
                for channels, tapped in zip(backbone.channels, backbone.strides, strict=True)
            ]
        )
        joined = width * len(self.blocks)
        self.pixels = nnx.Sequential(
            conv(joined, embedding, 3, rngs=rngs), relu, conv(embedding, embedding, rngs=rngs)
        )
        if loss == "ce":
            self.classifier = conv(embedding, 2, rngs=rngs)
        elif region_embedding == "conv":
            self.regions = nnx.Sequential(
                conv(joined, embedding, 3, rngs=rngs), relu, conv(embedding, embedding, rngs=rngs)
            )
        else:
            self.regions = nnx.Sequential(
                linear(joined, embedding, rngs), relu, linear(embedding, embedding, rngs)
            )

    def __call__(self, taps: list[Array]) -> Array:
        """The pixel embedding, and behind it what is averaged over regions.

        D channels, then D ("conv") or 5 C ("fc"); for "ce" two logits.
        """
        blocks = zip(self.blocks, taps, strict=True)
        brought = [relu(block(tap)) for block, tap in blocks]
        # Equal already, unless the backbone rounds its sides, as SqueezeNet does.
        joined = jnp.concatenate([resize(one, brought[0]) for one in brought], axis=-1)
        pixels = self.pixels(joined)
        if self.name == "ce":
            return self.classifier(pixels)
        averaged = self.regions(joined) if self.region_embedding == "conv" else joined
        return jnp.concatenate([pixels, averaged], axis=-1)

    def anchors(self, output: Array, salient: Array) -> Array:
        """`(N, 2, D)`, background first. salient `(N, h, w)`: the share of each pixel, 0 to 1."""
        regions = jnp.stack([1 - salient, salient], axis=-1)
        anchors = region_anchors(output[..., self.embedding :], regions)
        if self.region_embedding == "fc":
            return self.regions(anchors).astype(jnp.float32)
        return anchors

    def loss(self, output: Array, batch: Batch) -> Array:
        output = output.astype(jnp.float32)
        labels = (shrink(batch.labels.astype(jnp.float32), output) >= 0.5).astype(jnp.int32)
        if self.name == "ce":
            return cross_entropy(output, labels)
        salient = flip_labels(labels, self.flip, batch.key).astype(jnp.float32)
        anchors = self.anchors(output, salient)
        return anchor_softmax_loss(output[..., : self.embedding], anchors, labels)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        output = output.astype(jnp.float32)
        if self.name == "ce":
            return {"map": jax.nn.softmax(resize(output, batch.images))[..., 1]}
        prior = shrink(batch.prior, output)
        promoted = {}
        for step in range(1, self.steps + 1):
            anchors = self.anchors(output, self.select(prior))
            probabilities = anchor_probabilities(output[..., : self.embedding], anchors)
            prior = update_prior(prior, probabilities[..., 1], step)
            promoted[f"T = {step}"] = prior
        last = f"T = {self.steps}"
        kept = {last: promoted[last], "T = 1": promoted["T = 1"]}
        return {name: resize(one[..., None], batch.images)[..., 0] for name, one in kept.items()}

    def select(self, prior: Array) -> Array:
        """Each pixel's share in the salient region, in [0, 1]. A hard region is never empty."""
        if self.selection == "soft":
            return prior
        threshold = jnp.minimum(2 * prior.mean(axis=(1, 2)), prior.max(axis=(1, 2)))
        return (prior >= threshold[:, None, None]).astype(jnp.float32)


def rescaling(channels: int, width: int, tapped: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Module:
    """Features of stride `tapped` to `width` channels at `stride`, by subpixel convolution."""
    if stride < 1 or (tapped % stride and stride % tapped):
        raise InputError(
            f"stride={stride} does not fit a tap of stride {tapped}: one must divide the other; "
            "give a power of 2"
        )
    if tapped < stride:
        # Finer than wanted: the opposite, a strided convolution.
        return conv(channels, width, 3, stride=stride // tapped, rngs=rngs)
    times = tapped // stride
    convolution = conv(channels, width * times**2, 3, rngs=rngs)
    return nnx.Sequential(convolution, PixelShuffle(times))


class PixelShuffle(nnx.Module):
    """`(N, h, w, C times²)` to `(N, h times, w times, C)`; channels in the order of PyTorch's."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, x: Array) -> Array:
        count, height, width, channels = x.shape
        times = self.times
        x = x.reshape(count, height, width, channels // times**2, times, times)
        x = x.transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(count, height * times, width * times, channels // times**2)
