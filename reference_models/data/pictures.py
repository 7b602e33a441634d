"""Picture files in folders and zips: found by name, decoded and resized."""

import io
import zipfile
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TypeVar, cast
from unicodedata import normalize
from warnings import catch_warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from reference_models.errors import Faults, InputError, count, first_few
from reference_models.machine import cores, progress

UNREAD = {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".tga"}
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
            except Exception:  # A damaged or unusual zip raises many kinds of errors.
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
    faults = Faults()
    for folder in folders:
        with faults.collect():
            inside: list[Folder] = list(folder.iterdir())
            entries = [entry for entry in inside if is_image(entry)]
            if unread := [e.name for e in inside if Path(e.name).suffix.lower() in UNREAD]:
                raise InputError(
                    f"{folder} holds {count(len(unread), 'file')} of types that are not read "
                    f"({first_few(sorted(unread))}); convert them to PNG, or remove them"
                )
            if not entries:
                raise InputError(
                    f"{folder} holds no image file; add some ({', '.join(sorted(SUFFIXES))})"
                )
            for entry in sorted(entries, key=lambda entry: entry.name):
                stem = normalize("NFC", Path(entry.name).stem)
                with faults.collect():
                    if stem in files:
                        raise InputError(
                            f"{files[stem]} and {entry} have the same name without extension; "
                            "rename or remove one of them"
                        )
                    files[stem] = entry
    faults.report()
    return dict(sorted(files.items()))


def is_image(entry: Folder, suffixes: Set[str] = SUFFIXES) -> bool:
    return not entry.name.startswith(".") and Path(entry.name).suffix.lower() in suffixes


def has_images(folder: Folder) -> bool:
    return any(map(is_image, folder.iterdir()))


def require(images: Iterable[str], files: Iterable[str], what: str) -> None:
    """Raise an error unless each stem of an image is among the stems of the files.

    what: the kind of file and its folder, for the error: "mask in masks/".
    """
    images, stems = list(images), set(files)
    missing = [image for image in images if image not in stems]
    if missing:
        others = sorted(stems - set(images)) or sorted(stems)
        raise InputError(
            f"{count(len(missing), 'image has', 'images have')} no {what}: {first_few(missing)}; "
            f"add the missing files, or rename the existing ones ({first_few(others, 2)})"
        )


# Reading files -----------------------------------------------------------------------------------


def side_by_side(work: Callable[[int], Result], number: int, what: str) -> list[Result]:
    """The results of `work` for each index below `number`, computed in threads, in order.

    Threads suffice, because Pillow decodes without Python's global lock. All input errors are
    raised together. what: the files, for the progress bar.
    """
    results = outcomes(work, number, what)
    faults = Faults(result for result in results if isinstance(result, InputError))
    faults.report()
    return cast("list[Result]", results)


def outcomes(work: Callable[[int], Result], number: int, what: str) -> list[Result | InputError]:
    """As `side_by_side`, with an input error in the place of each result that it prevented."""

    def attempt(index: int) -> Result | InputError:
        try:
            return work(index)
        except InputError as error:
            return error

    with ThreadPoolExecutor(cores()) as pool:
        bar = progress(
            pool.map(attempt, range(number)), desc=f"reading {what}", total=number, unit=" images"
        )
        return list(bar)


READING = Lock()  # Several threads share one open zip and the filters of warnings.
MOST_BYTES = 2**28
MOST_PIXELS = 2**27
STACKS = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
"""Formats in which several frames are no copies of one picture."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image upright, by its EXIF orientation."""


def size_of(file: Folder) -> int:
    """Bytes of a file, as they are when it is unpacked."""
    if isinstance(file, zipfile.Path):
        return file.root.getinfo(file.at).file_size
    return file.stat().st_size


def read_bytes(file: Folder, most: int | None = None) -> bytes:
    """The content of a file; one of more than `most` bytes is refused before it is unpacked.

    most: Default: MOST_BYTES.
    """
    most = MOST_BYTES if most is None else most
    if size_of(file) <= most:
        is_zipped = isinstance(file, zipfile.Path)
        with READING if is_zipped else nullcontext(), file.open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) <= most:
            return content
    raise InputError(f"{file} is larger than {most >> 20} MB; save it smaller")


def open_image(file: Folder, admit: Callable[[int], None] | None = None) -> Image.Image:
    """The decoded picture, turned upright by its EXIF orientation.

    A file of more than MOST_BYTES or MOST_PIXELS is refused before it is decoded. admit:
    Called with the number of pixels before they are decoded; it may wait until there is memory.
    """
    try:
        if not file.is_file():
            raise InputError(f"{file} is not a file; remove it from the folder")
        content = read_bytes(file)
        with READING, catch_warnings(action="ignore"):  # Pillow warns of damaged metadata.
            image = Image.open(io.BytesIO(content))
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"{file} has {image.width} x {image.height} pixels; save it with at most "
                    f"{MOST_PIXELS >> 20} million"
                )
            frames = getattr(image, "n_frames", 1)
            if image.format in STACKS and frames > 1:
                raise InputError(f"{file} has {frames} frames; save one of them")
            if admit is not None:
                admit(image.width * image.height)
            image.load()
            return upright(image)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            f"{file} cannot be read as an image: unknown format; save it as PNG or JPEG"
        ) from None
    except Exception as error:  # Decoders and damaged archives raise many kinds of errors.
        words = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{file} cannot be read as an image: {words}; replace or remove it"
        ) from None


def upright(image: Image.Image) -> Image.Image:
    """The loaded image turned by its EXIF orientation, without its other metadata, even damaged.

    An image that is upright is not copied: a copy takes a quarter of the time of decoding.
    """
    try:
        with READING, catch_warnings(action="ignore"):
            orientation = image.getexif().get(0x0112)
    except Exception:  # One damaged entry makes all of them unreadable.
        orientation = None
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    turned = image if turn is None else image.transpose(turn)
    turned.info = {k: v for k, v in image.info.items() if k == "transparency"}
    return turned


def check_size(
    image: Folder, size: tuple[int, int], mask: Folder | str, mask_size: tuple[int, int]
) -> None:
    """Raise an error if a mask has another size (width, height) than its image. mask: Its file, or
    its place in a file."""
    if mask_size != size:
        raise InputError(
            f"{image} is {size[0]} x {size[1]}, but {mask} is {mask_size[0]} x {mask_size[1]} "
            "(width x height); save the mask at the size of its image"
        )


def fit_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize a mask, bool `(H, W)` to `(size, size)`. Pixels at least half True are True."""
    fitted = Image.fromarray(mask).convert("L").resize((size, size), Image.Resampling.BOX)
    return np.asarray(fitted) >= 128


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
