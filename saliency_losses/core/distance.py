"""The exact Euclidean distance transform, one axis after the other."""

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops

# A squared distance that stands for "no foreground": above any image's, and the sum of it and of
# the square of an image side still fits 32 bits.
FAR = 2**30 - 1


def distance_transform(xp: Ops, foreground: Array, *, return_indices: bool) -> Array:
    checks.flag("return_indices", return_indices)
    given = checks.boolean(xp, "foreground", foreground)
    if not 2 <= given.ndim <= 4:
        raise ValueError("foreground must have shape (N, *spatial) with 1 to 3 spatial axes, "
                         f"got {tuple(given.shape)}")
    if given.ndim > 2 and _bound(given) > FAR:
        raise ValueError("foreground must have sides whose squares sum to at most 2**30, "
                         f"got {tuple(given.shape)}; cut it into parts")
    distance, place = _along(xp, given, given.ndim - 1)
    none, places = distance >= given.shape[-1], [place]
    if given.ndim > 2:
        squared, places = _nearest(xp, given)
        none, distance = squared >= FAR, xp.sqrt(xp.floats(squared))
    distance = xp.where(none, float("inf"), xp.floats(distance))
    if not return_indices:
        return distance
    stack = xp.join([xp.where(none, -1, place) for place in places])
    return distance, xp.public_stack(stack, given.shape)


def squared_distance(xp: Ops, foreground: Array) -> Array:
    """The squared distance to the nearest foreground pixel, integers ``(B, *spatial)``; `FAR` where
    there is none."""
    squared = _squared(xp, _along(xp, foreground, foreground.ndim - 1)[0], foreground.shape[-1])
    for axis in range(foreground.ndim - 2, 0, -1):
        squared = xp.clip(xp.parabolas(squared, axis), 0, FAR)
    return squared


def _nearest(xp: Ops, foreground: Array) -> tuple[Array, list[Array]]:
    """`squared_distance` and the nearest pixel's index along each axis.

    The row of the first minimum, and in it the first column: of equally near pixels the first in
    row-major order.
    """
    distance, place = _along(xp, foreground, foreground.ndim - 1)
    squared, places = _squared(xp, distance, foreground.shape[-1]), [place]
    bound = _bound(foreground)
    for axis in range(foreground.ndim - 2, 0, -1):
        squared, source = xp.nearest_parabola(squared, axis, bound)
        places = [source, *(xp.take_along(place, source, axis) for place in places)]
    return xp.where(squared < bound, squared, FAR), places


def _bound(foreground: Array) -> int:
    """More than any squared distance in an image of these sides."""
    return 1 + sum((side - 1) ** 2 for side in foreground.shape[1:])


def _along(xp: Ops, foreground: Array, axis: int) -> tuple[Array, Array]:
    """The distance along one axis alone, by steps of 1, 2, 4, … pixels, at least the axis' length
    where there is none; and the index of the nearest pixel, the lower of two."""
    length, step = foreground.shape[axis], 1
    # Twice the length stands for none: no path of steps comes back from it.
    distance = 2 * length * xp.int32(~foreground)
    rest = (slice(None),) * axis
    while step < length:
        padded = xp.pad(distance, axis, step, step, 2 * length)
        for start in (0, 2 * step):
            distance = xp.minimum(distance, padded[(*rest, slice(start, start + length))] + step)
        step *= 2
    place = xp.positions(foreground, axis)
    before = xp.clip(place - distance, 0, length - 1)
    # Beyond the image's beginning, `before` is its first pixel, and that must not be taken for it.
    found = xp.take_along(foreground, before, axis) & (place >= distance)
    return distance, xp.where(found, before, xp.clip(place + distance, 0, length - 1))


def _squared(xp: Ops, distance: Array, length: int) -> Array:
    return xp.where(distance < length, distance**2, FAR)
