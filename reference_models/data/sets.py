"""The images a network is trained and measured on: generated, or read from folders and zips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from reference_models.data.archives import ARCHIVES, Files, detector_folder, find, find_archive
from reference_models.data.images import Data, Images, TestSet
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
    open_image,
    require,
    side_by_side,
)
from reference_models.data.scenes import scenes
from reference_models.data.splits import evenly, split
from reference_models.errors import InputError, first_few
from reference_models.paths import DATA


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
