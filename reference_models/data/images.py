"""Images with their labels and priors, test sets, and the data of a run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from reference_models.errors import InputError


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
                    digest.update(np.ascontiguousarray(row).data)
        for test in self.tests:
            for array in (*test.truth, *test.priors.values()):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
