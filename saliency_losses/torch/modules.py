"""The losses as Modules: stored options and one call of the function of the same name."""

from typing import Literal

from torch import Tensor, nn

from saliency_losses.core import cas, checks, fbeta, metric, mutual_information
from saliency_losses.torch import functional
from saliency_losses.torch.functional import Reduction


class _Loss(nn.Module):
    """Shows the stored options where a Module is printed."""

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in vars(self).items()
                         if not name.startswith("_") and name != "training")


class MetricLoss(_Loss):
    """See `metric_loss`. ``criterion(features, labels, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import MetricLoss
        >>> criterion = MetricLoss(normalize=True)
        >>> criterion(torch.tensor([[[3.0, -1.0]]]), torch.tensor([[1, 0]]))
        tensor(-4.)
    """

    def __init__(self, *, form: Literal["centroid", "pairwise"] = "centroid",
                 normalize: bool = False, stop_gradient: bool = False,
                 hard_negatives: bool = False, reduction: Reduction = "mean") -> None:
        super().__init__()
        metric.check_options(form, normalize, stop_gradient, hard_negatives, reduction)
        self.form: Literal["centroid", "pairwise"] = form
        self.normalize = normalize
        self.stop_gradient = stop_gradient
        self.hard_negatives = hard_negatives
        self.reduction: Reduction = reduction

    def forward(self, features: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return functional.metric_loss(
            features, labels, form=self.form, normalize=self.normalize,
            stop_gradient=self.stop_gradient, hard_negatives=self.hard_negatives, mask=mask,
            reduction=self.reduction)


class CASLoss(_Loss):
    """See `cas_loss`. ``criterion(probs, labels, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import CASLoss
        >>> criterion = CASLoss(alpha=0.5)
        >>> criterion(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1, 0]]))
        tensor(-2.)
    """

    def __init__(self, *, num_regions: int = 2, alpha: float = 0.5,
                 average_regions: bool = False, reduction: Reduction = "mean") -> None:
        super().__init__()
        cas.check_options(num_regions, alpha, average_regions, reduction)
        self.num_regions = num_regions
        self.alpha = alpha
        self.average_regions = average_regions
        self.reduction: Reduction = reduction

    def forward(self, probs: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return functional.cas_loss(
            probs, labels, num_regions=self.num_regions, alpha=self.alpha,
            average_regions=self.average_regions, mask=mask, reduction=self.reduction)


class ClassAgnosticCrossEntropy(_Loss):
    """See `class_agnostic_cross_entropy`. ``criterion(logits, labels, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import ClassAgnosticCrossEntropy
        >>> criterion = ClassAgnosticCrossEntropy()
        >>> criterion(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]]))
        tensor(0.6931)
    """

    def __init__(self, *, per: Literal["image", "pixel"] = "image",
                 reduction: Reduction = "mean") -> None:
        super().__init__()
        cas.check_cross_entropy_options(per, reduction)
        self.per: Literal["image", "pixel"] = per
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return functional.class_agnostic_cross_entropy(
            logits, labels, per=self.per, mask=mask, reduction=self.reduction)


class WeightedFBetaLoss(_Loss):
    """See `weighted_fbeta_loss`. ``criterion(probs, target, distance_weights=None, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import WeightedFBetaLoss
        >>> criterion = WeightedFBetaLoss(beta=1.0)
        >>> criterion(torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8))
        tensor(1.)
    """

    def __init__(self, *, beta: float = 1.0, theta: int = 9, phi: int = 5,
                 distance: Literal["window", "euclidean"] = "window",
                 error: Literal["squared", "absolute"] = "squared",
                 normalize_kernel: bool = False, reduction: Reduction = "mean") -> None:
        super().__init__()
        fbeta.check_options(beta, theta, phi, distance, error, normalize_kernel, reduction)
        self.beta = beta
        self.theta = theta
        self.phi = phi
        self.distance: Literal["window", "euclidean"] = distance
        self.error: Literal["squared", "absolute"] = error
        self.normalize_kernel = normalize_kernel
        self.reduction: Reduction = reduction

    def forward(self, probs: Tensor, target: Tensor, *, distance_weights: Tensor | None = None,
                mask: Tensor | None = None) -> Tensor:
        return functional.weighted_fbeta_loss(
            probs, target, beta=self.beta, theta=self.theta, phi=self.phi,
            distance=self.distance, error=self.error, normalize_kernel=self.normalize_kernel,
            distance_weights=distance_weights, mask=mask, reduction=self.reduction)


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

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        checks.reduction(reduction)
        self.reduction: Reduction = reduction

    def forward(self, features: Tensor, anchors: Tensor, labels: Tensor, *,
                mask: Tensor | None = None) -> Tensor:
        return functional.anchor_softmax_loss(
            features, anchors, labels, mask=mask, reduction=self.reduction)


class JSMutualInformationLoss(_Loss):
    """See `js_mutual_information_loss`. ``criterion(scores, joint, mask=None)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import JSMutualInformationLoss
        >>> criterion = JSMutualInformationLoss()
        >>> criterion(torch.zeros(1, 2), torch.tensor([[True, False]]))
        tensor(1.3863)
    """

    def __init__(self, *, balance: bool = True, reduction: Reduction = "mean") -> None:
        super().__init__()
        mutual_information.check_options(balance, reduction)
        self.balance = balance
        self.reduction: Reduction = reduction

    def forward(self, scores: Tensor, joint: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return functional.js_mutual_information_loss(
            scores, joint, balance=self.balance, mask=mask, reduction=self.reduction)
