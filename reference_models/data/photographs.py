"""Photographs as files store them, read by every command in the same way."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from reference_models.data.maps import integer_map
from reference_models.data.pictures import Folder, open_image
from reference_models.data.storage import (
    checked,
    is_transparent,
    refuse_unknown_modes,
    scaled,
    white_of_floats,
)


class Photograph(NamedTuple):
    """RGB, upright, on white where it is transparent."""

    pixels: Image.Image
    alpha: Image.Image | None
    """Mode L; None if the file has no transparency."""


def read_photograph(file: Folder, admit: Callable[[int], None] | None = None) -> Photograph:
    """A photograph, see `as_photograph`. admit: See `open_image`."""
    return as_photograph(open_image(file, admit), file)


def as_photograph(image: Image.Image, file: Folder) -> Photograph:
    """The photograph of an opened image as RGB; transparent pixels are blended with white."""
    refuse_unknown_modes(image, file)
    if image.mode.startswith("I"):
        image = Image.fromarray(integer_map(image, file).values)
    elif image.mode == "F":
        values = checked(image, file)
        image = Image.fromarray(scaled(values, white_of_floats(float(values.max()))))
    if not is_transparent(image):
        return Photograph(image if image.mode == "RGB" else image.convert("RGB"), None)
    layers = image.convert("RGBA")
    alpha = layers.getchannel("A")
    white = Image.new("RGB", image.size, "white")
    return Photograph(Image.composite(layers.convert("RGB"), white, alpha), alpha)


def square_of(photo: Image.Image, size: int) -> np.ndarray:
    """The photograph as a network reads it, uint8 `(size, size, 3)`.

    One at least six times as large is first reduced to at least three times the size by averages of
    pixels, which differs by less than a level on average and takes a fifth of the time.
    """
    return np.array(photo.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0))
