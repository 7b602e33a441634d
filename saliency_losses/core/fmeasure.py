"""The weighted F-measure (Margolin, Zelnik-Manor and Tal, CVPR 2014) as it is evaluated."""

from math import exp

from saliency_losses.core import checks
from saliency_losses.core.distance import nearest_pixel
from saliency_losses.core.fbeta import counted_maps, importance
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import counts

# σ = 5, cut to seven pixels and then brought to a sum of 1
GAUSSIAN = [exp(-(k**2) / (2 * 5**2)) for k in range(-3, 4)]
GAUSSIAN = [tap / sum(GAUSSIAN) for tap in GAUSSIAN]


def weighted_fmeasure(xp: Ops, probs: Array, target: Array, *, beta: float,
                      activation: str | None, ignore_index: int | None, mask: Array,
                      reduction: str) -> Array:
    checks.number("beta", beta, 0, float("inf"), open_low=True)
    checks.activation(activation)
    checks.ignored(ignore_index)
    checks.reduction(reduction)
    p, y, _, bad = counted_maps(xp, probs, target, activation, ignore_index, mask, binary=True)
    images, channels = p.shape[:2]
    maps = (images * channels, *p.shape[2:])
    measure = _of_maps(xp, xp.reshape(p, maps), xp.reshape(y == 1, maps), beta)
    measure = xp.sum_vector(xp.reshape(measure, (images, channels))) / channels
    return checks.reduce(xp, checks.poison(xp, measure, bad), reduction)


def _of_maps(xp: Ops, p: Array, foreground: Array, beta: float) -> Array:
    y = xp.cast(foreground, p)
    if 0 in p.shape:
        return xp.sum_pixels(xp.flat(y))
    error = xp.abs(p - y)
    squared, nearest = nearest_pixel(xp, foreground)
    # Every pixel with the error of its nearest foreground pixel, which for foreground is its own
    spread = xp.reshape(xp.take_along(xp.flat(error), xp.flat(nearest), 1), p.shape)
    for axis in range(1, p.ndim):
        spread = xp.filter_axis(spread, GAUSSIAN, axis)
    weighted = (xp.where(foreground & (spread < error), spread, error)
                * importance(xp, squared, p))

    size = counts(xp, xp.flat(foreground), p)
    missed = xp.sum_pixels(xp.flat(xp.where(foreground, weighted, 0.0)))
    spurious = xp.sum_pixels(xp.flat(xp.where(foreground, 0.0, weighted)))
    # (1 + β²) P R / (R + β² P) with P = TP / (TP + FP), R = TP / |Y| and TP = |Y| − FN
    hit, some = size - missed, size > 0
    whole = xp.where(some, beta**2 * size + hit + spurious, 1.0)
    return xp.where(some, (1 + beta**2) * hit / whole, 0.0)
