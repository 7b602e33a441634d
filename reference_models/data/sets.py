"""The images a network is trained and measured on: generated, or read from folders and zips."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from reference_models.data.pictures import (
    Folder,
    binarise,
    by_stem,
    centre_prior,
    eight_bits,
    fit_mask,
    fit_prior,
    label_map,
    mask_notes,
    one_folder,
    open_folder,
    open_image,
    require,
    side_by_side,
)
from reference_models.data.scenes import scenes
from reference_models.errors import InputError, first_few
from reference_models.paths import DATA

Made = TypeVar("Made")


@dataclass(frozen=True)
class Images:
    """N square images with what belongs to each, channel last: as a network sees them.

    images: uint8 `(N, S, S, 3)`. labels: uint8 `(N, S, S)`, 1 on the salient object and 0 off it,
    or region numbers from 0. priors: uint8 `(N, S, S)`, a rough saliency map from 0 to 255; where
    all images share one, a read-only view of it.
    """

    names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    priors: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def masks(self) -> np.ndarray:
        """bool `(N, S, S)`, True on the salient object."""
        return self.labels > 0

    @staticmethod
    def single(
        pixels: np.ndarray, label: np.ndarray | None = None, prior: np.ndarray | None = None
    ) -> "Images":
        """One image of unknown name, uint8 `(S, S, 3)`. label, prior: `(S, S)`. Default: zeros,
        for networks that read neither."""
        labels, priors = (
            np.zeros((1, *pixels.shape[:2]), np.uint8) if x is None else x[None].astype(np.uint8)
            for x in (label, prior)
        )
        return Images(("",), pixels[None], labels, priors)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Images":
        names = tuple(self.names[i] for i in indices)
        return Images(names, self.images[indices], self.labels[indices], self.priors[indices])

    def swapped(self, share: float, seed: int) -> "Images":
        """The same images, the labels 0 and 1 exchanged in a random `share` of them (rounded)."""
        if self.labels.max(initial=0) > 1:
            raise InputError("labels can be swapped between two regions, and here are more")
        chosen = np.random.default_rng((seed, 2)).permutation(len(self))
        flips = np.zeros(len(self), dtype=np.uint8)
        flips[chosen[: round(share * len(self))]] = 1
        return replace(self, labels=self.labels ^ flips[:, None, None])


@dataclass(frozen=True)
class TestSet:
    """Images to measure on, with the truth at its own size.

    truth: per image a bool mask `(H, W)`, or the maps of all annotators, int32
    `(annotators, H, W)`. priors: by detector uint8 `(N, S, S)`, stretched to 0..255 per image.
    """

    __test__ = False  # This is no test, whatever pytest thinks of the name.

    name: str
    images: Images
    truth: tuple[np.ndarray, ...]
    priors: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """All sets, and sentences on how they came about that belong in every report."""

    train: Images
    validation: Images
    tests: tuple[TestSet, ...]
    notes: tuple[str, ...]
    computed_by: str = ""
    """Where a network made the training priors, the fingerprint of its weights: a GPU does not
    compute the same bits twice."""

    def counts(self) -> dict[str, int]:
        parts = {"train": self.train, "validation": self.validation}
        parts |= {test.name: test.images for test in self.tests}
        return {name: len(part) for name, part in parts.items()}

    @cached_property
    def sha256(self) -> str:
        """A fingerprint of every pixel, label, true mask and prior."""
        digest = hashlib.sha256(self.computed_by.encode())
        for part in (self.train, self.validation, *(test.images for test in self.tests)):
            arrays = [part.images, part.labels]
            if part is not self.train or not self.computed_by:
                arrays.append(part.priors)
            for array in arrays:
                for row in array:  # One at a time: a shared prior is never written out.
                    digest.update(np.ascontiguousarray(row))
        for test in self.tests:
            for array in (*test.truth, *test.priors.values()):
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


@dataclass(frozen=True)
class Sources:
    """Where the images come from, and how many of them."""

    train: str | Path
    """"scenes" for generated ones, a name in ARCHIVES, or the path of a folder or zip."""
    archives: Path
    """The folder of the named archives."""
    tests: tuple[str, ...] = ()
    """Names in ARCHIVES, or paths. Empty: what scenes or a path hold out themselves."""
    learns_on_tests: bool = False
    """Say that training sees the test images, in place of counting how many it does."""
    train_images: int | None = None
    """At most so many, spread evenly over the sorted names; None: all, and 600 scenes."""
    validation_images: int | None = None
    """At most so many; None: 100, 40 scenes, or for a path a tenth, at most 40."""
    test_images: int | None = None
    """At most so many of each test set, spread evenly; None: all, and 150 scenes."""
    test_priors: tuple[str, ...] = ()
    """Detectors whose maps go with ECSSD: folders of ecssd_baselines.zip, in any case."""
    regions: int = 2
    """How many regions of an image keep a label of their own (label maps only)."""


class Archive(NamedTuple):
    """A named data set: its zips, and the stems that are not used, with the reason."""

    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    reason: str = ""
    truth: str = "masks"


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
}
DETECTORS = "ecssd_baselines.zip"


def truth_folder(regions: int) -> str:
    """Name of the folder of labels in a data set."""
    return "segmentations" if regions > 2 else "masks"


def load(sources: Sources, size: int, seed: int) -> Data:
    """Everything a run needs, as squares of side `size`. The seed decides scenes and splits."""
    if sources.test_priors and "ecssd" not in sources.tests:
        raise InputError(
            f"the maps of {', '.join(sources.test_priors)} are of ECSSD, which is not among the "
            f"test sets ({', '.join(sources.tests) or 'the own split'}); add ecssd"
        )
    # Test sets first: what is missing shows before the long reading of training images.
    others = [
        read_test(
            name,
            size,
            archives=sources.archives,
            most=sources.test_images,
            detectors=sources.test_priors,
            regions=sources.regions,
        )
        for name in dict.fromkeys(sources.tests)
    ]
    if sources.train == "scenes":
        data = generated(sources, size, seed)
    elif sources.train in ARCHIVES:
        data = from_archive(sources, size)
    else:
        data = from_path(sources, size, seed)
    notes = [*data.notes, *(note for _, notes in others for note in notes)]
    for test, _ in others:
        shared = set(test.images.names) & {*data.train.names, *data.validation.names}
        if test.name == sources.train and sources.learns_on_tests:
            notes.append(f"{test.name}: trained on the test images themselves, without their masks")
        elif test.name == sources.train and shared:
            notes.append(
                f"{test.name}: {len(shared)} test images also serve in training or validation"
            )
    data = replace(
        data,
        tests=data.tests or tuple(test for test, _ in others),
        notes=tuple(dict.fromkeys(notes)),
    )
    names = [str(sources.train), "validation", *(test.name for test in data.tests)]
    parts = [data.train, data.validation, *(test.images for test in data.tests)]
    for name, part in zip(names, parts, strict=True):
        kind = "training" if part is data.train else "held-out"
        if part is not data.validation and not part.labels.any():
            told = "".join(f"; {note}" for note in data.notes)
            raise InputError(f"{name}: every {kind} mask is all background at {size} px{told}")
    return data


def generated(sources: Sources, size: int, seed: int) -> Data:
    """Scenes by seed. Training, validation and held-out scenes are never shared."""
    held_out, kept = 150, sources.validation_images or 40
    count = held_out + kept + (sources.train_images or 600)
    images, masks, priors = scenes(count, size, seed)
    everything = Images(
        names=tuple(f"scene{i}" for i in range(count)),
        images=images,
        labels=masks.astype(np.uint8),
        priors=np.rint(255 * priors).astype(np.uint8),
    )
    # Held-out scenes come first: they stay the same whatever the number of training scenes.
    test = everything.take(evenly(range(held_out), sources.test_images))
    own = TestSet("scenes", test, tuple(test.masks), {"generated": test.priors})
    return Data(
        train=everything.take(range(held_out + kept, count)),
        validation=everything.take(range(held_out, held_out + kept)),
        tests=(own,),
        notes=(),
    )


def from_archive(sources: Sources, size: int) -> Data:
    """A named set, by its own lists. Without a list for validation that is taken out first, evenly
    and at most a quarter, and the rest trains."""
    name = str(sources.train)
    files, notes = find_archive(name, sources.archives)
    lists = files.lists if files.lists.get("train") else {}
    stems = list(lists.get("train", files.images))
    most = sources.validation_images or 100
    if lists.get("val"):
        validation = evenly(lists["val"], most)
    else:
        validation = evenly(stems, max(1, min(most, len(stems) // 4)))
        stems = [stem for stem in stems if stem not in set(validation)]
    stems = evenly(stems, sources.train_images)
    parts = [decode(files, part, size, sources.regions) for part in (stems, validation)]
    return Data(parts[0].images, parts[1].images, (), (*notes, *describe(files, parts)))


def from_path(sources: Sources, size: int, seed: int) -> Data:
    """The user's own folder or zip, split by its lists or at random."""
    path = Path(sources.train)
    files = find([path], truth=truth_folder(sources.regions))
    if len(files.images) < 4:
        raise InputError(
            f"at least 4 images are needed to train and measure, found {len(files.images)} images "
            f"in {path}"
        )
    rng = np.random.default_rng((seed, 1))
    split_stems = split(tuple(files.images), files.lists, rng, sources.validation_images or 40)
    limits = (sources.train_images, sources.validation_images, sources.test_images)
    chosen = [evenly(stems, limit) for stems, limit in zip(split_stems[:3], limits, strict=True)]
    parts = [
        decode(files, stems, size, sources.regions, keep_truth=place == 2)
        for place, stems in enumerate(chosen)
    ]
    test = parts[2].images
    taken = path.stem in ("train", "validation")
    priors = {"priors": test.priors} if files.priors else {}
    return Data(
        train=parts[0].images,
        validation=parts[1].images,
        tests=(TestSet("test" if taken else path.stem, test, parts[2].truth, priors),),
        notes=(*describe(files, parts), split_stems[3]),
    )


def read_test(
    name: str | Path,
    size: int,
    *,
    archives: Path = DATA,
    most: int | None = None,
    detectors: Sequence[str] = (),
    regions: int = 2,
) -> tuple[TestSet, list[str]]:
    """A test set by name (in the folder `archives`) or path, and notes on it.

    It holds the images of its test list, if it has one. most: Maximum number of images, evenly
    spread. detectors: Detectors whose maps of ECSSD become priors.
    """
    if isinstance(name, str) and name in ARCHIVES:
        files, notes = find_archive(name, archives)
    elif Path(name).exists():
        files, notes = find([Path(name)], truth=truth_folder(regions)), []
    else:
        known = ", ".join(ARCHIVES)
        raise InputError(f"test set {name} is neither a known name ({known}) nor an existing path")
    stems = evenly(files.lists.get("test") or list(files.images), most)
    part = decode(files, stems, size, regions, keep_truth=True)
    priors = {"priors": part.images.priors} if files.priors else {}
    if name == "ecssd":
        for detector in detectors:
            priors[detector] = read_priors(detector_folder(archives, detector), stems, size)
    title = name if isinstance(name, str) and name in ARCHIVES else Path(name).stem
    return TestSet(title, part.images, part.truth, priors), [*notes, *describe(files, [part])]


# Finding their files -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """The files of one or several joined sets, by stem and sorted by it.

    truth: one mask per image, or one label map per annotator. priors: empty where there are none.
    lists: the stems of `splits/train.txt`, `val.txt` and `test.txt`, those that exist.
    """

    name: str
    images: dict[str, Folder]
    truth: dict[str, list[Folder]]
    priors: dict[str, Folder]
    lists: dict[str, list[str]]
    segmented: bool
    unused: tuple[str, ...]


def find(paths: Sequence[Path], left_out: Sequence[str] = (), truth: str = "masks") -> Files:
    """All pairs of `images/` and `masks/` (or `segmentations/`) of several paths as one set."""

    def fits(folder: Folder) -> bool:
        return (folder / "images").is_dir() and (folder / truth).is_dir()

    roots = [one_folder(path, fits, f"images/ and {truth}/") for path in paths]
    images = by_stem([root / "images" for root in roots])
    annotated: dict[str, list[Folder]] = {}
    for stem, file in by_stem([root / truth for root in roots]).items():
        image = stem.rpartition("_")[0] if truth == "segmentations" else stem
        annotated.setdefault(image, []).append(file)
    prior_folders = [root / "priors" for root in roots if (root / "priors").is_dir()]
    priors = by_stem(prior_folders) if prior_folders else {}
    require(images, annotated, f"a mask in {truth}/")
    if priors:
        require(images, priors, "a prior in priors/")
    lists: dict[str, list[str]] = {}
    for root in roots:
        for name, stems in read_splits(root, images).items():
            lists[name] = lists.get(name, []) + [stem for stem in stems if stem not in left_out]
    return Files(
        name=Path(paths[0]).stem,
        images={stem: images[stem] for stem in images if stem not in left_out},
        truth=annotated,
        priors=priors,
        lists={name: sorted(stems) if len(roots) > 1 else stems for name, stems in lists.items()},
        segmented=truth == "segmentations",
        unused=tuple(stem for stem in annotated if stem not in images),
    )


def find_archive(name: str, archives: Path) -> tuple[Files, list[str]]:
    """The files of a name in ARCHIVES, and a note on what is left out of them."""
    archive = ARCHIVES[name]
    paths = [archive_file(archives, file, name) for file in archive.files]
    files = replace(find(paths, archive.left_out, archive.truth), name=name)
    left_out = [stem for stem in archive.left_out if stem in files.truth]
    if not left_out:
        return files, []
    kind = "image is" if len(left_out) == 1 else "images are"
    stems = ", ".join(left_out)
    return files, [f"{name}: {len(left_out)} {kind} left out ({stems}): {archive.reason}"]


def archive_file(archives: Path, file: str, name: str) -> Path:
    if (archives / file).is_file():
        return archives / file
    there = "which is not in" if archives.is_dir() else "but there is no folder"
    raise InputError(
        f"{name} needs {file}, {there} {archives.resolve()}: give the folder that holds it "
        "with --archives FOLDER, or train on your own images with --data"
    )


def read_splits(root: Folder, names: Iterable[str]) -> dict[str, list[str]]:
    """The stems of `splits/train.txt`, `val.txt` and `test.txt`, those that exist."""
    known, lists = set(names), {}
    if (root / "splits").is_dir():
        texts = {entry.name for entry in (root / "splits").iterdir() if entry.name[-4:] == ".txt"}
        if odd := sorted(texts - {"train.txt", "val.txt", "test.txt"}):
            raise InputError(
                f"{root / 'splits'} may hold train.txt, val.txt and test.txt, but holds "
                f"{first_few(odd)}"
            )
    for name in ("train", "val", "test"):
        file = root / "splits" / f"{name}.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig").splitlines()
            lists[name] = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
            unknown = [stem for stem in lists[name] if stem not in known]
            if unknown:
                raise InputError(f"{file} names {len(unknown)} unknown stems: {first_few(unknown)}")
    return lists


def split(
    names: Sequence[str],
    lists: dict[str, list[str]],
    rng: np.random.Generator,
    most_validation: int = 40,
) -> tuple[list[str], list[str], list[str], str]:
    """Stems for training, validation, test, and how they were found.

    The lists decide where they leave something to train on and something to test on; what one of
    them does not name is the other. Otherwise a fifth is held out at random. Validation, if not
    listed, is a tenth of the training images, at most `most_validation`.
    """
    train, validation, test = (list(lists.get(name, ())) for name in ("train", "val", "test"))
    for one, other in ((train, test), (train, validation), (validation, test)):
        shared = sorted(set(one) & set(other))
        if shared:
            raise InputError(f"the lists in splits/ share {len(shared)} stems: {first_few(shared)}")
    named = {*train, *validation, *test}
    rest = [name for name in names if name not in named]
    if train and not test:
        test = rest
    elif test and not train:
        train = rest
    how = "split as listed in splits/"
    if not test or len(train) < 2:
        reason = "splits/ leaves nothing to train or test on" if lists else "there is no splits/"
        how = f"{reason}: a fifth of the images is held out at random, by seed"
        shuffled = [names[i] for i in rng.permutation(len(names))]
        held_out = max(1, len(names) // 5)
        test, train, validation = shuffled[:held_out], shuffled[held_out:], []
    if not validation:
        shuffled = [train[i] for i in rng.permutation(len(train))]
        kept = max(1, min(most_validation, len(train) // 10))
        validation, train = shuffled[:kept], shuffled[kept:]
    return train, validation, test, how


def evenly(stems: Sequence[Made], most: int | None) -> list[Made]:
    """At most `most` of them, spread evenly from the first to the last, in their order."""
    if most is None or most >= len(stems):
        return list(stems)
    return [stems[i] for i in np.unique(np.linspace(0, len(stems) - 1, most).round().astype(int))]


# Reading them ------------------------------------------------------------------------------------


class Decoded(NamedTuple):
    """Images, their truth if it was kept, what each mask was, and the stems of empty masks."""

    images: Images
    truth: tuple[np.ndarray, ...]
    kinds: list[str]
    empty: list[str]


def decode(
    files: Files, stems: Sequence[str], size: int, regions: int = 2, keep_truth: bool = False
) -> Decoded:
    """The images of these stems as squares of side `size`, the truth also at its own size.

    Masks are 0/255, 0/1 or soft: 0/1 is recognised by its maximum, all else is binarised at 128.
    Of label maps the one with the median number of regions becomes the labels (of two such the one
    with fewer), at most `regions` of them, see `largest`.
    """
    images = np.empty((len(stems), size, size, 3), np.uint8)
    labels = np.empty((len(stems), size, size), np.uint8)

    def one(place: int) -> tuple[np.ndarray | None, str, bool]:
        stem = stems[place]
        image = open_image(files.images[stem])
        opened = [open_image(file) for file in files.truth[stem]]
        for file, mask in zip(files.truth[stem], opened, strict=True):
            if image.size != mask.size:
                raise InputError(
                    f"sizes differ: {files.images[stem]} is {image.width} x {image.height}, "
                    f"{file} is {mask.width} x {mask.height} (width x height)"
                )
        images[place] = np.asarray(
            image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        )
        if files.segmented:
            maps = [
                label_map(mask, file) for mask, file in zip(opened, files.truth[stem], strict=True)
            ]
            counts = [len(np.unique(values)) for values in maps]
            typical = maps[np.argsort(counts, kind="stable")[(len(maps) - 1) // 2]]
            labels[place] = largest(typical, size, regions)
            return np.stack(maps) if keep_truth else None, "regions", False
        binary, kind = binarise(opened[0], files.truth[stem][0])
        labels[place] = fit_mask(binary, size)
        return binary if keep_truth else None, kind, not binary.any()

    found = side_by_side(one, len(stems), files.name)
    priors = np.broadcast_to(centre_prior(size), labels.shape)
    if files.priors:
        folder_priors = [files.priors[stem] for stem in stems]
        priors = fit_priors(folder_priors, size, f"priors of {files.name}")
    return Decoded(
        images=Images(tuple(stems), images, labels, priors),
        truth=tuple(truth for truth, _, _ in found if truth is not None),
        kinds=[kind for _, kind, _ in found],
        empty=[stem for stem, (_, _, empty) in zip(stems, found, strict=True) if empty],
    )


def describe(files: Files, parts: Sequence[Decoded]) -> list[str]:
    """Notes on what was found in the files."""
    kinds = {
        stem: kind
        for part in parts
        for stem, kind in zip(part.images.names, part.kinds, strict=True)
    }
    empty = sorted(stem for part in parts for stem in part.empty)
    notes = []
    if files.segmented:
        notes.append(
            "the labels are those of the annotator with the median number of regions, "
            "small regions joined to the nearest"
        )
    notes += mask_notes(kinds)
    if empty:
        notes.append(
            f"{len(empty)} masks are all background ({first_few(empty)}): "
            "they count in the MAE and are left out of the F-measures"
        )
    if files.unused:
        count = len(files.unused)
        notes.append(f"{count} masks have no image and are not used ({first_few(files.unused)})")
    return [f"{files.name}: {note}" for note in notes]


def largest(regions: np.ndarray, size: int, most: int) -> np.ndarray:
    """The map as a square, its regions numbered by area, 0 the largest. uint8 `(size, size)`.

    At most `most` regions are kept; a pixel of another takes the number of the nearest kept one.
    """
    fitted = Image.fromarray(regions).resize((size, size), Image.Resampling.NEAREST)
    _, numbers, areas = np.unique(np.asarray(fitted), return_inverse=True, return_counts=True)
    ranks = np.empty(len(areas), np.intp)
    ranks[np.argsort(-areas, kind="stable")] = np.arange(len(areas))
    ranked = ranks[numbers.reshape(size, size)]
    if len(areas) > most:
        row, column = distance_transform_edt(
            ranked >= most, return_distances=False, return_indices=True
        )
        ranked = ranked[row, column]
    return ranked.astype(np.uint8)


# Maps of others ----------------------------------------------------------------------------------


def detector_folder(archives: Path, detector: str) -> Folder:
    """The folder of a detector's maps of ECSSD, found in any case of letters."""
    root = open_folder(archive_file(archives, DETECTORS, f"the prior {detector}"))
    there = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()}
    if detector.lower() not in there:
        raise InputError(f"{DETECTORS} holds no maps of {detector}, but of {', '.join(there)}")
    return there[detector.lower()]


def read_priors(folder: Folder, stems: Sequence[str], size: int) -> np.ndarray:
    """The maps of these stems as priors, see `fit_prior`. uint8 `(N, size, size)`."""
    files = by_stem([folder])
    require(stems, files, f"a map in {folder}")
    return fit_priors([files[stem] for stem in stems], size, f"maps of {folder.name}")


def fit_priors(files: Sequence[Folder], size: int, what: str) -> np.ndarray:
    priors = np.empty((len(files), size, size), np.uint8)

    def one(place: int) -> None:
        grey = eight_bits(open_image(files[place]), files[place], "prior")
        priors[place] = fit_prior(Image.fromarray(grey), size)

    side_by_side(one, len(files), what)
    return priors
