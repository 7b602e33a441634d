"""MEnet and its heads (Cai et al., IJCAI 2018; "M") in Flax.

`reference_models.networks.torch.menet` has the same networks, and describes their differences from
the paper's. Both frameworks normalise a training batch by its own biased variance. For evaluation
PyTorch keeps the unbiased variance and Flax the biased one, which is smaller by 1/n, where n is the
number of the batch's pixels at that scale: at most 0.7 % for 16 images of 96 px. With equal
weights, after 20 steps, maps differ by less than 0.001 on average and by at most 0.011.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from reference_models.networks.flax.system import (
    Batch,
    BatchNorm,
    Conv,
    FeatureExtractor,
    IdentityBackbone,
    System,
    average_to,
    conv,
    cross_entropy,
    deconv,
    nearest_resize,
    resize,
)
from reference_models.networks.options import (
    DEEPEST_SIDE,
    FEATURES,
    MEnetLoss,
    MEnetOptions,
    MetricHeadOptions,
    SizeChange,
)
from saliency_losses.jax import metric_loss, semantic_distance


class MEnet(System):
    """An encoder–decoder with one map of the image's size from each of 13 scales (M §2.1).

    `networks.torch.menet.MEnet` says what departs from the paper.
    """

    def __init__(
        self,
        loss: MEnetLoss,
        options: MEnetOptions = MEnetOptions(),
        *,
        rngs: nnx.Rngs,
    ) -> None:
        options.check_loss(loss)
        self.name = loss
        self.backbone = IdentityBackbone()
        self.multi_scale = options.multi_scale
        scales = self.build(options, rngs)
        if options.multi_scale:
            self.scales = nnx.List(self.single(c, rngs) for c in scales)
            self.logits = nnx.Sequential(*normalised(len(scales), 2, side=options.last, rngs=rngs))
            if loss != "ce":
                last = normalised(len(scales), FEATURES, side=options.last, rngs=rngs)
                self.features = nnx.Sequential(*last)
        else:
            self.logits = nnx.Sequential(*normalised(scales[-1], 2, side=options.last, rngs=rngs))

    def build(self, options: MEnetOptions, rngs: nnx.Rngs) -> list[int]:
        """Make the encoder and the decoder, and return the channels of each scale."""
        width, blocks = options.width, options.blocks
        encoded = [min(width * 2**step, options.widest) for step in range(5)]
        self.encoder = nnx.List(
            residual(before, after, blocks, stride=2, rngs=rngs)
            for before, after in zip([3, *encoded], encoded, strict=False)
        )
        self.whole: nnx.Module = conv(encoded[-1], encoded[-1], rngs=rngs)
        decoded = [*reversed(encoded), width]
        deeper = [encoded[-1], *decoded]
        self.decoder = nnx.List(
            residual(below + beside, after, blocks, stride=1, rngs=rngs)
            for below, beside, after in zip(deeper, [*reversed(encoded), 3], decoded, strict=False)
        )
        return [3, *encoded, encoded[-1], *decoded]

    def single(self, channels: int, rngs: nnx.Rngs) -> nnx.Module:
        """The layer that makes one map of a scale."""
        return conv(channels, 1, 3, rngs=rngs)

    def all_scales(self, image: Array) -> list[Array]:
        """The feature maps of every scale, in the order of `build`."""
        skips = [image]
        for block in self.encoder:
            skips.append(block(skips[-1]))
        below = jax.nn.relu(self.whole(skips[-1].mean(axis=(1, 2), keepdims=True)))
        scales = [*skips, below]
        for block, beside in zip(self.decoder, reversed(skips), strict=True):
            below = block(jnp.concatenate([resize(below, beside.shape[1:3]), beside], axis=-1))
            scales.append(below)
        return scales

    def __call__(self, taps: list[Array]) -> Array:
        """Two logits of every pixel, and sixteen features in [−1, 1] unless loss="ce"."""
        image = 4 * taps[0] - 2
        scales = self.all_scales(image)
        if not self.multi_scale:
            return self.logits(scales[-1])
        size = image.shape[1:3]
        singles = zip(self.scales, scales, strict=True)
        maps = jnp.concatenate([resize(single(scale), size) for single, scale in singles], axis=-1)
        if self.name == "ce":
            return self.logits(maps)
        logits = self.logits(jax.lax.stop_gradient(maps) if self.name == "metric-alone" else maps)
        features = jnp.tanh(self.features(maps).astype(jnp.float32))
        return jnp.concatenate([logits.astype(jnp.float32), features], axis=-1)

    def loss(self, output: Array, batch: Batch) -> Array:
        return two_losses(self.name, output, batch)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        return two_maps(self.name, output, batch)

    def descriptors(self, output: Array, batch: Batch) -> Array:
        return unit(output[..., 2:].astype(jnp.float32))


class PaperMEnet(MEnet):
    """MEnet with its 52 convolutions and deconvolutions (M §3.2).

    `networks.torch.menet.PaperMEnet` says what departs from the paper, in training too.
    """

    def build(self, options: MEnetOptions, rngs: nnx.Rngs) -> list[int]:
        encoded = [min(options.width * 2**step, options.widest) for step in range(6)]
        decoded = encoded[-2::-1]
        first, deepest = encoded[0], encoded[-1]
        stem = conv(3, first, 3, bias=False, rngs=rngs)
        self.stem = nnx.Sequential(stem, BatchNorm(first, rngs), jax.nn.relu)
        changes: list[SizeChange] = ["same", "half", "half", "half", "half", "half"]
        self.encoder = nnx.List(
            units(before, after, options.blocks, change, rngs=rngs)
            for before, after, change in zip([first, *encoded[:-1]], encoded, changes, strict=True)
        )
        shrink = conv(deepest, deepest, DEEPEST_SIDE, padding=0, bias=False, rngs=rngs)
        spread = deconv(deepest, deepest, DEEPEST_SIDE, rngs=rngs)
        self.whole = nnx.Sequential(
            *preceded(deepest, shrink, rngs), *preceded(deepest, spread, rngs)
        )
        self.decoder = nnx.List(
            units(below + beside, after, options.blocks, "double", rngs=rngs)
            for below, beside, after in zip(
                [deepest, *decoded[:-1]], encoded[:0:-1], decoded, strict=True
            )
        )
        return [3, *encoded, deepest, *decoded]

    def single(self, channels: int, rngs: nnx.Rngs) -> nnx.Module:
        layer = super().single(channels, rngs)
        return layer if channels == 3 else nnx.Sequential(*preceded(channels, layer, rngs))

    def all_scales(self, image: Array) -> list[Array]:
        x, encoded = self.stem(image), []
        for block in self.encoder:
            x = block(x)
            encoded.append(x)
        below = self.whole(average_to(x, DEEPEST_SIDE))
        scales = [image, *encoded, resize(below, x.shape[1:3])]
        for block, beside in zip(self.decoder, encoded[:0:-1], strict=True):
            below = jnp.concatenate([resize(scales[-1], beside.shape[1:3]), beside], axis=-1)
            scales.append(block(below))
        return scales

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        return two_maps(self.name, output, batch, by_region=True)


class MetricHead(System):
    """MEnet's features and saliency head on a light decoder of pretrained features."""

    def __init__(
        self,
        loss: MEnetLoss,
        backbone: FeatureExtractor,
        options: MetricHeadOptions = MetricHeadOptions(),
        *,
        rngs: nnx.Rngs,
    ) -> None:
        options.check_loss(loss)
        width = options.width
        self.name = loss
        self.backbone = backbone
        self.projections = nnx.List(conv(c, width, rngs=rngs) for c in backbone.channels)
        self.decoder = nnx.List(conv(width, width, 3, rngs=rngs) for _ in backbone.channels)
        self.features = conv(width, FEATURES, rngs=rngs)
        self.logits = conv(FEATURES, 2, rngs=rngs)

    def __call__(self, taps: list[Array]) -> Array:
        """Two logits and sixteen features in [−1, 1], at the stride of the finest tap."""
        layers = list(zip(taps, self.projections, self.decoder, strict=True))
        tap, project, smooth = layers.pop()
        below = jax.nn.relu(smooth(project(tap)))
        for tap, project, smooth in reversed(layers):
            x = project(tap)
            below = jax.nn.relu(smooth(x + resize(below, x.shape[1:3])))
        features = jnp.tanh(self.features(below).astype(jnp.float32))
        held = jax.lax.stop_gradient(features) if self.name == "metric-alone" else features
        return jnp.concatenate([self.logits(held).astype(jnp.float32), features], axis=-1)

    def loss(self, output: Array, batch: Batch) -> Array:
        return two_losses(self.name, output, batch)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        return two_maps(self.name, output, batch)

    def descriptors(self, output: Array, batch: Batch) -> Array:
        return unit(output[..., 2:].astype(jnp.float32))


def two_losses(name: MEnetLoss, output: Array, batch: Batch) -> Array:
    """Cross-entropy at the image's size plus the metric loss at the output's (M eq. 4)."""
    output = output.astype(jnp.float32)
    logits, features = output[..., :2], output[..., 2:]
    entropy = cross_entropy(resize(logits, batch.images.shape[1:3]), batch.labels, batch.counted)
    if name == "ce":
        return entropy
    size = output.shape[1:3]
    return entropy + metric_loss(
        features,
        nearest_resize(batch.labels, size),
        form="pairwise" if name == "metric-pairwise" else "centroid",
        normalize=name != "metric-printed",
        stop_gradient=name == "metric-stop-gradient",
        hard_negatives=name == "metric-hard-negatives",
        mask=None if batch.counted is None else nearest_resize(batch.counted, size),
    )


def two_maps(
    name: MEnetLoss, output: Array, batch: Batch, by_region: bool = False
) -> dict[str, Array]:
    """The saliency head's probability, and the distance to the mean background feature (M eq. 5).

    The mean is over all pixels, weighted by their probability of being background, or `by_region`,
    over the pixels where this probability is at least ½; if there are none, it is the zero vector.
    The features have unit length if the loss compared unit features. The distances are divided by
    the greatest one of their image.
    """
    output = output.astype(jnp.float32)
    logits, features = output[..., :2], output[..., 2:]
    maps = {"saliency head": jax.nn.softmax(resize(logits, batch.images.shape[1:3]))[..., 1]}
    if features.shape[-1] > 0:
        if name != "metric-printed":
            features = unit(features)
        background = jax.nn.softmax(logits)[..., 0]
        if by_region:
            background = (logits[..., 0] >= logits[..., 1]).astype(jnp.float32)
        distance = semantic_distance(features, background)
        distance = resize(distance[..., None], batch.images.shape[1:3])[..., 0]
        greatest = distance.max(axis=(1, 2), keepdims=True)
        maps["semantic distance"] = distance / jnp.where(greatest > 0, greatest, 1)
    return maps


def unit(features: Array) -> Array:
    """Features `(N, h, w, C)` scaled to unit length; zero vectors stay zero."""
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, 1e-12)


class Residual(nnx.Module):
    """Two normalised convolutions and a shortcut; the first convolution may halve the size."""

    def __init__(self, before: int, after: int, stride: int, rngs: nnx.Rngs) -> None:
        self.body = nnx.Sequential(
            *normalised(before, after, stride, rngs=rngs),
            jax.nn.relu,
            *normalised(after, after, rngs=rngs),
        )
        self.shortcut = conv(before, after, stride=stride, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(self.body(x) + self.shortcut(x))


def residual(before: int, after: int, blocks: int, stride: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """`blocks` residual blocks; the first changes channels and size."""
    first = Residual(before, after, stride, rngs)
    return nnx.Sequential(first, *(Residual(after, after, 1, rngs) for _ in range(blocks - 1)))


def normalised(
    before: int, after: int, stride: int = 1, side: int = 3, *, rngs: nnx.Rngs
) -> tuple[Conv, nnx.BatchNorm]:
    """A square convolution and batch normalisation."""
    convolution = conv(before, after, side, stride=stride, bias=False, rngs=rngs)
    # The fast variance, the mean of squares minus the squared mean, suffers from cancellation.
    norm = nnx.BatchNorm(after, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
    return convolution, norm


class Unit(nnx.Module):
    """A residual unit of two convolutions, each normalised before it.

    change: What the first convolution does to the size. "double" is a deconvolution.
    """

    def __init__(self, before: int, after: int, change: SizeChange, rngs: nnx.Rngs) -> None:
        shortcut: nnx.Module | None = None
        match change:
            case "same":
                first: nnx.Module = conv(before, after, 3, bias=False, rngs=rngs)
            case "half":
                first = conv(before, after, 3, stride=2, bias=False, rngs=rngs)
                shortcut = conv(before, after, stride=2, bias=False, rngs=rngs)
            case "double":
                first = deconv(before, after, 4, stride=2, padding=1, rngs=rngs)
                shortcut = deconv(before, after, 2, stride=2, rngs=rngs)
        second = conv(after, after, 3, bias=False, rngs=rngs)
        self.body = nnx.Sequential(*preceded(before, first, rngs), *preceded(after, second, rngs))
        self.shortcut = (
            None if shortcut is None else nnx.Sequential(*preceded(before, shortcut, rngs))
        )

    def __call__(self, x: Array) -> Array:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


def units(
    before: int, after: int, blocks: int, change: SizeChange, rngs: nnx.Rngs
) -> nnx.Sequential:
    """`blocks` residual units; the first changes channels and size."""
    first = Unit(before, after, change, rngs)
    return nnx.Sequential(first, *(Unit(after, after, "same", rngs) for _ in range(blocks - 1)))


def preceded(
    channels: int, layer: nnx.Module, rngs: nnx.Rngs
) -> tuple[Callable[[Array], Array] | nnx.Module, ...]:
    """A layer after batch normalisation and a ReLU."""
    return BatchNorm(channels, rngs), jax.nn.relu, layer
