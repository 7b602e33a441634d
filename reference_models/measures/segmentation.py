"""Measures of label maps against several human segmentations, as used for BSDS500."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.metrics import contingency_table, variation_of_information
from sklearn.metrics import rand_score

from reference_models.errors import InputError, count

NAMES = ("covering", "rand", "variation_of_information", "regions")
"""Measures, averaged over the annotators of each image and then over images.

covering: Overlap of the annotators' regions with the map's, in [0, 1]; higher is better.
rand: Probabilistic Rand index, the share of pixel pairs on which map and annotator agree: both put
    the two pixels into one region, or both do not; in [0, 1], higher is better.
variation_of_information: H(map | truth) + H(truth | map) in bits, at least 0; lower is better.
regions: Number of regions in the map.
"""


def measure_segmentation(
    maps: np.ndarray | Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> dict[str, float]:
    """Compare label maps with the annotators' label maps of the same images.

    maps: N arrays `(H, W)` of integers. Only which pixels share a label matters, not its value.
    truths: N arrays `(annotators, H, W)` of integers, which may differ in size. A map of another
    size is resized to the truth's by nearest neighbour.

    A region consists of all pixels with one label, even if they are not connected. This is how the
    losses on region numbers treat regions: each is one channel, wherever its pixels lie. Splitting
    it into connected parts would be a step that the losses do not know, and would count speckles as
    regions.

    Covering, Rand index and variation of information are defined as in section 3.1 of Arbelaez,
    Maire, Fowlkes and Malik, Contour Detection and Hierarchical Image Segmentation, TPAMI 2011. The
    covering is that of the truth by the map. Logarithms are to base 2, as in the BSDS500 benchmark.
    """
    rows = segmentation_each(maps, truths)
    return {name: float(np.mean([row[name] for row in rows])) for name in NAMES}


def segmentation_each(
    maps: np.ndarray | Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> list[dict[str, float]]:
    """The measures of each image; see `measure_segmentation`."""
    if len(maps) != len(truths) or len(truths) == 0:
        raise InputError(
            "maps and truths must be equal in number, and at least 1, got "
            f"{count(len(maps), 'map')} and {count(len(truths), 'truth')}; pass one truth per map"
        )
    rows = []
    for index, (regions, truth) in enumerate(zip(maps, truths, strict=True)):
        if np.ndim(regions) != 2 or not np.issubdtype(regions.dtype, np.integer):
            raise InputError(
                f"maps[{index}] must be integers (height, width), "
                f"got {regions.dtype} {np.shape(regions)}; pass the number of each pixel's region"
            )
        if np.ndim(truth) != 3 or not len(truth) or not np.issubdtype(truth.dtype, np.integer):
            raise InputError(
                f"truths[{index}] must be integers (annotators, height, width), "
                f"got {truth.dtype} {np.shape(truth)}; write truth[None] for one annotator"
            )
        rows.append(measure_image(fit(regions, truth.shape[1:]), truth))
    return rows


def fit(regions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The label map resized to `shape`, with labels numbered from 0."""
    return from_zero(nearest(from_zero(regions), shape))


def nearest(regions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The label map resized to `shape` by nearest neighbour."""
    if regions.shape == shape:
        return regions
    size = (shape[1], shape[0])
    return np.asarray(
        Image.fromarray(regions.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    )


def from_zero(regions: np.ndarray) -> np.ndarray:
    """The label map with its labels numbered from 0, without gaps."""
    return np.unique(regions, return_inverse=True)[1].reshape(regions.shape)


def measure_image(regions: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The measures of one label map. truth: `(annotators, H, W)`."""
    annotators = [from_zero(annotated) for annotated in truth]
    labels = regions.ravel()
    return {
        "covering": float(np.mean([covering(annotated, regions) for annotated in annotators])),
        "rand": float(np.mean([rand_score(annotated.ravel(), labels) for annotated in annotators])),
        "variation_of_information": float(
            np.mean([sum(variation_of_information(annotated, regions)) for annotated in annotators])
        ),
        "regions": float(regions.max() + 1),
    }


def covering(truth: np.ndarray, regions: np.ndarray) -> float:
    """The covering of the truth by the map: the best overlap of each region, weighted by its area.

    With N pixels it is the sum, over the regions R of the truth, of |R| / N · max |R ∩ R'| /
    |R ∪ R'|, where the maximum is over the regions R' of the map. Both label maps must have the
    same shape, and labels numbered from 0.
    """
    intersection = contingency_table(truth, regions, normalize=False).toarray()
    size = intersection.sum(axis=1, keepdims=True)
    overlap = intersection / (size + intersection.sum(axis=0) - intersection)
    return float((size[:, 0] * overlap.max(axis=1)).sum() / truth.size)
