"""The weighted F-measure (Margolin, Zelnik-Manor and Tal, CVPR 2014) as it is evaluated."""

from math import exp
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.distance import nearest_pixel
from saliency_losses.core.fbeta import check_beta, counted_maps, importance
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import counts


def weighted_fmeasure(xp: Ops, probs: Array, target: Array, *, beta: Any,
                      activation: str | None, ignore_index: int | None, mask: Array,
                      reduction: str) -> Array:
    check_beta(xp, beta)
    checks.activation(activation)
    checks.ignored(ignore_index)
    checks.reduction(reduction)
    p, y, _, bad = counted_maps(xp, probs, target, activation, ignore_index, mask, binary=True)
    images, channels = p.shape[:2]
    maps = (images * channels, *p.shape[2:])
    measure = _of_maps(xp, xp.reshape(p, maps), xp.reshape(y == 1, maps), beta)
    measure = xp.sum_vector(xp.reshape(measure, (images, channels))) / channels
    return checks.reduce(xp, checks.poison(xp, measure, bad), reduction)


def _of_maps(xp: Ops, p: Array, foreground: Array, beta: Any) -> Array:
    y = xp.cast(foreground, p)
    if 0 in p.shape:
        return xp.sum_pixels(xp.flat(y))
    error = xp.abs(p - y)
    squared, nearest = nearest_pixel(xp, foreground)
    # Every pixel with the error of its nearest foreground pixel, which for foreground is its own
    spread = xp.reshape(xp.take_along(xp.flat(error), xp.flat(nearest), 1), p.shape)
    # σ = 5, cut to seven pixels and then brought to a sum of 1. Computed here: with open sizes the
    # compiler takes numbers of the module for variables.
    gaussian = [exp(-(k**2) / (2 * 5**2)) for k in range(-3, 4)]
    for axis in range(1, p.ndim):
        spread = xp.filter_axis(spread, [tap / sum(gaussian) for tap in gaussian], axis)
    weighted = (xp.where(foreground & (spread < error), spread, error)
                * importance(xp, squared, p))

    beta = checks.as_scalar(xp, beta, p)
    size = counts(xp, xp.flat(foreground), p)
    missed = xp.sum_pixels(xp.flat(xp.where(foreground, weighted, 0.0)))
    spurious = xp.sum_pixels(xp.flat(xp.where(foreground, 0.0, weighted)))
    # (1 + β²) P R / (R + β² P) with P = TP / (TP + FP), R = TP / |Y| and TP = |Y| − FN
    hit, some = size - missed, size > 0
    whole = xp.where(some, beta**2 * size + hit + spurious, 1.0)
    return xp.where(some, (1 + beta**2) * hit / whole, 0.0)
