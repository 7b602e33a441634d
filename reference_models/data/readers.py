"""Photographs, saliency maps and masks as files store them, read the same way by every command.

docs/reliability.md has the table of what is read, noted and refused.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    """Storage: "grey", "0/1" (no value above 1), "16 bits", "floats", "palette", "one hue" or
    "transparency"."""


class Mask(NamedTuple):
    """The salient object. bool `(H, W)`."""

    object: np.ndarray
    void: np.ndarray | None
    """Pixels that belong to neither object nor background; None if there are none."""
    kind: str
    """Storage: "0/255", "0/1", "with void", "soft", "two values", or a kind of `SaliencyMap`."""


# Photographs -------------------------------------------------------------------------------------


def read_photograph(file: Folder) -> Photograph:
    """A photograph as RGB; transparent pixels are blended with white."""
    image = open_image(file)
    refuse_unknown_modes(image, file)
    if image.mode.startswith("I"):
        image = Image.fromarray(integer_map(image, file).values)
    elif image.mode == "F":
        values = checked(image, file)
        image = Image.fromarray(scaled(values, white_of_floats(float(values.max()))))
    if not is_transparent(image):
        return Photograph(image.convert("RGB"), None)
    layers = image.convert("RGBA")
    alpha = layers.getchannel("A")
    white = Image.new("RGB", image.size, "white")
    return Photograph(Image.composite(layers.convert("RGB"), white, alpha), alpha)


# Maps --------------------------------------------------------------------------------------------


def read_map(file: Folder) -> SaliencyMap:
    """A saliency map by itself."""
    return settle_maps([as_map(open_image(file), file, "saliency map")])[0]


def read_map_files(files: Sequence[Folder], what: str) -> list[SaliencyMap]:
    """The saliency maps of one folder. what: the files, for the progress bar."""
    maps = side_by_side(
        lambda index: as_map(open_image(files[index]), files[index], "saliency map"),
        len(files),
        what,
    )
    return settle_maps(maps)


def settle_maps(maps: Sequence[SaliencyMap]) -> list[SaliencyMap]:
    """The maps of one folder from 0 to 255: whether 1 means white, and which float does, is decided
    for all of them together, so that a dark map beside bright ones stays dark."""
    highest = max((float(each.values.max()) for each in maps if each.kind == "floats"), default=1.0)
    white = white_of_floats(highest)
    settled = [
        each._replace(values=scaled(each.values, white)) if each.kind == "floats" else each
        for each in maps
    ]
    if any(each.values.max() > 1 for each in settled):
        return settled
    return [each._replace(values=255 * (each.values > 0).astype(np.uint8)) for each in settled]


def as_map(image: Image.Image, file: Folder, what: str) -> SaliencyMap:
    """The map of an opened image; that of a float image is not scaled yet. what: its role, for the
    errors."""
    refuse_unknown_modes(image, file)
    if image.mode.startswith("I"):
        return integer_map(image, file)
    if image.mode == "F":
        return SaliencyMap(checked(image, file), "floats")
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
    kind = "palette" if image.mode == "P" else "grey"
    if image.mode in ("1", "L"):
        values = np.asarray(image.convert("L"))
    else:
        colours = np.asarray(image.convert("RGB"))
        if (
            colours.max() <= GREY
        ):  # Class numbers in one channel, which its weight would round to 0.
            values = colours.max(axis=2)
        elif int((colours.max(axis=2) - colours.min(axis=2)).max()) <= GREY:
            values = np.asarray(image.convert("L"))
        else:
            values, kind = one_hue(colours, file, what), "one hue"
    return SaliencyMap(values, "0/1" if kind == "grey" and values.max() == 1 else kind)


def integer_map(image: Image.Image, file: Folder) -> SaliencyMap:
    """Integers of 16 or 32 bits. Up to 255 they are values of 8 bits in a larger type."""
    values = checked(image, file)
    if values.max() <= 255:
        eight_bits = values.astype(np.uint8)
        return SaliencyMap(eight_bits, "0/1" if eight_bits.max() == 1 else "grey")
    return SaliencyMap(scaled(values, 65535), "16 bits")


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
    results = read_map_files([files[stem] for stem in images], f"maps of {root.name}")
    maps = dict(zip(images, results, strict=True))
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
    """A mask by itself, see `as_mask`."""
    return as_mask(open_image(file), file)


def as_mask(image: Image.Image, file: Folder) -> Mask:
    """The mask of an opened image.

    An image of 0 and one other value, or of black and one other colour, is read as background and
    object. Three values 0, v and 255 are background, object and void, as in PASCAL VOC, if v is
    small and at least as frequent as 255; lossy files of 0 and 255 have few other values. Other
    grey values are binarised at 128.
    """
    if image.mode == "P" and not is_transparent(image):
        mask = palette_mask(image, file)
        if mask is not None:
            return mask
    values, kind = as_map(image, file, "mask")
    if kind == "floats":
        values = scaled(values, white_of_floats(float(values.max())))
    used, counts = np.unique(values, return_counts=True)
    if kind in ("grey", "0/1", "palette"):
        void = void_mask(values, used, counts)
        if void is not None:
            return void
        if len(used) == 2 and used[0] == 0 and used[1] != 255:
            own = "0/1" if used[1] == 1 else "two values"
            return Mask(values > 0, None, "palette" if kind == "palette" else own)
        if used[-1] == 1:
            return Mask(values == 1, None, "0/1")
    if kind == "grey":
        kind = "0/255" if set(used) <= {0, 255} else "soft"
    if 0 < used[-1] < 128:
        raise InputError(
            f"{file} is a mask with no value above {used[-1]}, so it would be all background; save "
            "the object as 255"
        )
    return Mask(values >= 128, None, kind)


def void_mask(values: np.ndarray, used: np.ndarray, counts: np.ndarray) -> Mask | None:
    """The mask of background 0 (or none), an object and void 255, if the values are such."""
    if len(used) not in (2, 3) or used[-1] != VOID:
        return None
    number = used[-2]
    if not 0 < number < 64 or (len(used) == 3 and used[0] != 0) or counts[-2] < counts[-1]:
        return None
    return Mask(values == number, values == VOID, "with void")


def palette_mask(image: Image.Image, file: Folder) -> Mask | None:
    """The mask of a palette image; None if its colours are grey, so that their values decide."""
    indices = np.asarray(image)
    colours = colours_of(image, indices)
    numbers = [index for index in colours if index not in (0, VOID)]
    if VOID in colours and (colours[VOID] == VOID_COLOUR or numbers == [1]):
        if len(numbers) > 1:
            named = first_few([str(number) for number in numbers])
            raise InputError(
                f"{file} is a mask of {len(numbers)} classes ({named}); save the object alone, as "
                "255"
            )
        return Mask(np.isin(indices, numbers), indices == VOID, "with void")
    if all(max(colour) - min(colour) <= GREY for colour in colours.values()):
        listed = {tuple(colour) for colour in palette_of(image)}
        if len(colours) > 1 or len(listed) != 2:
            return None
    ordered = sorted(colours, key=lambda index: sum(colours[index]))
    brightness = [sum(colours[index]) for index in ordered]
    if len(ordered) == 2 and (
        brightness[0] <= 3 * GREY or brightness[0] < 3 * 128 <= brightness[1]
    ):
        return Mask(indices == ordered[1], None, "palette")
    if len(ordered) > 1:
        return None
    # A single colour: of a palette of two it is the brighter or the darker, else black or not.
    others = {sum(colour) for colour in palette_of(image)} - {brightness[0]}
    is_object = brightness[0] > max(others) if len(others) == 1 else brightness[0] > 3 * GREY
    return Mask(np.full(indices.shape, is_object), None, "palette")


def only_void(kinds: Sequence[str]) -> list[int]:
    """Which masks of one folder, by their kinds, have 255 for void alone: beside masks with void
    that is what 0 and 255 mean."""
    if "with void" not in kinds or not set(kinds) <= {"with void", "0/1", "0/255"}:
        return []
    return [index for index, kind in enumerate(kinds) if kind == "0/255"]


def mask_notes(kinds: Mapping[str, str]) -> list[str]:
    """Notes on masks that are not stored as 0 and 255. kinds: The kind of each mask, by stem."""
    texts = {
        "0/1": "the values 0 and 1: 1 is read as the object",
        "with void": "a class number, which is read as the object, and 255 (void), which counts as "
        "background",
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
    return np.rint(255 * (values / white).clip(0, 1)).astype(np.uint8)


def palette_of(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours of a palette."""
    listed = np.asarray(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    return [tuple(colour) for colour in listed.tolist()]


def colours_of(image: Image.Image, indices: np.ndarray) -> dict[int, tuple[int, ...]]:
    """The colours of a palette that the image uses, by index."""
    listed = palette_of(image)
    black = (0, 0, 0)
    return {int(i): listed[i] if i < len(listed) else black for i in np.unique(indices)}


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


def label_map(image: Image.Image, file: Folder) -> np.ndarray:
    """The region numbers of a label map, int32 `(H, W)`."""
    values = np.asarray(image)
    if values.ndim != 2 or image.mode == "F":
        raise InputError(
            f"{file} is a label map of mode {image.mode}; save it with one channel of whole numbers"
        )
    return values.astype(np.int32)
