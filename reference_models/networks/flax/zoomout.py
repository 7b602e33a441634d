"""The squeezed zoomout network of Kolkin et al., ICCV 2017 ("W"), §4, in Flax.

`reference_models.networks.torch.zoomout` is the same, and says how it differs from the paper's.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn import relu

from reference_models.networks.flax.system import Batch, System, conv, resize
from reference_models.networks.options import FBETA, ZoomoutLoss
from saliency_losses.jax import weighted_fbeta_loss


class SqueezeModule(nnx.Module):
    """`(N, h, w, C)` to `(N, h, w, 2 width)`: filters of 1 x 1 and as many of 3 x 3, and a ReLU."""

    def __init__(self, channels: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.near = conv(channels, width, rngs=rngs)
        self.wide = conv(channels, width, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return relu(jnp.concatenate([self.near(x), self.wide(x)], axis=-1))


class Zoomout(System):
    """A squeeze module on every tap, all brought to one resolution, and 1 x 1 layers that classify.

    The classifier's first layer is applied to each tap at its own resolution; what comes of it is
    upsampled from tap to finer tap and summed.

    Args as in `reference_models.networks.torch.zoomout`.
    """

    def __init__(
        self,
        loss: ZoomoutLoss,
        backbone: nnx.Module,
        width: int = 16,
        hidden: int = 32,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.kind: ZoomoutLoss = loss
        self.backbone = backbone
        channels = backbone.channels
        self.squeeze = nnx.List([SqueezeModule(c, width, rngs=rngs) for c in channels])
        self.mix = nnx.List([conv(2 * width, hidden, rngs=rngs) for _ in channels])
        self.classify = conv(hidden, 1, rngs=rngs)

    def __call__(self, taps: list[Array]) -> Array:
        """One logit, `(N, h, w, 1)`, at the resolution of the finest tap."""
        parts = [
            mix(squeeze(tap))
            for tap, squeeze, mix in zip(taps, self.squeeze, self.mix, strict=True)
        ]
        total = parts.pop()
        while parts:
            finer = parts.pop()
            total = finer + resize(total, finer)
        return self.classify(relu(total))

    def loss(self, output: Array, batch: Batch) -> Array:
        logits = resize(output.astype(jnp.float32), batch.images)
        return saliency_loss(self.kind, logits[..., 0], batch.labels)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        logits = resize(output.astype(jnp.float32), batch.images)
        return {"map": jax.nn.sigmoid(logits[..., 0])}


def saliency_loss(kind: ZoomoutLoss, logits: Array, labels: Array) -> Array:
    """The mean over the images. logits float and labels 0/1, both `(N, H, W)`.

    Cross-entropies average over pixels; "2x" doubles those of one class, and "ce-band" leaves out
    the pixels of `border_band`. All others are weighted F-beta losses with the parts of `FBETA`.
    """
    target = labels.astype(logits.dtype)
    each = optax.sigmoid_binary_cross_entropy(logits, target)
    match kind:
        case "ce":
            return each.mean()
        case "ce-2x-foreground":
            return (each * (1 + target)).mean()
        case "ce-2x-background":
            return (each * (2 - target)).mean()
        case "ce-band":
            counted = ~border_band(labels)
            total = (each * counted).sum(axis=(1, 2))
            return (total / jnp.maximum(counted.sum(axis=(1, 2)), 1)).mean()
    parts = FBETA[kind]
    probs = jax.nn.sigmoid(logits)[..., None]
    return weighted_fbeta_loss(
        probs,
        labels[..., None],
        # The printed kernel with θ = 1 has 1.6 at its centre: AE > E everywhere, and A is off.
        theta=1 if parts.a == "off" else 9,
        normalize_kernel=parts.a == "unit",
        error=parts.error,
        distance="euclidean" if parts.b == "euclidean" else "window",
        distance_weights=jnp.ones_like(probs) if parts.b == "off" else None,
    )


def border_band(labels: Array, width: int = 3) -> Array:
    """Pixels with one of the other class at most `width` rows and columns away; bool `(N, H, W)`.

    The image's own border is none.
    """
    salient = jnp.stack([labels == 1, labels != 1], axis=-1).astype(jnp.float32)
    size = 2 * width + 1
    rows = nnx.max_pool(salient, (size, 1), padding=((width, width), (0, 0)))
    near = nnx.max_pool(rows, (1, size), padding=((0, 0), (width, width)))
    return near.sum(axis=-1) == 2
