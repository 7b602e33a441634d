"""Photographs, saliency maps and masks as files store them, read the same way by every command.

docs/reliability.md has the table of what is read, noted and refused.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from reference_models.data.pictures import (
    Folder,
    by_stem,
    has_images,
    one_folder,
    open_image,
    require,
    side_by_side,
)
from reference_models.errors import InputError, count, first_few

GREY = 8
"""Channels that differ by no more than this are grey: JPEG and WebP round them apart."""
ONE_HUE = 24
"""Distance of a colour from the line between black and a hue, up to which it is of that hue."""
VOID = 255
VOID_COLOUR = (224, 224, 192)
"""PASCAL VOC's colour of pixels that belong to neither object nor background."""


class Photograph(NamedTuple):
    """RGB, upright, on white where it is transparent."""

    pixels: Image.Image
    alpha: Image.Image | None
    """Mode L; None if the file has no transparency."""


class SaliencyMap(NamedTuple):
    """Grey values from 0 to 255, not stretched. uint8 `(H, W)`."""

    values: np.ndarray
    kind: str
    """Storage: "grey", "0/1" (values 0 and 1, not yet scaled), "16 bits", "floats", "palette",
    "one hue" or "transparency"."""


class Mask(NamedTuple):
    """The salient object. bool `(H, W)`."""

    object: np.ndarray
    void: np.ndarray | None
    """Pixels that belong to neither object nor background; None if there are none."""
    kind: str
    """Storage: "0/255", "0/1", "0/1/void", "soft", "two values", or a kind of `SaliencyMap`."""


# Photographs -------------------------------------------------------------------------------------


def read_photograph(file: Folder) -> Photograph:
    """A photograph as RGB; transparent pixels are blended with white."""
    image = open_image(file)
    refuse_unknown_modes(image, file)
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(to_eight_bits(image, file))
    if not is_transparent(image):
        return Photograph(image.convert("RGB"), None)
    layers = image.convert("RGBA")
    alpha = layers.getchannel("A")
    white = Image.new("RGB", image.size, "white")
    return Photograph(Image.composite(layers.convert("RGB"), white, alpha), alpha)


# Maps --------------------------------------------------------------------------------------------


def read_map(file: Folder) -> SaliencyMap:
    """A saliency map. Maps of 0 and 1 keep these values: whether 1 means white is decided for all
    maps of a folder together, see `scale_binary_maps`."""
    return as_map(open_image(file), file, "saliency map")


def as_map(image: Image.Image, file: Folder, what: str) -> SaliencyMap:
    """The map of an opened image. what: its role, for the errors."""
    refuse_unknown_modes(image, file)
    if image.mode.startswith("I"):
        return SaliencyMap(to_eight_bits(image, file), "16 bits")
    if image.mode == "F":
        return SaliencyMap(to_eight_bits(image, file), "floats")
    if is_transparent(image):
        layers = np.asarray(image.convert("RGBA"))
        colours, alpha = layers[..., :3], layers[..., 3]
        if np.ptp(alpha) > 0:
            visible = colours[alpha > 0]
            if np.ptp(visible, axis=0).max() > GREY:
                raise InputError(
                    f"{file} is a {what} in which both colour and transparency vary; save the "
                    f"{what} alone as one grey channel"
                )
            return SaliencyMap(alpha, "transparency")
        image = image.convert("RGB")
    if image.mode == "P":
        indices = np.asarray(image)
        if is_binary_palette(image, indices):
            return SaliencyMap(255 * object_of_two_colours(image, indices), "palette")
        image, kind = image.convert("RGB"), "palette"
    else:
        kind = "grey"
    if image.mode in ("1", "L"):
        values = np.asarray(image.convert("L"))
    else:
        colours = np.asarray(image.convert("RGB"))
        if int((colours.max(axis=2) - colours.min(axis=2)).max()) <= GREY:
            values = np.asarray(image.convert("L"))
        else:
            values, kind = one_hue(colours, file, what), "one hue"
    return SaliencyMap(values, "0/1" if kind == "grey" and values.max() == 1 else kind)


def scale_binary_maps(maps: Mapping[str, SaliencyMap]) -> dict[str, SaliencyMap]:
    """Scale maps of 0 and 1 to 0 and 255, unless a map of the folder has a higher value."""
    if any(saliency.values.max() > 1 for saliency in maps.values()):
        return dict(maps)
    return {
        stem: saliency._replace(values=255 * (saliency.values > 0).astype(np.uint8))
        for stem, saliency in maps.items()
    }


def read_maps(
    path: Path, stems: Iterable[str], shared: bool = False
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The saliency maps of these stems, uint8 `(H, W)`, with their original size and values, and
    notes on how they are stored.

    path: A folder or zip that holds the maps, or that holds a single folder of maps; also a folder
    inside a zip (`maps.zip/drfi`). The map of photo.jpg is photo.png, or photo-map.png as `predict`
    writes it. shared: Skip stems without a map; at least one must have a map.
    """
    root = one_folder(path, has_images, "saliency maps")
    files, images = by_stem([root]), list(stems)
    files = {stem: files[f"{stem}-map"] for stem in images if f"{stem}-map" in files} | files
    if shared:
        images = [stem for stem in images if stem in files]
        if not images:
            raise InputError(
                f"no map in {root} has the name of a mask; rename the maps: that of mask 1.png is "
                "1.png or 1-map.png"
            )
    require(images, files, f"map in {root}")
    results = side_by_side(
        lambda i: read_map(files[images[i]]), len(images), f"maps of {root.name}"
    )
    maps = scale_binary_maps(dict(zip(images, results, strict=True)))
    return {stem: saliency.values for stem, saliency in maps.items()}, map_notes(maps)


def map_notes(maps: Mapping[str, SaliencyMap]) -> list[str]:
    """Notes on maps that are not stored as 8-bit grey."""
    scaled = any(saliency.kind == "0/1" and saliency.values.max() > 1 for saliency in maps.values())
    texts = {
        "0/1": "the values 0 and 1: "
        + ("1 is read as white" if scaled else "nearly black, as other maps are brighter"),
        "16 bits": "16 bits, of which the upper 8 are read",
        "floats": "floats, read as 8 bits",
        "palette": "a palette, read by its colours",
        "one hue": "one hue on black, read by its brightness",
        "transparency": "transparency, which is read as the map",
    }
    kinds = {stem: saliency.kind for stem, saliency in maps.items()}
    return [
        f"{count(len(stems), 'map has', 'maps have')} {texts[kind]} ({first_few(stems)})"
        for kind, stems in by_kind(kinds).items()
        if kind in texts
    ]


# Masks -------------------------------------------------------------------------------------------


def read_mask(file: Folder) -> Mask:
    """A mask, see `as_mask`."""
    return as_mask(open_image(file), file)


def as_mask(image: Image.Image, file: Folder) -> Mask:
    """The mask of an opened image.

    An image of 0 and one other value, or of black and one other colour, is read as background and
    object. The values 0, 1 and 255 together are background, object and void, as in PASCAL VOC.
    Other grey values are binarised at 128.
    """
    if image.mode == "P" and not is_transparent(image):
        indices = np.asarray(image)
        if is_void_palette(image, indices):
            return Mask(indices == 1, indices == VOID, "0/1/void")
        if is_binary_palette(image, indices):
            return Mask(object_of_two_colours(image, indices).astype(bool), None, "palette")
    values, kind = as_map(image, file, "mask")
    used = np.unique(values)
    if kind in ("grey", "0/1"):
        if set(used) == {0, 1, VOID}:
            return Mask(values == 1, values == VOID, "0/1/void")
        if len(used) == 2 and used[0] == 0 and used[1] != 255:
            return Mask(values > 0, None, "0/1" if used[1] == 1 else "two values")
        if used[-1] == 1:
            return Mask(values == 1, None, "0/1")
        kind = "0/255" if set(used) <= {0, 255} else "soft"
    if 0 < used[-1] < 128:
        raise InputError(
            f"{file} is a mask with no value above {used[-1]}, so it would be all background; save "
            "the object as 255"
        )
    return Mask(values >= 128, None, kind)


def mask_notes(kinds: Mapping[str, str]) -> list[str]:
    """Notes on masks that are not stored as 0 and 255. kinds: The kind of each mask, by stem."""
    texts = {
        "0/1": "the values 0 and 1: 1 is read as the object",
        "0/1/void": "the values 0, 1 and 255: 1 is the object, 255 (void) counts as background",
        "two values": "0 and one other value, which is read as the object",
        "soft": "values between 0 and 255: binarised at 128",
        "16 bits": "16 bits: binarised at half of the range",
        "floats": "floats: binarised at half of the range",
        "palette": "a palette: the brighter colour is read as the object",
        "one hue": "one hue on black: binarised at half of its brightness",
        "transparency": "transparency: opaque pixels are read as the object",
    }
    return [
        f"{count(len(stems), 'mask has', 'masks have')} {texts[kind]} ({first_few(stems)})"
        for kind, stems in by_kind(kinds).items()
        if kind in texts
    ]


def by_kind(kinds: Mapping[str, str]) -> dict[str, list[str]]:
    """The stems of each kind."""
    stems: dict[str, list[str]] = {}
    for stem, kind in kinds.items():
        stems.setdefault(kind, []).append(stem)
    return stems


# Storage -----------------------------------------------------------------------------------------


def refuse_unknown_modes(image: Image.Image, file: Folder) -> None:
    """Raise an error for colour modes of Pillow that are none of those below, such as LAB."""
    known = (
        "1",
        "L",
        "LA",
        "La",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "RGBa",
        "RGBX",
        "CMYK",
        "YCbCr",
        "HSV",
        "F",
    )
    if image.mode not in known and not image.mode.startswith("I"):
        raise InputError(f"{file} has the colour mode {image.mode}; save it as RGB or grey")


def is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def to_eight_bits(image: Image.Image, file: Folder) -> np.ndarray:
    """Grey of 16 bits, or of floats or integers up to 1, 255 or 65535, as uint8 `(H, W)`."""
    values = np.asarray(image, np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 65535):
        raise InputError(
            f"{file} has values from {low:g} to {high:g}; save it with values from 0 to 255"
        )
    white = 65535 if image.mode[:4] == "I;16" else next(w for w in (1, 255, 65535) if high <= w)
    return np.rint(255 * values / white).astype(np.uint8)


def colours_of(image: Image.Image, indices: np.ndarray) -> dict[int, tuple[int, int, int]]:
    """The colours of a palette that the image uses, by index."""
    palette = np.zeros((256, 3), np.int64)
    listed = np.asarray(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    palette[: len(listed)] = listed
    return {int(i): tuple(palette[i].tolist()) for i in np.unique(indices)}


def is_binary_palette(image: Image.Image, indices: np.ndarray) -> bool:
    """Whether the image has one colour, or two of which one is black, or dark and bright ones."""
    colours = list(colours_of(image, indices).values())
    if len(colours) > 2:
        return False
    sums = sorted(map(sum, colours))
    return len(colours) == 1 or sums[0] <= 3 * GREY or sums[0] < 3 * 128 <= sums[1]


def object_of_two_colours(image: Image.Image, indices: np.ndarray) -> np.ndarray:
    """The pixels of the brighter colour as 1, uint8. A single colour is the object unless black."""
    colours = colours_of(image, indices)
    brightest = max(colours, key=lambda i: sum(colours[i]))
    if len(colours) == 1 and sum(colours[brightest]) <= 3 * GREY:
        return np.zeros(indices.shape, np.uint8)
    return (indices == brightest).astype(np.uint8)


def is_void_palette(image: Image.Image, indices: np.ndarray) -> bool:
    """Whether the indices are 0, 1 and 255 (void), as in PASCAL VOC."""
    colours = colours_of(image, indices)
    if VOID not in colours or not set(colours) <= {0, 1, VOID}:
        return False
    return 1 in colours or colours[VOID] == VOID_COLOUR


def one_hue(colours: np.ndarray, file: Folder, what: str) -> np.ndarray:
    """Brightness from 0 to 255 of an image whose colours lie between black and one hue."""
    pixels = colours.reshape(-1, 3).astype(np.float64)
    hue = pixels[pixels.sum(axis=1).argmax()]
    share = pixels @ hue / (hue @ hue)
    if np.linalg.norm(pixels - share[:, None] * hue, axis=1).max() > ONE_HUE:
        raise InputError(
            f"{file} is a {what} in several colours; save it in grey, or apply no colour map"
        )
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8).reshape(colours.shape[:2])


def label_map(image: Image.Image, file: Folder) -> np.ndarray:
    """The region numbers of a label map, int32 `(H, W)`."""
    values = np.asarray(image)
    if values.ndim != 2 or image.mode == "F":
        raise InputError(
            f"{file} is a label map of mode {image.mode}; save it with one channel of whole numbers"
        )
    return values.astype(np.int32)
