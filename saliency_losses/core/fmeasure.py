"""The weighted F-measure (Margolin, Zelnik-Manor and Tal, CVPR 2014) for evaluation."""

from math import exp
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.distance import nearest_pixel
from saliency_losses.core.fbeta import check_beta, counted_maps, importance
from saliency_losses.core.ops import Array, Ops


def check_options(
    xp: Ops,
    beta: Any,
    normalize: bool,
    spacing: Any,
    activation: str | None,
    ignore_index: int | None,
    reduction: str,
) -> None:
    check_beta(xp, beta)
    checks.flag("normalize", normalize)
    checks.spacing(spacing)
    checks.activation(activation)
    checks.ignore_index(ignore_index)
    checks.reduction(reduction)


def weighted_fmeasure(
    xp: Ops,
    probs: Array,
    target: Array,
    *,
    beta: Any,
    normalize: bool,
    spacing: Any,
    activation: str | None,
    ignore_index: int | None,
    mask: Array,
    reduction: str,
) -> Array:
    """The weighted F-measure of soft maps against binary masks, mean over the maps of an image.

    (1 + β²) P R / (β² P + R) with weighted precision P and recall R, reduced over the images.
    """
    check_options(xp, beta, normalize, spacing, activation, ignore_index, reduction)
    p, y, counted, bad = counted_maps(
        xp, probs, target, activation, ignore_index, mask, binary=True
    )
    if normalize and 0 not in p.shape:
        p = stretched(xp, p, counted)
    images, channels = p.shape[:2]
    maps = (images * channels, *p.shape[2:])
    sizes = checks.spacing(spacing, p.ndim - 2)
    foreground = xp.reshape(y, maps)
    y = xp.cast(foreground, p)
    measure = of_maps(xp, xp.abs(xp.reshape(p, maps) - y), y, foreground, beta, sizes)
    measure = xp.sum_vector(xp.reshape(measure, (images, channels))) / channels
    bad = bad | without_pixels(xp, p, counted)
    return checks.reduce(xp, checks.nan_where_bad(xp, measure, bad), reduction)


def without_pixels(xp: Ops, p: Array, counted: Array | None) -> Array:
    """The images ``(N,)`` that have a map ``(N, K, *spatial)`` without a counted pixel."""
    if counted is None:
        return ~xp.no_image(p) if 0 in p.shape[1:] else xp.no_image(p)
    each_map = xp.reshape(counted, (counted.shape[0] * counted.shape[1], *counted.shape[2:]))
    return xp.any_per_image(xp.reshape(~xp.any_per_image(each_map), counted.shape[:2]))


def stretched(xp: Ops, p: Array, counted: Array | None) -> Array:
    """Each map ``(N, K, *spatial)``, scaled so that its counted values span [0, 1].

    A constant map stays unchanged, and ignored pixels are 0.
    """
    maps_shape = (p.shape[0] * p.shape[1], *p.shape[2:])
    infinity = float("inf")
    lows, highs = (
        (p, p)
        if counted is None
        else (xp.where(counted, p, infinity), xp.where(counted, p, -infinity))
    )
    low = -xp.max_pixels(xp.flat(xp.reshape(-lows, maps_shape)))
    high = xp.max_pixels(xp.flat(xp.reshape(highs, maps_shape)))
    constant = ~(low < high)
    low, scale = xp.where(constant, 0.0, low), xp.where(constant, 1.0, high - low)
    per_map_shape = (*p.shape[:2],) + (1,) * (p.ndim - 2)
    stretched = (p - xp.reshape(low, per_map_shape)) / xp.reshape(scale, per_map_shape)
    return stretched if counted is None else xp.where(counted, stretched, 0.0)


def of_maps(
    xp: Ops, error: Array, y: Array, foreground: Array, beta: Any, spacing: checks.Spacing = None
) -> Array:
    """The measure of each map, ``(M,)``.

    error: |p − y|, ``(M, *spatial)``. y: 1 in the foreground, 0 elsewhere. foreground: y as bools.
    """
    if 0 in y.shape:
        return xp.sum_pixels(xp.flat(y))
    # Every pixel takes the error of its nearest foreground pixel (a foreground pixel its own).
    squared, nearest = nearest_pixel(xp, foreground, spacing, y)
    spread = xp.reshape(xp.take_along(xp.flat(error), xp.flat(nearest), 1), y.shape)
    # σ = 5, cut to seven pixels and normalised to a sum of 1. Computed in the function, since
    # torch.compile with dynamic shapes takes floats of the module for variables.
    gaussian = [exp(-(k**2) / (2 * 5**2)) for k in range(-3, 4)]
    normalized = [tap / sum(gaussian) for tap in gaussian]
    spread = xp.filter_axes(spread, [normalized] * (y.ndim - 1))

    beta, size = checks.as_scalar(xp, beta, y), xp.sum_pixels(xp.flat(y))
    # Products instead of `where`, which on a CPU is 30 times slower.
    missed = xp.sum_pixels(xp.flat(xp.minimum(spread, error) * y))
    alarms = error * (1 - y) * importance(xp, squared, y)
    spurious = xp.sum_pixels(xp.flat(alarms))
    # (1 + β²) P R / (R + β² P) with P = TP / (TP + FP), R = TP / |Y| and TP = |Y| − FN
    hits = size - missed  # 0 without foreground
    denominator = xp.where(size > 0, beta**2 * size + hits + spurious, 1.0)
    return (1 + beta**2) * hits / denominator
