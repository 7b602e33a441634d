"""Contours of label maps: their strength, their matching, and F at thresholds."""

import numpy as np
import pytest

from reference_models.measures.contours import contour_strength, contours_each
from reference_models.measures.sparsity import sparse_share, sparse_share_of_map

SIDE = 100  # Its diagonal, 141 px, allows a distance of 1.06 px.


def halves(at: int) -> np.ndarray:
    """Two regions with a contour on column `at`."""
    return np.tile((np.arange(SIDE) > at).astype(int), (SIDE, 1))


def one_hot(regions: np.ndarray, channels: int = 3) -> np.ndarray:
    return np.eye(channels, dtype=np.float32)[regions]


def row(regions: np.ndarray, softmax: np.ndarray, *annotators: np.ndarray) -> dict:
    (one,) = contours_each([regions], [softmax], [np.stack(annotators)])
    return one


@pytest.mark.parametrize(("shift", "f"), [(0, 1.0), (1, 1.0), (2, 0.0)])
def test_contours_match_within_the_tolerance(shift: int, f: float):
    regions = halves(40 + shift)
    one = row(regions, one_hot(regions), halves(40))
    np.testing.assert_allclose(one["contour_ods"], f)
    assert one["contour_ois"] == pytest.approx(f)


def test_pixels_are_matched_one_to_one():
    """Two lines side by side: half of their pixels are false alarms."""
    regions = halves(40) + halves(41)
    one = row(regions, one_hot(regions), halves(40))
    precision, recall = 0.5, 1.0
    assert one["contour_ois"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_every_annotator_counts_in_the_recall_and_any_in_the_precision():
    regions = halves(40)
    one = row(regions, one_hot(regions), halves(40), halves(70))
    assert one["contour_ois"] == pytest.approx(2 * 1.0 * 0.5 / 1.5)


def test_a_threshold_removes_weak_contours():
    """The true contour has strength 1, a false one ½ (0.5² + 0.5²) = .25."""
    regions = halves(40) + halves(70)
    softmax = np.array([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]], np.float32)[regions]
    strength = contour_strength(regions, regions.shape, softmax)
    assert set(np.unique(strength)) == {0, 0.25, 1}
    assert (strength[:, 40] == 1).all()
    assert (strength[:, 70] == 0.25).all()
    one = row(regions, softmax, halves(40))
    np.testing.assert_allclose(one["contour_ods"], [2 / 3] * 3 + [1] * 7)
    assert one["contour_ois"] == pytest.approx(1)


def test_a_map_of_another_size_keeps_the_strengths_of_its_regions():
    """A third region of one pixel is lost, and its number is between those of the others."""
    regions = 2 * halves(49)
    regions[0, 0] = 1
    softmax = np.array([[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0]], np.float32)[regions]
    strength = contour_strength(regions, (SIDE // 2, SIDE // 2), softmax)
    assert set(np.unique(strength)) == {0, 0.25}
    assert (strength[:, 24] == 0.25).all()


def test_maps_without_contours():
    flat = np.zeros((SIDE, SIDE), int)
    assert row(flat, one_hot(flat), halves(40))["contour_ois"] == 0
    assert row(flat, one_hot(flat), flat)["contour_ois"] == 1


def test_sparse_descriptors():
    descriptors = np.array([[[0.995, 0.005, 0], [0.5, 0.5, 0]], [[0, 0, 1], [0.98, 0.01, 0.01]]])
    assert sparse_share(descriptors) == 0.5
    assert sparse_share_of_map(np.array([[0, 0.995], [0.5, 0.98]])) == 0.5
