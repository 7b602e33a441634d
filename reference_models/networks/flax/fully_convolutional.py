"""FCN and DeepLab heads with the class-agnostic loss (Sharma et al., 2021; "C") in Flax.

`reference_models.networks.torch.fully_convolutional` has the same network, and the reasons for its
design.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import relu

from reference_models.networks.flax.metric_learning import (
    discriminative_loss,
    magnet_loss,
    triplet_loss,
)
from reference_models.networks.flax.system import (
    Batch,
    BatchNorm,
    FeatureExtractor,
    System,
    conv,
    cross_entropy,
    resize,
)
from reference_models.networks.options import FullyConvolutionalLoss, FullyConvolutionalOptions
from saliency_losses.jax import cas_loss, class_agnostic_cross_entropy


class FullyConvolutional(System):
    """An FCN or a DeepLab head on pretrained features (C §4.1).

    The head's hidden layer is on the deepest tap. Finer taps, if any, are projected to the same
    number of channels and added from coarse to fine, with a convolution after each sum; the last
    layer gives the scores. The class of the same name in `networks.torch.fully_convolutional` says
    what departs from the paper, in training too.
    """

    def __init__(
        self,
        loss: FullyConvolutionalLoss,
        backbone: FeatureExtractor,
        options: FullyConvolutionalOptions = FullyConvolutionalOptions(),
        *,
        rngs: nnx.Rngs,
    ) -> None:
        options.check_loss(loss)
        width, normalised = options.width, options.normalised
        self.name = loss
        self.backbone = backbone
        self.options = options
        *finer, deepest = backbone.channels
        self.head = (
            ASPP(deepest, width, options.rates, normalised, rngs=rngs)
            if options.head == "deeplab"
            else convolution(deepest, width, normalised=normalised, rngs=rngs)
        )
        if options.head == "deeplab" and normalised:
            smooth = convolution(width, width, normalised=True, rngs=rngs)
            self.head = nnx.Sequential(self.head, relu, smooth)
        self.skips = nnx.List([conv(c, width, rngs=rngs) for c in finer])
        self.decoder = nnx.List([conv(width, width, 3, rngs=rngs) for _ in finer])
        self.scores = conv(width, options.channels, rngs=rngs)

    def __call__(self, taps: list[Array]) -> Array:
        """`(N, h, w, channels)`: logits at the stride of the finest tap."""
        *finer, deepest = taps
        x = relu(self.head(deepest))
        layers = list(zip(finer, self.skips, self.decoder, strict=True))
        for tap, skip, smooth in reversed(layers):
            finer_x = skip(tap)
            x = relu(smooth(finer_x + resize(x, finer_x.shape[1:3])))
        return self.scores(x)

    def loss(self, output: Array, batch: Batch) -> Array:
        logits = resize(output.astype(jnp.float32), batch.images.shape[1:3])
        softmax = jax.nn.softmax(logits)
        match self.name:
            case "ce":
                return cross_entropy(logits, batch.labels % logits.shape[-1], batch.counted)
            case "cace":
                return class_agnostic_cross_entropy(logits, batch.labels, mask=batch.counted)
            case "cace-pixel":
                return class_agnostic_cross_entropy(
                    logits, batch.labels, per="pixel", mask=batch.counted
                )
            case "cas":
                return cas_loss(
                    softmax,
                    batch.labels,
                    num_regions=self.options.regions,
                    alpha=self.options.alpha,
                    average_regions=self.options.regions > 2,
                    mask=batch.counted,
                )
            case "discriminative":
                return discriminative_loss(
                    softmax, batch.labels, self.options.regions, batch.counted
                )
            case "triplet":
                return triplet_loss(softmax, batch.labels, batch.counted)
            case "magnet":
                return magnet_loss(softmax, batch.labels, self.options.regions, batch.counted)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        logits = resize(output.astype(jnp.float32), batch.images.shape[1:3])
        return {"map": jax.nn.softmax(logits)[..., 1]}

    def segmentation(self, output: Array, batch: Batch) -> Array:
        """The channel with the largest score at each pixel, int32 `(N, H, W)`."""
        logits = resize(output.astype(jnp.float32), batch.images.shape[1:3])
        return logits.argmax(axis=-1).astype(jnp.int32)

    def descriptors(self, output: Array, batch: Batch) -> Array:
        return jax.nn.softmax(resize(output.astype(jnp.float32), batch.images.shape[1:3]))


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: convolutions of several dilations, and the image's mean."""

    def __init__(
        self,
        before: int,
        after: int,
        rates: tuple[int, ...],
        normalised: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        layer = partial(convolution, normalised=normalised, rngs=rngs)
        self.near = layer(before, after, kernel=1)
        self.far = nnx.List([layer(before, after, rate) for rate in rates])
        self.whole = layer(before, after, kernel=1)
        self.fusion = layer(after * (2 + len(rates)), after, kernel=1)

    def __call__(self, x: Array) -> Array:
        whole = self.whole(x.mean(axis=(1, 2), keepdims=True))
        branches = [self.near(x), *(far(x) for far in self.far), resize(whole, x.shape[1:3])]
        return self.fusion(relu(jnp.concatenate(branches, axis=-1)))


def convolution(
    before: int,
    after: int,
    dilation: int = 1,
    kernel: int = 3,
    normalised: bool = False,
    *,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """A convolution that keeps the size, followed by batch normalisation if `normalised`."""
    layer = conv(before, after, kernel, dilation=dilation, bias=not normalised, rngs=rngs)
    return nnx.Sequential(layer, BatchNorm(after, rngs)) if normalised else layer
