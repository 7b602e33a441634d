"""Images with their labels and priors, test sets, and the data of a run."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self, final

import numpy as np

from reference_models.machine import cores

VOID = 255
"""Label of pixels that belong to neither object nor background; they count nowhere."""


@dataclass(frozen=True)
class Images:
    """N square images with their labels and priors, at the size that the network reads.

    images: uint8 `(N, S, S, 3)`. labels: uint8 `(N, S, S)`, 1 on the salient object, 0 off it and
    VOID on void pixels, or region numbers from 0. priors: uint8 `(N, S, S)`, rough saliency maps
    from 0 to 255. If all images share one prior, this is a read-only view of it.
    """

    names: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    priors: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def side(self) -> int:
        return self.images.shape[1]

    @property
    def has_object(self) -> bool:
        return bool(self.masks.any())

    @property
    def has_void(self) -> bool:
        return self.counted is not None

    @property
    def highest_label(self) -> int:
        """Void pixels aside."""
        return int(self.labels.max(initial=0, where=self.labels != VOID))

    @property
    def masks(self) -> np.ndarray:
        """bool `(N, S, S)`, True on the salient object."""
        return (self.labels > 0) & (self.labels != VOID)

    @property
    def counted(self) -> np.ndarray | None:
        """bool `(N, S, S)`, False on void pixels; None if there are none."""
        counted = self.labels != VOID
        return None if counted.all() else counted

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
        """The images at these indices, in that order."""
        names = tuple(self.names[i] for i in indices)
        return Images(names, self.images[indices], self.labels[indices], self.priors[indices])

    only = take

    def with_priors(self, priors: np.ndarray) -> Self:
        return replace(self, priors=priors)

    def swapped(self, flips: np.ndarray) -> Self:
        """With labels 0 and 1 exchanged where `flips`, uint8 `(N,)`, is 1."""
        return replace(self, labels=exchanged(self.labels, flips[:, None, None]))

    def parts(self) -> Iterator["Images"]:
        """All images, in parts that fit in memory."""
        yield self

    def all_priors(self) -> np.ndarray:
        return self.priors

    def rows(self, priors: bool) -> Iterator[np.ndarray]:
        """Each image, then the labels of each, then the priors of each if `priors`."""
        for array in (self.images, self.labels, *[self.priors] * priors):
            yield from array  # Row by row, so that a shared prior is not copied N times.


@final
@dataclass(frozen=True)
class Streamed:
    """Images that are decoded whenever they are taken, as too many to keep. See `Images`.

    image, label, prior: The arrays of an image by its index, at the size that the network reads.
    """

    names: tuple[str, ...]
    side: int
    occurring: frozenset[int]
    """The labels that occur, with VOID."""
    image: Callable[[int], np.ndarray]
    label: Callable[[int], np.ndarray]
    prior: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_object(self) -> bool:
        return self.highest_label > 0

    @property
    def has_void(self) -> bool:
        return VOID in self.occurring

    @property
    def highest_label(self) -> int:
        return max(self.occurring - {VOID}, default=0)

    def take(self, indices: Sequence[int] | np.ndarray) -> Images:
        """The images at these indices, in that order, decoded in threads."""
        images, labels, priors = (
            np.stack(decoded(read, indices)) for read in (self.image, self.label, self.prior)
        )
        return Images(tuple(self.names[i] for i in indices), images, labels, priors)

    def only(self, indices: Sequence[int]) -> Self:
        """The images at these indices, in that order, still to be decoded."""
        image, label, prior = self.image, self.label, self.prior
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            image=lambda index: image(indices[index]),
            label=lambda index: label(indices[index]),
            prior=lambda index: prior(indices[index]),
        )

    def with_priors(self, priors: np.ndarray) -> Self:
        return replace(self, prior=lambda index: priors[index])

    def swapped(self, flips: np.ndarray) -> Self:
        """With labels 0 and 1 exchanged where `flips`, uint8 `(N,)`, is 1."""
        label = self.label
        return replace(self, label=lambda index: exchanged(label(index), flips[index]))

    def parts(self) -> Iterator[Images]:
        """All images, in parts that fit in memory."""
        for indices in parts_of(len(self)):
            yield self.take(indices)

    def all_priors(self) -> np.ndarray:
        """The priors of all images, uint8 `(N, S, S)`."""
        return np.stack(decoded(self.prior, range(len(self))))

    def rows(self, priors: bool) -> Iterator[np.ndarray]:
        """Each image, then the labels of each, then the priors of each if `priors`."""
        for read in (self.image, self.label, *[self.prior] * priors):
            for indices in parts_of(len(self)):
                yield from decoded(read, indices)


PART = 64
"""Number of streamed images in memory at a time, when all of them are read."""


def parts_of(count: int) -> Iterator[range]:
    """The indices below `count`, in parts."""
    for begin in range(0, count, PART):
        yield range(begin, min(begin + PART, count))


def decoded(
    read: Callable[[int], np.ndarray], indices: Sequence[int] | np.ndarray
) -> list[np.ndarray]:
    """What `read` returns for these indices, computed in threads."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(read, indices))


def exchanged(labels: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """Labels 0 and 1 exchanged where `flips` is 1; void stays void."""
    return np.where(labels == VOID, labels, labels ^ flips)


@dataclass(frozen=True)
class TestSet:
    """Images to measure on, with their truth at its original size.

    truth: For each image a bool mask `(H, W)`, or the label maps of all annotators, int32
    `(annotators, H, W)`. priors: By detector, uint8 `(N, S, S)`, each map stretched to 0..255.
    voids: For each image its void pixels, bool `(H, W)`, or None; empty if no image has any.
    places: The index of each image in the whole set, if this is a part of it. is_named: One of the
    sets that recipes name, not data of the user's that may be called like one.
    """

    __test__ = False  # Keeps pytest from collecting this class for its name.

    name: str
    images: Images | Streamed
    truth: tuple[np.ndarray, ...]
    priors: dict[str, np.ndarray] = field(default_factory=dict)
    voids: tuple[np.ndarray | None, ...] = ()
    places: Sequence[int] = ()
    is_named: bool = False

    def only(self, indices: Sequence[int]) -> "TestSet":
        """The images at these indices, in that order."""
        return TestSet(
            self.name,
            self.images.only(indices),
            tuple(self.truth[i] for i in indices),
            {name: maps[indices] for name, maps in self.priors.items()},
            tuple(self.voids[i] for i in indices if self.voids),
            indices,
            self.is_named,
        )

    def parts(self) -> Iterator["TestPart"]:
        """The images in parts that fit in memory, in their order."""
        places = self.places or range(len(self.images))
        first = 0
        for images in self.images.parts():
            part = slice(first, first + len(images))
            yield TestPart(places[part], images, self.truth[part], self.voids[part])
            first += len(images)


@dataclass(frozen=True)
class TestPart:
    """Some images of a test set."""

    __test__ = False

    places: Sequence[int]
    """The index of each in the whole set."""
    images: Images
    truth: tuple[np.ndarray, ...]
    voids: tuple[np.ndarray | None, ...]


@dataclass(frozen=True)
class Data:
    """The training, validation and test images of a run, and notes on them for every report."""

    train: Images | Streamed
    validation: Images
    tests: tuple[TestSet, ...]
    notes: tuple[str, ...]
    computed_by: str = ""
    """If a network computed the training priors: the fingerprint of its weights, which stands for
    the priors in `sha256`, because a GPU does not compute the same bits twice."""

    def counts(self) -> dict[str, int]:
        """Number of images by set."""
        parts: dict[str, Images | Streamed]
        parts = {"train": self.train, "validation": self.validation}
        parts |= {test.name: test.images for test in self.tests}
        return {name: len(part) for name, part in parts.items()}

    @cached_property
    def sha256(self) -> str:
        """A fingerprint of all pixels, labels, true masks and priors."""
        digest = hashlib.sha256(self.computed_by.encode())
        for part in (self.train, self.validation, *(test.images for test in self.tests)):
            for row in part.rows(priors=part is not self.train or not self.computed_by):
                digest.update(np.ascontiguousarray(row).data)
        for test in self.tests:
            voids = (void for void in test.voids if void is not None)
            for array in (*test.truth, *test.priors.values(), *voids):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
