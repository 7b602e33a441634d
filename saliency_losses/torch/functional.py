"""The losses and their companions as functions of PyTorch tensors.

Features, probabilities and logits are ``(N, C, *spatial)``, maps ``(N, *spatial)``, with one to
three spatial axes. The weighted F functions take maps ``(N, K, *spatial)`` with two or three. All
functions share these rules:

* ``mask`` is boolean, True where a pixel counts; other pixels have no influence and no gradient.
* ``reduction`` is over the N images: "mean", "sum", or "none" for ``(N,)``. The loss of an image
  does not depend on the other images in its batch.
* Half-precision inputs, also under autocast, give float32 results, computed in float32.
* An image without counted pixels has loss 0 and gradient 0; its `weighted_fmeasure` is NaN.
* Values out of range raise `ValueError` on a CPU. On CUDA, under ``torch.compile`` and
  ``torch.func.vmap``, where values cannot be read, only the loss of that image becomes NaN. Modules
  check their first batch on CUDA too.
* Values out of range by at most four epsilons of their dtype count as the end of the range.
* Each call takes one output; a list, tuple or dict raises `TypeError`.
* NaN in a counted input makes the loss of that image NaN and raises no error.
"""

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from saliency_losses.core import (
    anchor,
    cas,
    distance,
    fbeta,
    fmeasure,
    metric,
    mutual_information,
)
from saliency_losses.torch import _ops as xp

Reduction = Literal["mean", "sum", "none"]
Activation = Literal["sigmoid", "softmax"] | None


def metric_loss(
    features: Tensor,
    labels: Tensor,
    *,
    form: Literal["centroid", "pairwise"] = "centroid",
    normalize: bool = False,
    stop_gradient: bool = False,
    hard_negatives: bool = False,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Metric loss: each pixel's distance to its own region minus its distance to the other.

    For the salient pixels S and background pixels B of an image, n = |S| + |B|, with μ the mean
    features and V the mean squared distance to that mean::

        centroid:  1/n Σ_i ‖f_i − μ_own‖² − ‖f_i − μ_other‖²
                   = −‖μ_S − μ_B‖²
        pairwise:  1/n Σ_i mean_{k in own} ‖f_i − f_k‖² − mean_{k in other} ‖f_i − f_k‖²
                   = centroid + (|S| − |B|) (V_S − V_B) / n

    Args:
        features: ``(N, C, *spatial)``, any range; bound them (tanh) or set `normalize`.
        labels: ``(N, *spatial)``, bool, integer or whole floats, 1 salient and 0 background.
        form: "centroid" (eq. 3) or "pairwise" (eq. 2, over all pairs, in linear time).
        normalize: Scale each pixel's features to unit length first; zero vectors stay zero.
        stop_gradient: Treat the means as constants in the gradient, as the authors' program does.
        hard_negatives: Average over all pixels of the smaller region and as many of the larger
            with the highest loss (§3.2). The means are still those of all counted pixels.
        ignore_index: Default: None. A label whose pixels are ignored, as where `mask` is False.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The loss. If no feature is longer than ρ, it is at least −4ρ², and at most 0 for the
        centroid form, ρ² with `hard_negatives`, and aρ² for the pairwise form, where
        a = ||S| − |B|| / n. With `normalize`, ρ is 1, and the pairwise form is at most
        a² / (1 + a) < ½ unless some features are zero vectors.

    Raises:
        ValueError: Shapes that do not match, a label other than 0 and 1, or form="pairwise" with
            `stop_gradient` or `hard_negatives`.
        TypeError: Features not floating point, complex labels, or a mask not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import metric_loss
        >>> features = torch.tensor([[[3.0, 1.0, 0.0, 0.0]]])  # one image, one channel
        >>> metric_loss(features, torch.tensor([[1, 1, 0, 0]]))
        tensor(-4.)

    References:
        Cai et al., MEnet: A Metric Expression Network for Salient Object Segmentation,
        IJCAI 2018, eq. 2 and 3.

    Convention:
        Eq. 2 and 3 differ unless the regions are equally large or equally spread, and in eq. 3
        nothing draws a pixel to its own mean; see docs/losses/metric.md. The loss is unbounded
        below unless the features are bounded. An image that lacks S or B has loss 0.
    """
    return metric.metric_loss(
        xp,
        features,
        labels,
        form=form,
        normalize=normalize,
        stop_gradient=stop_gradient,
        hard_negatives=hard_negatives,
        ignore_index=ignore_index,
        mask=mask,
        reduction=reduction,
    )


def semantic_distance(features: Tensor, background: Tensor) -> Tensor:
    """Distance of each pixel's features to the mean background, MEnet's second saliency map.

    For the `background` weights w, divided by their sum::

        S_i = ‖f_i − Σ_j w_j f_j‖

    Args:
        features: ``(N, C, *spatial)``, any range.
        background: ``(N, *spatial)``, non-negative weights, soft or hard: for example the
            probability of background. If all weights are 0, the mean is the zero vector.

    Returns:
        ``(N, *spatial)``, in the unit of the features; the gradient at distance 0 is 0.

    Raises:
        ValueError: Shapes that do not match, or a negative weight.
        TypeError: Features not floating point.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import semantic_distance
        >>> features = torch.tensor([[[3.0, 1.0, 0.0, 0.0]]])
        >>> semantic_distance(features, torch.tensor([[0, 0, 1, 1]]))
        tensor([[3., 1., 0., 0.]])

    References:
        Cai et al., MEnet: A Metric Expression Network for Salient Object Segmentation,
        IJCAI 2018, eq. 5.
    """
    return metric.semantic_distance(xp, features, background)


def cas_loss(
    probs: Tensor,
    labels: Tensor,
    *,
    num_regions: int = 2,
    alpha: float | Tensor = 0.5,
    average_regions: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Class-agnostic segmentation loss: descriptors alike within regions, unlike between them.

    Over the regions present in an image, with ŝ_r the mean descriptor of region r::

        α Σ_r mean_{i in r} ‖s_i − ŝ_r‖²  −  (1 − α) Σ_{r≠q} ‖ŝ_r − ŝ_q‖²
              uniformer                          discriminator, over ordered pairs

    Renumbering the regions of an image does not change the loss: labels need not name classes.

    Args:
        probs: ``(N, C, *spatial)`` in [0, 1], descriptors after softmax, with at least
            `num_regions` channels. The sum over channels is not checked to be 1.
        labels: ``(N, *spatial)``, bool, integer or whole floats, 0..num_regions−1.
        num_regions: The number of labels; an image may contain fewer.
        alpha: The weight of the uniformer, in [0, 1]; a number or a scalar array.
        average_regions: Average the uniformer over the regions present and the discriminator over
            their pairs, so that images with few and with many regions have equal weight.
        activation: Default: None, `probs` are probabilities. With "sigmoid" or "softmax" (over the
            channels) `probs` are logits; the activation is computed in float32 or wider.
        ignore_index: Default: None. A label whose pixels are ignored, as where `mask` is False.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The loss. For R regions and probs that sum to 1 it lies in
        [−2 (1 − α) R (R − 1), α R (1 − 1/C)], with `average_regions` in
        [−2 (1 − α), α (1 − 1/C)]. The lower end requires C ≥ R. For one region the discriminator
        is 0.

    Raises:
        ValueError: Shapes that do not match, a label outside 0..num_regions−1, a probability
            outside [0, 1], alpha outside [0, 1] or num_regions below 1.
        TypeError: Probs not floating point, complex labels, or a mask not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import cas_loss
        >>> probs = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]])
        >>> labels = torch.tensor([[1, 1, 0, 0]])
        >>> cas_loss(probs, labels)
        tensor(-2.)
        >>> cas_loss(probs, 1 - labels)
        tensor(-2.)

    References:
        Sharma et al., Class-Agnostic Segmentation Loss and Its Application to Salient Object
        Detection and Segmentation, IJCAI 2021 WSRL workshop, eq. 1.

    Convention:
        Eq. 1 is read with the minus of eq. 2; see docs/losses/cas.md. Constant probs are a saddle
        with gradient 0, so initialise with some asymmetry. Descent leaves the saddle only along
        directions with ‖ŝ_r − ŝ_q‖² / (V_r + V_q) above α / (2 (1 − α)): 0.5 for α = 0.5, 4.5 for
        α = 0.9.
    """
    return cas.cas_loss(
        xp,
        probs,
        labels,
        num_regions=num_regions,
        alpha=alpha,
        average_regions=average_regions,
        activation=activation,
        ignore_index=ignore_index,
        mask=mask,
        reduction=reduction,
    )


def class_agnostic_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    per: Literal["image", "pixel"] = "image",
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with the labels or with the exchanged labels, whichever is smaller.

    For the softmax probabilities p_i of pixel i::

        per="image":  min( mean_i −log p_i[y_i],  mean_i −log p_i[1 − y_i] )
        per="pixel":  mean_i min( −log p_i[y_i],  −log p_i[1 − y_i] )

    Args:
        logits: ``(N, 2, *spatial)``, any range.
        labels: ``(N, *spatial)``, bool, integer or whole floats, 0 or 1.
        per: "image": one choice for the whole image. "pixel": one choice for each pixel.
        ignore_index: Default: None. A label whose pixels are ignored, as where `mask` is False.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The loss in nats, at least 0.

    Raises:
        ValueError: Shapes that do not match, a number of channels other than two, or a label other
            than 0 and 1.
        TypeError: Logits not floating point, complex labels, or a mask not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import class_agnostic_cross_entropy
        >>> logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
        >>> class_agnostic_cross_entropy(logits, torch.tensor([[0, 1]]))
        tensor(0.6931)

    References:
        Sharma et al., Class-Agnostic Segmentation Loss and Its Application to Salient Object
        Detection and Segmentation, IJCAI 2021 WSRL workshop, §4.2.

    Convention:
        §4.2 is read as an exchange of the labels; see docs/losses/cas.md. With per="pixel" the
        labels cancel, and the network learns nothing from them.
    """
    return cas.class_agnostic_cross_entropy(
        xp, logits, labels, per=per, ignore_index=ignore_index, mask=mask, reduction=reduction
    )


def flip_labels(
    labels: Tensor,
    probability: float,
    rng: torch.Generator,
    *,
    per: Literal["pixel", "image"] = "pixel",
    ignore_index: int | None = None,
) -> Tensor:
    """Binary labels flipped at random: noise for anchors, or images with 0 and 1 swapped.

    Args:
        labels: ``(N, *spatial)``, bool, integer or whole floats, 0 or 1.
        probability: The probability of a flip, in [0, 1].
        rng: A `torch.Generator` on the device of the labels.
        per: Flip single pixels, or whole images.
        ignore_index: Default: None. A label that is never flipped.

    Returns:
        ``(N, *spatial)`` in the dtype of `labels`.

    Raises:
        ValueError: A label other than 0 and 1, or a probability outside [0, 1].
        TypeError: Complex labels, or `rng` not a generator.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import flip_labels
        >>> flip_labels(torch.tensor([[1, 1, 0, 0]]), 1.0, torch.Generator().manual_seed(0))
        tensor([[0, 0, 1, 1]])

    References:
        Zeng et al., Learning to Promote Saliency Detectors, CVPR 2018, §3.1 (pixels);
        Sharma et al., Class-Agnostic Segmentation Loss and Its Application to Salient Object
        Detection and Segmentation, IJCAI 2021 WSRL workshop, §5 (images).
    """
    return cas.flip_labels(xp, labels, probability, rng, per=per, ignore_index=ignore_index)


def weighted_fbeta_loss(
    probs: Tensor,
    target: Tensor,
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
    distance_weights: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Weighted F-beta loss: misses weighted by nearby misses, false alarms by distance.

    For each map, with target y and prediction p. A pixel is a miss if p < y, a false alarm if
    p > y, foreground if y > ½::

        E_i     = (p_i − y_i)²                           or |p_i − y_i|
        (AE)_i  = Σ_{j: p_j<y_j} g(d_ij) E_j at misses,  E_i elsewhere
        g(d)    = (2πσ²)^(−1/2) exp(−d²/2σ²),            σ = θ/4, offsets −θ..θ
        B_i     = 2 − exp(ln(0.5)/5 · Δ_i) at alarms,    1 at misses; Δ = 0 at foreground
        E^w     = min(AE, E) · B
        FN = Σ_misses E^w,   FP = Σ_alarms E^w,   TP = Σ y − FN
        loss    = 1 − (1 + β²) TP / ((1 + β²) TP + β² FN + FP)

    Args:
        probs: ``(N, K, H, W)`` or ``(N, K, D, H, W)`` in [0, 1]: K maps, scored separately and
            averaged. K = 1 is the usual case; K > 1 is one-vs-rest or multi-label.
        target: The shape of `probs`, in [0, 1], bool, integer or floating point; may be soft. Or
            ``(N, *spatial)``: the map itself for K = 1, class numbers 0..K−1 for K > 1.
        beta: A number or scalar array from 1e-9 to 1e9; a larger beta favours recall.
        theta: Half the width of the Gaussian window in pixels, at least 1.
        phi: The reach of distance="window" in pixels, at least 0.
        distance: "window": Δ is the squared distance to the nearest foreground pixel within φ, and
            ∞ beyond (§3). "euclidean": Δ is the exact distance, of any range (eq. 4).
        spacing: Default: 1 each. The size of a pixel along each spatial axis, in whose unit Δ is
            then; an error unless distance="euclidean". θ stays in pixels.
        error: "squared" (§3) or "absolute" (eq. 2).
        normalize_kernel: Divide g by its sum over the window.
        activation: Default: None, `probs` are probabilities. With "sigmoid" or "softmax" (over the
            channels) `probs` are logits; the activation is computed in float32 or wider.
        ignore_index: Default: None. A target value whose pixels are ignored, as where `mask` is
            False.
        distance_weights: B in the shape of `probs`, from `distance_weights`. It replaces the
            distance step, `distance` and `phi`, and weights only false alarms.
        mask: ``(N, *spatial)``, bool, True where a pixel counts; other pixels have no error and are
            background.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The loss, in [0, 1]; 0 if and only if p = y everywhere. If the target is 0 everywhere
        (F = 0/0), the loss is the mean of E^w / 2 over the counted pixels.

    Raises:
        ValueError: Shapes that do not match, a probability or a target outside [0, 1], or an
            option out of range.
        TypeError: Probs not floating point, or a mask not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import weighted_fbeta_loss
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> weighted_fbeta_loss(target, target), weighted_fbeta_loss(1 - target, target)
        (tensor(0.), tensor(1.))

    References:
        Kolkin, Shechtman and Shakhnarovich, Training Deep Networks to be Spatially Sensitive,
        ICCV 2017, §3 and eq. 1–10.

    Convention:
        Eq. 7–10 are read as eq. 3–5, and β as in eq. 1 and 6; see docs/losses/weighted-fbeta.md.
        As printed, the kernel sums to 5.64 in two dimensions and A has almost no effect; set
        `normalize_kernel` to give it one. Squared errors leave maps soft; for the measure itself,
        set error="absolute" and distance="euclidean". Targets between 0 and 1 are this library's
        extension.
    """
    return fbeta.weighted_fbeta_loss(
        xp,
        probs,
        target,
        beta=beta,
        theta=theta,
        phi=phi,
        distance=distance,
        spacing=spacing,
        error=error,
        normalize_kernel=normalize_kernel,
        activation=activation,
        ignore_index=ignore_index,
        distance_weights=distance_weights,
        mask=mask,
        reduction=reduction,
    )


def weighted_fbeta_score(
    probs: Tensor,
    target: Tensor,
    *,
    beta: float | Tensor = 1.0,
    theta: int = 9,
    phi: int = 5,
    distance: Literal["window", "euclidean"] = "euclidean",
    spacing: Sequence[float] | None = None,
    error: Literal["squared", "absolute"] = "absolute",
    normalize_kernel: bool = False,
    activation: Activation = None,
    ignore_index: int | None = None,
    distance_weights: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Weighted F-beta measure, differentiable and in linear time: 1 − `weighted_fbeta_loss`.

    The defaults give the exact F_β^w of eq. 1–6 except for the tail of the Gaussian beyond 4σ::

        F = (1 + β²) TP / ((1 + β²) TP + β² FN + FP)

    Args:
        probs: ``(N, K, H, W)`` or ``(N, K, D, H, W)`` in [0, 1].
        target: The shape of `probs`, in [0, 1], bool, integer or floating point; may be soft. Or
            ``(N, *spatial)``: the map itself for K = 1, class numbers 0..K−1 for K > 1.
        beta: A number or scalar array from 1e-9 to 1e9; a larger beta favours recall.
        theta: Half the width of the Gaussian window in pixels, at least 1.
        phi: The reach of distance="window" in pixels, at least 0.
        distance: As in `weighted_fbeta_loss`.
        spacing: As in `weighted_fbeta_loss`.
        error: As in `weighted_fbeta_loss`.
        normalize_kernel: Divide the Gaussian by its sum over the window.
        activation: As in `weighted_fbeta_loss`.
        ignore_index: Default: None. A target value whose pixels are ignored, as where `mask` is
            False.
        distance_weights: B in the shape of `probs`, from `distance_weights`. It replaces the
            distance step, `distance` and `phi`, and weights only false alarms.
        mask: ``(N, *spatial)``, bool, True where a pixel counts; other pixels have no error and are
            background.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The score, in [0, 1]; 1 if and only if p = y everywhere.

    Raises:
        ValueError: As `weighted_fbeta_loss`.
        TypeError: As `weighted_fbeta_loss`.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import weighted_fbeta_score
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> weighted_fbeta_score(target, target), weighted_fbeta_score(1 - target, target)
        (tensor(1.), tensor(0.))

    References:
        Kolkin, Shechtman and Shakhnarovich, Training Deep Networks to be Spatially Sensitive,
        ICCV 2017, eq. 1–6; Margolin et al., How to Evaluate Foreground Maps?, CVPR 2014.

    Convention:
        This is the measure of the paper's equations. The field's evaluation programs use another
        Gaussian and give other numbers; see `weighted_fmeasure`.
    """
    return fbeta.weighted_fbeta_score(
        xp,
        probs,
        target,
        beta=beta,
        theta=theta,
        phi=phi,
        distance=distance,
        spacing=spacing,
        error=error,
        normalize_kernel=normalize_kernel,
        activation=activation,
        ignore_index=ignore_index,
        distance_weights=distance_weights,
        mask=mask,
        reduction=reduction,
    )


def weighted_fmeasure(
    probs: Tensor,
    target: Tensor,
    *,
    beta: float | Tensor = 1.0,
    normalize: bool = False,
    spacing: Sequence[float] | None = None,
    activation: Activation = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Weighted F-measure as the field's evaluation programs compute it, in batches on the device.

    With E = |p − y|, E' the error of the nearest foreground pixel (E itself at foreground), G a
    7 × 7 Gaussian with σ = 5 and unit sum, with zeros outside the image, and Δ the Euclidean
    distance to the foreground::

        E^w = min(E, G ∗ E') at foreground,  E · (2 − exp(ln(0.5)/5 · Δ)) elsewhere
        TP = |Y| − Σ_Y E^w,  FP = Σ_{not Y} E^w,  R = TP / |Y|,  P = TP / (TP + FP)
        F = (1 + β²) P R / (R + β² P)

    Args:
        probs: ``(N, K, H, W)`` or ``(N, K, D, H, W)`` in [0, 1].
        target: The shape of `probs`, 0 or 1, bool, integer or floating point. The measure is not
            defined for soft targets. Or ``(N, *spatial)``, as in `weighted_fbeta_loss`.
        beta: A number or scalar array from 1e-9 to 1e9; a larger beta favours recall. In
            the evaluation programs the argument of this name is β².
        normalize: Stretch each map of `probs` to [0, 1] by its minimum and maximum first, as
            programs that read maps from files do; a constant map stays unchanged.
        spacing: Default: 1 each. The size of a pixel along each spatial axis, in whose unit Δ is;
            G stays in pixels.
        activation: As in `weighted_fbeta_loss`.
        ignore_index: Default: None. A target value whose pixels are ignored, as where `mask` is
            False.
        mask: ``(N, *spatial)``, bool, True where a pixel counts; other pixels have no error and are
            background.
        reduction: "mean", "sum" or "none" over the images; the maps of an image are averaged.

    Returns:
        The measure, in [0, 1]; 0 for a map without foreground, whatever the prediction; NaN for one
        without a counted pixel.

    Raises:
        ValueError: Shapes that do not match, or values or options out of range.
        TypeError: An argument or option of the wrong type.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import weighted_fmeasure
        >>> target = torch.zeros(1, 1, 8, 8)
        >>> target[..., 2:6, 2:6] = 1
        >>> weighted_fmeasure(target, target), weighted_fmeasure(0.8 * target + 0.1, target)
        (tensor(1.), tensor(0.8020))

    References:
        Margolin, Zelnik-Manor and Tal, How to Evaluate Foreground Maps?, CVPR 2014, and its
        program WFb.m; Kolkin, Shechtman and Shakhnarovich, Training Deep Networks to be Spatially
        Sensitive, ICCV 2017, eq. 1–6.

    Convention:
        Like the authors' program, this function does not stretch maps; most programs in use do, see
        `normalize`. Among equally near foreground pixels it takes the first in row-major order;
        programs that take another differ slightly. `weighted_fbeta_score` is the measure of the
        paper's equations, with another Gaussian and without E'. This measure has a gradient, but
        `weighted_fbeta_loss` is the loss to train with.
    """
    return fmeasure.weighted_fmeasure(
        xp,
        probs,
        target,
        beta=beta,
        normalize=normalize,
        spacing=spacing,
        activation=activation,
        ignore_index=ignore_index,
        mask=mask,
        reduction=reduction,
    )


def distance_weights(
    target: Tensor,
    *,
    phi: int = 5,
    distance: Literal["window", "euclidean"] = "window",
    spacing: Sequence[float] | None = None,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The weight B of false alarms by distance to the foreground, for the weighted F-beta loss.

    Foreground is where y > ½. B depends only on the target: compute it once in the data pipeline
    and pass it to the loss::

        B_i = 1 at foreground,  2 − exp(ln(0.5)/5 · Δ_i) elsewhere

    Args:
        target: ``(N, K, H, W)`` or ``(N, K, D, H, W)``, in [0, 1], bool, integer or
            floating point.
        phi: The reach of distance="window" in pixels, at least 0.
        distance: "window": Δ is the squared distance to the nearest foreground pixel within φ, and
            ∞ beyond. "euclidean": Δ is the exact distance.
        spacing: As in `weighted_fbeta_loss`.
        ignore_index: Default: None. A target value whose pixels are background.
        mask: ``(N, *spatial)``, bool, True where a pixel counts; other pixels are background.

    Returns:
        The shape of `target`, in [1, 2]; float32, or float64 for a float64 target.

    Raises:
        ValueError: A target outside [0, 1], a wrong shape, or an option out of range.
        TypeError: A mask not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import distance_weights
        >>> distance_weights(torch.tensor([[[[1, 0, 0, 0]]]]))
        tensor([[[[1.0000, 1.1294, 1.4257, 1.7128]]]])

    References:
        Kolkin, Shechtman and Shakhnarovich, Training Deep Networks to be Spatially Sensitive,
        ICCV 2017, eq. 4 and §3.

    Convention:
        Eq. 10 is read with the 2 − e^(αΔ) of eq. 4, and its square window is cut at distance φ;
        see docs/losses/weighted-fbeta.md.
    """
    return fbeta.distance_weights(
        xp,
        target,
        phi=phi,
        distance=distance,
        spacing=spacing,
        ignore_index=ignore_index,
        mask=mask,
    )


@overload
def distance_transform(
    foreground: Tensor,
    *,
    spacing: Sequence[float] | None = None,
    return_indices: Literal[False] = False,
) -> Tensor: ...


@overload
def distance_transform(
    foreground: Tensor, *, spacing: Sequence[float] | None = None, return_indices: Literal[True]
) -> tuple[Tensor, Tensor]: ...


@overload
def distance_transform(
    foreground: Tensor, *, spacing: Sequence[float] | None = None, return_indices: bool
) -> Tensor | tuple[Tensor, Tensor]: ...


def distance_transform(
    foreground: Tensor, *, spacing: Sequence[float] | None = None, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The exact Euclidean distance of each pixel to the nearest foreground pixel.

    Computed axis by axis, with static shapes only::

        d_i = min over foreground j of ‖spacing · (i − j)‖

    Args:
        foreground: ``(N, *spatial)``, bool, with one to three spatial axes.
        spacing: Default: 1 each. The size of a pixel along each spatial axis, from 1e-9 to 1e9.
        return_indices: Also return the index of that pixel.

    Returns:
        Float32, ``(N, *spatial)``: 0 at foreground, infinite in an image without foreground. With
        `return_indices`, the pair of it and integers ``(N, rank, *spatial)``, the index of the
        nearest pixel along each axis, −1 without foreground.

    Raises:
        ValueError: No or more than three spatial axes, or sides whose squares sum to more than
            2**29.
        TypeError: Foreground or option not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import distance_transform
        >>> distance_transform(torch.tensor([[True, False, False]]))
        tensor([[0., 1., 2.]])

    References:
        Kolkin, Shechtman and Shakhnarovich, Training Deep Networks to be Spatially Sensitive,
        ICCV 2017, eq. 4 (Δ); Felzenszwalb and Huttenlocher, Distance Transforms of Sampled
        Functions, Theory of Computing 2012 (the parabolas).

    Convention:
        Among equally near pixels, the index is that of the first in row-major order; with `spacing`
        rounding decides. The distance has no gradient. See docs/distance.md.
    """
    return distance.distance_transform(
        xp, foreground, spacing=spacing, return_indices=return_indices
    )


def anchor_softmax_loss(
    features: Tensor,
    anchors: Tensor,
    labels: Tensor,
    *,
    ignore_index: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Anchor softmax loss: classifies pixels by their distances to the anchors of their image.

    For the Euclidean distance d (not squared) and the anchor μ_r of region r::

        −mean_i log softmax_r(−d(φ_i, μ_r))[label_i]

    Args:
        features: ``(N, C, *spatial)``, pixel embeddings of any range.
        anchors: ``(N, R, C)``, region embeddings, for example from `region_anchors`.
        labels: ``(N, *spatial)``, bool, integer or whole floats, 0..R−1.
        ignore_index: Default: None. A label whose pixels are ignored, as where `mask` is False.
        mask: ``(N, *spatial)``, bool, True where a pixel counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The loss in nats, at least 0. The gradient of a distance at 0 is 0.

    Raises:
        ValueError: Shapes that do not match, or a label outside 0..R−1.
        TypeError: Features or anchors not floating point, complex labels, or a mask not
            bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import anchor_softmax_loss
        >>> features = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        >>> anchors = torch.tensor([[[0.0], [1.0]]])
        >>> anchor_softmax_loss(features, anchors, torch.tensor([[0, 0, 1, 1]]))
        tensor(0.3133)

    References:
        Zeng et al., Learning to Promote Saliency Detectors, CVPR 2018, eq. 3 and 4.
    """
    return anchor.anchor_softmax_loss(
        xp, features, anchors, labels, ignore_index=ignore_index, mask=mask, reduction=reduction
    )


def anchor_probabilities(features: Tensor, anchors: Tensor) -> Tensor:
    """The probability of each region at each pixel, from the distances to the anchors.

    For the Euclidean distance d (not squared)::

        softmax_r(−d(φ_i, μ_r))

    Args:
        features: ``(N, C, *spatial)``, pixel embeddings of any range.
        anchors: ``(N, R, C)``, region embeddings.

    Returns:
        ``(N, R, *spatial)`` in [0, 1], summing to 1 over the regions.

    Raises:
        ValueError: Shapes that do not match.
        TypeError: Features or anchors not floating point.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import anchor_probabilities
        >>> features = torch.tensor([[[0.0, 0.5, 1.0]]])
        >>> anchor_probabilities(features, torch.tensor([[[0.0], [1.0]]]))
        tensor([[[0.7311, 0.5000, 0.2689],
                 [0.2689, 0.5000, 0.7311]]])

    References:
        Zeng et al., Learning to Promote Saliency Detectors, CVPR 2018, eq. 3.
    """
    return anchor.anchor_probabilities(xp, features, anchors)


def region_anchors(features: Tensor, weights: Tensor) -> Tensor:
    """Anchors: the weighted mean features of each region.

    Normalised per image and region::

        μ_r = Σ_i w_ir φ_i / Σ_i w_ir

    Args:
        features: ``(N, C, *spatial)``, any range.
        weights: ``(N, R, *spatial)``, non-negative, soft or hard: for example a prior map and its
            complement.

    Returns:
        ``(N, R, C)``; a region without weight has the zero vector.

    Raises:
        ValueError: Shapes that do not match, or a negative weight.
        TypeError: Features not floating point.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import region_anchors
        >>> features = torch.tensor([[[1.0, 3.0, 5.0]]])
        >>> region_anchors(features, torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]))
        tensor([[[2.],
                 [5.]]])

    References:
        Zeng et al., Learning to Promote Saliency Detectors, CVPR 2018, eq. 2 and §3.4.

    Convention:
        Weights are normalised per image. The authors' program divides by the weights of the whole
        batch, which shrinks the anchors as the batch grows.
    """
    return anchor.region_anchors(xp, features, weights)


def update_prior(prior: Tensor, probabilities: Tensor, step: int) -> Tensor:
    """The prior for the next iteration of promoting a saliency map.

    A running mean of the results; the first result replaces the initial prior::

        Y_next = ((t − 1) Y + Z) / t,  t = step

    Args:
        prior: Y, any shape, in [0, 1].
        probabilities: Z, the same shape, in [0, 1]: the new result.
        step: The number t of the iteration, from 1.

    Returns:
        The new prior, in [0, 1].

    Raises:
        ValueError: Shapes that do not match, values outside [0, 1], or a step below 1.
        TypeError: Maps not floating point, or a step that is not an integer.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import update_prior
        >>> update_prior(torch.tensor([0.0]), torch.tensor([1.0]), 1)
        tensor([1.])
        >>> update_prior(torch.tensor([0.0]), torch.tensor([1.0]), 2)
        tensor([0.5000])

    References:
        Zeng et al., Learning to Promote Saliency Detectors, CVPR 2018, eq. 5 and Algorithm 2.

    Convention:
        Eq. 5 is read with t from 0, so that the first result replaces the prior; see
        docs/losses/anchors.md.
    """
    return anchor.update_prior(xp, prior, probabilities, step)


def js_mutual_information(
    scores: Tensor,
    joint: Tensor,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Lower bound of the Jensen–Shannon divergence of joint and product distribution.

    For the critic's scores T::

        log 2 − ½ ( mean_{joint} softplus(−T) + mean_{product} softplus(T) )

    The critic log p(joint)/p(product) attains the divergence. An n × n matrix of scores with
    ``joint = eye(n)`` gives the exact estimate over all pairs; pairing samples shifted by a random
    1..n−1 gives an unbiased one in O(n). A random permutation may keep joint pairs, so it is
    biased.

    Args:
        scores: ``(N, ...)``, the critic's outputs before any sigmoid, any range.
        joint: The shape of `scores`, bool: True for pairs from the joint distribution, False for
            pairs from the product of the marginals.
        mask: The shape of `scores`, bool, True where a pair counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The estimate in nats, at most log 2. If an image lacks one kind of pair, the mean over it
        counts as 0 and the estimate is meaningless.

    Raises:
        ValueError: Shapes that do not match.
        TypeError: Scores not floating point, or joint or mask not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import js_mutual_information
        >>> scores = 20 * torch.eye(3) - 10
        >>> js_mutual_information(scores[None], torch.eye(3, dtype=torch.bool)[None])
        tensor(0.6931)

    References:
        Chen et al., Learning Deep Relations to Promote Saliency Detection, AAAI 2020, eq. 4 and 5;
        Nowozin, Cseke and Tomioka, f-GAN, NIPS 2016.

    Convention:
        The upper bound is log 2 and eq. 5 is read with its constants; see
        docs/losses/mutual-information.md.
    """
    return mutual_information.js_mutual_information(
        xp, scores, joint, mask=mask, reduction=reduction
    )


def js_mutual_information_loss(
    scores: Tensor,
    joint: Tensor,
    *,
    balance: bool = True,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Critic loss; its minimum over critics is 2 (log 2 − JS), JS the Jensen–Shannon divergence.

    For the critic's scores T::

        mean_{joint} softplus(−T) + mean_{product} softplus(T)

    Args:
        scores: ``(N, ...)``, the critic's outputs before any sigmoid, any range.
        joint: The shape of `scores`, bool: True for pairs from the joint distribution, False for
            pairs from the product of the marginals. `relation_pairs` makes it from a prior map.
        balance: True: weight both kinds of pairs equally. False: twice the binary cross-entropy
            over all pairs, as plain BCE training; equal if there are as many pairs of each kind.
        mask: The shape of `scores`, bool, True where a pair counts.
        reduction: "mean", "sum" or "none" over the images.

    Returns:
        The loss in nats, at least 0; 2 log 2 for an uninformed critic. The mean over an absent kind
        of pair counts as 0.

    Raises:
        ValueError: Shapes that do not match.
        TypeError: Scores not floating point, or joint or mask not bool.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import js_mutual_information_loss
        >>> joint = torch.tensor([[True, False, False]])
        >>> js_mutual_information_loss(torch.zeros(1, 3), joint)
        tensor(1.3863)

    References:
        Chen et al., Learning Deep Relations to Promote Saliency Detection, AAAI 2020, eq. 5.
    """
    return mutual_information.js_mutual_information_loss(
        xp, scores, joint, balance=balance, mask=mask, reduction=reduction
    )


def foreground_vector(features: Tensor, prior: Tensor, *, threshold: float = 0.9) -> Tensor:
    """The mean features of the certain foreground, weighted by the prior.

    Over the pixels with a prior of at least `threshold`::

        F = Σ_i p_i f_i,  p_i = s_i / Σ s

    Args:
        features: ``(N, C, *spatial)``, any range.
        prior: ``(N, *spatial)`` in [0, 1], a saliency map.
        threshold: Pixels with a prior of at least this value, in [0, 1], are certain foreground.

    Returns:
        ``(N, C)``. Without certain foreground, the mean over the pixels of highest prior.

    Raises:
        ValueError: Shapes that do not match, a prior or threshold outside [0, 1].
        TypeError: Features not floating point.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import foreground_vector
        >>> features = torch.tensor([[[1.0, 3.0, 5.0]]])
        >>> foreground_vector(features, torch.tensor([[1.0, 1.0, 0.2]]))
        tensor([[2.]])

    References:
        Chen et al., Learning Deep Relations to Promote Saliency Detection, AAAI 2020, eq. 7.
    """
    return mutual_information.foreground_vector(xp, features, prior, threshold=threshold)


def relation_pairs(
    prior: Tensor, *, foreground: float = 0.8, background: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Masks of the pixels that make joint or product pairs with the foreground vector.

    For `js_mutual_information_loss`, without ground truth::

        joint = prior ≥ foreground,  mask = joint or prior ≤ background

    Args:
        prior: ``(N, *spatial)`` in [0, 1], a saliency map.
        foreground: The smallest prior of a joint pair, in [0, 1].
        background: The largest prior of a product pair, in [0, 1], below `foreground`.

    Returns:
        ``(joint, mask)``, both ``(N, *spatial)`` and bool.

    Raises:
        ValueError: A wrong shape, a prior outside [0, 1], or background ≥ foreground.
        TypeError: A prior not floating point.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import relation_pairs
        >>> joint, mask = relation_pairs(torch.tensor([[0.9, 0.5, 0.1]]))
        >>> joint.tolist(), mask.tolist()
        ([[True, False, False]], [[True, False, True]])

    References:
        Chen et al., Learning Deep Relations to Promote Saliency Detection, AAAI 2020, §4.2.

    Convention:
        Booleans cannot carry NaN: where values cannot be read, a prior outside [0, 1] goes
        unnoticed.
    """
    return mutual_information.relation_pairs(
        xp, prior, foreground=foreground, background=background
    )


def merge_by_confidence(prior: Tensor, refined: Tensor) -> Tensor:
    """The more confident of two saliency maps at each pixel.

    For the confidence c = s if s > 0.5 else 1 − s::

        prior where c_prior > c_refined, else refined

    Args:
        prior: Any shape, in [0, 1].
        refined: The same shape, in [0, 1].

    Returns:
        The merged map, in [0, 1].

    Raises:
        ValueError: Shapes that do not match, or values outside [0, 1].
        TypeError: Maps not floating point.

    Example:
        >>> import torch
        >>> from saliency_losses.torch import merge_by_confidence
        >>> merge_by_confidence(torch.tensor([0.1, 0.6]), torch.tensor([0.7, 0.7]))
        tensor([0.1000, 0.7000])

    References:
        Chen et al., Learning Deep Relations to Promote Saliency Detection, AAAI 2020, eq. 10–11.
    """
    return mutual_information.merge_by_confidence(xp, prior, refined)
