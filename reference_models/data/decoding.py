"""Decoding of a data set: its images, labels and priors, at once or one by one."""

from collections.abc import Sequence
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
    read_map_files,
    scale_of,
    settle_map,
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
    require,
    side_by_side,
)
from reference_models.errors import Faults, count, first_few

Truth = Mask | np.ndarray
"""A mask, or the label maps of all annotators, int32 `(annotators, H, W)`."""


Kept = TypeVar("Kept", bound=Images | Streamed)


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

    def prior(self, stem: str, scale: Scale) -> np.ndarray:
        """uint8 `(size, size)`, see `fit_prior`; without priors, a Gaussian at the centre."""
        if not self.files.priors:
            return centre_prior(self.size)
        return fitted(settle_map(open_map(self.files.priors[stem]), scale), self.size)


def joined(truth: Sequence[Truth]) -> Truth:
    """The one mask, or the label maps of all annotators."""
    first = truth[0]
    return first if isinstance(first, Mask) else np.stack(cast("list[np.ndarray]", truth))


def decode(
    files: Files, stems: Sequence[str], size: int, regions: int = 2, keep_truth: bool = False
) -> Decoded[Images]:
    """The images, labels and priors of these stems. keep_truth: Also return masks or label maps at
    their original size."""
    decoder = Decoder(files, size, regions)
    images = np.empty((len(stems), size, size, 3), np.uint8)
    labels = np.empty((len(stems), size, size), np.uint8)

    def decode_image(index: int) -> tuple[Truth | None, str, bool]:
        """Fill in image and labels; return the truth if it is kept, the kind of mask, and whether
        the mask is empty."""
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
    results: list[tuple[Truth | None, str, bool]] = []
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
            labels[index] = decoder.labels(mask, void)
            kept[index] = mask = settled_mask(mask, void)
            kinds[index], empty[index] = mask.kind, not mask.object.any()
        elif kind == "0/255" and void:
            labels[index] *= VOID
            kinds[index], empty[index] = "with void", True
    truth = [each for each in kept if each is not None] if keep_truth else []
    empty_stems = [stem for stem, is_empty in zip(stems, empty, strict=True) if is_empty]
    decoded = Images(tuple(stems), images, labels, priors)
    return Decoded(decoded, *truths(truth), kinds, empty_stems)


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
) -> Decoded[Streamed]:
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
    void, scale = has_void(each.look.kind for each in seen), scale_of(bright)
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
    return fit_priors([files[stem] for stem in stems], size, f"maps of {folder.name}")


def fit_priors(files: Sequence[Folder], size: int, what: str) -> np.ndarray:
    """Priors of several images, uint8 `(N, size, size)`. what: the files, for the progress bar."""
    return np.stack([fitted(each, size) for each in read_map_files(files, what)])


def fitted(saliency: SaliencyMap, size: int) -> np.ndarray:
    return fit_prior(Image.fromarray(saliency.values), size)
