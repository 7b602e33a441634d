"""The exact Euclidean distance transform, one axis after the other."""

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops

# A squared distance that stands for "no foreground": above any image's, and its sum with the
# square of an image's side, and the square of the sum of all sides, fit 32 bits.
FAR = 2**29 - 1


def distance_transform(xp: Ops, foreground: Array, *, return_indices: bool) -> Array:
    checks.flag("return_indices", return_indices)
    pixels = checks.boolean(xp, "foreground", foreground)
    checks.maps("foreground", pixels)
    if 0 in pixels.shape[1:]:
        raise ValueError(
            f"foreground must have at least one pixel an image, got shape {tuple(pixels.shape)}"
        )
    if pixels.ndim > 2 and _bound(pixels) > FAR:
        raise ValueError(
            "foreground must have sides whose squares sum to at most 2**29, "
            f"got {tuple(pixels.shape)}; cut it into parts"
        )
    results = xp.image_by_image(lambda image: _transform(xp, image, return_indices), pixels)
    return (results[0], xp.public_stack(results[1], pixels.shape)) if return_indices else results[0]


def _transform(xp: Ops, foreground: Array, return_indices: bool) -> list[Array]:
    if foreground.ndim == 2:
        # Not squared: of a long signal that would exceed 32 bits.
        place, along = _nearest_in_row(xp, foreground)
        distance, is_none, places = xp.floats(along), along >= foreground.shape[-1], [place]
    else:
        squared, *places = _nearest(xp, foreground)
        distance, is_none = xp.sqrt(xp.floats(squared)), squared >= _bound(foreground)
    distance = xp.where(is_none, float("inf"), distance)
    if not return_indices:
        return [distance]
    return [distance, xp.join([xp.where(is_none, -1, place) for place in places])]


def squared_distance(xp: Ops, foreground: Array) -> Array:
    """The squared distance to the nearest foreground pixel, integers ``(B, *spatial)``; `FAR` where
    there is none."""
    (squared,) = xp.image_by_image(lambda image: _nearest(xp, image)[:1], foreground)
    return xp.where(squared < _bound(foreground), squared, FAR)


def nearest_pixel(xp: Ops, foreground: Array) -> tuple[Array, Array]:
    """`squared_distance`, and the nearest pixel's row-major place among the image's; 0 where there
    is none."""
    squared, *places = xp.image_by_image(lambda image: _nearest(xp, image), foreground)
    near, place = squared < _bound(foreground), places[0]
    for along, side in zip(places[1:], foreground.shape[2:], strict=True):
        place = place * side + along
    return xp.where(near, squared, FAR), xp.where(near, place, 0)


def _nearest(xp: Ops, foreground: Array) -> list[Array]:
    """The squared distance to the nearest pixel, or `_bound` and more; its index along each axis.

    The row of the first minimum, and in it the first column: of equally near pixels the first in
    row-major order.
    """
    place, along = _nearest_in_row(xp, foreground)
    bound = _bound(foreground)
    along = xp.clip(along, 0, _far(foreground))  # farther is as far, and its square fits 32 bits
    squared, places = along * along, [place]
    for axis in range(foreground.ndim - 2, 0, -1):
        squared, source = xp.nearest_parabola(squared, axis, bound)
        places = [source, *(xp.take_along(place, source, axis) for place in places)]
    return [squared, *places]


def _nearest_in_row(xp: Ops, foreground: Array) -> tuple[Array, Array]:
    """The nearest pixel's index along the last axis and the distance, more than any in the image
    where there is none."""
    place = xp.nearest_true(foreground, _far(foreground))
    return place, abs(place - xp.positions(foreground, foreground.ndim - 1))


def _bound(foreground: Array) -> int:
    """More than any squared distance in an image of these sides."""
    return 1 + sum((side - 1) ** 2 for side in foreground.shape[1:])


def _far(foreground: Array) -> int:
    """Farther than any distance in an image of these sides."""
    return sum(foreground.shape[1:])
