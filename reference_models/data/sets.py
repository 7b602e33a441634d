"""Data sets of a run: generated, or read from named archives, folders and zips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from reference_models.data import seeds
from reference_models.data.images import VOID, Data, Images, TestSet
from reference_models.data.maps import read_map_files
from reference_models.data.masks import (
    Mask,
    as_mask,
    fit_labels,
    has_void,
    label_map,
    mask_notes,
    settled_mask,
)
from reference_models.data.named_sets import ARCHIVES, Files, detector_folder, find, find_archive
from reference_models.data.photographs import read_photograph
from reference_models.data.pictures import (
    Folder,
    by_stem,
    centre_prior,
    check_size,
    fit_prior,
    open_image,
    require,
    side_by_side,
)
from reference_models.data.scenes import scenes
from reference_models.data.splits import evenly, split
from reference_models.data.textures import recombined
from reference_models.errors import Faults, InputError, count, first_few


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
    parts = [data.train, data.validation, *(test.images for test in data.tests)]
    for name, part in zip(names, parts, strict=True):
        kind = "training" if part is data.train else "held-out"
        if part is not data.validation and not part.masks.any():
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


def classes(mask: np.ndarray, void: np.ndarray | None) -> tuple[bool, bool]:
    """Whether a mask has an object, and whether it has background."""
    return bool(mask.any()), not bool((mask if void is None else mask | void).all())


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
    test_set = TestSet("scenes", test, tuple(test.masks), {"generated": test.priors})
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
        parts = decode_parts(files, (stems, validation), size, sources.regions)
        made = recombined(parts[0].images, sources.train_images or MOSAICS, seed=0)
        return Data(made, parts[1].images, (), (f"{name}: {MOSAIC_NOTE}",))
    stems = evenly(stems, sources.train_images)
    parts = decode_parts(files, (stems, validation), size, sources.regions)
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
    chosen = (
        evenly(train, sources.train_images),
        evenly(validation, sources.validation_images),
        evenly(test, sources.test_images),
    )
    parts = decode_parts(files, chosen, size, sources.regions)
    test_images = parts[2].images
    ambiguous = path.stem in ("train", "validation")
    priors = {"priors": test_images.priors} if files.priors else {}
    return Data(
        train=parts[0].images,
        validation=parts[1].images,
        tests=(
            TestSet(
                "test" if ambiguous else path.stem,
                test_images,
                parts[2].truth,
                priors,
                parts[2].voids,
            ),
        ),
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
        return read_test_folder(Path(name), size, sources.regions, sources.test_images)
    files, notes = find_archive(name, sources.archives)
    test, more = as_test_set(files, name, size, sources.regions, sources.test_images)
    if name == "ecssd":
        for detector in sources.test_priors:
            folder = detector_folder(sources.archives, detector)
            test.priors[detector] = read_priors(folder, test.images.names, size)
    return test, [*notes, *more]


def read_test_folder(
    path: Path, size: int, regions: int = 2, most: int | None = None
) -> tuple[TestSet, list[str]]:
    """A folder or zip as a test set, and notes on it. most: Maximum number of images."""
    files = find([path], truth=truth_folder(regions))
    return as_test_set(files, path.stem, size, regions, most)


def as_test_set(
    files: Files, name: str, size: int, regions: int, most: int | None
) -> tuple[TestSet, list[str]]:
    """The images in the test list of a data set, or all images if it has none."""
    stems = evenly(files.lists.get("test") or list(files.images), most)
    part = decode(files, stems, size, regions, keep_truth=True)
    priors = {"priors": part.images.priors} if files.priors else {}
    return TestSet(name, part.images, part.truth, priors, part.voids), describe(files, [part])


# Decoding ----------------------------------------------------------------------------------------


class Decoded(NamedTuple):
    """Decoded images, their truth if it was kept, the kinds of masks, and stems of empty masks."""

    images: Images
    truth: tuple[np.ndarray, ...]
    kinds: list[str]
    empty: list[str]
    voids: tuple[np.ndarray | None, ...]
    """The void pixels of the truth, as in `TestSet`."""


def decode_parts(
    files: Files, parts: Sequence[Sequence[str]], size: int, regions: int
) -> list[Decoded]:
    """Several parts of a data set, decoded; the third, for testing, keeps its truth. The faults of
    all parts are reported together."""
    decoded, faults = [], Faults()
    for place, stems in enumerate(parts):
        with faults.collect():
            decoded.append(decode(files, stems, size, regions, keep_truth=place == 2))
    faults.report()
    return decoded


def decode(
    files: Files, stems: Sequence[str], size: int, regions: int = 2, keep_truth: bool = False
) -> Decoded:
    """The images and labels of these stems as squares of side `size`.

    Masks are read by `as_mask`. If an image has several label maps, the one with the median number
    of regions becomes its labels (with an even number, the lower median), with at most `regions`
    regions, see `largest`.

    keep_truth: Also return masks or label maps at their original size.
    """
    images = np.empty((len(stems), size, size, 3), np.uint8)
    labels = np.empty((len(stems), size, size), np.uint8)

    def decode_image(index: int) -> tuple[Mask | np.ndarray | None, str, bool]:
        """Fill in image and labels; return the truth if it is kept, the kind of mask, and whether
        the mask is empty."""
        stem, faults = stems[index], Faults()
        if stem not in files.truth:  # One of `files.faults`.
            read_photograph(files.images[stem])
            return None, "", False
        truth: list[Mask | np.ndarray] = []
        photo: Image.Image | None = None
        with faults.collect():
            photo = read_photograph(files.images[stem]).pixels
            images[index] = np.asarray(photo.resize((size, size), Image.Resampling.LANCZOS))
        for file in files.truth[stem]:
            with faults.collect():
                opened = open_image(file)
                with faults.collect():
                    if photo is not None:
                        check_size(files.images[stem], photo.size, file, opened.size)
                truth.append(label_map(opened, file) if files.segmented else as_mask(opened, file))
        faults.report()
        if isinstance(truth[0], Mask):
            mask = truth[0]
            labels[index] = fit_labels(mask, size)
            is_kept = keep_truth or mask.kind == "three values"
            return mask if is_kept else None, mask.kind, not mask.object.any()
        maps = cast("list[np.ndarray]", truth)
        regions_of = [len(np.unique(values)) for values in maps]
        typical = maps[np.argsort(regions_of, kind="stable")[(len(maps) - 1) // 2]]
        labels[index] = largest(typical, size, regions)
        return np.stack(maps) if keep_truth else None, "regions", False

    faults = Faults(files.faults)
    results: list[tuple[Mask | np.ndarray | None, str, bool]] = []
    with faults.collect():
        results = side_by_side(decode_image, len(stems), files.name)
    priors = np.broadcast_to(centre_prior(size), labels.shape)
    if files.priors:
        with faults.collect():
            folder_priors = [files.priors[stem] for stem in stems if stem in files.priors]
            priors = fit_priors(folder_priors, size, f"priors of {files.name}")
    faults.report()
    kept = [truth for truth, _, _ in results]
    kinds, empty = [kind for _, kind, _ in results], [is_empty for _, _, is_empty in results]
    void = has_void(kinds)
    for index, (mask, kind) in enumerate(zip(kept, kinds, strict=True)):
        if isinstance(mask, Mask):
            kept[index] = mask = settled_mask(mask, void)
            kinds[index], empty[index] = mask.kind, not mask.object.any()
            labels[index] = fit_labels(mask, size)
        elif kind == "0/255" and void:
            labels[index] *= VOID
            kinds[index], empty[index] = "with void", True
    truth = [each for each in kept if each is not None] if keep_truth else []
    voids = [each.void if isinstance(each, Mask) else None for each in truth]
    return Decoded(
        images=Images(tuple(stems), images, labels, priors),
        truth=tuple(each.object if isinstance(each, Mask) else each for each in truth),
        kinds=kinds,
        empty=[stem for stem, is_empty in zip(stems, empty, strict=True) if is_empty],
        voids=tuple(voids) if any(void is not None for void in voids) else (),
    )


def describe(files: Files, parts: Sequence[Decoded]) -> list[str]:
    """Notes on the masks or label maps of a data set."""
    kinds = {
        stem: kind
        for part in parts
        for stem, kind in zip(part.images.names, part.kinds, strict=True)
    }
    empty = sorted(stem for part in parts for stem in part.empty)
    notes = []
    if files.segmented:
        several = any(len(maps) > 1 for maps in files.truth.values())
        chosen = "the labels are those of the annotator with the median number of regions, "
        notes.append(f"{chosen * several}small regions joined to the nearest")
    notes += mask_notes(kinds)
    if empty:
        notes.append(
            f"{count(len(empty), 'mask is', 'masks are')} all background ({first_few(empty)}): "
            "counted in the MAE only"
        )
    if files.unused:
        masks = count(len(files.unused), "mask without an image is", "masks without an image are")
        notes.append(f"{masks} not used ({first_few(files.unused)})")
    return [f"{files.name}: {note}" for note in notes]


def largest(regions: np.ndarray, size: int, most: int) -> np.ndarray:
    """Resize a label map and number its regions by area, from 0 for the largest.

    The `most` largest regions are kept; pixels of the others join the nearest region that is kept.
    Returns uint8 `(size, size)`.
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


# Priors ------------------------------------------------------------------------------------------


def read_priors(folder: Folder, stems: Sequence[str], size: int) -> np.ndarray:
    """The maps of these stems as priors, uint8 `(N, size, size)`; see `fit_prior`."""
    files = by_stem([folder])
    require(stems, files, f"map in {folder}")
    return fit_priors([files[stem] for stem in stems], size, f"maps of {folder.name}")


def fit_priors(files: Sequence[Folder], size: int, what: str) -> np.ndarray:
    """Priors of several images, uint8 `(N, size, size)`. what: the files, for the progress bar."""
    maps = read_map_files(files, what)
    return np.stack([fit_prior(Image.fromarray(each.values), size) for each in maps])
