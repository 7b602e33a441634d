"""The approximate weighted F-beta loss (Kolkin, Shechtman and Shakhnarovich, ICCV 2017; "W")."""

from collections.abc import Callable
from math import exp, log, pi, prod
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.distance import squared_distance
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import count_in_dtype

# W eq. 4: the weight of a false alarm rises from 1 to 1.5 within five pixels.
ALPHA = log(0.5) / 5
# The square, and its product with the number of pixels, must be neither 0 nor infinite in float32.
BETAS = (1e-9, 1e9)
# From this distance on, B of the windowed distance is 2 in float64 too.
REACH = 24


class SharedDistanceWeights:
    """Distance weights that the first call computes and later calls reuse.

    Passed as `distance_weights` for several predictions of one target, with equal masks and
    options.
    """

    def __init__(self) -> None:
        self.weights: list[Array] = []

    def reuse_or_compute(self, compute: Callable[[], Array], like: Array) -> Array:
        for weights in self.weights:
            if (weights.dtype, weights.shape) == (like.dtype, like.shape):
                return weights
        self.weights.append(compute())
        return self.weights[-1]


def check_beta(xp: Ops, beta: Any) -> None:
    checks.scheduled(xp, "beta", beta, *BETAS)


def check_options(
    xp: Ops,
    beta: Any,
    theta: int,
    phi: int,
    distance: str,
    spacing: Any,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    reduction: str,
) -> None:
    check_beta(xp, beta)
    checks.integer("theta", theta, 1)
    _check_distance(phi, distance, spacing)
    checks.option("error", error, ("squared", "absolute"))
    checks.flag("normalize_kernel", normalize_kernel)
    checks.activation(activation)
    checks.ignore_index(ignore_index)
    checks.reduction(reduction)


def _check_distance(phi: int, distance: str, spacing: Any) -> None:
    checks.integer("phi", phi, 0)
    checks.option("distance", distance, ("window", "euclidean"))
    if checks.spacing(spacing) is not None and distance == "window":
        raise ValueError(
            'spacing must be None with distance="window", whose reach is in pixels, '
            f'got {spacing!r}; set distance="euclidean"'
        )


def weighted_fbeta_loss(
    xp: Ops,
    probs: Array,
    target: Array,
    *,
    beta: Any,
    theta: int,
    phi: int,
    distance: str,
    spacing: Any,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    distance_weights: Array,
    mask: Array,
    reduction: str,
) -> Array:
    """1 − F_β^w from the weighted errors E^w (W eq. 6), mean over the maps of an image.

    (β² FN + FP) / ((1 + β²) TP + β² FN + FP), reduced over the images.
    """
    check_options(
        xp,
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
    p, y, counted, bad = counted_maps(xp, probs, target, activation, ignore_index, mask)
    images, channels = p.shape[:2]
    p, y, b = xp.promote(
        p, y, _weights_of_alarms(xp, y, p, phi, distance, spacing, distance_weights)
    )

    def errors(residual: Array, b: Array) -> Array:
        misses, alarms = _weighted(xp, residual, b, theta, error, normalize_kernel)
        return xp.join([xp.sum_pixels(xp.flat(misses)), xp.sum_pixels(xp.flat(alarms))])

    # The gradient needs only the signed errors and their weights.
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
    spacing: Any,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    distance_weights: Array,
    mask: Array,
) -> Array:
    """The weighted error E^w of each pixel (W eq. 5), in the shape of `probs`.

    min(A E, E) · B, and 0 at ignored pixels.
    """
    p, y, *_ = counted_maps(xp, probs, target, activation, ignore_index, mask)
    p, y, b = xp.promote(
        p, y, _weights_of_alarms(xp, y, p, phi, distance, spacing, distance_weights)
    )
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
    """Prediction and target ``(N, K, *spatial)``, 0 at ignored pixels; the counted pixels
    ``(N, 1 or K, *spatial)`` or None for all; the images with a value out of range.

    A `binary` target is returned as bools.
    """
    p = checks.probabilities(xp, probs, activation, low_rank=2)
    y, counted, bad = checks.targets(xp, target, p, mask, ignore_index, binary=binary)
    p = xp.images(p)
    if activation is None:
        p, outside = checks.unit_values(xp, "probs", p, probs, counted)
        bad = bad | outside
    if not binary or xp.kind(y) == "float":
        p, y = checks.same_precision(xp, p, xp.stop_gradient(y))
    if binary:
        y = y if xp.kind(y) == "bool" else y == 1
    if counted is not None:
        p = xp.where(counted, p, 0.0)
        y = y & counted if binary else xp.where(counted, y, 0.0)
    return p, y, counted, bad


def _weights_of_alarms(
    xp: Ops,
    y: Array,
    p: Array,
    phi: int,
    distance: str,
    spacing: Any,
    argument: Array | None,
) -> Array:
    """B of W eq. 4, ``(N, K, *spatial)``."""
    sizes = checks.spacing(spacing, p.ndim - 2)

    def compute() -> Array:
        foreground = _each_map(xp, y > 0.5)
        return xp.reshape(_distance_weights(xp, foreground, p, phi, distance, sizes), p.shape)

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
    """The number of counted pixels, at least 1: a Python integer, or an array ``(N, 1 or K)``."""
    if counted is None:
        return max(prod(like.shape[2:]), 1)
    number = count_in_dtype(xp, xp.flat(_each_map(xp, counted)), like)
    return xp.maximum(xp.reshape(number, counted.shape[:2]), 1.0)


def _weighted(
    xp: Ops, residual: Array, b: Array, theta: int, error: str, normalize_kernel: bool
) -> tuple[Array, Array]:
    """E^w of misses and E^w of false alarms, each 0 at all other pixels."""
    missed, alarm = xp.relu(-residual), xp.relu(residual)
    if error == "squared":
        missed, alarm = missed * missed, alarm * alarm
    # W eq. 3, the Gaussian sum of the misses around a miss, and W eq. 5, the minimum
    spread = _gaussian(xp, missed, theta, normalize_kernel)
    return xp.where(spread < missed, spread, missed), alarm * b


def weighted_fbeta_score(
    xp: Ops,
    probs: Array,
    target: Array,
    *,
    beta: Any,
    theta: int,
    phi: int,
    distance: str,
    spacing: Any,
    error: str,
    normalize_kernel: bool,
    activation: str | None,
    ignore_index: int | None,
    distance_weights: Array,
    mask: Array,
    reduction: str,
) -> Array:
    """The approximate weighted F-measure F_β^w of soft maps (W eq. 6).

    1 − `weighted_fbeta_loss` for each image, reduced over the images.
    """
    checks.reduction(reduction)
    loss = weighted_fbeta_loss(
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
        reduction="none",
    )
    return checks.reduce(xp, 1 - loss, reduction)


def distance_weights(
    xp: Ops,
    target: Array,
    *,
    phi: int,
    distance: str,
    spacing: Any,
    ignore_index: int | None,
    mask: Array,
) -> Array:
    """The weight B of a false alarm at each pixel (W eq. 4), in the public layout of `target`.

    2 − exp(ln(0.5)/5 · Δ), where Δ is 0 at foreground pixels and grows with the distance to them.
    """
    _check_distance(phi, distance, spacing)
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
    sizes = checks.spacing(spacing, t.ndim - 2)
    weights = _distance_weights(xp, _each_map(xp, foreground), xp.floats(t), phi, distance, sizes)
    return xp.public_images(checks.nan_where_bad(xp, xp.reshape(weights, t.shape), bad))


def _distance_weights(
    xp: Ops, foreground: Array, like: Array, phi: int, distance: str, spacing: checks.Spacing
) -> Array:
    """B of W eq. 4, ``(B, *spatial)``, in the dtype of `like`."""
    if 0 in foreground.shape:
        return xp.cast(foreground, like)
    if distance == "window":
        # W §3: the squared distance within φ, infinity beyond.
        reach = min(int(phi), REACH)
        squared = _squared_distance_within(xp, foreground, reach)
        weights = 2 - xp.exp(ALPHA * xp.cast(squared, like))
        return xp.where(squared <= reach**2, weights, 2.0)
    return importance(xp, squared_distance(xp, foreground, spacing, like), like)


def importance(xp: Ops, squared: Array, like: Array) -> Array:
    """B of W eq. 4 from the exact squared distance, which is 0 at foreground pixels."""
    # Beyond a distance of 512 B equals 2 in float precision; clipping avoids slow denormal numbers.
    distance = xp.sqrt(xp.cast(xp.clip(squared, 0, 512**2), like))
    return 2 - xp.exp(ALPHA * distance)


def _squared_distance_within(xp: Ops, foreground: Array, reach: int) -> Array:
    """The squared Euclidean distance to the nearest foreground pixel, as integers.

    It is a minimum over the foreground of a sum over axes, so it is computed axis by axis.
    `reach`² + 1 means any larger distance.
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
    """The Gaussian sum of W eq. 3 and 8, axis by axis: σ = θ/4, offsets −θ..θ, zero padding."""
    theta = int(theta)
    sigma = theta / 4
    taps = [exp(-(k**2) / (2 * sigma**2)) for k in range(-theta, theta + 1)]
    # The paper prints the one-dimensional constant, whatever the number of axes.
    constant = (2 * pi * sigma**2) ** -0.5
    first, others = (1 / sum(taps),) * 2 if normalize else (constant, 1.0)
    scales = [first] + [others] * (x.ndim - 2)
    return xp.filter_axes(x, [[scale * tap for tap in taps] for scale in scales])
