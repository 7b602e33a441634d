"""Measures of soft maps against binary masks, as the field's evaluation programs define them.

All functions share these rules:

* `probs` is ``(N, K, *spatial)`` in [0, 1]. `target` has the same shape and is 0 or 1, bool,
  integer or floating point; or it is ``(N, *spatial)``, with class numbers if K > 1. Maps and masks
  have one size: resize maps to their masks first.
* ``normalize=True`` stretches each map to [0, 1] by its minimum and maximum first, as most programs
  in use do; a constant map stays unchanged. ``activation="sigmoid"`` or ``"softmax"`` takes logits.
* Pixels where `target` equals `ignore_index`, or where `mask` ``(N, *spatial)`` is False, do not
  count. A map without a counted pixel makes the measure of its image NaN.
* A threshold selects the pixels whose value is at least as large: a number in [0, 1], or "adaptive"
  for twice the map's mean, at most 1. A curve has the 256 thresholds 0, 1/255, …, 1.
* The maps of an image are averaged; `reduction` is "mean", "sum" or "none" over the images. The
  field's *max F* and *max E* are the maximum of the mean curve over the images, as in
  ``fmeasure_curve(probs, target).max()``.
* Values out of range and shapes that do not match raise ValueError, wrong types TypeError. Where
  values cannot be read (on a GPU, while compiling), an image with a bad value has the measure NaN.
* `mean_absolute_error`, `smeasure` and `saliency_losses.torch.weighted_fmeasure` have gradients in
  `probs`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from saliency_losses.core import checks
from saliency_losses.core import measures as core
from saliency_losses.core.fbeta import check_beta
from saliency_losses.torch import _ops as xp
from saliency_losses.torch.functional import Activation, Reduction

Threshold = float | Literal["adaptive"]


def mean_absolute_error(
    probs: Tensor,
    target: Tensor,
    *,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean absolute error (MAE), the mean of |p − y| over the pixels.

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The error, in [0, 1]; lower is better.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import mean_absolute_error
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> mean_absolute_error(0.8 * target + 0.1, target)
        tensor(0.1000)

    References:
        Perazzi, Krähenbühl, Pritch and Hornung, Saliency Filters: Contrast Based Filtering for
        Salient Region Detection, CVPR 2012, eq. 11.
    """
    return core.measured(
        xp, probs, target, core.absolute_error, normalize, activation, ignore_index, mask, reduction
    )


def fmeasure(
    probs: Tensor,
    target: Tensor,
    *,
    beta: float | Tensor = 0.3**0.5,
    threshold: Threshold = "adaptive",
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """F-measure of the map cut at a threshold, (1 + β²) P R / (β² P + R).

    Precision P is the share of the selected pixels that belong to the object, recall R the share
    of the object that is selected.

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        beta: From 1e-9 to 1e9; the field's β² = 0.3 favours precision. In the evaluation
            programs the argument of this name is β².
        threshold: A number in [0, 1], or "adaptive".
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measure, in [0, 1]; 0 where no selected pixel belongs to the object, so also for an
        empty mask.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import fmeasure
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> fmeasure(target, target), fmeasure(target.roll(1, -1), target)
        (tensor(1.), tensor(0.7500))

    References:
        Achanta, Hemami, Estrada and Süsstrunk, Frequency-tuned Salient Region Detection, CVPR 2009,
        eq. 6.
    """
    check_beta(xp, beta)
    core.check_threshold(threshold)
    return core.measured(
        xp,
        probs,
        target,
        lambda maps: core.f_measure(maps, maps.counts(threshold), beta)[:, 0],
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def fmeasure_curve(
    probs: Tensor,
    target: Tensor,
    *,
    beta: float | Tensor = 0.3**0.5,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """F-measure at the thresholds 0, 1/255, …, 1; see `fmeasure`.

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in `fmeasure`.
        target: The masks.
        beta: From 1e-9 to 1e9; the field's β² = 0.3 favours precision.
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        ``(256,)``, or ``(N, 256)`` without a reduction. The maximum of the mean curve is the
        field's max F, its mean the field's mean F.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import fmeasure_curve
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> fmeasure_curve(0.8 * target + 0.1, target).max()
        tensor(1.)

    References:
        Achanta, Hemami, Estrada and Süsstrunk, Frequency-tuned Salient Region Detection, CVPR 2009,
        eq. 6.
    """
    check_beta(xp, beta)
    return core.measured(
        xp,
        probs,
        target,
        lambda maps: core.f_measure(maps, maps.counts_by_level, beta),
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def precision_recall_curve(
    probs: Tensor,
    target: Tensor,
    *,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    """Precision and recall at the thresholds 0, 1/255, …, 1; see `fmeasure`.

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        Precision and recall, each ``(256,)``, or ``(N, 256)`` without a reduction. The precision is
        0 where no pixel is selected, and the recall 0 for an empty mask.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import precision_recall_curve
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> precision, recall = precision_recall_curve(0.8 * target + 0.1, target)
        >>> precision[0], precision[128], recall[255]
        (tensor(0.2500), tensor(1.), tensor(0.))

    References:
        Achanta, Hemami, Estrada and Süsstrunk, Frequency-tuned Salient Region Detection, CVPR 2009.
    """
    precision, recall = core.measured(
        xp,
        probs,
        target,
        lambda maps: core.precision_recall(maps, maps.counts_by_level),
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )
    return precision, recall


def emeasure(
    probs: Tensor,
    target: Tensor,
    *,
    threshold: Threshold = "adaptive",
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Enhanced-alignment measure (E-measure) of the map cut at a threshold.

    With a and b the cut map and the mask, both minus their means over the P pixels::

        φ = (1 + 2ab / (a² + b²))² / 4,   E = Σ φ / (P − 1)

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        threshold: A number in [0, 1], or "adaptive".
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measure, in [0, P / (P − 1)]. For a mask of one class, the number of pixels that have
        it in the cut map, divided by P − 1.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import emeasure
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> emeasure(target.roll(1, -1), target)
        tensor(0.8940)

    References:
        Fan, Gong, Cao, Ren, Cheng and Borji, Enhanced-alignment Measure for Binary Foreground Map
        Evaluation, IJCAI 2018, eq. 2–5.
    """
    core.check_threshold(threshold)
    return core.measured(
        xp,
        probs,
        target,
        lambda maps: core.e_measure(maps, maps.counts(threshold))[:, 0],
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def emeasure_curve(
    probs: Tensor,
    target: Tensor,
    *,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """E-measure at the thresholds 0, 1/255, …, 1; see `emeasure`.

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in `emeasure`.
        target: The masks.
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        ``(256,)``, or ``(N, 256)`` without a reduction. The maximum of the mean curve is the
        field's max E, its mean the field's mean E.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import emeasure_curve
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> emeasure_curve(target.roll(1, -1), target).max()
        tensor(0.8940)

    References:
        Fan, Gong, Cao, Ren, Cheng and Borji, Enhanced-alignment Measure for Binary Foreground Map
        Evaluation, IJCAI 2018, eq. 2–5.
    """
    return core.measured(
        xp,
        probs,
        target,
        lambda maps: core.e_measure(maps, maps.counts_by_level),
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def smeasure(
    probs: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Structure measure (S-measure) of a soft map, α S_o + (1 − α) S_r, at least 0.

    S_o compares the values within object and background: with the mean m and the deviation s of p
    over the object, and of 1 − p over the background, it is the mean of 2 m / (m² + 1 + s),
    weighted by the number of pixels. S_r cuts the image in four at the object's centre of mass and
    averages, weighted by area::

        4 p̄ ȳ σ_py / ((p̄² + ȳ²) (σ_p² + σ_y²))

    Args:
        probs: ``(N, K, H, W)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        alpha: The weight of S_o, in [0, 1].
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, H, W)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measure, in [0, 1]. The mean of p for a mask that is all object, of 1 − p for one that
        is all background.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import smeasure
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> smeasure(0.8 * target + 0.1, target)
        tensor(0.9682)

    References:
        Fan, Cheng, Liu, Li and Borji, Structure-measure: A New Way to Evaluate Foreground Maps,
        ICCV 2017, eq. 2–9.

    Convention:
        As in the authors' program, the row and the column of the centre belong to the upper left
        part, and a part in which map and mask are constant counts as 1.
    """
    checks.number("alpha", alpha, 0, 1)
    return core.measured(
        xp,
        probs,
        target,
        partial(core.structure, alpha=alpha),
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def iou(
    probs: Tensor,
    target: Tensor,
    *,
    threshold: Threshold = 0.5,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Intersection over union (Jaccard index) of mask and map cut at a threshold.

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        threshold: A number in [0, 1], or "adaptive".
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measure, in [0, 1]; 1 if both sets are empty.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import iou
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> iou(target.roll(1, -1), target)
        tensor(0.6000)

    References:
        Jaccard, Distribution de la flore alpine, 1901; Everingham et al., The Pascal Visual Object
        Classes Challenge, IJCV 2010, eq. 3.
    """
    core.check_threshold(threshold)
    return core.measured(
        xp,
        probs,
        target,
        lambda maps: core.intersection_over_union(maps, maps.counts(threshold))[:, 0],
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def dice(
    probs: Tensor,
    target: Tensor,
    *,
    threshold: Threshold = 0.5,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Dice coefficient of mask and map cut at a threshold, 2 |A ∩ B| / (|A| + |B|).

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        threshold: A number in [0, 1], or "adaptive".
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measure, in [0, 1]; 1 if both sets are empty.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import dice
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> dice(target.roll(1, -1), target)
        tensor(0.7500)

    References:
        Dice, Measures of the Amount of Ecologic Association Between Species, Ecology 1945.
    """
    core.check_threshold(threshold)
    return core.measured(
        xp,
        probs,
        target,
        lambda maps: core.dice_coefficient(maps, maps.counts(threshold))[:, 0],
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def boundary_iou(
    probs: Tensor,
    target: Tensor,
    *,
    width: float = 0.02,
    threshold: Threshold = 0.5,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Boundary IoU: the intersection over union of the inner bands of mask and cut map.

    The inner band of a set holds its pixels that are at most d rows and columns away from a pixel
    outside it; what lies beyond the edge of the image is outside.

    Args:
        probs: ``(N, K, H, W)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        width: d as a share of the image's diagonal, above 0 to 1; d is rounded, and at least 1.
        threshold: A number in [0, 1], or "adaptive".
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, H, W)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measure, in [0, 1]; 1 if both sets are empty.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import boundary_iou
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> boundary_iou(target.roll(1, -1), target)
        tensor(0.3333)

    References:
        Cheng, Girshick, Dollár, Berg and Kirillov, Boundary IoU: Improving Object-Centric Image
        Segmentation Evaluation, CVPR 2021, §5.
    """
    checks.number("width", width, 0, 1, open_low=True)
    core.check_threshold(threshold)
    return core.measured(
        xp,
        probs,
        target,
        partial(core.boundary_iou, threshold=threshold, width=width),
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def boundary_accuracy(
    probs: Tensor,
    target: Tensor,
    *,
    threshold: Threshold = 0.5,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean boundary accuracy (mBA): the share of right pixels near the mask's boundary.

    It is the mean over five bands around the boundary, whose radii rise from 1 pixel in equal steps
    towards (H + W) / 300.

    Args:
        probs: ``(N, K, H, W)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        threshold: A number in [0, 1], or "adaptive".
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, H, W)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measure, in [0, 1]. For a mask of one class, which has no boundary, the share of all
        right pixels; the authors' program divides 0 by 0 there.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import boundary_accuracy
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> boundary_accuracy(target.roll(1, -1), target)
        tensor(0.7143)

    References:
        Cheng, Chung, Tai and Tang, CascadePSP: Toward Class-Agnostic and Very High-Resolution
        Segmentation via Global and Local Refinement, CVPR 2020, §4.
    """
    core.check_threshold(threshold)
    return core.measured(
        xp,
        probs,
        target,
        partial(core.boundary_accuracy, threshold=threshold),
        normalize,
        activation,
        ignore_index,
        mask,
        reduction,
    )


def auroc(
    probs: Tensor,
    target: Tensor,
    *,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Area under the receiver operating characteristic of a map of 256 levels.

    It is the share of pairs of an object pixel and a background pixel in which the object pixel has
    the higher level; ties count half.

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1]; this and all others as in the module's rules.
        target: The masks.
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The area, in [0, 1]; NaN for a mask of one class, which has no such pairs.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import auroc
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> auroc(0.8 * target + 0.1, target), auroc(torch.full_like(target, 0.5), target)
        (tensor(1.), tensor(0.5000))

    References:
        Hanley and McNeil, The Meaning and Use of the Area under a Receiver Operating Characteristic
        (ROC) Curve, Radiology 1982.
    """
    return core.measured(
        xp, probs, target, core.roc_area, normalize, activation, ignore_index, mask, reduction
    )


def saliency_measures(
    probs: Tensor,
    target: Tensor,
    *,
    names: Sequence[str] = core.OF_AN_IMAGE,
    normalize: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """Several measures together, which share their work.

    Each is that of its own function with its defaults: "mae", "f", "weighted_f" (with β = 1), "s",
    "e", "iou", "dice", "boundary_iou", "boundary_accuracy" and "auroc"; and at 256 thresholds
    "f_curve", "e_curve", "precision_curve" and "recall_curve".

    Args:
        probs: ``(N, K, *spatial)`` in [0, 1], with two spatial axes for "s" and the measures of
            boundaries; this and all others as in the module's rules.
        target: The masks.
        names: Default: all. The measures.
        normalize: Stretch each map to [0, 1] first.
        activation: "sigmoid" or "softmax" if `probs` holds logits.
        ignore_index: Default: None. A target value whose pixels do not count.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The measures by name: a scalar and ``(256,)``, or ``(N,)`` and ``(N, 256)`` without a
        reduction.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch.measures import saliency_measures
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> saliency_measures(0.8 * target + 0.1, target, names=("mae", "s"))
        {'mae': tensor(0.1000), 's': tensor(0.9682)}

    References:
        Those of each function. Several of them together: Borji, Cheng, Jiang and Li, Salient Object
        Detection: A Benchmark, TIP 2015.
    """
    return core.saliency_measures(
        xp,
        probs,
        target,
        names=names,
        normalize=normalize,
        activation=activation,
        ignore_index=ignore_index,
        mask=mask,
        reduction=reduction,
    )
