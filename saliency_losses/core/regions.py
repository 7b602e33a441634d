"""Lengths, means and counted pixels: what several losses share."""

from saliency_losses.core.ops import Array, Ops

# Lengths below 1e-12 count as 0: their direction is rounding, and its gradient would be noise.
TINY = 1e-24


def root(xp: Ops, squared: Array) -> Array:
    """The square root, with gradient 0 (of every order) at 0."""
    zero = squared < TINY
    return xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, squared)))


def unit_scale(xp: Ops, x: Array) -> Array:
    """The map that scales features to unit length per pixel; 0 at zero vectors."""
    squared = xp.sum_channels(x * x)
    zero = squared < TINY
    return xp.where(zero, 0.0, 1.0 / xp.sqrt(xp.where(zero, 1.0, squared)))


def zero_ignored(xp: Ops, x: Array, counted: Array | None) -> Array:
    """Features or a map with 0 at the pixels that do not count, whatever stood there."""
    if counted is None:
        return x
    return xp.where(xp.over_channels(counted) if x.ndim == 3 else counted, x, 0.0)


def count_in_dtype(xp: Ops, region: Array, like: Array) -> Array:
    """The pixels of a boolean map, ``(N,)``, in the dtype of `like`."""
    return xp.cast(xp.count(region), like)


def mean(xp: Ops, x: Array, counted: Array | None) -> Array:
    """The mean of a map over the counted pixels, ``(N,)``; 0 without any."""
    if counted is None:
        return xp.sum_pixels(x) / max(x.shape[1], 1)
    return xp.sum_pixels(zero_ignored(xp, x, counted)) / xp.maximum(
        count_in_dtype(xp, counted, x), 1.0
    )


def center(xp: Ops, x: Array, counted: Array | None) -> tuple[Array, Array]:
    """Features less the constant mean of their counted pixels, and that mean ``(N, C)``.

    Differences of features keep their digits in float32 at any offset.
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
    """How many runs of pixels are summed apart, and then together, in a sum by region.

    A scatter adds one value after the other: in float32 the mean of a million pixels would be off
    by 1 %. Runs of 256 pixels hold that to rounding, and there are no more sums than pixels.
    """
    return max(1, min(pixels // 256, pixels // num_regions))
