"""Measures of label maps against several human segmentations, as BSDS500 is evaluated."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.metrics import contingency_table, variation_of_information
from sklearn.metrics import rand_score

from reference_models.errors import InputError

NAMES = ("covering", "rand", "variation_of_information", "regions")
"""Means over images of means over their annotators.

covering: How well the map's regions cover the annotators', in [0, 1]; higher is better.
rand: Probabilistic Rand index, the share of pixel pairs for which map and annotator agree whether
    both belong to one region; in [0, 1], higher is better.
variation_of_information: H(map | truth) + H(truth | map) in bits, at least 0; lower is better.
regions: Number of regions in the map.
"""


def measure_segmentation(
    maps: np.ndarray | Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> dict[str, float]:
    """Compare label maps with the annotators' label maps of the same image.

    maps: N of `(H, W)`, integers; only which pixels share a label matters, not its number.
    truths: N of `(annotators, H, W)`, integers, each of its own size. A map of another size is
    resized to it (nearest).
    A region is all pixels of one label, in however many pieces. This is what the losses on region
    numbers learn: a region is one channel, wherever it lies, so cutting it in pieces would measure
    a step that they do not have, and speckles would count as regions.

    Covering, Rand index and variation of information are those of Arbelaez, Maire, Fowlkes and
    Malik, Contour Detection and Hierarchical Image Segmentation, TPAMI 2011, 3.1. The covering is
    of the truth by the map; logarithms are to the base 2, as in the BSDS500 benchmark.
    """
    rows = segmentation_each(maps, truths)
    return {name: float(np.mean([row[name] for row in rows])) for name in NAMES}


def segmentation_each(
    maps: np.ndarray | Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> list[dict[str, float]]:
    """As `measure_segmentation`, a row per image."""
    if len(maps) != len(truths) or len(truths) == 0:
        raise InputError(
            f"each map needs one truth and at least one is needed, "
            f"got {len(maps)} maps and {len(truths)} truths"
        )
    rows = []
    for index, (regions, truth) in enumerate(zip(maps, truths, strict=True)):
        if np.ndim(regions) != 2 or not np.issubdtype(regions.dtype, np.integer):
            raise InputError(
                f"maps[{index}] must be integers (height, width), "
                f"got {regions.dtype} {np.shape(regions)}"
            )
        if np.ndim(truth) != 3 or not len(truth) or not np.issubdtype(truth.dtype, np.integer):
            raise InputError(
                f"truths[{index}] must be integers (annotators, height, width), "
                f"got {truth.dtype} {np.shape(truth)}; write truth[None] for one annotator"
            )
        rows.append(one_image(fit(regions, truth.shape[1:]), truth))
    return rows


def fit(regions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The label map at the size `shape`, labels numbered from 0."""
    regions = from_zero(regions)
    if regions.shape == shape:
        return regions
    size = (shape[1], shape[0])
    resized = Image.fromarray(regions.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    return from_zero(np.asarray(resized))


def from_zero(regions: np.ndarray) -> np.ndarray:
    return np.unique(regions, return_inverse=True)[1].reshape(regions.shape)


def one_image(regions: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    annotators = [from_zero(annotated) for annotated in truth]
    ours = regions.ravel()
    return {
        "covering": float(np.mean([covering(theirs, regions) for theirs in annotators])),
        "rand": float(np.mean([rand_score(theirs.ravel(), ours) for theirs in annotators])),
        "variation_of_information": float(
            np.mean([sum(variation_of_information(theirs, regions)) for theirs in annotators])
        ),
        "regions": float(regions.max() + 1),
    }


def covering(truth: np.ndarray, regions: np.ndarray) -> float:
    """The sum over the regions R of the truth of |R| / N · max over R' of |R ∩ R'| / |R ∪ R'|.

    Both are label maps of one shape, numbered from 0.
    """
    both = contingency_table(truth, regions, normalize=False).toarray()
    size = both.sum(axis=1, keepdims=True)
    overlap = both / (size + both.sum(axis=0) - both)
    return float((size[:, 0] * overlap.max(axis=1)).sum() / truth.size)
