"""The exact Euclidean distance transform, computed axis by axis."""

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops

# The squared distance that means "no foreground". It exceeds every squared distance in an image;
# its sum with the square of a side and the square of the sum of all sides fit in 32 bits.
FAR = 2**29 - 1


def distance_transform(xp: Ops, foreground: Array, *, return_indices: bool) -> Array:
    """The distance of each pixel to the nearest foreground pixel, and that pixel's index.

    min over foreground j of ‖i − j‖, infinite in an image without foreground.
    """
    checks.flag("return_indices", return_indices)
    pixels = checks.boolean(xp, "foreground", foreground)
    checks.maps("foreground", pixels)
    if 0 in pixels.shape[1:]:
        raise ValueError(
            f"foreground must have at least one pixel per image, got shape {tuple(pixels.shape)}"
        )
    if pixels.ndim > 2 and _bound(pixels) > FAR:
        raise ValueError(
            "foreground must have sides whose squares sum to at most 2**29, "
            f"got {tuple(pixels.shape)}; cut the image into parts"
        )
    results = xp.image_by_image(lambda image: _transform(xp, image, return_indices), pixels)
    return (results[0], xp.public_stack(results[1], pixels.shape)) if return_indices else results[0]


def _transform(xp: Ops, foreground: Array, return_indices: bool) -> list[Array]:
    if foreground.ndim == 2:
        # Not squared, since the square of a long signal's length would exceed 32 bits.
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
    """The squared distance to the nearest foreground pixel, integers ``(B, *spatial)``.

    `FAR` in an image without foreground.
    """
    (squared,) = xp.image_by_image(lambda image: _nearest(xp, image)[:1], foreground)
    return xp.where(squared < _bound(foreground), squared, FAR)


def nearest_pixel(xp: Ops, foreground: Array) -> tuple[Array, Array]:
    """`squared_distance`, and the row-major index of the nearest pixel in its image.

    The index is 0 in an image without foreground.
    """
    squared, *places = xp.image_by_image(lambda image: _nearest(xp, image), foreground)
    near, place = squared < _bound(foreground), places[0]
    for along, side in zip(places[1:], foreground.shape[2:], strict=True):
        place = place * side + along
    return xp.where(near, squared, FAR), xp.where(near, place, 0)


def _nearest(xp: Ops, foreground: Array) -> list[Array]:
    """The squared distance to the nearest foreground pixel, and its index along each axis.

    The distance is at least `_bound` in an image without foreground. Among equally near pixels the
    first in row-major order is chosen: the row of the first minimum, and in it the first column.
    """
    place, along = _nearest_in_row(xp, foreground)
    bound = _bound(foreground)
    along = xp.clip(
        along, 0, _far(foreground)
    )  # no pixel is farther, and the square fits in 32 bits
    squared, places = along * along, [place]
    for axis in range(foreground.ndim - 2, 0, -1):
        squared, source = xp.nearest_parabola(squared, axis, bound)
        places = [source, *(xp.take_along(place, source, axis) for place in places)]
    return [squared, *places]


def _nearest_in_row(xp: Ops, foreground: Array) -> tuple[Array, Array]:
    """The index of the nearest foreground pixel along the last axis, and the distance to it.

    In a row without foreground the distance exceeds every distance in the image.
    """
    place = xp.nearest_true(foreground, _far(foreground))
    return place, abs(place - xp.positions(foreground, foreground.ndim - 1))


def _bound(foreground: Array) -> int:
    """An integer above every squared distance in an image of these sides."""
    return 1 + sum((side - 1) ** 2 for side in foreground.shape[1:])


def _far(foreground: Array) -> int:
    """An integer above every distance in an image of these sides."""
    return sum(foreground.shape[1:])
