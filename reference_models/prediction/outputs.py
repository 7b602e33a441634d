"""What is written for a photograph: map, cut-out and overlay, in files that say what they show."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from reference_models.data.photographs import Photograph
from reference_models.data.png import save_png
from reference_models.errors import InputError
from reference_models.files import atomic_path, make_folder
from reference_models.prediction.jobs import TAG, Job, tag_of

Format = Literal["png", "webp", "jpg"]
KINDS = ("map", "cutout", "overlay")
RED = (230, 30, 60)
LONGEST_SIDE = {"png": 2**31 - 1, "webp": 16383, "jpg": 65500}
"""Pixels that a side of an image may have in each format."""


@dataclass(frozen=True)
class Outputs:
    """Writes the images of photographs, and knows which are finished.

    Each file carries a tag in its EXIF field Software: a digest of the model and the settings, and
    of the photograph's size and time of change. A file is finished if its tag is the one it would
    be written with, so other settings, or a photograph that changed, have it written anew. As files
    are renamed to their place when they are complete, half of a file never has a tag there.
    """

    folder: Path
    kinds: tuple[str, ...]
    format: Format
    settings: str
    """A text that differs if any map would."""

    @property
    def ends(self) -> list[str]:
        """Ends of the names of what is written."""
        return [f"-{kind}.{self.format}" for kind in self.kinds]

    def path(self, job: Job, kind: str) -> Path:
        return self.folder / f"{job.stem}-{kind}.{self.format}"

    def tag(self, job: Job, *companions: Path) -> str:
        """The tag of a photograph's files. companions: Other files that its images depend on."""
        try:
            found = [file.stat() for file in (job.file, *companions)]
        except OSError as error:
            raise InputError(
                f"{job.file} cannot be read: {error.strerror}; replace or remove it"
            ) from None
        files = [(stat.st_size, stat.st_mtime_ns) for stat in found]
        digest = hashlib.sha256(json.dumps([self.settings, files]).encode())
        return f"{TAG} {digest.hexdigest()[:32]}"

    def finished(self, job: Job, tag: str) -> bool:
        """True if all files of the photograph are there with this tag."""
        return all(tag_of(self.path(job, kind)) == tag for kind in self.kinds)

    def write(
        self,
        job: Job,
        tag: str,
        photo: Photograph | None,
        saliency: np.ndarray,
        run: Callable[[Callable[[str], None], Iterable[str]], Iterable[None]] = map,
    ) -> None:
        """Write the images of a photograph.

        photo: Not needed for a map. saliency: uint8 `(H, W)`. run: Calls a function on each kind,
        `map` or a pool's.
        """
        longest = max(saliency.shape)
        if longest > LONGEST_SIDE[self.format]:
            raise InputError(
                f"{job.file} is {longest} pixels long, and {self.format} files have at most "
                f"{LONGEST_SIDE[self.format]}; pass --format png"
            )
        folder = (self.folder / job.stem).parent
        if not folder.is_dir():
            make_folder(folder, "--out")
        exif = exif_of(tag)

        def write(kind: str) -> None:
            image = Image.fromarray(saliency) if photo is None else IMAGES[kind](photo, saliency)
            with atomic_path(self.path(job, kind), shared=True) as partial:
                save(image, partial, self.format, exif)

        list(run(write, self.kinds))


def exif_of(tag: str) -> bytes:
    """The metadata of a file with this tag."""
    exif = Image.Exif()
    exif[Base.Software] = tag
    return exif.tobytes()


def save(image: Image.Image, path: Path, format: Format, exif: bytes) -> None:
    lossless = image.mode == "L"
    how: dict[str, Any] = {"quality": 90}
    if format == "png":
        save_png(image, path, exif)
        return
    if format == "webp":  # Method 0 is the fastest; the alpha channel is lossless at any quality.
        how = {"quality": 0 if lossless else 90, "lossless": lossless, "method": 0}
    image.save(path, {"webp": "webp", "jpg": "jpeg"}[format], exif=exif, **how)


# Images ------------------------------------------------------------------------------------------


def map_image(photo: Photograph, saliency: np.ndarray) -> Image.Image:
    return Image.fromarray(saliency)


def cutout(photo: Photograph, saliency: np.ndarray) -> Image.Image:
    """The photograph with the map as alpha channel, times its own if it has one."""
    image = photo.pixels.copy()
    if photo.alpha is not None:
        product = saliency.astype(np.uint16) * np.asarray(photo.alpha) // 255
        saliency = product.astype(np.uint8)
    image.putalpha(Image.fromarray(saliency))
    return image


def overlay(photo: Photograph, saliency: np.ndarray) -> Image.Image:
    """The map in red on the photograph."""
    shade = Image.fromarray(saliency).point([round(0.6 * value) for value in range(256)])
    return Image.composite(Image.new("RGB", photo.pixels.size, RED), photo.pixels, shade)


IMAGES = {"map": map_image, "cutout": cutout, "overlay": overlay}
