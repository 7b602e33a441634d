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
    along = _along(xp, given)
    places = [_place_along(xp, given, along)] if return_indices else []
    if given.ndim == 2:
        # Not squared: of a long signal that would exceed 32 bits.
        distance, none = xp.floats(along), along >= given.shape[-1]
    else:
        squared, places = _over_axes(xp, given, along, places)
        distance, none = xp.sqrt(xp.floats(squared)), squared >= FAR
    distance = xp.where(none, float("inf"), distance)
    if not return_indices:
        return distance
    stack = xp.join([xp.where(none, -1, place) for place in places])
    return distance, xp.public_stack(stack, given.shape)


def squared_distance(xp: Ops, foreground: Array) -> Array:
    """The squared distance to the nearest foreground pixel, integers ``(B, *spatial)``; `FAR` where
    there is none."""
    return _over_axes(xp, foreground, _along(xp, foreground), [])[0]


def _over_axes(xp: Ops, foreground: Array, along: Array,
               places: list[Array]) -> tuple[Array, list[Array]]:
    """`squared_distance` from the distance along the last axis; and, given the nearest pixel's
    index along that axis, its indices along all.

    The row of the first minimum, and in it the first column: of equally near pixels the first in
    row-major order.
    """
    squared, bound = xp.where(along < foreground.shape[-1], along**2, FAR), _bound(foreground)
    for axis in range(foreground.ndim - 2, 0, -1):
        if places:
            squared, source = xp.nearest_parabola(squared, axis, bound)
            squared = xp.where(squared < bound, squared, FAR)
            places = [source, *(xp.take_along(place, source, axis) for place in places)]
        else:
            squared = xp.clip(xp.parabolas(squared, axis), 0, FAR)
    return squared, places


def _bound(foreground: Array) -> int:
    """More than any squared distance in an image of these sides."""
    return 1 + sum((side - 1) ** 2 for side in foreground.shape[1:])


def _along(xp: Ops, foreground: Array) -> Array:
    """The distance along the last axis alone, by steps of 1, 2, 4, … pixels; at least the axis'
    length where there is none."""
    axis, length, step = foreground.ndim - 1, foreground.shape[-1], 1
    # Twice the length stands for none: no path of steps comes back from it.
    distance = 2 * length * xp.int32(~foreground)
    while step < length:
        padded = xp.pad(distance, axis, step, step, 2 * length)
        for start in (0, 2 * step):
            distance = xp.minimum(distance, padded[..., start:start + length] + step)
        step *= 2
    return distance


def _place_along(xp: Ops, foreground: Array, distance: Array) -> Array:
    """The index of the nearest pixel along the last axis, the lower of two."""
    axis, last = foreground.ndim - 1, foreground.shape[-1] - 1
    place = xp.positions(foreground, axis)
    before = xp.clip(place - distance, 0, last)
    # Beyond the image's beginning, `before` is its first pixel, and that must not be taken for it.
    found = xp.take_along(foreground, before, axis) & (place >= distance)
    return xp.where(found, before, xp.clip(place + distance, 0, last))
