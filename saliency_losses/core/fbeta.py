"""The approximate weighted F-beta loss (Kolkin, Shechtman and Shakhnarovich, ICCV 2017; "W")."""

from collections.abc import Callable
from math import exp, log, pi, prod
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.distance import squared_distance
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import count_in_dtype

# W eq. 4: the weight of a false positive rises from 1 to 1.5 over five pixels.
ALPHA = log(0.5) / 5


class SharedDistanceWeights:
    """In place of given `distance_weights`: those of the first call, for all calls.

    For several predictions of one target, whose masks and options are the same.
    """

    def __init__(self) -> None:
        self.weights: list[Array] = []

    def reuse_or_compute(self, compute: Callable[[], Array], like: Array) -> Array:
        for weights in self.weights:
            if weights.dtype == like.dtype:
                return weights
        self.weights.append(compute())
        return self.weights[-1]


def check_beta(xp: Ops, beta: Any) -> None:
    checks.scheduled(xp, "beta", beta, 0, float("inf"), open_low=True)


def check_options(
    xp: Ops,
    beta: Any,
    theta: int,
    phi: int,
    distance: str,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    reduction: str,
) -> None:
    check_beta(xp, beta)
    checks.integer("theta", theta, 1)
    checks.integer("phi", phi, 0)
    checks.option("distance", distance, ("window", "euclidean"))
    checks.option("error", error, ("squared", "absolute"))
    checks.flag("normalize_kernel", normalize_kernel)
    checks.activation(activation)
    checks.ignore_index(ignore_index)
    checks.reduction(reduction)


def weighted_fbeta_loss(
    xp: Ops,
    probs: Array,
    target: Array,
    *,
    beta: Any,
    theta: int,
    phi: int,
    distance: str,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    distance_weights: Array,
    mask: Array,
    reduction: str,
) -> Array:
    check_options(
        xp, beta, theta, phi, distance, error, normalize_kernel, activation, ignore_index, reduction
    )
    p, y, counted, bad = counted_maps(xp, probs, target, activation, ignore_index, mask)
    images, channels = p.shape[:2]
    p, y, b = xp.promote(p, y, _weights_of_alarms(xp, y, p, phi, distance, distance_weights))

    def errors(residual: Array, b: Array) -> Array:
        misses, alarms = _weighted(xp, residual, b, theta, error, normalize_kernel)
        return xp.join([xp.sum_pixels(xp.flat(misses)), xp.sum_pixels(xp.flat(alarms))])

    # The signed errors and their weights are all that the gradient needs.
    sums = xp.reshape(
        xp.recomputed(errors, _each_map(xp, p - y), _each_map(xp, b)), (images, channels, 2)
    )
    false_negative, false_positive = sums[:, :, 0], sums[:, :, 1]
    size = xp.reshape(xp.sum_pixels(xp.flat(_each_map(xp, y))), (images, channels))
    # W eq. 6 as 1 − F = (β² FN + FP) / ((1 + β²) TP + β² FN + FP), with TP = Σ y − FN
    beta, has_foreground = checks.as_scalar(xp, beta, size), size > 0
    weighted_errors = beta**2 * false_negative + false_positive
    denominator = (1 + beta**2) * (size - false_negative) + weighted_errors
    per_map = xp.where(
        has_foreground,
        weighted_errors / xp.where(has_foreground, denominator, 1.0),
        false_positive / (2 * _pixels(xp, p, counted)),
    )
    loss = xp.sum_vector(per_map) / channels
    return checks.reduce(xp, checks.nan_where_bad(xp, loss, bad), reduction)


def weighted_error(
    xp: Ops,
    probs: Array,
    target: Array,
    *,
    theta: int,
    phi: int,
    distance: str,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    distance_weights: Array,
    mask: Array,
) -> Array:
    """E^w of W eq. 5 in the shape of `probs`; 0 at pixels that do not count."""
    p, y, *_ = counted_maps(xp, probs, target, activation, ignore_index, mask)
    p, y, b = xp.promote(p, y, _weights_of_alarms(xp, y, p, phi, distance, distance_weights))
    misses, alarms = _weighted(
        xp, _each_map(xp, p - y), _each_map(xp, b), theta, error, normalize_kernel
    )
    return xp.public_images(xp.reshape(misses + alarms, p.shape))


def counted_maps(
    xp: Ops,
    probs: Array,
    target: Array,
    activation: str | None,
    ignore_index: int | None,
    mask: Array,
    *,
    binary: bool = False,
) -> tuple[Array, Array, Array | None, Array]:
    """Prediction and target ``(N, K, *spatial)``, 0 where a pixel does not count; the counted
    pixels ``(N, 1 or K, *spatial)``, None for all; the images with a value out of range."""
    p = checks.probabilities(xp, probs, activation, low_rank=2)
    y, counted, bad = checks.targets(xp, target, p, mask, ignore_index, binary=binary)
    p = xp.images(p)
    if activation is None:
        p, outside = checks.unit_values(xp, "probs", p, probs, counted)
        bad = bad | outside
    p, y = checks.same_precision(xp, p, y)
    if counted is not None:
        p, y = xp.where(counted, p, 0.0), xp.where(counted, y, 0.0)
    return p, y, counted, bad


def _weights_of_alarms(
    xp: Ops, y: Array, p: Array, phi: int, distance: str, argument: Array | None
) -> Array:
    """B of W eq. 4, ``(N, K, *spatial)``."""

    def compute() -> Array:
        return xp.reshape(_distance_weights(xp, _each_map(xp, y > 0.5), p, phi, distance), p.shape)

    if argument is None:
        return compute()
    if isinstance(argument, SharedDistanceWeights):
        return argument.reuse_or_compute(compute, p)
    b = checks.floating(xp, "distance_weights", argument)
    checks.same_shape("distance_weights", b, "probs", xp.public_images(p))
    return xp.images(b)


def _each_map(xp: Ops, x: Array) -> Array:
    """``(N, K, *spatial)`` as ``(B, *spatial)``."""
    return xp.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


def _pixels(xp: Ops, like: Array, counted: Array | None) -> Any:
    """How many pixels count, but at least 1: a number, or ``(N, 1 or K)``."""
    if counted is None:
        return max(prod(like.shape[2:]), 1)
    number = count_in_dtype(xp, xp.flat(_each_map(xp, counted)), like)
    return xp.maximum(xp.reshape(number, counted.shape[:2]), 1.0)


def _weighted(
    xp: Ops, residual: Array, b: Array, theta: int, error: str, normalize_kernel: bool
) -> tuple[Array, Array]:
    """E^w of misses and of false alarms, each 0 at the other's pixels."""
    e, miss = residual * residual if error == "squared" else xp.abs(residual), residual < 0
    missed = xp.where(miss, e, 0.0)
    # W eq. 3: at misses the Gaussian sum of the misses around, and W eq. 5
    spread = _gaussian(xp, missed, theta, normalize_kernel)
    return xp.where(spread < missed, spread, missed), xp.where(miss, 0.0, e) * b


def weighted_fbeta_score(
    xp: Ops,
    probs: Array,
    target: Array,
    *,
    beta: Any,
    theta: int,
    phi: int,
    distance: str,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    distance_weights: Array,
    mask: Array,
    reduction: str,
) -> Array:
    checks.reduction(reduction)
    loss = weighted_fbeta_loss(
        xp,
        probs,
        target,
        beta=beta,
        theta=theta,
        phi=phi,
        distance=distance,
        error=error,
        normalize_kernel=normalize_kernel,
        activation=activation,
        ignore_index=ignore_index,
        distance_weights=distance_weights,
        mask=mask,
        reduction="none",
    )
    return checks.reduce(xp, 1 - loss, reduction)


def distance_weights(
    xp: Ops, target: Array, *, phi: int, distance: str, ignore_index: int | None, mask: Array
) -> Array:
    checks.integer("phi", phi, 0)
    checks.option("distance", distance, ("window", "euclidean"))
    checks.ignore_index(ignore_index)
    t = checks.real(xp, "target", target)
    if not 4 <= t.ndim <= 5:
        raise ValueError(
            f"target must have shape {checks.public_layout(xp, 'K')} with 2 or 3 "
            f"spatial axes, got {tuple(t.shape)}"
        )
    checks.not_other_layout(xp, "target", t)
    counted = checks.mask(xp, mask, xp.map_shape(t.shape), "target")
    t, counted, bad = checks.target_values(xp, xp.images(t), target, counted, ignore_index)
    foreground = t > 0.5 if counted is None else (t > 0.5) & counted
    weights = _distance_weights(xp, _each_map(xp, foreground), xp.floats(t), phi, distance)
    return xp.public_images(checks.nan_where_bad(xp, xp.reshape(weights, t.shape), bad))


def _distance_weights(xp: Ops, foreground: Array, like: Array, phi: int, distance: str) -> Array:
    """B of W eq. 4, ``(B, *spatial)``, in the dtype of `like`."""
    if 0 in foreground.shape:
        return xp.cast(foreground, like)
    if distance == "window":
        # W §3: the squared distance as far as φ, and infinity beyond.
        squared = _squared_distance_within(xp, foreground, phi)
        weights = 2 - xp.exp(ALPHA * xp.cast(squared, like))
        return xp.where(squared <= phi**2, weights, 2.0)
    return importance(xp, squared_distance(xp, foreground), like)


def importance(xp: Ops, squared: Array, like: Array) -> Array:
    """B of W eq. 4 from the exact squared distance, which is 0 at foreground."""
    # From a distance of 512 it is 2 to the last digit, and numbers that underflow are slow.
    distance = xp.sqrt(xp.cast(xp.clip(squared, 0, 512**2), like))
    return 2 - xp.exp(ALPHA * distance)


def _squared_distance_within(xp: Ops, foreground: Array, reach: int) -> Array:
    """The squared Euclidean distance to the nearest foreground pixel, in integers.

    It is the minimum over the foreground of a sum over axes, so one axis follows the other.
    `reach`² + 1 stands for all that is farther.
    """
    far = reach**2 + 1
    squared = xp.integers_to(~foreground, far + reach**2) * far
    for axis in range(1, foreground.ndim):
        near = min(reach, foreground.shape[axis] - 1)
        shifted = xp.shifts(squared, axis, near, far)
        for k in range(1, near + 1):
            either = xp.minimum(shifted[near - k], shifted[near + k])
            squared = xp.minimum(squared, either + k**2)
    return squared


def _gaussian(xp: Ops, x: Array, theta: int, normalize: bool) -> Array:
    """W eq. 3 and 8, axis by axis: σ = θ/4, offsets −θ..θ, zeros outside the image."""
    sigma = theta / 4
    taps = [exp(-(k**2) / (2 * sigma**2)) for k in range(-theta, theta + 1)]
    # As printed the constant is the one-dimensional one, whatever the rank.
    constant = (2 * pi * sigma**2) ** -0.5
    for axis in range(1, x.ndim):
        scale = 1 / sum(taps) if normalize else constant if axis == 1 else 1.0
        x = xp.filter_axis(x, [scale * tap for tap in taps], axis)
    return x
