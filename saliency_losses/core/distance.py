"""The exact Euclidean distance transform, computed axis by axis."""

from collections.abc import Sequence
from math import prod
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.checks import Spacing
from saliency_losses.core.ops import Array, Ops

# The squared distance that means "no foreground". It exceeds every squared distance in an image;
# its sum with the square of a side and the square of the sum of all sides fit in 32 bits.
FAR = 2**29 - 1


def distance_transform(xp: Ops, foreground: Array, *, spacing: Any, return_indices: bool) -> Array:
    """The distance of each pixel to the nearest foreground pixel, and that pixel's index.

    min over foreground j of ‖spacing · (i − j)‖, infinite in an image without foreground.
    """
    checks.flag("return_indices", return_indices)
    pixels = checks.boolean(xp, "foreground", foreground)
    checks.maps("foreground", pixels)
    sizes = checks.spacing(spacing, pixels.ndim - 1)
    if 0 in pixels.shape[1:]:
        raise ValueError(
            f"foreground must have at least one pixel per image, got shape {tuple(pixels.shape)}"
        )
    if pixels.ndim == 2:
        # Not squared, since the square of a long signal's length would exceed 32 bits.
        place, along = _nearest_in_row(xp, pixels)
        near, places = along < pixels.shape[-1], [place]
        distance = xp.floats(along) if sizes is None else sizes[0] * xp.floats(along)
    else:
        _check_sides("foreground", pixels)
        squared, *places = _nearest(xp, pixels, sizes, None, return_indices)
        near = squared < _bound(pixels, sizes)
        distance = xp.sqrt(xp.floats(squared))
    distance = xp.where(near, distance, float("inf"))
    if not return_indices:
        return distance
    indices = xp.join([xp.where(near, place, -1) for place in places])
    return distance, xp.public_stack(indices, pixels.shape)


def squared_distance(xp: Ops, foreground: Array, spacing: Spacing, like: Array) -> Array:
    """The squared distance to the nearest foreground pixel ``(B, *spatial)`` of the target.

    Integers without `spacing`, else in the dtype of `like`. `FAR` in an image without foreground,
    with `spacing` infinite.
    """
    _check_sides("target", foreground)
    (squared,) = _nearest(xp, foreground, spacing, like, False)
    return xp.where(squared < _bound(foreground, spacing), squared, _far(spacing))


def nearest_pixel(xp: Ops, foreground: Array, spacing: Spacing, like: Array) -> tuple[Array, Array]:
    """The squared distance, and the row-major index in its image of the target's nearest pixel.

    Dtypes are those of `squared_distance`. In an image without foreground any distance above all
    others, and any index.
    """
    _check_sides("target", foreground)
    squared, place, *others = _nearest(xp, foreground, spacing, like, True)
    for along, side in zip(others, foreground.shape[2:], strict=True):
        place = place * side + along
    return squared, xp.clip(place, 0, prod(foreground.shape[1:]) - 1)


def _nearest(
    xp: Ops, foreground: Array, spacing: Spacing, like: Array | None, return_indices: bool
) -> Sequence[Array]:
    """The squared distance to the nearest foreground pixel, and its index along each axis.

    With `spacing` in the dtype of `like`, or float32. The distance is at least `_bound` in an image
    without foreground. Among equally near pixels the first in row-major order is chosen. Without
    `return_indices` there are no indices.
    """
    found = xp.nearest_foreground(foreground, spacing, like, return_indices)
    if found is None:
        return xp.image_by_image(
            lambda image: _by_axes(xp, image, spacing, like, return_indices), foreground
        )
    return found


def _by_axes(
    xp: Ops, foreground: Array, spacing: Spacing, like: Array | None, return_indices: bool
) -> list[Array]:
    """`_nearest`: the row of the first minimum, and in it the first column."""
    place, along = _nearest_in_row(xp, foreground)
    bound, places = _bound(foreground, spacing), [place] if return_indices else []
    if spacing is None:
        # No pixel is farther, and the square fits in 32 bits.
        along = xp.clip(along, 0, sum(foreground.shape[1:]))
        squared = along * along
    else:
        scaled = spacing[-1] * (xp.floats(along) if like is None else xp.cast(along, like))
        squared = xp.where(along < foreground.shape[-1], scaled * scaled, bound)
    for axis in range(foreground.ndim - 2, 0, -1):
        steepness = None if spacing is None else spacing[axis - 1] ** 2
        squared, source = xp.nearest_parabola(squared, axis, bound, steepness)
        if return_indices:
            places = [source, *(xp.take_along(place, source, axis) for place in places)]
    return [squared, *places]


def _nearest_in_row(xp: Ops, foreground: Array) -> tuple[Array, Array]:
    """The index of the nearest foreground pixel along the last axis, and the distance to it.

    In a row without foreground the distance exceeds every distance in the image, in pixels.
    """
    place = xp.nearest_true(foreground, sum(foreground.shape[1:]))
    return place, abs(place - xp.positions(foreground, foreground.ndim - 1))


def _check_sides(name: str, foreground: Array) -> None:
    """Check that the squared distances in an image fit in 32 bits."""
    if _bound(foreground, None) > FAR:
        raise ValueError(
            f"{name} must have sides whose squares sum to at most 2**29 for exact distances, got "
            f"{tuple(foreground.shape[1:])}; cut the image into parts"
        )


def _bound(foreground: Array, spacing: Spacing) -> float:
    """A number above every squared distance in an image of these sides; without spacing, whole."""
    sides = foreground.shape[1:]
    if spacing is None:
        return 1 + sum((side - 1) ** 2 for side in sides)
    return 2 * sum((side * size) ** 2 for side, size in zip(sides, spacing, strict=True))


def _far(spacing: Spacing) -> float:
    return FAR if spacing is None else float("inf")
