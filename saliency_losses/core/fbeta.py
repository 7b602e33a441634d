"""The approximate weighted F-beta loss (Kolkin, Shechtman and Shakhnarovich, ICCV 2017; "W")."""

from math import exp, log, pi

from saliency_losses.core import checks
from saliency_losses.core.distance import squared_distance
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import counts

# W eq. 4: the weight of a false positive rises from 1 to 1.5 over five pixels.
ALPHA = log(0.5) / 5


def check_options(beta: float, theta: int, phi: int, distance: str, error: str,
                  normalize_kernel: bool, reduction: str) -> None:
    checks.number("beta", beta, 0, float("inf"), open_low=True)
    checks.integer("theta", theta, 1)
    checks.integer("phi", phi, 0)
    checks.option("distance", distance, ("window", "euclidean"))
    checks.option("error", error, ("squared", "absolute"))
    checks.flag("normalize_kernel", normalize_kernel)
    checks.reduction(reduction)


def weighted_fbeta_loss(xp: Ops, probs: Array, target: Array, *, beta: float, theta: int,
                        phi: int, distance: str, error: str, normalize_kernel: bool,
                        distance_weights: Array, mask: Array, reduction: str) -> Array:
    check_options(beta, theta, phi, distance, error, normalize_kernel, reduction)
    p, b, foreground, background, bad = _maps(
        xp, probs, target, phi, distance, distance_weights, mask)

    def errors(residual: Array, b: Array) -> Array:
        weighted, miss = _weighted(xp, residual, b, theta, error, normalize_kernel)
        return xp.join([xp.sum_pixels(xp.flat(xp.where(miss, weighted, 0.0))),
                        xp.sum_pixels(xp.flat(xp.where(miss, 0.0, weighted)))])

    # The signed errors and their weights are all that the gradient needs.
    sums = xp.recomputed(errors, p - xp.cast(foreground, p), b)
    false_negative, false_positive = sums[:, 0], sums[:, 1]
    size, others = counts(xp, xp.flat(foreground), p), counts(xp, xp.flat(background), p)
    # W eq. 6 as 1 − F = (β² FN + FP) / ((1 + β²) TP + β² FN + FP), with TP = |Y| − FN
    some = size > 0
    wrong = beta**2 * false_negative + false_positive
    whole = (1 + beta**2) * (size - false_negative) + wrong
    loss = xp.where(some, wrong / xp.where(some, whole, 1.0),
                    false_positive / (2 * xp.maximum(others, 1.0)))
    images = bad.shape[0]
    each = xp.reshape(loss, (images, xp.channels(probs.shape)))
    loss = xp.sum_vector(each) / each.shape[1]
    return checks.reduce(xp, checks.poison(xp, loss, bad), reduction)


def weighted_error(xp: Ops, probs: Array, target: Array, *, theta: int, phi: int, distance: str,
                   error: str, normalize_kernel: bool, distance_weights: Array,
                   mask: Array) -> Array:
    """E^w of W eq. 5 in the shape of `probs`; 0 at pixels that do not count."""
    p, b, foreground, *_ = _maps(
        xp, probs, target, phi, distance, distance_weights, mask)
    weighted, _ = _weighted(xp, p - xp.cast(foreground, p), b, theta, error, normalize_kernel)
    return xp.public_images(xp.reshape(weighted, xp.images(probs).shape))


def _maps(xp: Ops, probs: Array, target: Array, phi: int, distance: str,
          distance_weights: Array, mask: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Of every map, ``(B, *spatial)``: the prediction, B of W eq. 4, the counted foreground and
    background; and the images with a value out of range."""
    p, t, counted, bad = checked_maps(xp, probs, target, mask)
    shape = p.shape
    maps = (shape[0] * shape[1], *shape[2:])
    foreground = t == 1
    background = ~foreground
    if counted is not None:
        foreground, background = foreground & counted, background & counted
        p = xp.where(counted, p, 0.0)
    p = xp.reshape(p, maps)
    foreground, background = xp.reshape(foreground, maps), xp.reshape(background, maps)
    if distance_weights is None:
        b = _distance_weights(xp, foreground, p, phi, distance)
    else:
        given = checks.floating(xp, "distance_weights", distance_weights)
        checks.alike("distance_weights", given, "probs", probs)
        p, b = xp.promote(p, xp.reshape(xp.images(given), maps))
    return p, b, foreground, background, bad


def _weighted(xp: Ops, residual: Array, b: Array, theta: int, error: str,
              normalize_kernel: bool) -> tuple[Array, Array]:
    """E^w, and which pixels are misses."""
    # Below 0 are the misses, which are at foreground pixels, above 0 the false alarms.
    e, miss = residual * residual if error == "squared" else xp.abs(residual), residual < 0
    # W eq. 3: at foreground pixels the Gaussian sum of the foreground errors around
    spread = _gaussian(xp, xp.where(miss, e, 0.0), theta, normalize_kernel)
    # W eq. 5
    return xp.where(miss & (spread < e), spread, e) * b, miss


def checked_maps(xp: Ops, probs: Array, target: Array, mask: Array
                 ) -> tuple[Array, Array, Array | None, Array]:
    """Probabilities and targets ``(N, K, *spatial)``, the counted pixels ``(N, 1, *spatial)`` or
    None for all, and the images with a value out of range."""
    p = checks.features(xp, "probs", probs, low_rank=2)
    t = checks.real(xp, "target", target)
    checks.map_per_class(xp, "target", t, "probs", p)
    counted = checks.mask(xp, mask, xp.map_shape(p.shape), "probs")
    p, t = xp.images(p), xp.images(t)
    if counted is not None:
        counted = xp.reshape(counted, (p.shape[0], 1, *p.shape[2:]))
    p, bad = checks.unit_values(xp, "probs", p, probs, counted)
    t, outside = checks.binary_values(xp, "target", t, target, counted)
    if xp.kind(t) == "float":
        p, t = xp.promote(p, t)
    return p, t, counted, bad | outside


def weighted_fbeta_score(xp: Ops, probs: Array, target: Array, *, beta: float, theta: int,
                         phi: int, distance: str, error: str, normalize_kernel: bool,
                         distance_weights: Array, mask: Array, reduction: str) -> Array:
    checks.reduction(reduction)
    loss = weighted_fbeta_loss(
        xp, probs, target, beta=beta, theta=theta, phi=phi, distance=distance, error=error,
        normalize_kernel=normalize_kernel, distance_weights=distance_weights, mask=mask,
        reduction="none")
    return checks.reduce(xp, 1 - loss, reduction)


def distance_weights(xp: Ops, target: Array, *, phi: int, distance: str, mask: Array) -> Array:
    checks.integer("phi", phi, 0)
    checks.option("distance", distance, ("window", "euclidean"))
    t = checks.real(xp, "target", target)
    if not 4 <= t.ndim <= 5:
        raise ValueError(f"target must have shape {checks.public_layout(xp, 'K')} with 2 or 3 "
                         f"spatial axes, got {tuple(t.shape)}")
    counted = checks.mask(xp, mask, xp.map_shape(t.shape), "target")
    t = xp.images(t)
    if counted is not None:
        counted = xp.reshape(counted, (t.shape[0], 1, *t.shape[2:]))
    t, bad = checks.binary_values(xp, "target", t, target, counted)
    foreground = t == 1 if counted is None else (t == 1) & counted
    maps = (t.shape[0] * t.shape[1], *t.shape[2:])
    weights = _distance_weights(xp, xp.reshape(foreground, maps), xp.floats(t), phi, distance)
    return xp.public_images(checks.poison(xp, xp.reshape(weights, t.shape), bad))


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
