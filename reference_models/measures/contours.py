"""F-measure of the contours of a label map, at thresholds of their strength."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from reference_models.measures.segmentation import from_zero, nearest

NAMES = ("contour_ods", "contour_ois")
"""F of precision and recall of the contours, averaged over images.

contour_ods: At the threshold at which this average is highest. contour_ois: At the best threshold
of each image.
"""
THRESHOLDS = np.arange(10) / 10
TOLERANCE = 0.0075
"""The largest distance of two matched pixels, as a share of the diagonal, as for BSDS500."""

Arrays = np.ndarray | Sequence[np.ndarray]
Row = dict[str, float | np.ndarray]


class Matched(NamedTuple):
    """Numbers of contour pixels."""

    found: int
    """Those of the map that match a pixel of any annotator."""
    of_map: int
    recalled: int
    """Those of all annotators that match a pixel of the map."""
    of_truth: int

    @property
    def f(self) -> float:
        """2PR / (P + R); 1 if there is no contour on either side."""
        if not self.of_map and not self.of_truth:
            return 1.0
        precision = self.found / max(self.of_map, 1)
        recall = self.recalled / max(self.of_truth, 1)
        return 2 * precision * recall / max(precision + recall, 1e-9)


def contours_each(maps: Arrays, descriptors: Arrays, truths: Sequence[np.ndarray]) -> list[Row]:
    """F of the contours of each image; ODS as a curve over `THRESHOLDS`.

    maps, truths: As in `measure_segmentation`. descriptors: For each map the softmax outputs
    `(H, W, C)` from which it was made.

    A pixel lies on a contour if its right or lower neighbour has another label. Its strength is
    ½ ‖ŝ_a − ŝ_b‖², from 0 to 1, of the mean descriptors of the two regions of the map; at threshold
    0 the contours are those of the label map. The pixels of map and truth are matched one to one
    within `TOLERANCE`, as many as possible, as in the benchmark of BSDS500. That adds up the counts
    of all images before it computes F. Here F is averaged over images, so that it has an interval.
    """
    rows: list[Row] = []
    for regions, softmax, truth in zip(maps, descriptors, truths, strict=True):
        strength = contour_strength(from_zero(regions), truth.shape[1:], softmax)
        outlines = [
            contour_strength(from_zero(annotated), annotated.shape) > 0 for annotated in truth
        ]
        curve: list[float] = []
        pixels = -1
        for threshold in THRESHOLDS:
            drawn = strength > threshold
            if drawn.sum() == pixels:  # No contour lies between two thresholds.
                curve.append(curve[-1])
                continue
            pixels = int(drawn.sum())
            curve.append(matched(drawn, outlines).f)
        rows.append({"contour_ods": np.array(curve), "contour_ois": max(curve)})
    return rows


def contour_strength(
    regions: np.ndarray, shape: tuple[int, ...], softmax: np.ndarray | None = None
) -> np.ndarray:
    """The strength of the contour at each pixel of `shape`, 0 away from contours.

    regions: Labels from 0. softmax: The descriptors. Default: every contour has the strength 1.
    """
    number = int(regions.max()) + 1
    contrast = 1 - np.eye(number)
    if softmax is not None:
        means = np.stack([softmax[regions == label].mean(axis=0) for label in range(number)])
        contrast = ((means[:, None] - means) ** 2).sum(axis=-1) / 2
    regions = nearest(regions, shape)
    strength = np.zeros(shape)
    across = contrast[regions[:, :-1], regions[:, 1:]]
    down = contrast[regions[:-1], regions[1:]]
    strength[:, :-1] = across
    strength[:-1] = np.maximum(strength[:-1], down)
    return strength


def matched(drawn: np.ndarray, outlines: Sequence[np.ndarray]) -> Matched:
    """Match the contour pixels of a map with those of each annotator, bool `(H, W)`."""
    places = np.argwhere(drawn)
    reach = TOLERANCE * np.hypot(*drawn.shape)
    found = np.zeros(len(places), bool)
    recalled = 0
    for outline in outlines:
        others = np.argwhere(outline)
        if not len(places) or not len(others):
            continue
        near = cKDTree(places).sparse_distance_matrix(cKDTree(others), reach, output_type="ndarray")
        pairs = coo_array(
            (np.ones(len(near), bool), (near["i"], near["j"])), (len(places), len(others))
        )
        is_matched = maximum_bipartite_matching(pairs.tocsr(), perm_type="column") >= 0
        found |= is_matched
        recalled += int(is_matched.sum())
    return Matched(
        int(found.sum()), len(places), recalled, int(sum(outline.sum() for outline in outlines))
    )
