"""The published measure over a whole data set, as a metric of Flax (``flax.nnx``).

Needs Flax, ``pip install flax``.
"""

from typing import Any

import jax
import jax.numpy as jnp

from saliency_losses.core import fmeasure
from saliency_losses.jax import _ops as xp
from saliency_losses.jax.functional import Activation, weighted_fmeasure

try:
    from flax import nnx
except ModuleNotFoundError as error:
    raise ImportError("saliency_losses.jax.metrics needs Flax: pip install flax") from error


class WeightedFMeasure(nnx.Metric):
    """The mean weighted F-measure of all images seen: `weighted_fmeasure`, batch by batch.

    ``metric.update(preds=..., target=...)`` takes maps and masks as `weighted_fmeasure` does, also
    under ``nnx.jit``. The result is the mean of one call with all images, however they came in
    batches. The state is the sum of the measures and the number of images.

    An image without foreground has measure 0 and counts, as in the field's programs. An image
    whose measure is NaN makes the mean NaN.

    Args:
        beta: Above 0; a larger one favours recall. The programs' argument of this name is β².
        normalize: Stretch each map to [0, 1] by its minimum and maximum first, as programs that
            read maps from files do; a constant map stays as it is.
        activation: "sigmoid" or "softmax" where maps come as logits.
        ignore_index: Default: None. A target value whose pixels do not count.

    Raises:
        ValueError: An option out of range; in `update`, what `weighted_fmeasure` raises.
        TypeError: An option of the wrong kind; in `update`, what `weighted_fmeasure` raises.

    Example:
        >>> import jax.numpy as jnp
        >>> from saliency_losses.jax.metrics import WeightedFMeasure
        >>> metric = WeightedFMeasure()
        >>> target = jnp.zeros((1, 8, 8, 1)).at[:, 2:6, 2:6].set(1)
        >>> for probs in (target, 0.8 * target + 0.1):
        ...     metric.update(preds=probs, target=target)
        >>> round(float(metric.compute()), 4)
        0.901

    References:
        Margolin, Zelnik-Manor and Tal, How to Evaluate Foreground Maps?, CVPR 2014.
    """

    def __init__(
        self,
        *,
        beta: float = 1.0,
        normalize: bool = False,
        activation: Activation = None,
        ignore_index: int | None = None,
    ) -> None:
        fmeasure.check_options(xp, beta, normalize, activation, ignore_index, "mean")
        self.beta = beta
        self.normalize = normalize
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self.total = nnx.metrics.MetricState(jnp.zeros((), jnp.float32))
        self.images = nnx.metrics.MetricState(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        """Forgets all images."""
        self.total[...] = jnp.zeros((), jnp.float32)
        self.images[...] = jnp.zeros((), jnp.int32)

    def update(  # type: ignore[override]  # Flax's own metrics name their arguments too.
        self, *, preds: jax.Array, target: jax.Array, mask: jax.Array | None = None, **_: Any
    ) -> None:
        """Adds a batch; other arguments, which ``nnx.MultiMetric`` hands to all, are passed over.

        Args:
            preds: ``(N, *spatial, K)`` in [0, 1].
            target: The masks, 0 or 1.
            mask: ``(N,)``, bool, True for the images that count: not those that fill up a batch.
        """
        each = weighted_fmeasure(
            preds,
            target,
            beta=self.beta,
            normalize=self.normalize,
            activation=self.activation,
            ignore_index=self.ignore_index,
            reduction="none",
        )
        counted = jnp.ones(each.shape, bool) if mask is None else mask
        if counted.shape != each.shape or counted.dtype != bool:
            raise ValueError(
                f"mask must be bool of shape {each.shape}, a value for each image, "
                f"got {counted.dtype} of shape {counted.shape}"
            )
        self.total[...] += jnp.where(counted, each, 0).sum().astype(jnp.float32)
        self.images[...] += counted.sum().astype(jnp.int32)

    def compute(self) -> jax.Array:
        """The mean measure so far; NaN without an image."""
        return self.total[...] / self.images[...]
