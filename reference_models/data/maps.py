"""Saliency maps as files store them, read by every command in the same way."""

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
from reference_models.data.storage import (
    GREY,
    checked,
    is_transparent,
    notes_by_kind,
    one_hue,
    refuse_unknown_modes,
    scaled,
    white_of_floats,
)
from reference_models.errors import Faults, InputError


class SaliencyMap(NamedTuple):
    """Grey values from 0 to 255, not stretched. uint8 `(H, W)`."""

    values: np.ndarray
    kind: str
    """Storage: "grey", "0/1" (no value above 1), "16 bits", "floats", "palette", "one hue" or
    "transparency"."""

    @property
    def stored(self) -> tuple[str, float]:
        """The kind and the highest value, by which `scale_of` decides."""
        return self.kind, float(self.values.max())


def open_map(file: Folder) -> SaliencyMap:
    """A saliency map before `settle_map`."""
    return as_map(open_image(file), file, "saliency map")


def read_map(file: Folder) -> SaliencyMap:
    """A saliency map by itself."""
    return settle_maps([open_map(file)])[0]


def settled_map(image: Image.Image, file: Folder, what: str) -> SaliencyMap:
    """The map of an opened image by itself, from 0 to 255. what: its role, for the errors."""
    return settle_maps([as_map(image, file, what)])[0]


def open_map_files(files: Sequence[Folder], what: str) -> list[SaliencyMap]:
    """Saliency maps before `settle_maps`. what: the files, for the progress bar."""
    return side_by_side(lambda index: open_map(files[index]), len(files), what)


def settle_maps(maps: Sequence[SaliencyMap]) -> list[SaliencyMap]:
    """The maps of one folder from 0 to 255."""
    scale = scale_of(each.stored for each in maps)
    return [settle_map(each, scale) for each in maps]


class Scale(NamedTuple):
    """What the values of the maps of one folder mean.

    It is decided for all of them together, so that a dark map beside bright ones stays dark.
    """

    white: int
    """The float that means white."""
    one_is_white: bool
    """Whether 1 means white, because no map has a greater value, and none is of floats or 16 bits,
    which say what white is."""


def scale_of(stored: Iterable[tuple[str, float]]) -> Scale:
    """The scale of maps of these kinds and highest values."""
    stored = list(stored)
    white = white_of_floats(max((top for kind, top in stored if kind == "floats"), default=1.0))
    fine = ("floats", "16 bits")
    return Scale(white, not any(top > (0 if kind in fine else 1) for kind, top in stored))


def settle_map(saliency: SaliencyMap, scale: Scale) -> SaliencyMap:
    """A map of a folder of this scale, from 0 to 255."""
    values = saliency.values
    if saliency.kind == "floats":
        values = scaled(values, scale.white)
    if scale.one_is_white:
        values = 255 * (values > 0).astype(np.uint8)
    return saliency._replace(values=values)


def as_map(image: Image.Image, file: Folder, what: str) -> SaliencyMap:
    """The map of an opened image, before `settle_maps`. what: its role, for the errors."""
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
        # Class numbers in one channel, which the weight of the channel would round to 0.
        if colours.max() <= GREY:
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


def map_files(path: Path, stems: Iterable[str], shared: bool = False) -> dict[str, Folder]:
    """The files of the maps of these stems.

    path: A folder or zip that holds the maps, or that holds a single folder of maps; also a folder
    inside a zip (`maps.zip/drfi`). The map of photo.jpg is photo.png, or photo-map.png as `predict`
    writes it; both are an error, as one may be the photograph. shared: Skip stems without a map;
    at least one must have a map.
    """
    root = one_folder(path, has_images, "saliency maps")
    files, images = by_stem([root]), list(stems)
    others = files.keys() - set(images)
    by_predict = {stem: f"{stem}-map" for stem in images if f"{stem}-map" in others}
    faults = Faults()
    for stem, name in by_predict.items():
        with faults.collect():
            if stem in files:
                raise InputError(
                    f"{files[stem]} and {files[name]} could both be the map of {stem}; leave only "
                    "the maps in the folder"
                )
    faults.report()
    files |= {stem: files[name] for stem, name in by_predict.items()}
    if shared:
        images = [stem for stem in images if stem in files]
        if not images:
            raise InputError(
                f"no map in {root} has the name of a mask; rename the maps: that of mask 1.png is "
                "1.png or 1-map.png"
            )
    require(images, files, f"map in {root}")
    return {stem: files[stem] for stem in images}


def map_notes(kinds: Mapping[str, str], scale: Scale) -> list[str]:
    """Notes on maps that are not stored as 8-bit grey. kinds: The kind of each map, by stem."""
    texts = {
        "0/1": "the values 0 and 1: "
        + (
            "1 is read as white"
            if scale.one_is_white
            else "nearly black, as other maps are brighter or finer"
        ),
        "16 bits": "16 bits, of which the upper 8 are read",
        "floats": "floats, read as 8 bits",
        "palette": "a palette, read by its colours",
        "one hue": "one hue on black, read by its brightness",
        "transparency": "transparency, which is read as the map",
    }
    return notes_by_kind("map", kinds, texts)
