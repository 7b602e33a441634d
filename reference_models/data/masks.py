"""Masks and label maps as files store them, read by every command in the same way."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

from reference_models.data.images import VOID
from reference_models.data.maps import as_map
from reference_models.data.pictures import Folder, fit_mask, open_image
from reference_models.data.storage import (
    GREY,
    is_transparent,
    notes_by_kind,
    scaled,
    white_of_floats,
)
from reference_models.errors import InputError, first_few

VOID_COLOUR = (224, 224, 192)
"""PASCAL VOC's colour of pixels that belong to neither object nor background."""


class Mask(NamedTuple):
    """The salient object. bool `(H, W)`."""

    object: np.ndarray
    void: np.ndarray | None
    """Pixels that belong to neither object nor background; None if there are none."""
    kind: str
    """Storage: "0/255", "0/1", "with void", "three values", "soft", "two values", or a kind of
    `SaliencyMap`."""
    faint: np.ndarray | None = None
    """With "three values": the object, if 255 is void and not the object."""


def read_mask(file: Folder) -> Mask:
    """A mask by itself, see `as_mask`."""
    return settled_mask(as_mask(open_image(file), file), void=False)


def as_mask(image: Image.Image, file: Folder) -> Mask:
    """The mask of an opened image.

    An image of 0 and one other value, or of black and one other colour, is read as background and
    object. Three values 0, v and 255 are background, object and void, as in PASCAL VOC, if v is
    small and at least as frequent as 255; lossy files of 0 and 255 have few other values. If v is
    less frequent, the kind is "three values", and `settled_mask` decides. Other grey values are
    binarised at 128.
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
    if not 0 < number < 64 or (len(used) == 3 and used[0] != 0):
        return None
    faint, full = values == number, values == VOID
    if counts[-2] < counts[-1]:
        return Mask(full, None, "three values", faint)
    return Mask(faint, full, "with void")


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
    is_grey = all(max(colour) - min(colour) <= GREY for colour in colours.values())
    if is_grey and (len(colours) > 1 or len(set(palette_of(image))) != 2):
        return None
    brightness = {index: sum(colour) for index, colour in colours.items()}
    dark, bright = min(brightness.values()), max(brightness.values())
    if len(colours) > 1:
        is_plain = len(colours) == 2 and (dark <= 3 * GREY or dark < 3 * 128 <= bright)
        object_index = max(brightness, key=brightness.__getitem__)
        return Mask(indices == object_index, None, "palette") if is_plain else None
    # A single colour: of a palette of two it is the brighter or the darker, else black or not.
    others = {sum(colour) for colour in palette_of(image)} - {bright}
    is_object = bright > max(others) if len(others) == 1 else bright > 3 * GREY
    return Mask(np.full(indices.shape, is_object), None, "palette")


def has_void(kinds: Iterable[str]) -> bool:
    """Whether 255 is void in all masks of one folder: beside masks with void, also in those that
    hold 0 and 255 only, or more void than object. kinds: The kinds of all masks."""
    found = set(kinds)
    return "with void" in found and found <= {"with void", "0/1", "0/255", "three values"}


def settled_mask(mask: Mask, void: bool) -> Mask:
    """The mask in the light of its folder. void: See `has_void`."""
    if mask.kind == "three values":
        assert mask.faint is not None
        return (
            Mask(mask.faint, mask.object, "with void") if void else Mask(mask.object, None, "soft")
        )
    if mask.kind == "0/255" and void:
        return Mask(np.zeros_like(mask.object), mask.object, "with void")
    return mask


class Look(NamedTuple):
    """What is kept of a mask until all masks of its folder are known. Pairs: as it is read without
    void, and beside it; see `has_void`."""

    kind: str
    """Before it is settled."""
    kinds: tuple[str, ...]
    classes: tuple[tuple[bool, bool], ...]

    @classmethod
    def at(cls, mask: Mask) -> Self:
        both = [settled_mask(mask, void) for void in (False, True)]
        found = (classes(each.object, each.void) for each in both)
        return cls(mask.kind, tuple(each.kind for each in both), tuple(found))


def classes(mask: np.ndarray, void: np.ndarray | None) -> tuple[bool, bool]:
    """Whether a mask has an object, and whether it has background."""
    return bool(mask.any()), not bool((mask if void is None else mask | void).all())


def fit_labels(mask: Mask, size: int) -> np.ndarray:
    """The labels of a mask at `(size, size)`, uint8: 1 on the object, 0 off it, VOID where at least
    half of a pixel is void. The rest of such a pixel does not count."""
    if mask.void is None:
        return fit_mask(mask.object, size).astype(np.uint8)
    shares = [
        np.asarray(
            Image.fromarray(part.astype(np.float32)).resize((size, size), Image.Resampling.BOX)
        )
        for part in (mask.object, mask.void)
    ]
    salient, void = shares
    return np.where(void >= 0.5, VOID, salient >= (1 - void) / 2).astype(np.uint8)


def mask_notes(kinds: Mapping[str, str]) -> list[str]:
    """Notes on masks that are not stored as 0 and 255. kinds: The kind of each mask, by stem."""
    texts = {
        "0/1": "the values 0 and 1: 1 is read as the object",
        "with void": "a class number, which is read as the object, and 255 (void), which counts "
        "neither in training nor in measures",
        "two values": "0 and one other value, which is read as the object",
        "soft": "values between 0 and 255: binarised at 128",
        "16 bits": "16 bits: binarised at half of the range",
        "floats": "floats: binarised at half of the range",
        "palette": "a palette: the brighter colour is read as the object",
        "one hue": "one hue on black: binarised at half of its brightness",
        "transparency": "transparency: opaque pixels are read as the object",
    }
    return notes_by_kind("mask", kinds, texts)


def palette_of(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours of a palette."""
    listed = np.asarray(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    return [tuple(colour) for colour in listed.tolist()]


def colours_of(image: Image.Image, indices: np.ndarray) -> dict[int, tuple[int, ...]]:
    """The colours of a palette that the image uses, by index."""
    listed = palette_of(image)
    black = (0, 0, 0)
    return {int(i): listed[i] if i < len(listed) else black for i in np.unique(indices)}


def label_map(image: Image.Image, file: Folder) -> np.ndarray:
    """The region numbers of a label map, int32 `(H, W)`."""
    values = np.asarray(image)
    if values.ndim != 2 or image.mode == "F":
        raise InputError(
            f"{file} is a label map of mode {image.mode}; save it with one channel of whole numbers"
        )
    return values.astype(np.int32)
