"""Segmentation networks with the class-agnostic loss (Sharma et al., 2021; "C"), in Flax.

`reference_models.networks.torch.fully_convolutional` is the same, and says what was chosen and why.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import relu

from reference_models.errors import InputError
from reference_models.networks.flax.system import Batch, System, conv, cross_entropy, resize
from saliency_losses.jax import cas_loss, class_agnostic_cross_entropy


class FullyConvolutional(System):
    """An FCN or a DeepLab head on the features of another network (C §4.1).

    The deepest tap gets the head's hidden layer. Finer taps, if any, are projected to as many
    channels and added on the way up, a convolution after each sum; then follow the scores.

    Args as in `reference_models.networks.torch.fully_convolutional`.
    """

    def __init__(
        self,
        loss: Literal["ce", "cace", "cace-pixel", "cas"],
        backbone: nnx.Module,
        head: Literal["fcn", "deeplab"] = "fcn",
        channels: int = 2,
        regions: int = 2,
        width: int = 32,
        rates: tuple[int, ...] = (1, 2, 3),
        alpha: float = 0.5,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if loss in ("cace", "cace-pixel") and (channels, regions) != (2, 2):
            raise InputError(
                f"loss={loss!r} compares two classes, so channels and regions must be 2, "
                f"got {channels} and {regions}; for more give 'cas'"
            )
        self.name = loss
        self.backbone = backbone
        self.num_regions = regions
        self.alpha = alpha
        *finer, deepest = backbone.channels
        self.head = (
            ASPP(deepest, width, rates, rngs=rngs)
            if head == "deeplab"
            else conv(deepest, width, 3, rngs=rngs)
        )
        self.skips = nnx.List([conv(c, width, rngs=rngs) for c in finer])
        self.decoder = nnx.List([conv(width, width, 3, rngs=rngs) for _ in finer])
        self.scores = conv(width, channels, rngs=rngs)

    def __call__(self, taps: list[Array]) -> Array:
        """`(N, h, w, channels)`: logits at the stride of the finest tap."""
        *finer, deepest = taps
        x = relu(self.head(deepest))
        layers = list(zip(finer, self.skips, self.decoder, strict=True))
        for tap, skip, smooth in reversed(layers):
            here = skip(tap)
            x = relu(smooth(here + resize(x, here)))
        return self.scores(x)

    def loss(self, output: Array, batch: Batch) -> Array:
        logits = resize(output.astype(jnp.float32), batch.images)
        match self.name:
            case "ce":
                labels = batch.labels % logits.shape[-1]
                return cross_entropy(logits, labels)
            case "cace":
                return class_agnostic_cross_entropy(logits, batch.labels)
            case "cace-pixel":
                return class_agnostic_cross_entropy(logits, batch.labels, per="pixel")
            case "cas":
                return cas_loss(
                    jax.nn.softmax(logits),
                    batch.labels,
                    num_regions=self.num_regions,
                    alpha=self.alpha,
                    average_regions=self.num_regions > 2,
                )

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        logits = resize(output.astype(jnp.float32), batch.images)
        return {"map": jax.nn.softmax(logits)[..., 1]}

    def regions(self, output: Array, batch: Batch) -> Array:
        """The segmentation, int32 `(N, H, W)`: the channel that is greatest at each pixel."""
        logits = resize(output.astype(jnp.float32), batch.images)
        return logits.argmax(axis=-1).astype(jnp.int32)


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling: convolutions of several dilations and the image's mean."""

    def __init__(self, before: int, after: int, rates: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        self.near = conv(before, after, rngs=rngs)
        self.far = nnx.List([conv(before, after, 3, dilation=rate, rngs=rngs) for rate in rates])
        self.whole = conv(before, after, rngs=rngs)
        self.fusion = conv(after * (2 + len(rates)), after, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        whole = self.whole(x.mean(axis=(1, 2), keepdims=True))
        branches = [self.near(x), *(far(x) for far in self.far), resize(whole, x)]
        return self.fusion(relu(jnp.concatenate(branches, axis=-1)))
