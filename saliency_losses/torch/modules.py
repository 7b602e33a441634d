"""The criteria: PyTorch Modules, each a set of options for the function of the same name.

All take `check`, which says when values are checked for their range. A check of values on a GPU
makes the host wait for it.

* "first" (default): on the first batch that can be read, on any device, and afterwards only on a
  CPU, where it costs nothing. A wrong range usually shows in the first batch.
* "always": on every batch.
* "never": on no batch. The loss of an image with a value out of range is NaN.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saliency_losses.core import anchor, cas, checks, fbeta, metric, mutual_information
from saliency_losses.torch import _ops, functional
from saliency_losses.torch.functional import Activation, Reduction

Check = Literal["first", "always", "never"]


class _Shown(nn.Module):
    """A Module whose repr shows its options."""

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if not name.startswith("_") and name != "training"
        )


class _Loss(_Shown):
    """A Module that checks values as `check` says."""

    def __init__(self, check: Check) -> None:
        super().__init__()
        checks.option("check", check, ("first", "always", "never"))
        self.check: Check = check
        self._looked = False

    @property
    def _first(self) -> bool:
        """True until a batch has been checked."""
        return self.check == "first" and not self._looked

    def _call(self, function: Callable[..., Tensor], *args: Tensor, **options: Any) -> Tensor:
        if torch.compiler.is_compiling() or (self.check == "first" and self._looked):
            return function(*args, **options)
        with _ops.looking(self.check != "never") as look:
            loss = function(*args, **options)
        self._looked = self._looked or look.done
        return loss


class MetricLoss(_Loss):
    """See `metric_loss`. ``criterion(features, labels, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import MetricLoss
        >>> criterion = MetricLoss(normalize=True)
        >>> criterion(torch.tensor([[[3.0, -1.0]]]), torch.tensor([[1, 0]]))
        tensor(-4.)
    """

    def __init__(
        self,
        *,
        form: Literal["centroid", "pairwise"] = "centroid",
        normalize: bool = False,
        stop_gradient: bool = False,
        hard_negatives: bool = False,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check: Check = "first",
    ) -> None:
        super().__init__(check)
        metric.check_options(
            form, normalize, stop_gradient, hard_negatives, ignore_index, reduction
        )
        self.form: Literal["centroid", "pairwise"] = form
        self.normalize = normalize
        self.stop_gradient = stop_gradient
        self.hard_negatives = hard_negatives
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    def forward(self, features: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return self._call(
            functional.metric_loss,
            features,
            labels,
            form=self.form,
            normalize=self.normalize,
            stop_gradient=self.stop_gradient,
            hard_negatives=self.hard_negatives,
            ignore_index=self.ignore_index,
            mask=mask,
            reduction=self.reduction,
        )


class CASLoss(_Loss):
    """See `cas_loss`. ``criterion(probs, labels, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import CASLoss
        >>> criterion = CASLoss(alpha=0.5)
        >>> criterion(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1, 0]]))
        tensor(-2.)
    """

    def __init__(
        self,
        *,
        num_regions: int = 2,
        alpha: float | Tensor = 0.5,
        average_regions: bool = False,
        activation: Activation = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check: Check = "first",
    ) -> None:
        super().__init__(check)
        cas.check_options(
            _ops, num_regions, alpha, average_regions, activation, ignore_index, reduction
        )
        self.num_regions = num_regions
        self.alpha = alpha
        self.average_regions = average_regions
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    def forward(self, probs: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return self._call(
            functional.cas_loss,
            probs,
            labels,
            num_regions=self.num_regions,
            alpha=self.alpha,
            average_regions=self.average_regions,
            activation=self.activation,
            ignore_index=self.ignore_index,
            mask=mask,
            reduction=self.reduction,
        )


class ClassAgnosticCrossEntropy(_Loss):
    """See `class_agnostic_cross_entropy`. ``criterion(logits, labels, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import ClassAgnosticCrossEntropy
        >>> criterion = ClassAgnosticCrossEntropy()
        >>> criterion(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]]))
        tensor(0.6931)
    """

    def __init__(
        self,
        *,
        per: Literal["image", "pixel"] = "image",
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check: Check = "first",
    ) -> None:
        super().__init__(check)
        cas.check_cross_entropy_options(per, ignore_index, reduction)
        self.per: Literal["image", "pixel"] = per
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return self._call(
            functional.class_agnostic_cross_entropy,
            logits,
            labels,
            per=self.per,
            ignore_index=self.ignore_index,
            mask=mask,
            reduction=self.reduction,
        )


class WeightedFBetaLoss(_Loss):
    """See `weighted_fbeta_loss`. ``criterion(probs, target, distance_weights=None, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import WeightedFBetaLoss
        >>> criterion = WeightedFBetaLoss(beta=1.0)
        >>> criterion(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8))
        tensor(1.)
    """

    def __init__(
        self,
        *,
        beta: float | Tensor = 1.0,
        theta: int = 9,
        phi: int = 5,
        distance: Literal["window", "euclidean"] = "window",
        spacing: Sequence[float] | None = None,
        error: Literal["squared", "absolute"] = "squared",
        normalize_kernel: bool = False,
        activation: Activation = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check: Check = "first",
    ) -> None:
        super().__init__(check)
        fbeta.check_options(
            _ops,
            beta,
            theta,
            phi,
            distance,
            spacing,
            error,
            normalize_kernel,
            activation,
            ignore_index,
            reduction,
        )
        self.beta = beta
        self.theta = theta
        self.phi = phi
        self.distance: Literal["window", "euclidean"] = distance
        self.spacing = spacing
        self.error: Literal["squared", "absolute"] = error
        self.normalize_kernel = normalize_kernel
        self.activation: Activation = activation
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    def forward(
        self,
        probs: Tensor,
        target: Tensor,
        *,
        distance_weights: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        return self._call(
            functional.weighted_fbeta_loss,
            probs,
            target,
            beta=self.beta,
            theta=self.theta,
            phi=self.phi,
            distance=self.distance,
            spacing=self.spacing,
            error=self.error,
            normalize_kernel=self.normalize_kernel,
            activation=self.activation,
            ignore_index=self.ignore_index,
            distance_weights=distance_weights,
            mask=mask,
            reduction=self.reduction,
        )


class AnchorSoftmaxLoss(_Loss):
    """See `anchor_softmax_loss`. ``criterion(features, anchors, labels, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import AnchorSoftmaxLoss
        >>> criterion = AnchorSoftmaxLoss()
        >>> anchors = torch.tensor([[[0.0], [1.0]]])
        >>> criterion(torch.tensor([[[0.5, 0.5]]]), anchors, torch.tensor([[0, 1]]))
        tensor(0.6931)
    """

    def __init__(
        self,
        *,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        check: Check = "first",
    ) -> None:
        super().__init__(check)
        anchor.check_options(ignore_index, reduction)
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction

    def forward(
        self, features: Tensor, anchors: Tensor, labels: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        return self._call(
            functional.anchor_softmax_loss,
            features,
            anchors,
            labels,
            ignore_index=self.ignore_index,
            mask=mask,
            reduction=self.reduction,
        )


class JSMutualInformationLoss(_Loss):
    """See `js_mutual_information_loss`. ``criterion(scores, joint, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import JSMutualInformationLoss
        >>> criterion = JSMutualInformationLoss()
        >>> criterion(torch.zeros(1, 2), torch.tensor([[True, False]]))
        tensor(1.3863)
    """

    def __init__(
        self, *, balance: bool = True, reduction: Reduction = "mean", check: Check = "first"
    ) -> None:
        super().__init__(check)
        mutual_information.check_options(balance, reduction)
        self.balance = balance
        self.reduction: Reduction = reduction

    def forward(self, scores: Tensor, joint: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return self._call(
            functional.js_mutual_information_loss,
            scores,
            joint,
            balance=self.balance,
            mask=mask,
            reduction=self.reduction,
        )
