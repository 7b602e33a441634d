"""Deep supervision in JAX: one loss over several outputs of a network."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

from saliency_losses.core import supervision
from saliency_losses.jax import _ops as xp
from saliency_losses.jax.functional import weighted_fbeta_loss, weighted_fbeta_score

_WEIGHTED = (weighted_fbeta_loss, weighted_fbeta_score)


def deep_supervision(
    loss: Callable[..., jax.Array],
    outputs: Sequence[jax.Array],
    target: jax.Array,
    *,
    weights: Sequence[float] | jax.Array | None = None,
    resize: Literal["bilinear"] | None = "bilinear",
    **arguments: Any,
) -> jax.Array:
    """Weighted sum of a loss over several predictions of one target.

    Each output is first resized to the spatial size of the target::

        Σ_k w_k loss(output_k, target, **arguments)

    The weighted F-beta loss and score, also in a `functools.partial`, compute the distance weights
    of the target once for all outputs.

    Args:
        loss: Any callable that returns the loss of an output and the target.
        outputs: The predictions, ``(N, *spatial, C)`` each, of equal or different spatial sizes.
        target: ``(N, *spatial, C)`` or ``(N, *spatial)``, as the loss takes it.
        weights: w, one number per output, at least 0. Default: 1 each.
        resize: "bilinear": outputs whose size differs from the target's are interpolated linearly
            along each spatial axis, between the centres of pixels. None: all sizes must be equal.
        arguments: Further arguments of the loss, such as ``mask=``, at the size of the target.

    Returns:
        The weighted sum, in the shape of the loss: ``(N,)`` for ``reduction="none"``.

    Raises:
        ValueError: No outputs, a number of weights other than that of outputs, sizes that differ
            with ``resize=None``, or an error of the loss.
        TypeError: One array or a dict instead of a sequence, or an error of the loss.

    Example:
        >>> import jax.numpy as jnp
        >>> from saliency_losses.jax import deep_supervision, weighted_fbeta_loss
        >>> target = jnp.zeros((1, 8, 8, 1)).at[:, 2:6, 2:6].set(1)
        >>> outputs = [target, target[:, ::2, ::2], 1 - target]
        >>> deep_supervision(weighted_fbeta_loss, outputs, target, weights=[1, 0, 0.5]).round(4)
        Array(0.5, dtype=float32)

    References:
        Xie and Tu, Holistically-Nested Edge Detection, ICCV 2015, eq. 1.

    Convention:
        Outputs are interpolated before the loss applies an activation: logits are interpolated as
        logits. No value leaves the range of its map, so probabilities stay in [0, 1].
    """
    return supervision.deep_supervision(
        xp,
        loss,
        outputs,
        target,
        weights=weights,
        resize=resize,
        arguments=arguments,
        weighted=_WEIGHTED,
    )
