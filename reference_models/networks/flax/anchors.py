"""Anchor network (Zeng et al., CVPR 2018; "L") in Flax.

`reference_models.networks.torch.anchors` has the same network, and describes its differences from
the paper's.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import relu

from reference_models.errors import InputError
from reference_models.networks.flax.system import (
    Batch,
    BatchNorm,
    FeatureExtractor,
    System,
    area_resize,
    conv,
    cross_entropy,
    linear,
    reduced,
    resize,
)
from reference_models.networks.options import AnchorLoss, AnchorOptions
from saliency_losses.jax import (
    anchor_probabilities,
    anchor_softmax_loss,
    flip_labels,
    region_anchors,
    update_prior,
)


class AnchorNetwork(System):
    """Features of all taps at one resolution, a pixel and a region embedding (L §3.3–4).

    `networks.torch.anchors.AnchorNetwork` says what departs from the paper, in training too.
    """

    def __init__(
        self,
        loss: AnchorLoss,
        backbone: FeatureExtractor,
        options: AnchorOptions = AnchorOptions(),
        *,
        rngs: nnx.Rngs,
    ) -> None:
        options.check_loss(loss)
        width, embedding, normalised = options.width, options.embedding, options.normalised
        self.name = loss
        self.backbone = backbone
        self.options = options
        self.blocks = nnx.List(
            [
                rescaling(channels, width, tapped, options.stride, normalised, rngs=rngs)
                for channels, tapped in zip(backbone.channels, backbone.strides, strict=True)
            ]
        )
        joined = width * len(self.blocks)
        self.pixels = two_convolutions(joined, embedding, normalised, rngs=rngs)
        if loss == "ce":
            self.classifier = conv(embedding, 2, rngs=rngs)
        elif options.region_embedding == "conv":
            self.regions = two_convolutions(joined, embedding, normalised, rngs=rngs)
        else:
            layers = (linear(joined, embedding, rngs), relu, linear(embedding, embedding, rngs))
            self.regions = nnx.Sequential(*layers, *((relu,) if normalised else ()))

    def __call__(self, taps: list[Array]) -> Array:
        """The pixel embedding, followed by the features that are averaged over regions.

        The channels are D, then D ("conv") or C for each tap ("fc"); for "ce" two logits.
        """
        blocks = zip(self.blocks, taps, strict=True)
        resized = [relu(block(tap)) for block, tap in blocks]
        # Of equal size already, unless a side of the image is not a multiple of the strides.
        joined = jnp.concatenate([resize(tap, resized[0].shape[1:3]) for tap in resized], axis=-1)
        pixels = self.pixels(joined)
        if self.name == "ce":
            return self.classifier(pixels)
        averaged = self.regions(joined) if self.options.region_embedding == "conv" else joined
        return jnp.concatenate([pixels, averaged], axis=-1)

    def anchors(self, output: Array, salient: Array, counted: Array | None = None) -> Array:
        """`(N, 2, D)`, background first. salient: `(N, h, w)` in [0, 1]. counted: bool `(N, h, w)`,
        the pixels that belong to either region. Default: all."""
        regions = jnp.stack([1 - salient, salient], axis=-1)
        if counted is not None:
            regions = regions * counted[..., None]
        anchors = region_anchors(output[..., self.options.embedding :], regions)
        if self.options.region_embedding == "fc":
            return self.regions(anchors).astype(jnp.float32)
        return anchors

    def loss(self, output: Array, batch: Batch) -> Array:
        output = output.astype(jnp.float32)
        labels, counted = reduced(batch.labels, batch.counted, output.shape[1:3])
        if self.name == "ce":
            return cross_entropy(output, labels, counted)
        salient = flip_labels(labels, self.options.flip, batch.key).astype(jnp.float32)
        anchors = self.anchors(output, salient, counted)
        pixels = output[..., : self.options.embedding]
        return anchor_softmax_loss(pixels, anchors, labels, mask=counted)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        output = output.astype(jnp.float32)
        if self.name == "ce":
            return {"map": jax.nn.softmax(resize(output, batch.images.shape[1:3]))[..., 1]}
        prior = area_resize(batch.prior, output.shape[1:3])
        promoted = {}
        for step in range(1, self.options.steps + 1):
            anchors = self.anchors(output, self.select(prior))
            probabilities = anchor_probabilities(output[..., : self.options.embedding], anchors)
            prior = update_prior(prior, probabilities[..., 1], step)
            promoted[f"T = {step}"] = prior
        size = batch.images.shape[1:3]
        last = f"T = {self.options.steps}"
        others = promoted if self.options.all_rounds else ("T = 1",)
        kept = {name: promoted[name] for name in (last, *others)}
        return {name: resize(one[..., None], size)[..., 0] for name, one in kept.items()}

    def select(self, prior: Array) -> Array:
        """Weights in [0, 1] of the pixels in the salient region, which is never empty if hard."""
        if self.options.selection == "soft":
            return prior
        threshold = jnp.minimum(2 * prior.mean(axis=(1, 2)), prior.max(axis=(1, 2)))
        return (prior >= threshold[:, None, None]).astype(jnp.float32)


def two_convolutions(
    before: int, after: int, normalised: bool, *, rngs: nnx.Rngs
) -> nnx.Sequential:
    """3 x 3, ReLU, 1 x 1; or both with batch normalisation and a ReLU."""
    first = convolution(before, after, 3, 1, normalised, rngs=rngs)
    second = convolution(after, after, 1, 1, normalised, rngs=rngs)
    return nnx.Sequential(*first, relu, *second, *((relu,) if normalised else ()))


def rescaling(
    channels: int, width: int, tapped: int, stride: int, normalised: bool, *, rngs: nnx.Rngs
) -> nnx.Module:
    """A layer from a tap of stride `tapped` to `width` channels at `stride`.

    Subpixel convolution enlarges coarser taps (L §3.3).
    """
    if tapped % stride and stride % tapped:
        raise InputError(
            f"stride={stride} does not fit a tap of stride {tapped}: one must divide the other; "
            "use a power of 2"
        )
    if tapped < stride:
        # The tap is finer than the common resolution, so a strided convolution reduces it.
        layers = convolution(channels, width, 3, stride // tapped, normalised, rngs=rngs)
        return nnx.Sequential(*layers) if normalised else layers[0]
    times = tapped // stride
    layers = convolution(channels, width * times**2, 3, 1, normalised, rngs=rngs)
    return nnx.Sequential(*layers, PixelShuffle(times))


def convolution(
    before: int, after: int, kernel: int, stride: int, normalised: bool, *, rngs: nnx.Rngs
) -> list[nnx.Module]:
    """A convolution, followed by batch normalisation if `normalised`."""
    layer = conv(before, after, kernel, stride=stride, bias=not normalised, rngs=rngs)
    return [layer, BatchNorm(after, rngs)] if normalised else [layer]


class PixelShuffle(nnx.Module):
    """`(N, h, w, C times²)` to `(N, h times, w times, C)`, with PyTorch's order of channels."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, x: Array) -> Array:
        count, height, width, channels = x.shape
        times = self.times
        x = x.reshape(count, height, width, channels // times**2, times, times)
        x = x.transpose(0, 1, 4, 2, 5, 3)
        return x.reshape(count, height * times, width * times, channels // times**2)
