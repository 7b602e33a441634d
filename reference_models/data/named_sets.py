"""Named data sets, and the files of a data set in folders or zips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from reference_models.data.pictures import Folder, by_stem, one_folder, open_folder, require
from reference_models.data.splits import read_splits
from reference_models.errors import Faults, InputError, count


class Archive(NamedTuple):
    """A named data set: its zips, the stems of images that are not used, and the reason."""

    files: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    reason: str = ""
    truth: str = "masks"
    """The folder of the labels, or the one label map of all images."""
    lists: tuple[tuple[str, int], ...] = ()
    """Number of images in each list, from the first image on, for a set without splits/."""


ARCHIVES = {
    "duts-tr": Archive(
        ("duts_tr.part1of2.zip", "duts_tr.part2of2.zip"),
        ("ILSVRC2014_train_00019441",),
        "also in DUTS-TE, under another name",
    ),
    "duts-te": Archive(("duts_te.zip",)),
    "ecssd": Archive(("ecssd.zip",)),
    "pascal-s": Archive(
        ("pascal_s.zip",), ("359", "408", "424", "460", "622"), "nothing is salient in their masks"
    ),
    "bsds500": Archive(("bsds500.zip",), truth="segmentations"),
    "outex": Archive(
        ("outex_us_00000.zip",),
        truth="ground_truth.png",
        lists=(("train", 60), ("val", 10), ("test", 30)),
    ),
}
DETECTORS = "ecssd_baselines.zip"
DETECTORS_NAME = "ecssd-baselines"


@dataclass(frozen=True)
class Files:
    """The files of a data set, or of several joined into one, sorted by stem.

    A stem is a file name without its extension; it pairs an image with its mask and prior.

    truth: One mask per image, or one label map per annotator. priors: Empty if the set has none.
    lists: The stems in `splits/train.txt`, `val.txt` and `test.txt`, for the lists that exist.
    segmented: The truth consists of label maps. unused: Stems of masks without an image. faults: of
    the names; `decode` reports them together with those of the pictures. is_packed: By `prepare`,
    which stores masks as 0 and 255 alone.
    """

    name: str
    images: dict[str, Folder]
    truth: dict[str, list[Folder]]
    priors: dict[str, Folder]
    lists: dict[str, list[str]]
    segmented: bool
    unused: tuple[str, ...]
    faults: tuple[InputError, ...] = ()
    is_packed: bool = False


def find(paths: Sequence[Path], excluded: Sequence[str] = (), truth: str = "masks") -> Files:
    """The files in `images/` and `masks/` (or `segmentations/`) of several paths, as one set."""

    def fits(folder: Folder) -> bool:
        return (folder / "images").is_dir() and (folder / truth).is_dir()

    roots = [one_folder(path, fits, f"images/ and {truth}/") for path in paths]
    prior_folders = [root / "priors" for root in roots if (root / "priors").is_dir()]
    faults, named = Faults(), []
    for folders in ([r / "images" for r in roots], [r / truth for r in roots], prior_folders):
        with faults.collect():
            named.append(by_stem(folders))
    faults.report()
    images, truth_files, priors = named
    annotated: dict[str, list[Folder]] = {}
    for stem, file in truth_files.items():
        image = stem.rpartition("_")[0] if truth == "segmentations" else stem
        annotated.setdefault(image, []).append(file)
    lists: dict[str, list[str]] = {}
    with faults.collect():
        require(images, annotated, f"mask in {truth}/")
    if priors:
        with faults.collect():
            require(images, priors, "prior in priors/")
    for root in roots:
        with faults.collect():
            for name, stems in read_splits(root, images).items():
                lists[name] = lists.get(name, []) + [s for s in stems if s not in excluded]
    return Files(
        name=Path(paths[0]).stem,
        images={stem: images[stem] for stem in images if stem not in excluded},
        truth=annotated,
        priors=priors,
        lists={name: sorted(stems) if len(roots) > 1 else stems for name, stems in lists.items()},
        segmented=truth == "segmentations",
        unused=tuple(stem for stem in annotated if stem not in images),
        faults=tuple(faults.errors),
    )


def find_archive(name: str, archives: Path) -> tuple[Files, list[str]]:
    """The files of a data set named in ARCHIVES, and a note on the images that are not used."""
    archive = ARCHIVES[name]
    paths = [archive_file(archives, file, name) for file in archive.files]
    if archive.lists:
        return mosaics(name, archive, paths[0]), []
    files = replace(find(paths, archive.excluded, archive.truth), name=name, is_packed=True)
    excluded = [stem for stem in archive.excluded if stem in files.truth]
    if not excluded:
        return files, []
    images = count(len(excluded), "image is", "images are")
    return files, [f"{name}: {images} left out ({', '.join(excluded)}): {archive.reason}"]


def mosaics(name: str, archive: Archive, path: Path) -> Files:
    """The images of a set that share one label map, in the lists of the archive."""

    def fits(folder: Folder) -> bool:
        return (folder / "images").is_dir() and (folder / archive.truth).is_file()

    root = one_folder(path, fits, f"images/ and {archive.truth}")
    images = by_stem([root / "images"])
    stems, lists = iter(images), {}
    for part, number in archive.lists:
        lists[part] = list(islice(stems, number))
    truth = {stem: [root / archive.truth] for stem in images}
    return Files(
        name, images, truth, priors={}, lists=lists, segmented=True, unused=(), is_packed=True
    )


def archive_file(archives: Path, file: str, name: str) -> Path:
    """The path of an archive. name: What `python -m reference_models.prepare` calls its data."""
    if (archives / file).is_file():
        return archives / file
    folder = archives.resolve()
    if archives.is_dir():
        where = f"is not in {folder}"
    else:
        where = f"is missing: {folder} {'is a file' if folder.exists() else 'does not exist'}"
    raise InputError(
        f"{file} (data set {name}) {where}; pass the folder that holds it with --archives FOLDER, "
        f"or prepare it: `python -m reference_models.prepare {name} FOLDER`"
    )


def detector_folder(archives: Path, detector: str) -> Folder:
    """The folder of a detector's maps of ECSSD; upper and lower case do not matter."""
    root = open_folder(archive_file(archives, DETECTORS, DETECTORS_NAME))
    folders = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()}
    if detector.lower() not in folders:
        raise InputError(
            f"{DETECTORS} holds no maps of {detector}, only of {', '.join(folders)}; delete it and "
            "prepare it again with a folder of those maps: `python -m reference_models.prepare "
            f"{DETECTORS_NAME} FOLDER`"
        )
    return folders[detector.lower()]
