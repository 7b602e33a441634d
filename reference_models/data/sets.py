"""Data sets of a run: generated, or read from named archives, folders and zips."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reference_models.data import seeds
from reference_models.data.decoding import (
    Decoded,
    Part,
    decode,
    describe,
    read_priors,
    settled,
    stream,
)
from reference_models.data.images import Data, Images, Streamed, TestSet
from reference_models.data.masks import classes
from reference_models.data.named_sets import ARCHIVES, Files, detector_folder, find, find_archive
from reference_models.data.scenes import scenes
from reference_models.data.splits import evenly, split
from reference_models.data.textures import recombined
from reference_models.errors import Faults, InputError, count


@dataclass(frozen=True)
class Sources:
    """The sources of the images of a run, and their numbers."""

    train: str | Path
    """"scenes" for generated scenes, a name in ARCHIVES, or the path of a folder or zip."""
    archives: Path
    """The folder of the named archives."""
    tests: tuple[str, ...] = ()
    """Names in ARCHIVES, or paths. Empty: the images held out from the scenes or the path."""
    learns_on_tests: bool = False
    """The network trains on the test images. A note says so, instead of counting the overlap."""
    is_trained: bool = True
    """False: the network comes trained, on images that are not among these."""
    train_images: int | None = None
    """Maximum number of training images, spread evenly over the sorted names. Default: all, or 600
    scenes."""
    validation_images: int | None = None
    """Maximum number of validation images. Default: 100 for named sets, 40 for scenes, 10 % (at
    most 40) for a path."""
    test_images: int | None = None
    """Maximum number of images of each test set, spread evenly. Default: all, or 150 scenes."""
    test_priors: tuple[str, ...] = ()
    """Detectors whose maps of ECSSD become priors: folders of ecssd_baselines.zip, in upper or
    lower case."""
    regions: int = 2
    """Maximum number of regions per image; more than 2 for label maps only."""
    memory_gb: float = 8.0
    """Training images, or images of a test set, that take more when decoded are streamed. In GB
    (10⁹ bytes)."""


def truth_folder(regions: int) -> str:
    """Name of the folder of a data set that holds the labels."""
    return "segmentations" if regions > 2 else "masks"


def load(sources: Sources, size: int, seed: int) -> Data:
    """The data of a run, as squares of side `size`. The seed decides scenes and random splits."""
    if sources.test_priors and "ecssd" not in sources.tests:
        raise InputError(
            f"the maps of {', '.join(sources.test_priors)} belong to ECSSD, which is not among the "
            f"test sets ({', '.join(sources.tests) or 'only held-out images'}); add ecssd"
        )
    # Test sets first, so that a missing file is reported before all training images are read.
    test_sets, faults = [], Faults()
    for name in dict.fromkeys(sources.tests):
        with faults.collect():
            test_sets.append(read_test(name, sources, size))
    with faults.collect():
        if sources.train == "scenes":
            data = generated(sources, size, seed)
        elif sources.train in ARCHIVES:
            data = from_archive(sources, size)
        else:
            data = from_path(sources, size, seed)
    faults.report()
    notes = [*data.notes, *(note for _, notes in test_sets for note in notes)]
    for test, _ in test_sets:
        shared = set(test.images.names) & {*data.train.names, *data.validation.names}
        if test.name == sources.train and sources.learns_on_tests:
            notes.append(f"{test.name}: trained on the test images themselves, without their masks")
        elif test.name == sources.train and shared:
            notes.append(
                f"{test.name}: {count(len(shared), 'test image is', 'test images are')} also used "
                "for training or validation"
            )
    data = replace(
        data,
        tests=data.tests or tuple(test for test, _ in test_sets),
        notes=tuple(dict.fromkeys(notes)),
    )
    names = [str(sources.train), "validation", *(test.name for test in data.tests)]
    parts: list[Images | Streamed] = [
        data.train,
        data.validation,
        *(test.images for test in data.tests),
    ]
    for name, part in zip(names, parts, strict=True):
        kind = "training" if part is data.train else "held-out"
        if part is not data.validation and not part.has_object:
            raise InputError(
                f"{name}: every {kind} mask is all background at {size} px; choose a larger "
                "--size, or masks with objects" + "".join(f"; {note}" for note in data.notes)
            )
    for test in data.tests:
        if sources.regions == 2:
            check_masks(test.truth, test.voids, test.name)
    return data


def check_masks(masks: Sequence[np.ndarray], voids: Sequence[np.ndarray | None], name: str) -> None:
    """Raise an error unless a mask has both object and background, as most measures need.

    voids: See `TestSet`.
    """
    pairs = zip(masks, voids or [None] * len(masks), strict=True)
    check_classes([classes(mask, void) for mask, void in pairs], name)


def check_classes(found: Sequence[tuple[bool, bool]], name: str) -> None:
    """`check_masks` by the `classes` of the masks."""
    if any(has_object and has_background for has_object, has_background in found):
        return
    full = sum(has_object for has_object, _ in found)
    raise InputError(
        f"{name}: no mask has both object and background ({count(full, 'mask is', 'masks are')} "
        f"all object, {len(found) - full} all background), so that F and other measures are not "
        "defined; check how the masks are stored"
    )


def generated(sources: Sources, size: int, seed: int) -> Data:
    """Scenes generated from the seed, different ones for training, validation and testing."""
    held_out, validation = 150, sources.validation_images or 40
    total = held_out + validation + (sources.train_images or 600)
    images, masks, priors = scenes(total, size, seed)
    everything = Images(
        names=tuple(f"scene{i}" for i in range(total)),
        images=images,
        labels=masks.astype(np.uint8),
        priors=np.rint(255 * priors).astype(np.uint8),
    )
    # Held-out scenes come first, so that they do not depend on the number of training scenes.
    test = everything.take(evenly(range(held_out), sources.test_images))
    test_set = TestSet("scenes", test, tuple(test.masks), {"generated": test.priors}, is_named=True)
    return Data(
        train=everything.take(range(held_out + validation, total)),
        validation=everything.take(range(held_out, held_out + validation)),
        tests=(test_set,),
        notes=(),
    )


def from_archive(sources: Sources, size: int) -> Data:
    """A named data set, split by its lists. Without a list of validation images, up to a quarter of
    the training images is held out for validation, spread evenly."""
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
    if name == "outex":
        both = [decode(files, part, size, sources.regions) for part in (stems, validation)]
        mosaics, held_out = settled(files, both)
        made = recombined(mosaics.images, sources.train_images or MOSAICS, seed=0)
        notes = [f"{name}: {MOSAIC_NOTE}"] if sources.is_trained else []
        return Data(made, held_out.images, (), tuple(notes))
    stems = evenly(stems, sources.train_images)
    parts = decode_parts(files, [stems, validation], size, sources)
    return Data(parts[0].images, parts[1].images, (), (*notes, *describe(files, parts)))


MOSAICS = 1000
"""Default number of training mosaics."""
MOSAIC_NOTE = (
    "trained on new mosaics with textures cut out of the first 60, and tested on the last 30; the "
    "same textures may occur in both"
)


def from_path(sources: Sources, size: int, seed: int) -> Data:
    """A user's own folder or zip, split by its lists or at random."""
    path = Path(sources.train)
    files = find([path], truth=truth_folder(sources.regions))
    faults = Faults(files.faults)
    with faults.collect():
        if len(files.images) < 4:
            raise InputError(
                f"training and testing need at least 4 images, found {len(files.images)} in "
                f"{path}; add more images"
            )
        rng = np.random.default_rng((seed, seeds.SPLIT))
        train, validation, test, note = split(
            tuple(files.images), files.lists, rng, sources.validation_images or 40
        )
    if len(faults.errors) > len(files.faults):
        faults.report()
    chosen = [
        evenly(train, sources.train_images),
        evenly(validation, sources.validation_images),
        evenly(test, sources.test_images),
    ]
    parts = decode_parts(files, chosen, size, sources)
    name = "test" if path.stem in ("train", "validation") else path.stem
    return Data(
        train=parts[0].images,
        validation=parts[1].images,
        tests=(as_test_set(parts[2], name, files),),
        notes=(*describe(files, parts), note),
    )


def read_test(name: str, sources: Sources, size: int) -> tuple[TestSet, list[str]]:
    """A test set by name or path, and notes on it. Detectors' maps of ECSSD become priors."""
    if name not in ARCHIVES and not Path(name).exists():
        raise InputError(
            f"test set {name} is neither a named data set nor an existing path; choose one of "
            f"{', '.join(ARCHIVES)}, or give a folder or zip"
        )
    if name not in ARCHIVES:
        return read_test_folder(Path(name), size, sources)
    files, notes = find_archive(name, sources.archives)
    test, more = tested(files, name, size, sources)
    if name == "ecssd":
        for detector in sources.test_priors:
            folder = detector_folder(sources.archives, detector)
            test.priors[detector] = read_priors(folder, test.images.names, size)
    return test, [*notes, *more]


def read_test_folder(path: Path, size: int, sources: Sources) -> tuple[TestSet, list[str]]:
    """A folder or zip as a test set, and notes on it."""
    return tested(find([path], truth=truth_folder(sources.regions)), path.stem, size, sources)


def tested(files: Files, name: str, size: int, sources: Sources) -> tuple[TestSet, list[str]]:
    """The images in the test list of a data set, or all images if it has none."""
    stems = evenly(files.lists.get("test") or list(files.images), sources.test_images)
    read = reader(files, len(stems), size, sources.memory_gb)
    (part,) = settled(files, [read(files, stems, size, sources.regions, keep_truth=True)])
    return as_test_set(part, name, files), describe(files, [part])


def as_test_set(part: Decoded[Any], name: str, files: Files) -> TestSet:
    priors = {"priors": part.images.all_priors()} if files.priors else {}
    return TestSet(name, part.images, part.truth, priors, part.voids, is_named=files.is_packed)


def decode_parts(
    files: Files, parts: Sequence[Sequence[str]], size: int, sources: Sources
) -> list[Decoded[Any]]:
    """Images for training, validation and testing, with the faults of all of them at once.

    Those for validation are kept in memory; the others are streamed if they are too many. Those for
    testing keep their truth.
    """
    faults, read_parts = Faults(), []
    for place, stems in enumerate(parts):
        with faults.collect():
            memory_gb = sources.memory_gb if place != 1 else math.inf
            read = reader(files, len(stems), size, memory_gb)
            read_parts.append(read(files, stems, size, sources.regions, keep_truth=place == 2))
    faults.report()
    return settled(files, read_parts)


def reader(
    files: Files, number: int, size: int, memory_gb: float
) -> Callable[..., Part[Images] | Part[Streamed]]:
    """`decode`, or `stream` for more images, with their labels and priors, than fit in memory."""
    gigabytes = number * size**2 * (5 if files.priors else 4) / 1e9
    return decode if gigabytes <= memory_gb else stream
