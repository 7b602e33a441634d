"""Measures over a data set, as Flax metrics (``flax.nnx``).

Needs Flax, ``pip install flax``.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from saliency_losses.core import checks, fmeasure, measures
from saliency_losses.jax import _ops as xp
from saliency_losses.jax.functional import Activation, weighted_fmeasure

try:
    from flax import nnx
except ModuleNotFoundError as error:
    raise ImportError("saliency_losses.jax.metrics needs Flax: pip install flax") from error


class WeightedFMeasure(nnx.Metric):
    """The mean weighted F-measure of all images seen: `weighted_fmeasure`, batch by batch.

    ``metric.update(preds=..., target=...)`` takes maps and masks as `weighted_fmeasure` does, also
    under ``nnx.jit``. The result equals the mean of one call with all images, for any batches. The
    state is the sum of the measures and the number of images.

    An image without foreground has measure 0 and counts, as in the field's programs. One whose
    pixels are all ignored does not count. An image whose measure is NaN makes the mean NaN.

    Args:
        beta: From 1e-9 to 1e9; a larger beta favours recall. In the evaluation programs the
            argument of this name is β².
        normalize: Stretch each map to [0, 1] by its minimum and maximum first, as programs that
            read maps from files do; a constant map stays unchanged.
        spacing: The size of a pixel along each spatial axis, as in `weighted_fmeasure`.
        activation: "sigmoid" or "softmax" if the maps are logits.
        ignore_index: Default: None. A target value whose pixels are ignored.

    Raises:
        ValueError: An option out of range; in `update`, an error of `weighted_fmeasure`.
        TypeError: An option of the wrong type; in `update`, an error of `weighted_fmeasure`.

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
        spacing: Sequence[float] | None = None,
        activation: Activation = None,
        ignore_index: int | None = None,
    ) -> None:
        fmeasure.check_options(xp, beta, normalize, spacing, activation, ignore_index, "mean")
        self.beta = beta
        self.normalize = normalize
        self.spacing = checks.spacing(spacing)
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self.total = nnx.metrics.MetricState(jnp.zeros(2, jnp.float32))
        self.images = nnx.metrics.MetricState(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        """Forget all images."""
        self.total[...] = jnp.zeros(2, jnp.float32)
        self.images[...] = jnp.zeros((), jnp.int32)

    def update(  # type: ignore[override]  # as Flax's own metrics do
        self, *, preds: jax.Array, target: jax.Array, mask: jax.Array | None = None, **_: Any
    ) -> None:
        """Add a batch; arguments for other metrics, which ``nnx.MultiMetric`` passes, are ignored.

        Args:
            preds: ``(N, *spatial, K)`` in [0, 1].
            target: The masks, 0 or 1.
            mask: ``(N,)``, bool, True for images that count, False for padding of the batch.
        """
        each = weighted_fmeasure(
            preds,
            target,
            beta=self.beta,
            normalize=self.normalize,
            spacing=self.spacing,
            activation=self.activation,
            ignore_index=self.ignore_index,
            reduction="none",
        )
        counted = _counted(mask, target, self.ignore_index)
        _add(self.total, each, counted)
        self.images[...] += counted.sum().astype(jnp.int32)

    def compute(self) -> jax.Array:
        """The mean measure of all images so far; NaN without images."""
        mean: jax.Array = self.total[...].sum(0) / self.images[...]
        return mean


class SaliencyMeasures(nnx.Metric):
    """The measures of `saliency_losses.jax.measures` over all images seen, batch by batch.

    ``metric.update(preds=..., target=...)`` takes maps and masks as these functions do, also under
    ``nnx.jit``, and ``metric.compute()`` returns a dictionary of means over the images. Measures
    share their work; the state is their sums.

    An image counts in every measure, also if its mask is empty, but not if all of its pixels are
    ignored. An image whose measure is NaN makes the mean NaN.

    Args:
        names: Default: all. The measures: "mae"; "f", "e" at the adaptive threshold; "max_f",
            "mean_f", "max_e", "mean_e" of the mean curve of 256 thresholds; "s"; "weighted_f" with
            β = 1; "iou", "dice", "boundary_iou" and "boundary_accuracy" at the threshold 0.5.
        normalize: Stretch each map to [0, 1] by its minimum and maximum first, as programs that
            read maps from files do; a constant map stays unchanged.
        activation: "sigmoid" or "softmax" if the maps are logits.
        ignore_index: Default: None. A target value whose pixels are ignored.

    Raises:
        ValueError: An option out of range; in `update`, shapes or values that are wrong.
        TypeError: An option of the wrong type; in `update`, an array of the wrong type.

    Example:
        >>> import jax.numpy as jnp
        >>> from saliency_losses.jax.metrics import SaliencyMeasures
        >>> metric = SaliencyMeasures(names=("mae", "max_f", "s"))
        >>> target = jnp.zeros((1, 8, 8, 1)).at[:, 2:6, 2:6].set(1)
        >>> for probs in (target, 0.8 * target + 0.1):
        ...     metric.update(preds=probs, target=target)
        >>> {name: round(float(value), 3) for name, value in metric.compute().items()}
        {'mae': 0.05, 'max_f': 1.0, 's': 0.984}
    """

    def __init__(
        self,
        *,
        names: Sequence[str] = measures.NAMES,
        normalize: bool = False,
        activation: Activation = None,
        ignore_index: int | None = None,
    ) -> None:
        self.names = measures.check_names(names)
        measures.check_options(normalize, activation, ignore_index)
        self.normalize = normalize
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        for part in measures.parts_of(self.names):
            setattr(self, f"sum_{part}", nnx.metrics.MetricState(_zero(part)))
        self.images = nnx.metrics.MetricState(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        """Forget all images."""
        for part in measures.parts_of(self.names):
            getattr(self, f"sum_{part}")[...] = _zero(part)
        self.images[...] = jnp.zeros((), jnp.int32)

    def update(  # type: ignore[override]  # as Flax's own metrics do
        self, *, preds: jax.Array, target: jax.Array, mask: jax.Array | None = None, **_: Any
    ) -> None:
        """Add a batch; arguments for other metrics, which ``nnx.MultiMetric`` passes, are ignored.

        Args:
            preds: ``(N, *spatial, K)`` in [0, 1].
            target: The masks.
            mask: ``(N,)``, bool, True for images that count, False for padding of the batch.
        """
        parts = measures.saliency_measures(
            xp,
            preds,
            target,
            names=measures.parts_of(self.names),
            normalize=self.normalize,
            activation=self.activation,
            ignore_index=self.ignore_index,
        )
        counted = _counted(mask, target, self.ignore_index)
        for part, each in parts.items():
            _add(getattr(self, f"sum_{part}"), each, counted)
        self.images[...] += counted.sum().astype(jnp.int32)

    def compute(self) -> dict[str, jax.Array]:
        """The measures of all images so far, by name; NaN without images."""
        means = {
            part: getattr(self, f"sum_{part}")[...].sum(0) / self.images[...]
            for part in measures.parts_of(self.names)
        }
        return measures.results(self.names, means)


def _zero(part: str) -> jax.Array:
    return jnp.zeros((2, measures.LEVELS) if part in measures.CURVES else 2, jnp.float32)


def _add(state: nnx.metrics.MetricState, each: jax.Array, counted: jax.Array) -> None:
    """Add the measures of the images that count to a sum, see `measures.added`."""
    kept = jnp.where(counted.reshape(-1, *[1] * (each.ndim - 1)), each, 0)
    state[...] = jnp.stack(measures.added(state[...], kept.sum(0).astype(jnp.float32)))


def _counted(mask: jax.Array | None, target: jax.Array, ignore_index: int | None) -> jax.Array:
    """The images that count, ``(N,)``."""
    counted: jax.Array = ~measures.ignored_images(xp, target, ignore_index)
    if mask is None:
        return counted
    kept: jax.Array = checks.boolean(xp, "mask", mask)
    if kept.shape != counted.shape:
        raise ValueError(
            f"mask must have shape {counted.shape}, one value per image, got {kept.shape}"
        )
    return counted & kept
