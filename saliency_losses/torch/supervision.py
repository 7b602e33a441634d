"""Deep supervision in PyTorch: one loss over several outputs of a network."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Literal

from torch import Tensor
from torch.compiler import is_compiling

from saliency_losses.core import supervision
from saliency_losses.torch import _ops as xp
from saliency_losses.torch.functional import weighted_fbeta_loss, weighted_fbeta_score
from saliency_losses.torch.modules import WeightedFBetaLoss, _Loss, _Shown

_WEIGHTED = (weighted_fbeta_loss, weighted_fbeta_score, WeightedFBetaLoss)


def deep_supervision(
    loss: Callable[..., Tensor],
    outputs: Sequence[Tensor],
    target: Tensor,
    *,
    weights: Sequence[float] | Tensor | None = None,
    resize: Literal["bilinear"] | None = "bilinear",
    **arguments: Any,
) -> Tensor:
    """Weighted sum of a loss over several predictions of one target.

    Each output is first resized to the spatial size of the target::

        Σ_k w_k loss(output_k, target, **arguments)

    The weighted F-beta loss and score, also in a `functools.partial`, compute the distance weights
    of the target once for all outputs.

    Args:
        loss: Any callable that returns the loss of an output and the target.
        outputs: The predictions, ``(N, C, *spatial)`` each, of equal or different spatial sizes.
        target: ``(N, C, *spatial)`` or ``(N, *spatial)``, as the loss takes it.
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
        >>> import torch
        >>> from saliency_losses.torch import deep_supervision, weighted_fbeta_loss
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> outputs = [target, target[..., ::2, ::2], 1 - target]
        >>> deep_supervision(weighted_fbeta_loss, outputs, target, weights=[1, 0, 0.5])
        tensor(0.5000)

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


class DeepSupervision(_Shown):
    """See `deep_supervision`. ``criterion(outputs, target, **arguments)``.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import DeepSupervision, WeightedFBetaLoss
        >>> criterion = DeepSupervision(WeightedFBetaLoss(), weights=[1, 0.5])
        >>> outputs = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)]
        >>> criterion(outputs, torch.ones(1, 1, 8, 8))
        tensor(1.5000)
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        *,
        weights: Sequence[float] | Tensor | None = None,
        resize: Literal["bilinear"] | None = "bilinear",
    ) -> None:
        super().__init__()
        supervision.check_options(xp, loss, weights, resize)
        self.loss = loss
        self.weights = weights
        self.resize: Literal["bilinear"] | None = resize

    def forward(self, outputs: Sequence[Tensor], target: Tensor, **arguments: Any) -> Tensor:
        # All outputs belong to the first batch of a criterion.
        first = isinstance(self.loss, _Loss) and self.loss._first
        with xp.looking(True) if first and not is_compiling() else nullcontext():
            return deep_supervision(
                self.loss, outputs, target, weights=self.weights, resize=self.resize, **arguments
            )
