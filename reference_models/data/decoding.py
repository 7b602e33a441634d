"""Decoding of a data set: its images, labels and priors, at once or one by one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from reference_models.data.images import VOID, Images, Streamed
from reference_models.data.maps import (
    SaliencyMap,
    Scale,
    open_map,
    open_map_files,
    scale_of,
    settle_map,
    settle_maps,
)
from reference_models.data.masks import (
    Look,
    Mask,
    as_mask,
    fit_labels,
    has_void,
    label_map,
    mask_notes,
    settled_mask,
)
from reference_models.data.named_sets import Files
from reference_models.data.photographs import read_photograph, square_of
from reference_models.data.pictures import (
    Folder,
    by_stem,
    centre_prior,
    check_size,
    fit_prior,
    open_image,
    outcomes,
    require,
    side_by_side,
)
from reference_models.errors import Faults, InputError, count, first_few

Truth = Mask | np.ndarray
"""A mask, or the label maps of all annotators, int32 `(annotators, H, W)`."""


Result = tuple[Truth | None, str, bool]
"""The truth of an image if it is kept, the kind of its mask, and whether the mask is empty."""
Kept = TypeVar("Kept", bound=Images | Streamed)
Looked = TypeVar("Looked")


class Decoded(NamedTuple, Generic[Kept]):
    """Decoded images, their truth if it was kept, the kinds of masks, and stems of empty masks."""

    images: Kept
    truth: tuple[np.ndarray, ...]
    voids: tuple[np.ndarray | None, ...]
    """The void pixels of the truth, as in `TestSet`."""
    kinds: list[str]
    empty: list[str]


@dataclass(frozen=True)
class Decoder:
    """The images of a data set and their labels and priors, as squares of side `size`.

    Masks are read by `as_mask`. If an image has several label maps, the one with the median number
    of regions becomes its labels (with an even number, the lower median), with at most `regions`
    regions, see `largest`.
    """

    files: Files
    size: int
    regions: int = 2

    def image(self, stem: str) -> np.ndarray:
        return square_of(read_photograph(self.files.images[stem]).pixels, self.size)

    def both(self, stem: str) -> tuple[np.ndarray, Truth]:
        """The image of a stem and its truth, with all of their faults at once."""
        files, faults = self.files, Faults()
        truth: list[Truth] = []
        photo: Image.Image | None = None
        with faults.collect():
            photo = read_photograph(files.images[stem]).pixels
        for file in files.truth[stem]:
            with faults.collect():
                opened = open_image(file)
                with faults.collect():
                    if photo is not None:
                        check_size(files.images[stem], photo.size, file, opened.size)
                truth.append(self.read_truth(opened, file))
        faults.report()
        assert photo is not None
        return square_of(photo, self.size), joined(truth)

    def truth(self, stem: str) -> Truth:
        """The truth of a stem whose faults have been reported."""
        return joined([self.read_truth(open_image(file), file) for file in self.files.truth[stem]])

    def read_truth(self, opened: Image.Image, file: Folder) -> Truth:
        return label_map(opened, file) if self.files.segmented else as_mask(opened, file)

    def labels(self, truth: Truth, void: bool = False) -> np.ndarray:
        """The labels, uint8 `(size, size)`. void: See `has_void`."""
        if isinstance(truth, Mask):
            if truth.kind == "three values":
                return fit_labels(settled_mask(truth, void), self.size)
            labels = fit_labels(truth, self.size)
            return labels * np.uint8(VOID) if truth.kind == "0/255" and void else labels
        regions_of = [len(np.unique(values)) for values in truth]
        typical = truth[np.argsort(regions_of, kind="stable")[(len(truth) - 1) // 2]]
        return largest(typical, self.size, self.regions)

    def settled(
        self, results: Sequence[Result], labels: np.ndarray, void: bool
    ) -> Iterator[Result]:
        """The results of `decode` in the light of their folder, and their labels in place."""
        for index, (truth, kind, is_empty) in enumerate(results):
            if isinstance(truth, Mask):
                labels[index] = self.labels(truth, void)
                mask = settled_mask(truth, void)
                yield mask, mask.kind, not mask.object.any()
            elif kind == "0/255" and void:
                labels[index] *= VOID
                yield None, "with void", True
            else:
                yield truth, kind, is_empty

    def prior(self, stem: str, scale: Scale) -> np.ndarray:
        """uint8 `(size, size)`, see `fit_prior`; without priors, a Gaussian at the centre."""
        if not self.files.priors:
            return centre_prior(self.size)
        return fitted(settle_map(open_map(self.files.priors[stem]), scale), self.size)


def joined(truth: Sequence[Truth]) -> Truth:
    """The one mask, or the label maps of all annotators."""
    first = truth[0]
    return first if isinstance(first, Mask) else np.stack(cast("list[np.ndarray]", truth))


class Part(NamedTuple, Generic[Kept]):
    """Images that are read, up to what all masks and priors of their folder decide together."""

    stems: tuple[str, ...]
    kinds: list[str]
    """Of the masks."""
    stored: list[tuple[str, float]]
    """Of the priors, see `scale_of`."""
    settle: Callable[[bool, Scale], Decoded[Kept]]
    """Given `has_void` and `scale_of` of the folder. Called once."""


def settled(files: Files, parts: Sequence[Part[Any]]) -> list[Decoded[Any]]:
    """The parts of a data set, each read as all masks and priors of its folder decide.

    So masks and priors of no part are looked at too, unless `prepare` has packed them, and faulty
    ones among them are passed over.
    """
    chosen = {stem for part in parts for stem in part.stems}
    kinds = [kind for part in parts for kind in part.kinds]
    stored = [each for part in parts for each in part.stored]
    if not files.is_packed:
        masks = [file[0] for stem, file in files.truth.items() if stem not in chosen]
        priors = [file for stem, file in files.priors.items() if stem not in chosen]
        if not files.segmented:
            kinds += looks(lambda file: as_mask(open_image(file), file).kind, masks, "other masks")
        stored += looks(lambda file: open_map(file).stored, priors, "other priors")
    void, scale = has_void(kinds), scale_of(stored)
    return [part.settle(void, scale) for part in parts]


def looks(look: Callable[[Folder], Looked], files: Sequence[Folder], what: str) -> list[Looked]:
    """The results of `look` for the files that can be read. what: They, for the progress bar."""
    if not files:
        return []
    found = outcomes(lambda index: look(files[index]), len(files), what)
    return [each for each in found if not isinstance(each, InputError)]


def decode(
    files: Files, stems: Sequence[str], size: int, regions: int = 2, keep_truth: bool = False
) -> Part[Images]:
    """The images, labels and priors of these stems. keep_truth: Also return masks or label maps at
    their original size."""
    decoder = Decoder(files, size, regions)
    images = np.empty((len(stems), size, size, 3), np.uint8)
    labels = np.empty((len(stems), size, size), np.uint8)

    def decode_image(index: int) -> Result:
        """Fill in image and labels."""
        stem = stems[index]
        if stem not in files.truth:  # One of `files.faults`.
            decoder.image(stem)
            return None, "", False
        images[index], truth = decoder.both(stem)
        labels[index] = decoder.labels(truth)
        if isinstance(truth, Mask):
            is_kept = keep_truth or truth.kind == "three values"
            return truth if is_kept else None, truth.kind, not truth.object.any()
        return truth if keep_truth else None, "regions", False

    faults = Faults(files.faults)
    results: list[Result] = []
    maps: list[SaliencyMap] = []
    with faults.collect():
        results = side_by_side(decode_image, len(stems), files.name)
    if files.priors:
        with faults.collect():
            there = [files.priors[stem] for stem in stems if stem in files.priors]
            maps = open_map_files(there, f"priors of {files.name}")
    faults.report()

    def settle(void: bool, scale: Scale) -> Decoded[Images]:
        kept = list(decoder.settled(results, labels, void))
        priors = np.broadcast_to(centre_prior(size), labels.shape)
        if files.priors:
            priors = np.stack([fitted(settle_map(each, scale), size) for each in maps])
        truth = [each for each, _, _ in kept if each is not None] if keep_truth else []
        empty = [stem for stem, (_, _, is_empty) in zip(stems, kept, strict=True) if is_empty]
        decoded = Images(tuple(stems), images, labels, priors)
        return Decoded(decoded, *truths(truth), [kind for _, kind, _ in kept], empty)

    kinds = [kind for _, kind, _ in results]
    return Part(tuple(stems), kinds, [each.stored for each in maps], settle)


class Seen(NamedTuple):
    """What `stream` finds in the files of an image."""

    look: Look
    labels: tuple[frozenset[int], ...]
    """Those that occur, without void, and beside it; see `has_void`."""
    truth: Truth | None
    """If it is kept."""


REGIONS = Look("regions", ("regions", "regions"), ((True, True), (True, True)))
"""That of label maps."""


def stream(
    files: Files, stems: Sequence[str], size: int, regions: int = 2, keep_truth: bool = False
) -> Part[Streamed]:
    """As `decode`, for more images than fit in memory: each is decoded whenever it is taken.

    Here every picture is read once, to report its faults and to decide what the masks and the
    priors of a set decide together.
    """
    decoder = Decoder(files, size, regions)

    def look(index: int) -> Seen:
        stem = stems[index]
        if stem not in files.truth:  # One of `files.faults`.
            decoder.image(stem)
            return Seen(REGIONS, (), None)
        _, truth = decoder.both(stem)
        both = (decoder.labels(truth, void) for void in (False, True))
        occurring = tuple(frozenset(np.unique(labels).tolist()) for labels in both)
        found = Look.at(truth) if isinstance(truth, Mask) else REGIONS
        return Seen(found, occurring, truth if keep_truth else None)

    def brightness(index: int) -> tuple[str, float]:
        return open_map(files.priors[stems[index]]).stored

    faults = Faults(files.faults)
    seen: list[Seen] = []
    bright: list[tuple[str, float]] = []
    with faults.collect():
        seen = side_by_side(look, len(stems), files.name)
    if files.priors and not files.faults:
        with faults.collect():
            bright = side_by_side(brightness, len(stems), f"priors of {files.name}")
    faults.report()

    def settle(void: bool, scale: Scale) -> Decoded[Streamed]:
        images = Streamed(
            names=tuple(stems),
            side=size,
            occurring=frozenset().union(*(each.labels[void] for each in seen)),
            image=lambda index: decoder.image(stems[index]),
            label=lambda index: decoder.labels(decoder.truth(stems[index]), void),
            prior=lambda index: decoder.prior(stems[index], scale),
        )
        kinds = [each.look.kinds[void] for each in seen]
        has_object = (each.look.classes[void][0] for each in seen)
        empty = [stem for stem, some in zip(stems, has_object, strict=True) if not some]
        truth = (each.truth for each in seen if each.truth is not None)
        kept = [settled_mask(each, void) if isinstance(each, Mask) else each for each in truth]
        return Decoded(images, *truths(kept), kinds, empty)

    return Part(tuple(stems), [each.look.kind for each in seen], bright, settle)


def truths(
    kept: Sequence[Truth],
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray | None, ...]]:
    """The truth and the void pixels of settled masks or of label maps, as in `TestSet`."""
    voids = tuple(each.void if isinstance(each, Mask) else None for each in kept)
    objects = tuple(each.object if isinstance(each, Mask) else each for each in kept)
    return objects, voids if any(void is not None for void in voids) else ()


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


def describe(files: Files, parts: Sequence[Decoded[Any]]) -> list[str]:
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


# Priors ------------------------------------------------------------------------------------------


def read_priors(folder: Folder, stems: Sequence[str], size: int) -> np.ndarray:
    """The maps of these stems as priors, uint8 `(N, size, size)`; see `fit_prior`."""
    files = by_stem([folder])
    require(stems, files, f"map in {folder}")
    maps = open_map_files([files[stem] for stem in stems], f"maps of {folder.name}")
    return np.stack([fitted(each, size) for each in settle_maps(maps)])


def fitted(saliency: SaliencyMap, size: int) -> np.ndarray:
    return fit_prior(Image.fromarray(saliency.values), size)
