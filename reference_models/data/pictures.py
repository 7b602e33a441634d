"""Pictures in folders and zips: found by stem, read as masks, label maps and saliency maps."""

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from reference_models.errors import InputError, first_few
from reference_models.machine import cores, progress

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
Folder = Path | zipfile.Path
Made = TypeVar("Made")


# Finding files -----------------------------------------------------------------------------------


def open_folder(path: Path) -> Folder:
    """A folder, a zip, or a folder inside a zip (`maps.zip/drfi`)."""
    if path.is_dir():
        return path
    for place in (path, *path.parents):
        if place.is_file():
            try:
                root = zipfile.Path(zipfile.ZipFile(place))
            except zipfile.BadZipFile:
                raise InputError(f"{path} is neither a folder nor a readable zip") from None
            inside = root.joinpath(*path.relative_to(place).parts) if place != path else root
            if inside.is_dir():
                return inside
            there = first_few(sorted(entry.name for entry in root.iterdir())) or "nothing"
            raise InputError(f"{path} does not exist; {place} holds {there}")
    raise InputError(f"{path} does not exist")


def one_folder(path: Path, fits: Callable[[Folder], bool], wanted: str) -> Folder:
    """The folder that `fits`: the path itself, or the only such folder in it."""
    root = open_folder(path)
    if fits(root):
        return root
    entries: list[Folder] = sorted(root.iterdir(), key=lambda entry: entry.name)
    inside = [entry for entry in entries if entry.is_dir() and fits(entry)]
    if len(inside) == 1:
        return inside[0]
    found = first_few([entry.name for entry in inside or entries]) or "nothing"
    if inside:
        raise InputError(f"several folders of {path} hold {wanted}: {found}; name one of them")
    raise InputError(f"{path} must hold {wanted}, or a folder that does, but holds {found}")


def by_stem(folders: Sequence[Folder]) -> dict[str, Folder]:
    """The image files of the folders by stem, sorted; other files and hidden ones are no such."""
    files: dict[str, Folder] = {}
    for folder in folders:
        entries = [entry for entry in folder.iterdir() if is_image(entry)]
        if not entries:
            raise InputError(f"{folder} holds no image file ({', '.join(sorted(SUFFIXES))})")
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem = Path(entry.name).stem
            if stem in files:
                raise InputError(f"two files of the same stem: {files[stem]} and {entry}")
            files[stem] = entry
    return dict(sorted(files.items()))


def is_image(entry: Folder) -> bool:
    return not entry.name.startswith(".") and Path(entry.name).suffix.lower() in SUFFIXES


def has_images(folder: Folder) -> bool:
    return any(map(is_image, folder.iterdir()))


def require(wanted: Iterable[str], there: Iterable[str], what: str) -> None:
    known = set(there)
    missing = [stem for stem in wanted if stem not in known]
    if missing:
        raise InputError(f"{len(missing)} images have not {what}: {first_few(missing)}")


# Reading them ------------------------------------------------------------------------------------


def side_by_side(work: Callable[[int], Made], count: int, what: str) -> list[Made]:
    """`work(0)`, … in threads, their results in order: Pillow decodes without Python's lock."""
    with ThreadPoolExecutor(cores()) as pool:
        bar = progress(
            pool.map(work, range(count)), desc=f"reading {what}", total=count, unit=" images"
        )
        return list(bar)


READING = Lock()  # Several threads read from one open zip.


def open_image(file: Folder) -> Image.Image:
    try:
        with READING:
            content = file.read_bytes()
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError:
        raise InputError(f"{file} cannot be read as an image: it is of no known format") from None
    except Exception as error:  # Decoders and damaged archives raise all sorts.
        raise InputError(f"{file} cannot be read as an image: {error}") from None
    return ImageOps.exif_transpose(image)


def binarise(mask: Image.Image, file: Folder) -> tuple[np.ndarray, str]:
    """The mask as bool, and what it was: "0/255", "0/1", "soft", or "faint": below 128 throughout.

    A palette's indices 0 and 1 are a mask, whatever the colours.
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
    """bool `(H, W)` to bool `(size, size)`: True where at least half of the pixel is."""
    fitted = Image.fromarray(mask).convert("L").resize((size, size), Image.Resampling.BOX)
    return np.asarray(fitted) >= 128


def mask_notes(kinds: Mapping[str, str]) -> list[str]:
    """Notes on masks that are not 0/255; kinds: what each was, by its stem."""
    told = {
        "0/1": "hold 0 and 1: 1 is taken as the object",
        "soft": "hold values between 0 and 255: binarised at 128",
        "faint": "hold nothing above 127 and count as all background; save the object as 255",
    }
    notes = []
    for kind, what in told.items():
        stems = [stem for stem, found in kinds.items() if found == kind]
        if stems:
            named = f" ({first_few(stems)})" if kind == "faint" else ""
            notes.append(f"{len(stems)} masks{named} {what}")
    return notes


def eight_bits(image: Image.Image, file: Folder, what: str) -> np.ndarray:
    """The picture as grey, uint8 `(H, W)`."""
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{file} is a {what} of mode {image.mode}; save it with 8 bits, 0 to 255")
    return np.asarray(image.convert("L"))


def label_map(image: Image.Image, file: Folder) -> np.ndarray:
    """Region numbers, int32 `(H, W)`."""
    values = np.asarray(image)
    if values.ndim != 2 or image.mode == "F":
        raise InputError(
            f"{file} is a label map of mode {image.mode}; save it with one channel of whole numbers"
        )
    return values.astype(np.int32)


# Saliency maps of others -------------------------------------------------------------------------


def read_maps(path: Path, stems: Iterable[str], shared: bool = False) -> dict[str, np.ndarray]:
    """The saliency maps of these stems, or of those `shared` by the folder, at their own size,
    uint8 `(H, W)`, unstretched.

    They lie in the folder or zip itself, or in the one folder in it that holds images; a folder
    inside a zip is named as `maps.zip/drfi`. `predict` calls the map of photo.jpg photo-map.png.
    """
    root = one_folder(path, has_images, "saliency maps")
    files, wanted = by_stem([root]), list(stems)
    files = {stem: files[f"{stem}-map"] for stem in wanted if f"{stem}-map" in files} | files
    if shared:
        wanted = [stem for stem in wanted if stem in files]
        if not wanted:
            raise InputError(f"no map in {root} has the stem of a mask")
    require(wanted, files, f"a map in {root}")

    def one(place: int) -> np.ndarray:
        file = files[wanted[place]]
        return eight_bits(open_image(file), file, "saliency map")

    return dict(zip(wanted, side_by_side(one, len(wanted), f"maps of {root.name}"), strict=True))


def fit_prior(prior: Image.Image, size: int) -> np.ndarray:
    """Resized and stretched to 0..255, as thresholds on it expect; a constant map becomes 0."""
    values = np.asarray(prior.convert("L").resize((size, size), Image.Resampling.BILINEAR), float)
    low, high = values.min(), values.max()
    return np.rint(255 * (values - low) / max(high - low, 1.0)).astype(np.uint8)


def centre_prior(size: int) -> np.ndarray:
    """A Gaussian at the centre, its standard deviation a quarter of the side, from 0 to 255."""
    offset = (np.arange(size) - (size - 1) / 2) / (size / 4)
    bell = np.exp(-(offset[:, None] ** 2 + offset**2) / 2)
    return np.rint(255 * (bell - bell.min()) / (bell.max() - bell.min())).astype(np.uint8)
