"""Lengths, means and counted pixels, shared by several losses."""

from saliency_losses.core.ops import Array, Ops

# Squared lengths below this count as 0: their direction is rounding error, its gradient noise.
TINY = 1e-24


def root(xp: Ops, squared: Array) -> Array:
    """The square root, with gradients of every order 0 at 0."""
    zero = squared < TINY
    return xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squared)))


def unit_scale(xp: Ops, x: Array) -> Array:
    """A map of factors that scale each pixel's features to unit length; 0 for zero vectors."""
    squared = xp.sum_channels(x * x)
    zero = squared < TINY
    return xp.where(zero, 0.0, 1.0 / xp.sqrt(xp.where(zero, 1.0, squared)))


def zero_ignored(xp: Ops, x: Array, counted: Array | None) -> Array:
    """Features or a map, with 0 at ignored pixels whatever their value was."""
    if counted is None:
        return x
    return xp.where(xp.over_channels(counted) if x.ndim == 3 else counted, x, 0.0)


def count_in_dtype(xp: Ops, region: Array, like: Array) -> Array:
    """The number of True pixels ``(N,)`` of a boolean map, in the dtype of `like`."""
    return xp.cast(xp.count(region), like)


def mean(xp: Ops, x: Array, counted: Array | None) -> Array:
    """The mean ``(N,)`` of a map over its counted pixels; 0 for an image without any."""
    if counted is None:
        return xp.sum_pixels(x) / max(x.shape[1], 1)
    return xp.sum_pixels(zero_ignored(xp, x, counted)) / xp.maximum(
        count_in_dtype(xp, counted, x), 1.0
    )


def center(xp: Ops, x: Array, counted: Array | None) -> tuple[Array, Array]:
    """Features minus the mean of their counted pixels, and that mean ``(N, C)``.

    The mean has no gradient. Subtracting it keeps the float32 digits of differences between
    features, whatever their common offset.
    """
    x = zero_ignored(xp, x, counted)
    total = xp.sum_pixels(xp.stop_gradient(x))
    if counted is None:
        middle = total / max(xp.num_pixels(x), 1)
    else:
        middle = total / xp.reshape(
            xp.maximum(count_in_dtype(xp, counted, x), 1.0), (x.shape[0], 1)
        )
    return x - xp.over_pixels(middle), middle


def blocks(pixels: int, num_regions: int) -> int:
    """Number of runs of pixels in a sum by region: each run is added up first, then their sums.

    A scatter adds one value after another: in float32 the mean of a million pixels would be off by
    1 %. Runs of 256 pixels keep the error at rounding. There are never more sums than pixels.
    """
    return max(1, min(pixels // 256, pixels // num_regions))
