"""The photographs of a call, and the names of what is written for each."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unicodedata import normalize

from PIL import Image
from PIL.ExifTags import Base

from reference_models.data.pictures import SUFFIXES, UNREAD, Folder, by_stem, has_images, is_image
from reference_models.errors import InputError

OUTPUTS = tuple(
    f"-{kind}.{suffix}"
    for kind in ("map", "cutout", "overlay", "explained")
    for suffix in ("png", "webp", "jpg")
)
"""Ends of the names of what is written."""
TAG = "saliency-losses predict"
"""Begins the EXIF field Software of what is written."""


@dataclass(frozen=True)
class Job:
    """A photograph, and where its images go."""

    file: Path
    stem: Path
    """Path of its images below the folder for output, without `-map.png`."""
    fault: str = ""
    """Why it cannot be read, if the search found that. It may be a folder."""


def find_jobs(images: Sequence[Path], out: Path) -> list[Job]:
    """A job for each photograph of the list, with each folder replaced by the images in it.

    The images of `FOLDER/sub/photo.jpg` go to `sub/`. Several photographs of one stem in one such
    folder are numbered in the order of their names.
    """
    taken: set[Path] = set()
    jobs = []
    for file, folder, fault in find_files(images, out):
        stem, number = folder / file.stem, 2
        while stem in taken:
            stem, number = folder / f"{file.stem}-{number}", number + 1
        taken.add(stem)
        jobs.append(Job(file, stem, fault))
    if not jobs:
        raise InputError("no photograph to predict; pass image files or folders of images")
    return jobs


def find_files(images: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path, str]]:
    """Each photograph, its folder relative to the one that was passed, and no fault; then each
    sub-folder that cannot be listed."""
    unlisted: list[tuple[Path, Path, str]] = []
    for path in images:
        if path.is_dir():
            errors: list[OSError] = []
            empty = True
            for folder, names in walk(path, out, errors):
                empty = empty and not names
                for name in names:
                    yield folder / name, folder.relative_to(path), ""
            for error in errors:
                place = Path(os.fsdecode(error.filename))
                fault = f"{place}: {error.strerror}; change its permissions, or remove it"
                unlisted.append((place, place.relative_to(path).parent, fault))
            if empty and not errors:
                raise InputError(
                    f"{path} holds no image file; pass a folder with files of these types: "
                    f"{', '.join(sorted(SUFFIXES))}"
                )
        elif path.is_file():
            yield path, Path(), ""
        else:
            raise InputError(f"{path} does not exist; pass image files or folders of images")
    yield from unlisted


def walk(root: Path, out: Path, errors: list[OSError]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below the root, with its images in the order of their names.

    What `predict` wrote is left out, and so are hidden folders and the folder for output, unless it
    is the root itself. Links to folders are followed, unless they lead back.

    errors: Filled with those of folders that cannot be listed.
    """
    outside = out.resolve()
    for place, folders, names in os.walk(root, onerror=errors.append, followlinks=True):
        folder = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not is_left_out(folder / name, root, outside)
        )
        # The report lists those of unread types as faults.
        images = [name for name in sorted(names) if is_image(folder / name, SUFFIXES | UNREAD)]
        yield folder, [name for name in images if not is_output(folder / name)]


def is_output(file: Path) -> bool:
    """Whether `predict` wrote this file: its name alone may be that of a photograph."""
    return file.name.endswith(OUTPUTS) and (tag_of(file) or "").startswith(TAG)


def tag_of(path: Path) -> str | None:
    """The tag that a file was written with; None if there is no such file."""
    try:
        with Image.open(path) as image:
            tag = image.getexif().get(Base.Software)
    except Exception:  # No file, or a file of somebody else's that is no image.
        return None
    return tag if isinstance(tag, str) else None


def is_left_out(folder: Path, root: Path, outside: Path) -> bool:
    """Whether a folder below the root is the one for output, or a link to one that holds it."""
    if folder.is_symlink():
        real, up_to_root = folder.resolve(), len(folder.parents) - len(root.parents)
        passed = (parent.resolve() for parent in folder.parents[:up_to_root])
        return real == outside or any(place.is_relative_to(real) for place in passed)
    return folder.name == outside.name and folder.resolve() == outside


def check_outputs(jobs: Sequence[Job], out: Path, ends: Sequence[str]) -> None:
    """Raise an error if an image would be written over one of the photographs.

    ends: Of the names of what is written, such as `-map.png`.
    """
    resolved = cache(os.path.realpath)  # One for each folder.
    photographs = {(resolved(job.file.parent), job.file.name) for job in jobs}
    links = (job.file.resolve() for job in jobs if job.file.is_symlink())
    photographs |= {(str(file.parent), file.name) for file in links}
    for job in jobs:
        folder = resolved(out / job.stem.parent)
        for end in ends:
            if (folder, f"{job.stem.name}{end}") in photographs:
                raise InputError(
                    f"{out / job.stem}{end} is one of the photographs and would be overwritten; "
                    "choose another --out"
                )


class Companions:
    """The files that go with photographs: one file, or those of a folder with equal names, in
    sub-folders like those of the photographs.

    option: The option that named the path, for the error message.
    """

    def __init__(self, path: Path, option: str) -> None:
        if not path.exists():
            raise InputError(f"{option} {path} does not exist; check the path")
        self.path, self.option = path, option
        self.files: dict[Path, dict[str, Folder]] = {}
        if path.is_dir():
            self.files[Path()] = by_stem([path]) if has_images(path) else {}

    def of(self, job: Job) -> Path:
        if not self.files:
            return self.path
        folder, stem = job.stem.parent, normalize("NFC", job.file.stem)
        if folder not in self.files:
            there = (self.path / folder).is_dir()
            self.files[folder] = by_stem([self.path / folder]) if there else {}
        if stem not in self.files[folder]:
            raise InputError(
                f"{self.option} {self.path / folder} has no image for {job.file}; add one named "
                f"{stem}, such as {stem}.png"
            )
        return Path(str(self.files[folder][stem]))
