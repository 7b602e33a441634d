"""Images with their labels and priors, test sets, and the data of a run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

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


@dataclass(frozen=True)
class TestSet:
    """Images to measure on, with their truth at its original size.

    truth: For each image a bool mask `(H, W)`, or the label maps of all annotators, int32
    `(annotators, H, W)`. priors: By detector, uint8 `(N, S, S)`, each map stretched to 0..255.
    voids: For each image its void pixels, bool `(H, W)`, or None; empty if no image has any.
    """

    __test__ = False  # Keeps pytest from collecting this class for its name.

    name: str
    images: Images
    truth: tuple[np.ndarray, ...]
    priors: dict[str, np.ndarray] = field(default_factory=dict)
    voids: tuple[np.ndarray | None, ...] = ()


@dataclass(frozen=True)
class Data:
    """The training, validation and test images of a run, and notes on them for every report."""

    train: Images
    validation: Images
    tests: tuple[TestSet, ...]
    notes: tuple[str, ...]
    computed_by: str = ""
    """If a network computed the training priors: the fingerprint of its weights, which stands for
    the priors in `sha256`, because a GPU does not compute the same bits twice."""

    def counts(self) -> dict[str, int]:
        """Number of images by set."""
        parts = {"train": self.train, "validation": self.validation}
        parts |= {test.name: test.images for test in self.tests}
        return {name: len(part) for name, part in parts.items()}

    @cached_property
    def sha256(self) -> str:
        """A fingerprint of all pixels, labels, true masks and priors."""
        digest = hashlib.sha256(self.computed_by.encode())
        for part in (self.train, self.validation, *(test.images for test in self.tests)):
            arrays = [part.images, part.labels]
            if part is not self.train or not self.computed_by:
                arrays.append(part.priors)
            for array in arrays:
                for row in array:  # Row by row, so that a shared prior is not copied N times.
                    digest.update(np.ascontiguousarray(row).data)
        for test in self.tests:
            voids = (void for void in test.voids if void is not None)
            for array in (*test.truth, *test.priors.values(), *voids):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
