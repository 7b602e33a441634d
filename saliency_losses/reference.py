"""Reference implementations of the losses: NumPy, float64, one image at a time.

They follow the papers' equations, quoted by number beside the lines, and share no code with the
rest of the package. Its tests take them as the oracle, its benchmark as the exact side. Where a
paper sums over all pairs of pixels, so does this module: in O(n²) time, but in memory linear in the
pixels, because every double sum runs row by row.

Names, parameters and defaults are those of ``saliency_losses.torch`` and ``saliency_losses.jax``,
without ``reduction``, for one image with channels last. A `mask` is True where a pixel counts; the
other pixels are removed, whatever their values. If no pixel counts, a loss is 0. Losses return a
float, companions an array. Shapes and options are checked, ranges of values are not.

Papers: M = MEnet, C = class-agnostic segmentation, W = weighted F-beta, L = learning to promote,
R = deep relations.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def _shaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """`values` as an array; ValueError unless it has `shape`."""
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def _vectors(name: str, values: ArrayLike) -> tuple[Floats, tuple[int, ...]]:
    """`values` `(*spatial, C)` as one row per pixel, and the spatial shape."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 2:
        raise ValueError(f"{name}: expected shape (*spatial, C), got {array.shape}")
    return array.reshape(-1, array.shape[-1]), array.shape[:-1]


def _counted(mask: ArrayLike | None, shape: tuple[int, ...]) -> Bools:
    """The mask as a flat boolean array; all True if it is None."""
    if mask is None:
        return np.ones(math.prod(shape), dtype=np.bool_)
    return _shaped("mask", mask, shape).astype(np.bool_).ravel()


def _option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {allowed}, got {value!r}")


def _lengths(vectors: Floats) -> Floats:
    """Euclidean length of each row; lengths below 1e-12 count as 0, as in the losses."""
    lengths: Floats = np.sqrt((vectors**2).sum(axis=1))
    return np.where(lengths < 1e-12, 0.0, lengths)


def _log_sum_exp(*terms: Floats) -> Floats:
    """log Σ exp of the terms, elementwise; NaN gives NaN without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.logaddexp.reduce(terms))


def metric_loss(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    form: str = "centroid",
    normalize: bool = False,
    hard_negatives: bool = False,
    mask: ArrayLike | None = None,
) -> float:
    """Distances of features to their own region minus distances to the other region.

    ``"centroid"``: mean_i ‖f_i − μ_own‖² − ‖f_i − μ_other‖² (M eq. 3).
    ``"pairwise"``: mean_i mean_{k in own} ‖f_i − f_k‖² − mean_{k in other} ‖f_i − f_k‖² (M eq. 2).
    The public option ``stop_gradient`` is missing, since it changes only gradients.

    Args:
        features: `(*spatial, C)`; `normalize` scales them to unit length (zero vectors stay zero).
        labels: `(*spatial)`; 0 background, 1 salient.
        hard_negatives: Take mean_i over the smaller region and as many pixels of the larger, those
            of highest loss (M §3.2), and μ over all pixels. Ties do not change the value.
        mask: `(*spatial)`, True where a pixel counts.

    Returns:
        The loss; 0 for an image that lacks one of the two regions.
    """
    _option("form", form, ("centroid", "pairwise"))
    if hard_negatives and form == "pairwise":
        raise ValueError("hard_negatives: expected False with form='pairwise', got True")
    f, spatial = _vectors("features", features)
    salient = _shaped("labels", labels, spatial).ravel() == 1
    counted = _counted(mask, spatial)
    f, salient = f[counted], salient[counted]
    if salient.all() or not salient.any():
        return 0.0
    if normalize:
        length = _lengths(f)[:, None]
        f = np.divide(f, length, out=np.zeros_like(f), where=length != 0)
    else:
        # Only differences of features matter; subtracting the mean keeps their digits.
        f = f - f.mean(axis=0)

    mu = {True: f[salient].mean(axis=0), False: f[~salient].mean(axis=0)}
    loss = np.empty(len(f))
    for i, own in enumerate(salient.tolist()):
        if form == "centroid":  # M eq. 3
            loss[i] = ((f[i] - mu[own]) ** 2).sum() - ((f[i] - mu[not own]) ** 2).sum()
        else:  # M eq. 2
            squared = ((f[i] - f) ** 2).sum(axis=1)
            loss[i] = squared[salient == own].mean() - squared[salient != own].mean()
    if hard_negatives:
        size = min(salient.sum(), (~salient).sum())
        loss = np.concatenate([np.sort(loss[region])[-size:] for region in (salient, ~salient)])
    return float(loss.mean())


def semantic_distance(features: ArrayLike, background: ArrayLike) -> Floats:
    """Distance of every pixel's features to the mean features of the background.

    S_i = ‖f_i − Σ_j P_B(f_j) f_j‖ (M eq. 5), where P_B are the normalised `background` weights.

    Args:
        features: `(*spatial, C)`.
        background: `(*spatial)`, non-negative; if all are 0, the mean is the zero vector.

    Returns:
        `(*spatial)`.
    """
    f, spatial = _vectors("features", features)
    weights = _shaped("background", background, spatial)
    mean = region_anchors(features, weights[..., None])[0]
    return _lengths(f - mean).reshape(spatial)  # M eq. 5


def cas_loss(
    probs: ArrayLike,
    labels: ArrayLike,
    *,
    num_regions: int = 2,
    alpha: float = 0.5,
    average_regions: bool = False,
    mask: ArrayLike | None = None,
) -> float:
    """Class-agnostic segmentation loss: spread within regions minus differences between regions.

    α Σ_r mean_{i in r} ‖s_i − ŝ_r‖² − (1 − α) Σ_{r≠q} ‖ŝ_r − ŝ_q‖² (C eq. 1), over the regions
    present and ordered pairs of them; with `average_regions` both sums become means.

    Args:
        probs: `(*spatial, M)`, descriptors in [0, 1].
        labels: `(*spatial)`, 0 to `num_regions` − 1.
        mask: `(*spatial)`, True where a pixel counts.

    Returns:
        The loss.
    """
    s, spatial = _vectors("probs", probs)
    region = _shaped("labels", labels, spatial).ravel()
    counted = _counted(mask, spatial)
    s, region = s[counted], region[counted]
    present = [r for r in range(num_regions) if (region == r).any()]

    mean = {r: s[region == r].mean(axis=0) for r in present}
    uniformer = [((s[region == r] - mean[r]) ** 2).sum(axis=1).mean() for r in present]
    discriminator = [((mean[r] - mean[q]) ** 2).sum() for r in present for q in present if r != q]
    first, second = sum(uniformer), sum(discriminator)
    if average_regions:
        first, second = first / max(len(uniformer), 1), second / max(len(discriminator), 1)
    # C eq. 1 is read with the minus of eq. 2; see docs/losses/cas.md.
    return float(alpha * first - (1 - alpha) * second)


def class_agnostic_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, per: str = "image", mask: ArrayLike | None = None
) -> float:
    """The smaller of the cross-entropies with the labels and the exchanged labels (C §4.2).

    ``"image"``: min(mean_i −log p_i[y_i], mean_i −log p_i[1 − y_i]).
    ``"pixel"``: mean_i min(−log p_i[y_i], −log p_i[1 − y_i]).

    Args:
        logits: `(*spatial, 2)`.
        labels: `(*spatial)`, 0 or 1.
        mask: `(*spatial)`, True where a pixel counts.

    Returns:
        The loss.
    """
    _option("per", per, ("image", "pixel"))
    z, spatial = _vectors("logits", logits)
    _shaped("logits", logits, (*spatial, 2))
    salient = _shaped("labels", labels, spatial).ravel() == 1
    counted = _counted(mask, spatial)
    if not counted.any():
        return 0.0
    z, salient = z[counted], salient[counted]
    minus_log_p = _log_sum_exp(z[:, 0], z[:, 1])[:, None] - z
    direct = np.where(salient, minus_log_p[:, 1], minus_log_p[:, 0])
    exchanged = np.where(salient, minus_log_p[:, 0], minus_log_p[:, 1])
    if per == "pixel":
        return float(np.minimum(direct, exchanged).mean())
    return float(np.minimum(direct.mean(), exchanged.mean()))


def _spatial_map(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name}: expected one map of spatial rank 2 or 3, got {array.shape}")
    return array


def _coordinates(shape: tuple[int, ...]) -> Ints:
    """Coordinates of all pixels, one row per pixel, in the order of `ravel`."""
    return np.indices(shape, dtype=np.int64).reshape(len(shape), -1).T


def _gaussian(offsets: Ints, theta: int) -> Floats:
    """The Gaussian of W eq. 3 at offsets between foreground pixels, σ = θ/4."""
    variance = (theta / 4) ** 2
    squared = (offsets**2).sum(axis=1)
    return np.asarray(np.exp(-squared / (2 * variance)) / math.sqrt(2 * math.pi * variance))


def _smoothed(errors: Floats, miss: Bools, shape: tuple[int, ...], theta: int, cut: bool) -> Floats:
    """AE (W eq. 3), one row of A at a time; `cut` limits offsets to −θ..θ per axis (eq. 8)."""
    smoothed = errors.copy()  # W eq. 3, second line: A is the identity elsewhere
    at, error = _coordinates(shape)[miss], errors[miss]
    rows = np.empty(len(at))
    for i in range(len(at)):
        offsets = at - at[i]
        near = (np.abs(offsets) <= theta).all(axis=1) | (not cut)
        rows[i] = (_gaussian(offsets[near], theta) * error[near]).sum()
    smoothed[miss] = rows
    return smoothed


def _weights(y: Bools, shape: tuple[int, ...], phi: int, distance: str) -> Floats:
    """B (W eq. 4) for the flat foreground `y`, flat."""
    _option("distance", distance, ("window", "euclidean"))
    at = _coordinates(shape)
    foreground = at[y]
    delta = np.full(len(y), math.inf)
    for i in np.flatnonzero(~y & y.any()):
        squared = ((foreground - at[i]) ** 2).sum(axis=1).min()
        if distance == "euclidean":  # W eq. 4
            delta[i] = math.sqrt(squared)
        elif squared <= phi**2:  # W §3
            delta[i] = squared
    return np.where(y, 1.0, 2 - np.exp(math.log(0.5) / 5 * delta))  # W eq. 4


def _counted_maps(
    probs: ArrayLike, target: ArrayLike, mask: ArrayLike | None
) -> tuple[Floats, Floats, Bools]:
    """Flat p and y, both 0 at removed pixels, and the counted pixels."""
    shape = _spatial_map("probs", probs).shape
    counted = _counted(mask, shape)
    p, y = np.zeros(counted.size), np.zeros(counted.size)
    p[counted] = np.asarray(probs, np.float64).ravel()[counted]
    y[counted] = _shaped("target", target, shape).astype(np.float64).ravel()[counted]
    return p, y, counted


def _errors(p: Floats, y: Floats, error: str) -> Floats:
    """E (W eq. 2 or §3)."""
    _option("error", error, ("squared", "absolute"))
    return (p - y) ** 2 if error == "squared" else np.abs(p - y)


def _fbeta(
    smoothed: Floats, errors: Floats, b: Floats, p: Floats, y: Floats, counted: Bools, beta: float
) -> float:
    """F from AE, E, B, the prediction, the target and the counted pixels."""
    if not counted.any():
        return 1.0
    miss = p < y
    weighted = np.minimum(smoothed, errors) * np.where(miss, 1.0, b)  # W eq. 5
    if y.sum() == 0:  # F is 0/0
        return float(1 - weighted[counted].mean() / 2)
    # W eq. 2 with E^w for E: in 0/1 targets misses are foreground, and Σ y (1 − E^w) is this TP.
    fn, fp = weighted[miss].sum(), weighted[~miss].sum()  # `~miss` includes NaN
    tp = y.sum() - fn
    # W eq. 6 with P and R inserted, so that TP = 0 gives 0 instead of 0/0.
    return float((1 + beta**2) * tp / ((1 + beta**2) * tp + beta**2 * fn + fp))


def weighted_fbeta_score(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    beta: float = 1.0,
    theta: int = 9,
    phi: int = 5,
    distance: str = "euclidean",
    error: str = "absolute",
    normalize_kernel: bool = False,
    distance_weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """The weighted F-measure of one map, with the Gaussian cut to offsets −θ..θ along each axis.

    F = (1 + β²)TP / ((1 + β²)TP + β²FN + FP) (W eq. 6), with FN = Σ E^w over misses (p < y), FP =
    Σ E^w over false alarms (p > y) and TP = Σ y − FN. E^w = min(AE, E)·B (W eq. 5), where A is that
    of W eq. 3 among misses with σ = θ/4, and B is as `distance_weights` returns it, but 1 at
    misses. `normalize_kernel` divides the Gaussian by its sum over the window. To score K maps,
    average their scores.

    Args:
        probs: `(*spatial)`, rank 2 or 3.
        target: The same shape, in [0, 1]. W defines targets of 0 and 1 only; other values are the
            package's own extension.
        error: ``"absolute"``, E = |p − y| (W eq. 2), or ``"squared"``, (p − y)² (W §3).
        distance_weights: `(*spatial)`, B precomputed.
        mask: `(*spatial)`, True where a pixel counts.

    Returns:
        F; 1 − mean E^w / 2 if the target is 0 everywhere.
    """
    p, y, counted = _counted_maps(probs, target, mask)
    shape = np.shape(target)
    errors = _errors(p, y, error)
    smoothed = _smoothed(errors, p < y, shape, theta, cut=True)
    if normalize_kernel:
        window = _coordinates((2 * theta + 1,) * len(shape)) - theta
        smoothed[p < y] /= _gaussian(window, theta).sum()
    if distance_weights is None:
        b = _weights(y > 0.5, shape, phi, distance)
    else:
        b = _shaped("distance_weights", distance_weights, shape).astype(np.float64).ravel()
    return _fbeta(smoothed, errors, b, p, y, counted, beta)


def weighted_fbeta_loss(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    beta: float = 1.0,
    theta: int = 9,
    phi: int = 5,
    distance: str = "window",
    error: str = "squared",
    normalize_kernel: bool = False,
    distance_weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """1 − F of one map, by default with the squared errors and windowed distances of W §3.

    The arguments are those of `weighted_fbeta_score`; `distance` and `error` have other defaults.

    Returns:
        The loss; mean E^w / 2 if the target is 0 everywhere.
    """
    return 1 - weighted_fbeta_score(
        probs,
        target,
        beta=beta,
        theta=theta,
        phi=phi,
        distance=distance,
        error=error,
        normalize_kernel=normalize_kernel,
        distance_weights=distance_weights,
        mask=mask,
    )


def exact_weighted_fbeta_score(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    beta: float = 1.0,
    theta: int = 9,
    mask: ArrayLike | None = None,
) -> float:
    """The paper's measure F_β^w of one map: W eq. 1 to 6 with σ = θ/4, A not cut to a window.

    Args:
        probs: `(*spatial)`, rank 2 or 3.
        target: The same shape, in [0, 1], as in `weighted_fbeta_score`.
        mask: `(*spatial)`, True where a pixel counts.

    Returns:
        F; 1 − mean E^w / 2 if the target is 0 everywhere.
    """
    p, y, counted = _counted_maps(probs, target, mask)
    shape = np.shape(target)
    errors = _errors(p, y, "absolute")
    smoothed = _smoothed(errors, p < y, shape, theta, cut=False)
    b = _weights(y > 0.5, shape, 0, "euclidean")
    return _fbeta(smoothed, errors, b, p, y, counted, beta)


def weighted_fmeasure(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    beta: float = 1.0,
    normalize: bool = False,
    spacing: Sequence[float] | None = None,
) -> float:
    """The weighted F-measure of one map as evaluation programs compute it (Margolin et al., 2014).

    (1 + β²) P R / (R + β² P) with R = TP/|Y|, P = TP/(TP + FP), TP = |Y| − Σ_Y E^w and
    FP = Σ_{not Y} E^w. E^w = min(E, Σ_j G_ij E_{n(j)}) at foreground and E·(2 − e^(ln(0.5)/5 Δ))
    elsewhere, where n(j) is the foreground pixel nearest to j and G a Gaussian with σ = 5 over
    seven pixels per axis, of unit sum, with zeros outside the image.

    Args:
        probs: `(*spatial)`, rank 2 or 3.
        target: The same shape, 0 or 1.
        normalize: Stretch `probs` to [0, 1] by its minimum and maximum, unless it is constant.
        spacing: The size of a pixel along each axis, for the distance and the nearest pixel.

    Returns:
        F; 0 without foreground.
    """
    p = _spatial_map("probs", probs).astype(np.float64)
    y = _shaped("target", target, p.shape).astype(np.float64) == 1
    if not y.any():
        return 0.0
    if normalize and p.min() < p.max():
        p = (p - p.min()) / (p.max() - p.min())
    error = np.abs(p - y)
    distance, nearest = distance_transform(y, spacing=spacing, return_indices=True)
    spread = error[tuple(np.moveaxis(nearest, -1, 0))]
    kernel = np.exp(-((_coordinates((7,) * p.ndim) - 3) ** 2).sum(axis=1) / 50)
    kernel = (kernel / kernel.sum()).reshape((7,) * p.ndim)
    padded, weighted = np.pad(spread, 3), np.empty(p.shape)
    for pixel in np.ndindex(p.shape):
        if y[pixel]:
            around = padded[tuple(slice(i, i + 7) for i in pixel)]
            weighted[pixel] = min(error[pixel], (kernel * around).sum())
        else:
            weighted[pixel] = error[pixel] * (2 - np.exp(math.log(0.5) / 5 * distance[pixel]))
    hit, spurious = y.sum() - weighted[y].sum(), weighted[~y].sum()
    if hit <= 0:
        return 0.0
    recall, precision = hit / y.sum(), hit / (hit + spurious)
    return float((1 + beta**2) * precision * recall / (recall + beta**2 * precision))


def distance_weights(
    target: ArrayLike, *, phi: int = 5, distance: str = "window", mask: ArrayLike | None = None
) -> Floats:
    """The weight of a false alarm by its distance from the foreground (y > ½).

    B_i = 1 at foreground, 2 − exp(αΔ_i) elsewhere, α = ln(0.5)/5 (W eq. 4). With ``"euclidean"``,
    Δ_i is the distance to the nearest foreground pixel; with ``"window"`` it is that distance
    squared within φ, ∞ beyond (W §3). Without foreground Δ = ∞.

    Args:
        target: `(*spatial)`, rank 2 or 3, in [0, 1].
        mask: `(*spatial)`, True where a pixel counts; the others are background.

    Returns:
        B, `(*spatial)`.
    """
    y = _spatial_map("target", target) > 0.5
    foreground = y.ravel() & _counted(mask, y.shape)
    return _weights(foreground, y.shape, phi, distance).reshape(y.shape)


@overload
def distance_transform(
    foreground: ArrayLike,
    *,
    spacing: Sequence[float] | None = None,
    return_indices: Literal[False] = False,
) -> Floats: ...


@overload
def distance_transform(
    foreground: ArrayLike, *, spacing: Sequence[float] | None = None, return_indices: Literal[True]
) -> tuple[Floats, Ints]: ...


@overload
def distance_transform(
    foreground: ArrayLike, *, spacing: Sequence[float] | None = None, return_indices: bool
) -> Floats | tuple[Floats, Ints]: ...


def distance_transform(
    foreground: ArrayLike,
    *,
    spacing: Sequence[float] | None = None,
    return_indices: bool = False,
) -> Floats | tuple[Floats, Ints]:
    """Distance to the nearest foreground pixel; of equally near ones, the first in row-major order.

    d_i = min over foreground j of ‖spacing · (i − j)‖; without foreground ∞ and index −1.

    Args:
        foreground: bool `(*spatial)`, rank 1 to 3.
        spacing: The size of a pixel along each axis; 1 by default.

    Returns:
        `(*spatial)`; with `return_indices` also the pixel's index, `(*spatial, rank)`.
    """
    y = np.asarray(foreground)
    places, size = np.argwhere(y), 1 if spacing is None else np.asarray(spacing)
    distances, indices = np.full(y.shape, np.inf), np.full((*y.shape, y.ndim), -1)
    for pixel in np.ndindex(y.shape):
        if len(places):
            squared = ((size * (places - pixel)) ** 2).sum(axis=1)
            nearest = squared.argmin()
            distances[pixel], indices[pixel] = np.sqrt(squared[nearest]), places[nearest]
    return (distances, indices) if return_indices else distances


def region_anchors(features: ArrayLike, weights: ArrayLike) -> Floats:
    """Weighted mean features of each region.

    μ_r = Σ_i w_ir φ_i / Σ_i w_ir (L §3.4).

    Args:
        features: `(*spatial, C)`.
        weights: `(*spatial, R)`, non-negative.

    Returns:
        `(R, C)`; a region without weight has the zero vector.
    """
    f, spatial = _vectors("features", features)
    w, _ = _vectors("weights", weights)
    _shaped("weights", weights, (*spatial, w.shape[1]))
    anchors = np.zeros((w.shape[1], f.shape[1]))
    for r, weight in enumerate(w.T):
        if weight.sum() != 0:
            anchors[r] = (weight[:, None] * f).sum(axis=0) / weight.sum()
    return anchors


def _anchor_log_probabilities(f: Floats, anchors: ArrayLike) -> Floats:
    """log p(C_r | x_i) (L eq. 3), `(n, R)`."""
    mu, _ = _vectors("anchors", anchors)
    _shaped("anchors", anchors, (len(mu), f.shape[1]))
    d = np.stack([_lengths(f - anchor) for anchor in mu], axis=1)
    return -d - _log_sum_exp(*-d.T)[:, None]


def anchor_probabilities(features: ArrayLike, anchors: ArrayLike) -> Floats:
    """Probability of each region from the Euclidean distances d to the anchors.

    p(C_r | x_i) = exp(−d(φ_i, μ_r)) / Σ_q exp(−d(φ_i, μ_q)) (L eq. 3).

    Args:
        features: `(*spatial, C)`.
        anchors: `(R, C)`.

    Returns:
        `(*spatial, R)`.
    """
    f, spatial = _vectors("features", features)
    return np.exp(_anchor_log_probabilities(f, anchors)).reshape(*spatial, len(np.asarray(anchors)))


def anchor_softmax_loss(
    features: ArrayLike, anchors: ArrayLike, labels: ArrayLike, *, mask: ArrayLike | None = None
) -> float:
    """Cross-entropy of the softmax over negative distances to the anchors.

    −mean_i log p(C_{label_i} | x_i) with p of L eq. 3 (L eq. 4, as a mean instead of a sum).

    Args:
        features: `(*spatial, C)`.
        anchors: `(R, C)`.
        labels: `(*spatial)`, 0 to R − 1.
        mask: `(*spatial)`, True where a pixel counts.

    Returns:
        The loss.
    """
    f, spatial = _vectors("features", features)
    region = _shaped("labels", labels, spatial).ravel()
    counted = _counted(mask, spatial)
    if not counted.any():
        return 0.0
    log_p = _anchor_log_probabilities(f[counted], anchors)
    return float(-log_p[np.arange(len(log_p)), region[counted].astype(np.intp)].mean())


def update_prior(prior: ArrayLike, probabilities: ArrayLike, step: int) -> Floats:
    """The prior saliency map of the next iteration.

    ((t − 1) Y + Z) / t for t = `step` ≥ 1: L eq. 5 with t counted from 0; see
    docs/losses/anchors.md.

    Args:
        prior: Y, of any shape.
        probabilities: Z, of the same shape.

    Returns:
        The shape of `prior`.
    """
    if step < 1:
        raise ValueError(f"step: expected 1 or more, got {step}")
    y = np.asarray(prior, dtype=np.float64)
    z = _shaped("probabilities", probabilities, y.shape).astype(np.float64)
    return np.asarray(((step - 1) * y + z) / step)


def js_mutual_information_loss(
    scores: ArrayLike, joint: ArrayLike, *, balance: bool = True, mask: ArrayLike | None = None
) -> float:
    """Critic loss: the negative of the right side of R eq. 5.

    mean_{joint} −log σ(T) + mean_{product} −log(1 − σ(T)) (R eq. 5); with ``balance=False`` twice
    the mean of R eq. 6 over all pairs.

    Args:
        scores: T, of any shape, before a sigmoid.
        joint: The same shape; True for pairs of the joint distribution, False for pairs of the
            product of the marginals.
        mask: The same shape, True where a pair counts.

    Returns:
        The loss; an absent kind of pair contributes 0.
    """
    t = np.asarray(scores, dtype=np.float64)
    kind = _shaped("joint", joint, t.shape).astype(np.bool_).ravel()
    counted = _counted(mask, t.shape)
    t, kind = t.ravel()[counted], kind[counted]
    from_joint = _log_sum_exp(np.zeros_like(t), -t)[kind]  # −log σ(T)
    from_product = _log_sum_exp(np.zeros_like(t), t)[~kind]  # −log(1 − σ(T))
    terms = [from_joint, from_product] if balance else 2 * [np.append(from_joint, from_product)]
    return float(sum(term.mean() for term in terms if len(term) > 0))


def js_mutual_information(
    scores: ArrayLike, joint: ArrayLike, *, mask: ArrayLike | None = None
) -> float:
    """Lower bound of the Jensen–Shannon divergence of joint and product distribution, in nats.

    log 2 − loss/2 with the balanced loss; see docs/losses/mutual-information.md for the constants.

    Args:
        scores: Any shape, before a sigmoid.
        joint: The same shape, as in `js_mutual_information_loss`.
        mask: The same shape, True where a pair counts.

    Returns:
        The estimate, at most log 2; meaningless if one kind of pair is absent.
    """
    return math.log(2) - js_mutual_information_loss(scores, joint, mask=mask) / 2


def foreground_vector(features: ArrayLike, prior: ArrayLike, *, threshold: float = 0.9) -> Floats:
    """Mean features of the certain foreground, weighted by the prior.

    F_fg = Σ_i p_i f_i, p_i = s_i / Σ_j s_j, over pixels with s ≥ `threshold` (R eq. 7). Without
    such a pixel, over the pixels of highest prior, with equal weights.

    Args:
        features: `(*spatial, C)`.
        prior: s, `(*spatial)`, in [0, 1].

    Returns:
        `(C,)`.
    """
    f, spatial = _vectors("features", features)
    s = _shaped("prior", prior, spatial).astype(np.float64).ravel()
    chosen = ~(s < min(threshold, s.max()))  # `~(s < ...)` includes NaN
    p = s[chosen] if s[chosen].any() else np.ones(chosen.sum())
    return np.asarray(((p / p.sum())[:, None] * f[chosen]).sum(axis=0))


def relation_pairs(
    prior: ArrayLike, *, foreground: float = 0.8, background: float = 0.3
) -> tuple[Bools, Bools]:
    """Pixels that make joint pairs and product pairs with the foreground vector (R §4.2).

    joint = prior ≥ foreground; mask = joint or prior ≤ background.

    Args:
        prior: any shape, in [0, 1].

    Returns:
        `joint` and `mask`, in the shape of `prior`.
    """
    if background >= foreground:
        raise ValueError(f"background: expected less than {foreground=}, got {background}")
    s = np.asarray(prior, dtype=np.float64)
    joint = np.asarray(s >= foreground)
    return joint, joint | (s <= background)


def merge_by_confidence(prior: ArrayLike, refined: ArrayLike) -> Floats:
    """The more confident of two maps at each pixel.

    c = s if s > 0.5 else 1 − s (R eq. 10); `prior` where its c is greater, else `refined` (eq. 11).

    Args:
        prior: Any shape, in [0, 1].
        refined: The same shape, in [0, 1].

    Returns:
        The shape of `prior`.
    """
    old = np.asarray(prior, dtype=np.float64)
    new = _shaped("refined", refined, old.shape).astype(np.float64)
    old_confidence, new_confidence = (np.where(s > 0.5, s, 1 - s) for s in (old, new))
    return np.where(old_confidence > new_confidence, old, new)
