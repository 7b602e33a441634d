"""Measures over a data set, as torchmetrics metrics.

Needs torchmetrics, ``pip install torchmetrics``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saliency_losses.core import checks, fmeasure, measures
from saliency_losses.torch import _ops as xp
from saliency_losses.torch.functional import Activation, Reduction, weighted_fmeasure

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat
except ModuleNotFoundError as error:
    raise ImportError(
        "saliency_losses.torch.metrics needs torchmetrics: pip install torchmetrics"
    ) from error


class WeightedFMeasure(Metric):
    """The weighted F-measure of all images seen: `weighted_fmeasure`, batch by batch.

    ``metric.update(preds, target)`` takes maps and masks as `weighted_fmeasure` does. The result
    equals one call with all images, for any batches and any number of processes: each process holds
    the sum of its measures and the number of its images, and both are summed over processes.

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
        reduction: "mean" or "sum" over the images, or "none" for the measure of each image, in the
            order seen, one process after another; all measures are then stored. torchmetrics turns
            the measure of a single image into a scalar.
        kwargs: Arguments of `torchmetrics.Metric`, such as ``sync_on_compute=False``.

    Raises:
        ValueError: An option out of range; in `update`, an error of `weighted_fmeasure`.
        TypeError: An option of the wrong type; in `update`, an error of `weighted_fmeasure`.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.metrics import WeightedFMeasure
        >>> metric = WeightedFMeasure()
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> for probs in (target, 0.8 * target + 0.1):
        ...     metric.update(probs, target)
        >>> metric.compute()
        tensor(0.9010)

    References:
        Margolin, Zelnik-Manor and Tal, How to Evaluate Foreground Maps?, CVPR 2014.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    total: Tensor
    images: Tensor
    measures: list[Tensor]

    def __init__(
        self,
        *,
        beta: float = 1.0,
        normalize: bool = False,
        spacing: Sequence[float] | None = None,
        activation: Activation = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        fmeasure.check_options(xp, beta, normalize, spacing, activation, ignore_index, reduction)
        self.beta = beta
        self.normalize = normalize
        self.spacing = checks.spacing(spacing)
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction
        if reduction == "none":
            self.add_state("measures", [], dist_reduce_fx="cat")
        else:
            self.add_state("total", torch.zeros(2), dist_reduce_fx=_sum)
            self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        _distinguish(self, (beta, normalize, self.spacing, activation, ignore_index))

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of maps ``(N, K, *spatial)`` in [0, 1] and their masks."""
        with torch.no_grad():
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
            ignored = measures.ignored_images(xp, target, self.ignore_index)
        if self.reduction == "none":
            self.measures.append(each)
        else:
            self.total = _added(self.total, each, ignored)
            self.images = self.images + (~ignored).sum()

    def compute(self) -> Tensor:
        """The measure of all images so far; the mean of no images is NaN."""
        if self.reduction == "none":
            measures: Tensor = dim_zero_cat(self.measures)
            return measures
        total = self.total.sum(0)
        return total / self.images if self.reduction == "mean" else total


class SaliencyMeasures(Metric):
    """The measures of `saliency_losses.torch.measures` over all images seen, batch by batch.

    ``metric.update(preds, target)`` takes maps and masks as these functions do, and
    ``metric.compute()`` returns a dictionary of means over the images. Measures share their work,
    and each process holds the sums only, which are added over processes.

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
        kwargs: Arguments of `torchmetrics.Metric`, such as ``sync_on_compute=False``.

    Raises:
        ValueError: An option out of range; in `update`, shapes or values that are wrong.
        TypeError: An option of the wrong type; in `update`, an array of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.metrics import SaliencyMeasures
        >>> metric = SaliencyMeasures(names=("mae", "max_f", "s"))
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> for probs in (target, 0.8 * target + 0.1):
        ...     metric.update(probs, target)
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'mae': 0.05, 'max_f': 1.0, 's': 0.984}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    images: Tensor

    def __init__(
        self,
        *,
        names: Sequence[str] = measures.NAMES,
        normalize: bool = False,
        activation: Activation = None,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.names = measures.check_names(names)
        measures.check_options(normalize, activation, ignore_index)
        self.normalize = normalize
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        for part in measures.parts_of(self.names):
            zero = torch.zeros((2, measures.LEVELS) if part in measures.CURVES else 2)
            self.add_state(f"sum_{part}", zero, dist_reduce_fx=_sum)
        _distinguish(self, (normalize, activation, ignore_index))

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of maps ``(N, K, *spatial)`` in [0, 1] and their masks."""
        with torch.no_grad():
            parts = measures.saliency_measures(
                xp,
                preds,
                target,
                names=measures.parts_of(self.names),
                normalize=self.normalize,
                activation=self.activation,
                ignore_index=self.ignore_index,
            )
            ignored = measures.ignored_images(xp, target, self.ignore_index)
        for part, each in parts.items():
            setattr(self, f"sum_{part}", _added(getattr(self, f"sum_{part}"), each, ignored))
        self.images = self.images + (~ignored).sum()

    def compute(self) -> dict[str, Tensor]:
        """The measures of all images so far, by name; the mean of no images is NaN."""
        means = {
            part: getattr(self, f"sum_{part}").sum(0) / self.images
            for part in measures.parts_of(self.names)
        }
        return measures.results(self.names, means)


def _added(state: Tensor, each: Tensor, ignored: Tensor) -> Tensor:
    """A sum, see `measures.added`, with the measures of the images of a batch, some ignored."""
    kept = torch.where(ignored.reshape(-1, *[1] * (each.ndim - 1)), 0.0, each)
    return torch.stack(measures.added(state, kept.sum(0).to(state.dtype)))


def _sum(states: Tensor) -> Tensor:
    """The sum of several sums, see `measures.added`."""
    first: Tensor
    first, *others = states
    for rounded, lost in others:
        first = torch.stack(measures.added(first, rounded))
        first = first + torch.stack([torch.zeros_like(lost), lost])
    return first


def _distinguish(metric: Metric, options: object) -> None:
    """Store the options in a state. `torchmetrics.MetricCollection` updates only one of several
    metrics whose states are equal after the first batch, even if their options differ."""
    text = torch.tensor(list(repr(options).encode()), dtype=torch.uint8)
    metric.add_state("options", text, dist_reduce_fx="max")
