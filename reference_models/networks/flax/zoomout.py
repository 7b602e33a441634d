"""Squeezed zoomout network and its losses (Kolkin et al., ICCV 2017, §4; "W") in Flax.

`reference_models.networks.torch.zoomout` has the same network, and describes its differences from
the paper's.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jax.nn import relu

from reference_models.networks.flax.system import (
    Batch,
    FeatureExtractor,
    System,
    conv,
    counted_mean,
    resize,
)
from reference_models.networks.options import FBETA, ZoomoutLoss, ZoomoutOptions
from saliency_losses.jax import weighted_fbeta_loss


class SqueezeModule(nnx.Module):
    """`(N, h, w, C)` to `(N, h, w, 2 width)`: `width` filters of each size, 1 x 1 and 3 x 3.

    wide: False omits those of 3 x 3.
    """

    def __init__(self, channels: int, width: int, wide: bool = True, *, rngs: nnx.Rngs) -> None:
        self.near = conv(channels, width, rngs=rngs)
        self.wide = conv(channels, width, 3, rngs=rngs) if wide else None

    def __call__(self, x: Array) -> Array:
        near = self.near(x)
        return relu(near if self.wide is None else jnp.concatenate([near, self.wide(x)], axis=-1))


class Zoomout(System):
    """A squeeze module on every tap, upsampled to one resolution and classified by 1 x 1 layers.

    The classifier's first layer is applied to each tap at its own resolution; its outputs are
    upsampled and summed, from each tap to the next finer one or, with `options.direct`, to the
    finest one at once. `networks.torch.zoomout.Zoomout` says what departs from the paper, in
    training too.
    """

    def __init__(
        self,
        loss: ZoomoutLoss,
        backbone: FeatureExtractor,
        options: ZoomoutOptions = ZoomoutOptions(),
        *,
        rngs: nnx.Rngs,
    ) -> None:
        options.check_loss(loss)
        width, hidden = options.width, options.hidden
        self.name = loss
        self.backbone = backbone
        self.direct = options.direct
        # A map of one pixel has no neighbours for 3 x 3 filters.
        wide = [stride > 0 for stride in backbone.strides]
        squeezed = zip(backbone.channels, wide, strict=True) if options.squeeze else ()
        self.squeeze = nnx.List(
            [SqueezeModule(channels, width, has_wide, rngs=rngs) for channels, has_wide in squeezed]
        )
        mixed = [2 * width if has_wide else width for has_wide in wide]
        self.mix = nnx.List(
            [
                conv(channels, hidden, rngs=rngs)
                for channels in (mixed if options.squeeze else backbone.channels)
            ]
        )
        self.classify = conv(hidden, 1, rngs=rngs)

    def __call__(self, taps: list[Array]) -> Array:
        """One logit, `(N, h, w, 1)`, at the resolution of the finest tap."""
        if self.squeeze:
            taps = [squeeze(tap) for squeeze, tap in zip(self.squeeze, taps, strict=True)]
        parts = [mix(tap) for mix, tap in zip(self.mix, taps, strict=True)]
        if self.direct:
            total, *coarser = parts
            for part in coarser:
                total = total + resize(part, total.shape[1:3])
        else:
            total = parts.pop()
            while parts:
                finer = parts.pop()
                total = finer + resize(total, finer.shape[1:3])
        return self.classify(relu(total))

    def loss(self, output: Array, batch: Batch) -> Array:
        logits = resize(output.astype(jnp.float32), batch.images.shape[1:3])
        return saliency_loss(self.name, logits[..., 0], batch.labels, batch.counted)

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        logits = resize(output.astype(jnp.float32), batch.images.shape[1:3])
        return {"map": jax.nn.sigmoid(logits[..., 0])}


def saliency_loss(
    kind: ZoomoutLoss, logits: Array, labels: Array, counted: Array | None = None
) -> Array:
    """The training loss, the mean over the images; logits and 0/1 labels are `(N, H, W)`, and so is
    `counted`, False on void pixels.

    Cross-entropies average over pixels: "2x" doubles the weight of one class, and "ce-band" omits
    the pixels of `border_band`. All others are weighted F-beta losses with the parts in `FBETA`.
    """
    target = labels.astype(logits.dtype)
    each = optax.sigmoid_binary_cross_entropy(logits, target)
    match kind:
        case "ce-2x-foreground":
            each *= 1 + target
        case "ce-2x-background":
            each *= 2 - target
        case "ce-band":
            far = ~border_band(labels, counted=counted)
            counted = far if counted is None else far & counted
    if kind in ("ce", "ce-2x-foreground", "ce-2x-background", "ce-band"):
        return each.mean() if counted is None else counted_mean(each, counted)
    parts = FBETA[kind]
    probs = jax.nn.sigmoid(logits)[..., None]
    return weighted_fbeta_loss(
        probs,
        labels[..., None],
        **parts.arguments(),
        distance_weights=jnp.ones_like(probs) if parts.b == "off" else None,
        mask=counted,
    )


def border_band(labels: Array, width: int = 3, counted: Array | None = None) -> Array:
    """Pixels at most `width` rows and columns from a pixel of the other class; bool `(N, H, W)`.

    The edge of the image does not count as a border, and void pixels have no class.
    """
    salient = jnp.stack([labels == 1, labels != 1], axis=-1).astype(jnp.float32)
    if counted is not None:
        salient = salient * counted[..., None]
    size = 2 * width + 1
    rows = nnx.max_pool(salient, (size, 1), padding=((width, width), (0, 0)))
    near = nnx.max_pool(rows, (1, size), padding=((0, 0), (width, width)))
    return near.sum(axis=-1) == 2
