"""Ways of storing a grey picture: colour modes, 16 bits, floats, transparency, one hue.

docs/reliability.md has the table of what is read, noted and refused.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from reference_models.data.pictures import Folder
from reference_models.errors import InputError, count, first_few

GREY = 8
"""Channels that differ by no more than this are grey: JPEG and WebP round them apart."""
ONE_HUE = 24
"""Distance of a colour from the line between black and a hue, up to which it is of that hue."""
MODES = (
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "F",
)  # fmt: skip


def refuse_unknown_modes(image: Image.Image, file: Folder) -> None:
    """Raise an error for Pillow's other colour modes, such as LAB."""
    if image.mode not in MODES and not image.mode.startswith("I"):
        raise InputError(f"{file} has the colour mode {image.mode}; save it as RGB or grey")


def is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def checked(image: Image.Image, file: Folder) -> np.ndarray:
    """The values of a grey image of integers or floats, float64 `(H, W)`."""
    values = np.asarray(image, np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 65535):
        raise InputError(
            f"{file} has values from {low:g} to {high:g}; save it with values from 0 to 255"
        )
    return values


def white_of_floats(highest: float) -> int:
    """The value that means white, with some room for rounding and interpolation above it."""
    return next(white for white in (1, 255, 65535) if highest <= 1.01 * white)


def scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Values from 0 to `white` as uint8 from 0 to 255."""
    return np.rint(255 * (values / white).clip(0, 1)).astype(np.uint8)


def one_hue(colours: np.ndarray, file: Folder, what: str) -> np.ndarray:
    """Brightness of an image whose colours lie between black and one hue, up to its brightest
    channel, or for a mask up to 255."""
    pixels = colours.reshape(-1, 3).astype(np.float64)
    hue = pixels[pixels.sum(axis=1).argmax()]
    share = pixels @ hue / (hue @ hue)
    if np.linalg.norm(pixels - share[:, None] * hue, axis=1).max() > ONE_HUE:
        raise InputError(
            f"{file} is a {what} in several colours; save it in grey, or apply no colour map"
        )
    white = 255 if what == "mask" else hue.max()
    return np.rint(white * share.clip(0, 1)).astype(np.uint8).reshape(colours.shape[:2])


def notes_by_kind(noun: str, kinds: Mapping[str, str], texts: Mapping[str, str]) -> list[str]:
    """A note for each kind of storage that has a text. kinds: The kind of each file, by stem."""
    stems: dict[str, list[str]] = {}
    for stem, kind in kinds.items():
        stems.setdefault(kind, []).append(stem)
    return [
        f"{count(len(names), f'{noun} has', f'{noun}s have')} {texts[kind]} ({first_few(names)})"
        for kind, names in stems.items()
        if kind in texts
    ]
