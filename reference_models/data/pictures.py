"""Pictures in folders and zips, read as images, masks, label maps and saliency maps."""

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from reference_models.errors import InputError, count, first_few
from reference_models.machine import cores, progress

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Folder = Path | zipfile.Path
Result = TypeVar("Result")


# Finding files -----------------------------------------------------------------------------------


def open_folder(path: Path) -> Folder:
    """Open a folder, a zip, or a folder inside a zip (`maps.zip/drfi`)."""
    if path.is_dir():
        return path
    for place in (path, *path.parents):
        if place.is_file():
            try:
                root = zipfile.Path(zipfile.ZipFile(place))
            except zipfile.BadZipFile:
                raise InputError(
                    f"{path} is neither a folder nor a readable zip; give one of these"
                ) from None
            inside = root.joinpath(*path.relative_to(place).parts) if place != path else root
            if inside.is_dir():
                return inside
            content = first_few(sorted(entry.name for entry in root.iterdir())) or "nothing"
            raise InputError(
                f"{path} does not exist; choose a folder in {place}, which holds {content}"
            )
    raise InputError(f"{path} does not exist; check the path")


def one_folder(path: Path, fits: Callable[[Folder], bool], wanted: str) -> Folder:
    """The path itself if it `fits`, or else the only folder in it that does.

    wanted: what such a folder holds, for the errors.
    """
    root = open_folder(path)
    if fits(root):
        return root
    entries: list[Folder] = sorted(root.iterdir(), key=lambda entry: entry.name)
    fitting = [entry for entry in entries if entry.is_dir() and fits(entry)]
    if len(fitting) == 1:
        return fitting[0]
    names = first_few([entry.name for entry in fitting or entries]) or "nothing"
    if fitting:
        raise InputError(f"several folders in {path} hold {wanted}: {names}; name one of them")
    raise InputError(
        f"{path} must hold {wanted}, or a folder that does, but holds {names}; check the path"
    )


def by_stem(folders: Sequence[Folder]) -> dict[str, Folder]:
    """The image files of the folders, sorted by stem; hidden files and other types are ignored."""
    files: dict[str, Folder] = {}
    for folder in folders:
        entries = [entry for entry in folder.iterdir() if is_image(entry)]
        if not entries:
            raise InputError(
                f"{folder} holds no image file; add some ({', '.join(sorted(SUFFIXES))})"
            )
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem = Path(entry.name).stem
            if stem in files:
                raise InputError(
                    f"{files[stem]} and {entry} have the same name without extension; rename or "
                    "remove one of them"
                )
            files[stem] = entry
    return dict(sorted(files.items()))


def is_image(entry: Folder) -> bool:
    return not entry.name.startswith(".") and Path(entry.name).suffix.lower() in SUFFIXES


def has_images(folder: Folder) -> bool:
    return any(map(is_image, folder.iterdir()))


def require(images: Iterable[str], files: Iterable[str], what: str) -> None:
    """Raise an error unless each stem of an image is among the stems of the files.

    what: the kind of file and its folder, for the error: "mask in masks/".
    """
    stems = set(files)
    missing = [image for image in images if image not in stems]
    if missing:
        raise InputError(
            f"{count(len(missing), 'image has', 'images have')} no {what}: {first_few(missing)}; "
            "add the missing files"
        )


# Reading them ------------------------------------------------------------------------------------


def side_by_side(work: Callable[[int], Result], number: int, what: str) -> list[Result]:
    """The results of `work` for each index below `number`, computed in threads, in order.

    Threads suffice, because Pillow decodes without Python's global lock. what: the files, for the
    progress bar.
    """
    with ThreadPoolExecutor(cores()) as pool:
        bar = progress(
            pool.map(work, range(number)), desc=f"reading {what}", total=number, unit=" images"
        )
        return list(bar)


READING = Lock()  # Several threads share one open zip, which can only be read by one at a time.


def open_image(file: Folder) -> Image.Image:
    """The decoded picture, turned upright by its EXIF orientation."""
    try:
        with READING:
            content = file.read_bytes()
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError:
        raise InputError(
            f"{file} cannot be read as an image: unknown format; save it as PNG or JPEG"
        ) from None
    except Exception as error:  # Decoders and damaged archives raise many kinds of errors.
        raise InputError(
            f"{file} cannot be read as an image: {error}; replace or remove it"
        ) from None
    return ImageOps.exif_transpose(image)


def binarise(mask: Image.Image, file: Folder) -> tuple[np.ndarray, str]:
    """The mask as bool, and its kind: "0/255", "0/1", "soft", or "faint" if no value reaches 128.

    In a palette image with only the indices 0 and 1, these are the mask, whatever the colours.
    """
    values = np.asarray(mask) if mask.mode == "P" else eight_bits(mask, file, "mask")
    if mask.mode == "P" and values.max() > 1:
        values = eight_bits(mask, file, "mask")
    highest = values.max()
    if highest == 1:
        return values == 1, "0/1"
    if 1 < highest < 128:
        return values >= 128, "faint"
    hard = ((values == 0) | (values == 255)).all()
    return values >= 128, "0/255" if hard else "soft"


def fit_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a mask, bool `(H, W)` to `(size, size)`. A pixel is True if at least half of it is."""
    fitted = Image.fromarray(mask).convert("L").resize((size, size), Image.Resampling.BOX)
    return np.asarray(fitted) >= 128


def mask_notes(kinds: Mapping[str, str]) -> list[str]:
    """Notes on masks that are not 0/255. kinds: the kind of each mask, by its stem."""
    stems: dict[str, list[str]] = {}
    for stem, kind in kinds.items():
        stems.setdefault(kind, []).append(stem)
    notes = []
    if masks := stems.get("0/1"):
        holding = count(len(masks), "mask holds", "masks hold")
        notes.append(f"{holding} 0 and 1: 1 is taken as the object")
    if masks := stems.get("soft"):
        holding = count(len(masks), "mask holds", "masks hold")
        notes.append(f"{holding} values between 0 and 255: binarised at 128")
    if masks := stems.get("faint"):
        holding = count(len(masks), "mask holds", "masks hold")
        notes.append(
            f"{holding} no value above 127 ({first_few(masks)}): taken as all background; save the "
            "object as 255"
        )
    return notes


def eight_bits(image: Image.Image, file: Folder, what: str) -> np.ndarray:
    """The picture in grey, uint8 `(H, W)`. what: its role, for the error."""
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"{file} is a {what} of mode {image.mode}; save it with 8 bits, from 0 to 255"
        )
    return np.asarray(image.convert("L"))


def label_map(image: Image.Image, file: Folder) -> np.ndarray:
    """The region numbers of a label map, int32 `(H, W)`."""
    values = np.asarray(image)
    if values.ndim != 2 or image.mode == "F":
        raise InputError(
            f"{file} is a label map of mode {image.mode}; save it with one channel of whole numbers"
        )
    return values.astype(np.int32)


# Saliency maps -----------------------------------------------------------------------------------


def read_maps(path: Path, stems: Iterable[str], shared: bool = False) -> dict[str, np.ndarray]:
    """The saliency maps of these stems, uint8 `(H, W)`, with their original size and values.

    path: A folder or zip that holds the maps, or that holds a single folder of maps; also a folder
    inside a zip (`maps.zip/drfi`). The map of photo.jpg is photo.png, or photo-map.png as `predict`
    writes it. shared: Skip stems without a map, unless all of them lack one.
    """
    root = one_folder(path, has_images, "saliency maps")
    files, images = by_stem([root]), list(stems)
    files = {stem: files[f"{stem}-map"] for stem in images if f"{stem}-map" in files} | files
    if shared:
        images = [stem for stem in images if stem in files]
        if not images:
            raise InputError(
                f"no map in {root} has the name of a mask; name the map of a mask 1.png 1.png or "
                "1-map.png"
            )
    require(images, files, f"map in {root}")

    def read_map(index: int) -> np.ndarray:
        file = files[images[index]]
        return eight_bits(open_image(file), file, "saliency map")

    maps = side_by_side(read_map, len(images), f"maps of {root.name}")
    return dict(zip(images, maps, strict=True))


def fit_prior(prior: Image.Image, size: int) -> np.ndarray:
    """Resize a prior and stretch it to 0..255, as thresholds expect; a constant map becomes 0."""
    values = np.asarray(prior.convert("L").resize((size, size), Image.Resampling.BILINEAR), float)
    low, high = values.min(), values.max()
    return np.rint(255 * (values - low) / max(high - low, 1.0)).astype(np.uint8)


def centre_prior(size: int) -> np.ndarray:
    """A Gaussian at the centre, from 0 to 255; its standard deviation is a quarter of the side."""
    offset = (np.arange(size) - (size - 1) / 2) / (size / 4)
    bell = np.exp(-(offset[:, None] ** 2 + offset**2) / 2)
    return np.rint(255 * (bell - bell.min()) / (bell.max() - bell.min())).astype(np.uint8)
