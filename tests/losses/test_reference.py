"""The references against cases worked by hand, and against independent programs."""

import ast
import math
from collections.abc import Callable
from math import exp, log, pi, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from scipy.spatial.distance import cdist
from scipy.special import softmax
from sklearn.metrics import log_loss

from saliency_losses import reference as ref

# Every value below is a handful of float64 operations away from the reference's.
close = pytest.approx
seeds = st.integers(0, 2**32 - 1)


def column(*values: float) -> np.ndarray:
    """One feature channel, one value per pixel."""
    return np.array(values, dtype=np.float64)[:, None]


def row(*values: float) -> np.ndarray:
    """An image one pixel high: spatial rank 2, distances as on a line."""
    return np.array([values], dtype=np.float64)


def test_imports_nothing_of_the_package() -> None:
    with open(ref.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "." for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= {"collections.abc", "math", "typing", "numpy", "numpy.typing"}


# Metric loss


class TestMetricLoss:
    # S = {0, 2}, B = {5}: μ_S = 1, μ_B = 5.
    features, labels = column(0, 2, 5), np.array([1, 1, 0])

    def test_centroid(self) -> None:
        # 0: 1 − 25 = −24;  2: 1 − 9 = −8;  5: 0 − 16 = −16;  mean −48/3.
        assert ref.metric_loss(self.features, self.labels) == close(-16)

    def test_pairwise(self) -> None:
        # 0: (0 + 4)/2 − 25 = −23;  2: (4 + 0)/2 − 9 = −7;  5: 0 − (25 + 9)/2 = −17;  mean −47/3.
        assert ref.metric_loss(self.features, self.labels, form="pairwise") == close(-47 / 3)

    def test_channels_add_up(self) -> None:
        # Each region one pixel: −‖(3, 4)‖² = −25 in both forms.
        for form in ("centroid", "pairwise"):
            assert ref.metric_loss([[3, 4], [0, 0]], [1, 0], form=form) == close(-25)

    def test_normalize(self) -> None:
        # (3, 4) becomes (0.6, 0.8); the zero vector stays, as does a length below 1e-12.
        assert ref.metric_loss([[3, 4], [0, 0]], [1, 0], normalize=True) == close(-1)
        assert ref.metric_loss([[3, 4], [6e-13, 6e-13]], [1, 0], normalize=True) == close(-1)
        # A length of 2e-12 is one: (3, 4) against (0, 1): −(0.36 + 0.04).
        assert ref.metric_loss([[3, 4], [0, 2e-12]], [1, 0], normalize=True) == close(-0.4)
        # Opposite directions attain the lower bound.
        assert ref.metric_loss(column(9, -0.1), [1, 0], normalize=True) == close(-4)

    def test_hard_negatives(self) -> None:
        # S = {0}, B = {3, 1, 8}: μ_S = 0, μ_B = 4. Per pixel 0: −16;  3: 1 − 9 = −8;
        # 1: 9 − 1 = 8;  8: 16 − 64 = −48. Kept: −16 and 8.
        features, labels = column(0, 3, 1, 8), np.array([1, 0, 0, 0])
        assert ref.metric_loss(features, labels) == close(-16)
        assert ref.metric_loss(features, labels, hard_negatives=True) == close(-4)
        assert ref.metric_loss(features, 1 - labels, hard_negatives=True) == close(-4)

    def test_hard_negatives_keep_two_of_three(self) -> None:
        # S = {0, 2}, B = {8, 1, 6}: μ_S = 1, μ_B = 5. 0: 1 − 25 = −24;  2: 1 − 9 = −8;
        # 8: 9 − 49 = −40;  1: 16 − 0 = 16;  6: 1 − 25 = −24. Kept: −24, −8, 16, −24.
        loss = ref.metric_loss(column(0, 2, 8, 1, 6), [1, 1, 0, 0, 0], hard_negatives=True)
        assert loss == close(-10)

    def test_hard_negatives_of_equal_regions_keep_all(self) -> None:
        features, labels = column(0, 1, 3, 8), np.array([1, 0, 1, 0])
        # μ_S = 1.5, μ_B = 4.5.
        assert ref.metric_loss(features, labels, hard_negatives=True) == close(-9)

    def test_hard_negatives_tie(self) -> None:
        # S = {0}, B = {2, 2}: −4 and the equal −4, −4. One of the two is kept.
        assert ref.metric_loss(column(0, 2, 2), [1, 0, 0], hard_negatives=True) == close(-4)

    @pytest.mark.parametrize("options", [{}, {"form": "pairwise"}, {"hard_negatives": True}])
    @pytest.mark.parametrize("label", [0, 1])
    def test_one_region_is_zero(self, options: dict[str, Any], label: int) -> None:
        assert ref.metric_loss(self.features, [label] * 3, **options) == 0
        assert ref.metric_loss(self.features, self.labels, mask=[False] * 3, **options) == 0
        one_left = self.labels == label
        assert ref.metric_loss(self.features, self.labels, mask=one_left, **options) == 0

    def test_mask_removes(self) -> None:
        features = column(0, 1e300, 2, 5)
        labels, mask = np.array([1, 9, 1, 0]), np.array([True, False, True, True])
        assert ref.metric_loss(features, labels, mask=mask) == close(-16)
        assert ref.metric_loss(features, labels, form="pairwise", mask=mask) == close(-47 / 3)

    def test_bool_labels(self) -> None:
        assert ref.metric_loss(self.features, self.labels == 1) == close(-16)

    def test_large_offset(self) -> None:
        # S = {0, 1, 3}, B = {8} in eighths: μ_S = 4/3, −(20/3)²/64. The shifted features are
        # exact, but μ_S + 2⁴⁰ is not: its last bit is 2⁻¹².
        features = column(0, 1, 3, 8) / 8
        for offset in (0.0, 2.0**40):
            loss = ref.metric_loss(features + offset, [1, 1, 1, 0])
            assert loss == close(-400 / 9 / 64, rel=1e-14)

    @given(seeds, st.integers(1, 4))
    def test_identities(self, seed: int, channels: int) -> None:
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(3, 5, channels)) * rng.uniform(0.1, 10)
        labels = rng.permutation(np.r_[0, 1, rng.integers(0, 2, 13)]).reshape(3, 5)
        s, b = features[labels == 1], features[labels == 0]
        between = ((s.mean(0) - b.mean(0)) ** 2).sum()
        v_s, v_b = (((r - r.mean(0)) ** 2).sum(1).mean() for r in (s, b))
        assert ref.metric_loss(features, labels) == close(-between, rel=1e-10, abs=1e-10)
        expected = -between + (len(s) - len(b)) * (v_s - v_b) / 15
        pairwise = ref.metric_loss(features, labels, form="pairwise")
        assert pairwise == close(expected, rel=1e-10, abs=1e-10)
        assert ref.metric_loss(features, labels, normalize=True) >= -4


class TestSemanticDistance:
    features = np.array([[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]])

    def test_by_hand(self) -> None:
        # Weights 1/2, 0, 1/2: the background is (1.5, 2), of length 2.5.
        result = ref.semantic_distance(self.features, [2, 0, 2])
        assert_allclose(result, [2.5, 7.5, 2.5])

    def test_no_background_is_the_zero_vector(self) -> None:
        assert_allclose(ref.semantic_distance(self.features, [0, 0, 0]), [5, 10, 0])

    def test_tiny_distance_is_zero(self) -> None:
        assert_array_equal(ref.semantic_distance(column(0, 9e-13), [1, 0]), [0, 0])
        assert_allclose(ref.semantic_distance(column(0, 2e-12), [1, 0]), [0, 2e-12])

    def test_shape(self) -> None:
        assert ref.semantic_distance(np.ones((2, 3, 4)), np.ones((2, 3))).shape == (2, 3)


# Class-agnostic losses


class TestCasLoss:
    # Region 0 is half (1, 0), half (0, 1): ŝ_0 = (½, ½), spread ¼ + ¼. Region 1: ŝ_1 = (1, 0).
    # ‖ŝ_0 − ŝ_1‖² = ½, and there are two ordered pairs.
    probs, labels = np.array([[1, 0], [0, 1], [1, 0]]), np.array([0, 0, 1])

    def test_by_hand(self) -> None:
        assert ref.cas_loss(self.probs, self.labels) == close(0.5 * 0.5 - 0.5 * 1)
        assert ref.cas_loss(self.probs, self.labels, alpha=0.9) == close(0.9 * 0.5 - 0.1 * 1)

    def test_average_regions(self) -> None:
        # ½ over two regions, 1 over two pairs.
        loss = ref.cas_loss(self.probs, self.labels, average_regions=True)
        assert loss == close(0.5 * 0.25 - 0.5 * 0.5)

    @pytest.mark.parametrize("average", [False, True])
    def test_absent_regions_do_not_count(self, average: bool) -> None:
        options = {"average_regions": average}
        expected = ref.cas_loss(self.probs, self.labels, **options)
        assert ref.cas_loss(self.probs, self.labels * 3, num_regions=5, **options) == expected

    def test_one_region(self) -> None:
        # The spread ½ alone.
        for average in (False, True):
            loss = ref.cas_loss(self.probs[:2], [1, 1], alpha=0.9, average_regions=average)
            assert loss == close(0.45)

    def test_lower_bound_is_attained(self) -> None:
        # Three regions, three corners: six ordered pairs at distance² 2.
        loss = ref.cas_loss(np.eye(3), [0, 1, 2], num_regions=3, alpha=0.25)
        assert loss == close(-0.75 * 12) == -2 * 0.75 * 3 * 2
        assert ref.cas_loss(
            np.eye(3), [0, 1, 2], num_regions=3, alpha=0.25, average_regions=True
        ) == close(-2 * 0.75)

    def test_upper_bound_is_attained(self) -> None:
        # Both regions half (1, 0), half (0, 1): no difference of means, α R (1 − 1/M) = 0.5·2·½.
        probs = np.array([[1, 0], [0, 1], [1, 0], [0, 1]])
        assert ref.cas_loss(probs, [0, 0, 1, 1]) == close(0.5)

    def test_mask_removes(self) -> None:
        probs = np.array([[1, 0], [1e300, -5], [0, 1], [1, 0]])
        labels, mask = np.array([0, 77, 0, 1]), np.array([True, False, True, True])
        assert ref.cas_loss(probs, labels, mask=mask) == close(-0.25)
        assert ref.cas_loss(probs, labels, mask=np.zeros(4, bool)) == 0

    @given(seeds, st.integers(2, 5), st.integers(2, 4), st.floats(0, 1))
    def test_bounds_and_permutation(self, seed: int, m: int, r: int, alpha: float) -> None:
        rng = np.random.default_rng(seed)
        probs = softmax(rng.normal(size=(4, 3, m)) * rng.uniform(0, 20), axis=-1)
        labels = rng.integers(0, r, (4, 3))
        options: dict[str, Any] = {"num_regions": r, "alpha": alpha}
        loss = ref.cas_loss(probs, labels, **options)
        present = len(np.unique(labels))
        low = -2 * (1 - alpha) * present * (present - 1)
        assert low - 1e-12 <= loss <= alpha * present * (1 - 1 / m) + 1e-12
        mean = ref.cas_loss(probs, labels, average_regions=True, **options)
        assert -2 * (1 - alpha) - 1e-12 <= mean <= alpha * (1 - 1 / m) + 1e-12
        assert ref.cas_loss(probs, rng.permutation(r)[labels], **options) == close(loss, abs=1e-12)


class TestClassAgnosticCrossEntropy:
    # Softmax of (0, log 3) is (¼, ¾): −log p is log 4 for label 0, log 4/3 for label 1.
    logits = np.tile([0, log(3)], (3, 1))

    @pytest.mark.parametrize("labels", [[0, 0, 1], [1, 1, 0]])
    def test_per_image(self, labels: list[int]) -> None:
        # With 0, 0, 1 the cross-entropy is (2 log 4 + log 4/3)/3, exchanged the smaller below.
        loss = ref.class_agnostic_cross_entropy(self.logits, labels)
        assert loss == close((log(4) + 2 * log(4 / 3)) / 3)

    def test_per_pixel(self) -> None:
        loss = ref.class_agnostic_cross_entropy(self.logits, [0, 0, 1], per="pixel")
        assert loss == close(log(4 / 3))

    def test_large_logits(self) -> None:
        # Direct 1000 and 0, exchanged 0 and 1000.
        logits = np.array([[1000, 0], [1000, 0]])
        assert ref.class_agnostic_cross_entropy(logits, [1, 0]) == close(500)
        assert ref.class_agnostic_cross_entropy(logits, [1, 0], per="pixel") == 0

    @pytest.mark.parametrize("per", ["image", "pixel"])
    def test_mask_removes(self, per: str) -> None:
        logits = np.insert(self.logits, 1, [1e300, -1e300], axis=0)
        mask = np.array([True, False, True, True])
        masked = ref.class_agnostic_cross_entropy(logits, [0, 9, 0, 1], per=per, mask=mask)
        assert masked == ref.class_agnostic_cross_entropy(self.logits, [0, 0, 1], per=per)
        assert ref.class_agnostic_cross_entropy(logits, [0] * 4, per=per, mask=mask & ~mask) == 0

    @given(seeds)
    def test_against_sklearn(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        logits, labels = rng.normal(size=(3, 4, 2)), rng.integers(0, 2, (3, 4))
        p = softmax(logits, axis=-1).reshape(-1, 2)
        both = [log_loss(y.ravel(), p, labels=[0, 1]) for y in (labels, 1 - labels)]
        assert ref.class_agnostic_cross_entropy(logits, labels) == close(min(both))
        expected = -np.log(p.max(axis=1)).mean()
        assert ref.class_agnostic_cross_entropy(logits, labels, per="pixel") == close(expected)


# Weighted F-beta


class TestDistanceWeights:
    def test_window_by_hand(self) -> None:
        # exp(ln(0.5)/5 · Δ) = 0.5^(Δ/5), Δ = 1, 4, 9, 16, 25; beyond φ = 5 nothing is left of it.
        expected = [1, 2 - 0.5**0.2, 2 - 0.5**0.8, 2 - 0.5**1.8, 2 - 0.5**3.2, 2 - 0.5**5, 2, 2]
        result = ref.distance_weights(row(1, 0, 0, 0, 0, 0, 0, 0))
        assert_allclose(result, [expected], rtol=1e-14)

    def test_euclidean_by_hand(self) -> None:
        # Δ = 3, √10, √13 to the corner in three rows and four columns; its own weight is 1.
        target = np.zeros((3, 4))
        target[0, 0] = 1
        result = ref.distance_weights(target, distance="euclidean")
        assert_allclose(result[:, 3], 2 - 0.5 ** (np.sqrt([9, 10, 13]) / 5), rtol=1e-14)
        assert result[0, 0] == 1
        assert ref.distance_weights(row(1, *[0] * 50), distance="euclidean")[0, 50] == close(
            2 - 0.5**10, rel=1e-14
        )

    def test_window_is_a_disc(self) -> None:
        target = np.zeros((6, 6))
        target[0, 0] = 1
        result = ref.distance_weights(target)
        assert result[3, 4] == close(2 - 0.5**5, rel=1e-14)  # distance 5, at the rim
        assert result[4, 4] == 2  # distance 5.66, outside though both offsets are below φ

    def test_phi(self) -> None:
        assert_array_equal(ref.distance_weights(row(1, 0, 0), phi=0), [[1, 2, 2]])
        assert_allclose(ref.distance_weights(row(1, 0, 0), phi=1), [[1, 2 - 0.5**0.2, 2]])

    @pytest.mark.parametrize("distance", ["window", "euclidean"])
    def test_no_foreground_and_nothing_else(self, distance: str) -> None:
        assert_array_equal(ref.distance_weights(row(0, 0), distance=distance), [[2, 2]])
        assert_array_equal(ref.distance_weights(row(1, 1), distance=distance), [[1, 1]])

    def test_masked_foreground_is_absent(self) -> None:
        # The left foreground is removed: its pixel is background, 2 from the right one.
        result = ref.distance_weights(row(1, 0, 1), mask=[[False, True, True]])
        assert_allclose(result, [[2 - 0.5**0.8, 2 - 0.5**0.2, 1]], rtol=1e-14)
        masked = ref.distance_weights(row(1, 0, 1), mask=[[False, True, False]])
        assert_array_equal(masked, [[2, 2, 2]])

    @given(seeds, st.sampled_from([(7, 9), (1, 12), (4, 5, 3)]))
    def test_against_scipy(self, seed: int, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(seed)
        target = rng.random(shape) < rng.uniform(0.02, 0.5)
        target.flat[rng.integers(target.size)] = True
        d = ndimage.distance_transform_edt(~target)
        euclidean = np.where(target, 1, 2 - np.exp(log(0.5) / 5 * d))
        assert_allclose(ref.distance_weights(target, distance="euclidean"), euclidean, rtol=1e-13)
        window = np.where(d < 3 + 1e-9, 2 - np.exp(log(0.5) / 5 * d**2), 2)
        assert_allclose(ref.distance_weights(target, phi=3), np.where(target, 1, window))


# θ = 2: σ = ½, g(d) = G·exp(−2d²). G < 1, so that A lowers lonely errors; with θ = 1, σ = ¼,
# g(0) = 1.6 and it does not.
G = sqrt(2 / pi)


class TestWeightedFbeta:
    def test_by_hand(self) -> None:
        # E = ½, 0 | 0, ½. AE_0 = G/2 < ½, AE_1 > 0 = E_1. B = 2 − 0.5^(2/5) two pixels away.
        target, probs = row(1, 1, 0, 0), row(0.5, 1, 0, 0.5)
        tp, fn, fp = 2 - G / 2, G / 2, (2 - 0.5**0.4) / 2
        score = ref.weighted_fbeta_score(probs, target, theta=2)
        assert score == close(2 * tp / (2 * tp + fn + fp), rel=1e-14)
        # β = 2: 5 TP / (5 TP + 4 FN + FP).
        score = ref.weighted_fbeta_score(probs, target, theta=2, beta=2)
        assert score == close(5 * tp / (5 * tp + 4 * fn + fp), rel=1e-14)

    def test_loss_by_hand(self) -> None:
        # The same with squared errors, ¼, and Δ = 2² in B.
        target, probs = row(1, 1, 0, 0), row(0.5, 1, 0, 0.5)
        tp, fn, fp = 2 - G / 4, G / 4, (2 - 0.5**0.8) / 4
        loss = ref.weighted_fbeta_loss(probs, target, theta=2)
        assert loss == close(1 - 2 * tp / (2 * tp + fn + fp), rel=1e-13)

    def test_errors_together_weigh_more(self) -> None:
        # Two neighbours of error ½: AE = (G + G·e^−2)/2 at both. The third is far: 10 > θ.
        target, probs = row(1, 1, *[0] * 8, 1), row(0.5, 0.5, *[0] * 8, 1)
        fn = G + G * exp(-2)
        score = ref.weighted_fbeta_score(probs, target, theta=2)
        assert score == close(2 * (3 - fn) / (2 * (3 - fn) + fn), rel=1e-14)

    def test_background_errors_are_not_smoothed(self) -> None:
        # Foreground right, E = ½ beside it: neither spread to the foreground nor scaled by G.
        fp = (2 - 0.5**0.2) / 2
        score = ref.weighted_fbeta_score(row(1, 0.5), row(1, 0), theta=2)
        assert score == close(2 / (2 + fp), rel=1e-14)
        # Nor does it count in AE of a wrong foreground pixel.
        tp, fn = 1 - G / 2, G / 2
        score = ref.weighted_fbeta_score(row(0.5, 0.5), row(1, 0), theta=2)
        assert score == close(2 * tp / (2 * tp + fn + fp), rel=1e-14)

    @pytest.mark.parametrize(("apart", "seen"), [(9, True), (10, False)])
    def test_window_cuts_beyond_theta(self, apart: int, seen: bool) -> None:
        # θ = 9, σ² = 81/16: two foreground pixels of error ½.
        g = 1 / sqrt(2 * pi * 81 / 16)
        tail = exp(-(apart**2) * 8 / 81)
        target = row(1, *[0] * (apart - 1), 1)
        probs = target / 2

        def score(ae: float) -> float:
            return 2 * (2 - 2 * ae) / (2 * (2 - 2 * ae) + 2 * ae)

        cut = ref.weighted_fbeta_score(probs, target)
        assert cut == close(score(g / 2 * (1 + tail * seen)), rel=1e-14)
        exact = ref.exact_weighted_fbeta_score(probs, target)
        assert exact == close(score(g / 2 * (1 + tail)), rel=1e-14)
        assert (cut == close(exact, rel=1e-9)) == seen

    def test_window_is_a_square(self) -> None:
        # Offset (2, 2), d² = 8: inside with θ = 2 though its distance is not.
        target = np.zeros((3, 3))
        target[0, 0] = target[2, 2] = 1
        fn = G * (1 + exp(-16))
        score = ref.weighted_fbeta_score(target / 2, target, theta=2)
        assert score == close(2 * (2 - fn) / (2 * (2 - fn) + fn), rel=1e-15)
        # So near 1 that e^−16 has to be looked for.
        assert score != close(2 * (2 - G) / (2 * (2 - G) + G), rel=1e-9)

    @pytest.mark.parametrize("rank", [2, 3])
    def test_normalize_kernel(self, rank: int) -> None:
        # The window of θ = 1 has 1 + 2e^−8 per axis, also where it leaves the image.
        target = np.ones((1,) * (rank - 1) + (2,))
        probs = np.array([0.5, 1]).reshape(target.shape)
        ae = 0.5 / (1 + 2 * exp(-8)) ** rank
        score = ref.weighted_fbeta_score(probs, target, theta=1, normalize_kernel=True)
        assert score == close(2 * (2 - ae) / (2 * (2 - ae) + ae), rel=1e-14)

    def test_nothing_found_scores_zero(self) -> None:
        # θ = 1: AE > E = 1, so TP = 0.
        assert ref.weighted_fbeta_score(row(0, 0), row(1, 0), theta=1) == 0
        assert ref.weighted_fbeta_loss(row(0, 1), row(1, 0), theta=1) == 1

    def test_perfect(self) -> None:
        for target in (row(1, 0, 1), row(1, 1), row(0, 0)):
            assert ref.weighted_fbeta_loss(target, target) == 0
            assert ref.weighted_fbeta_score(target, target) == 1
            assert ref.exact_weighted_fbeta_score(target, target) == 1

    def test_no_foreground(self) -> None:
        # B = 2 and A = 1: the mean of E = ½, ¼, or of E = ¼, 1/16.
        probs, target = row(0.5, 0.25), row(0, 0)
        assert ref.weighted_fbeta_score(probs, target) == close(1 - 0.375)
        assert ref.exact_weighted_fbeta_score(probs, target) == close(1 - 0.375)
        assert ref.weighted_fbeta_loss(probs, target) == close(0.15625)
        assert ref.weighted_fbeta_loss(probs, target, distance="euclidean") == close(0.15625)
        # The mean is over counted pixels; removed foreground is none.
        mask = np.array([[True, False]])
        assert ref.weighted_fbeta_loss(probs, row(0, 1), mask=mask) == close(0.25)
        # Given weights 1 and 0: E^w/2 = 1/8, 0.
        loss = ref.weighted_fbeta_loss(probs, target, distance_weights=row(1, 0))
        assert loss == close(0.0625)

    def test_no_counted_pixel(self) -> None:
        probs, target, mask = row(0.5, 0.5), row(1, 0), np.zeros((1, 2), bool)
        assert ref.weighted_fbeta_loss(probs, target, mask=mask) == 0
        assert ref.weighted_fbeta_score(probs, target, mask=mask) == 1
        assert ref.exact_weighted_fbeta_score(probs, target, mask=mask) == 1

    def test_mask_means_neither_error_nor_foreground(self) -> None:
        mask = np.array([[True, True, True, True, False]])
        for f in (
            ref.weighted_fbeta_loss,
            ref.weighted_fbeta_score,
            ref.exact_weighted_fbeta_score,
        ):
            expected = f(row(0.5, 0.5, 0, 0.5, 0), row(1, 1, 0, 0, 0), theta=2)
            for p, y in ((0, 1), (1, 0), (1e300, 1), (-5, 255)):
                probs, target = row(0.5, 0.5, 0, 0.5, p), row(1, 1, 0, 0, y)
                assert f(probs, target, theta=2, mask=mask) == expected

    def test_given_weights_replace_the_distance(self) -> None:
        # All weights 1: FP = ½ where B would have been 2 − 0.5^(2/5).
        target, probs = row(1, 1, 0, 0), row(0.5, 1, 0, 0.5)
        tp, fn, fp = 2 - G / 2, G / 2, 0.5
        score = ref.weighted_fbeta_score(probs, target, theta=2, distance_weights=row(1, 1, 1, 1))
        assert score == close(2 * tp / (2 * tp + fn + fp), rel=1e-14)

    def test_given_weights_do_not_weigh_misses(self) -> None:
        target, probs = row(1, 1, 0, 0), row(0.5, 1, 0, 0.5)
        for heavy in (1, 7):
            score = ref.weighted_fbeta_score(
                probs, target, theta=2, distance_weights=row(heavy, heavy, heavy, 1)
            )
            tp, fn, fp = 2 - G / 2, G / 2, 0.5
            assert score == close(2 * tp / (2 * tp + fn + fp), rel=1e-14)

    def test_soft_target_by_hand(self) -> None:
        # y = 0.9, 0.4, 0.2, 0; p = 0.4, 0.6, 0.1, 0: a miss of ½, an alarm of 0.2 one pixel from
        # the foreground (y > ½: the first alone), a miss of 0.1 two pixels from the other.
        target, probs = row(0.9, 0.4, 0.2, 0), row(0.4, 0.6, 0.1, 0)
        fn = G * (0.5 + 0.1 * exp(-8)) + min(0.1, G * (0.1 + 0.5 * exp(-8)))
        fp = 0.2 * (2 - 0.5**0.2)
        tp = 1.5 - fn
        score = ref.weighted_fbeta_score(probs, target, theta=2)
        assert score == close(2 * tp / (2 * tp + fn + fp), rel=1e-12)
        assert ref.weighted_fbeta_score(probs, target, theta=2) == close(
            ref.exact_weighted_fbeta_score(probs, target, theta=2), rel=1e-3
        )

    def test_soft_target_without_foreground(self) -> None:
        # No y above ½: every false alarm weighs 2; but Σ y = 0.6 is there to be found.
        score = ref.weighted_fbeta_score(row(0.4, 0.5), row(0.4, 0.2))
        assert score == close(2 * 0.6 / (2 * 0.6 + 2 * 0.3), rel=1e-12)

    def test_soft_target_of_dice(self) -> None:
        # A and B off: 2 Σ min(p, y) / (Σ p + Σ y). With θ = 1 the kernel's middle is above 1.
        probs, target = row(0.5, 0.9, 0, 0.3), row(0.7, 0.2, 0, 1)
        score = ref.weighted_fbeta_score(probs, target, theta=1, distance_weights=np.ones((1, 4)))
        shared = 0.5 + 0.2 + 0.3
        assert score == close(2 * shared / (probs.sum() + target.sum()), rel=1e-12)

    def test_soft_target_perfect(self) -> None:
        for target in (row(0.3, 0.9, 0.5), row(0.1, 0.2), row(1e-30, 0)):
            assert ref.weighted_fbeta_loss(target, target) == 0
            assert ref.exact_weighted_fbeta_score(target, target) == 1

    @given(seeds, st.sampled_from([(9, 12), (20, 1), (4, 5, 6)]), st.booleans())
    def test_against_scipy(self, seed: int, shape: tuple[int, ...], normalize: bool) -> None:
        rng = np.random.default_rng(seed)
        y, p = (rng.random(shape) < 0.6).astype(float), rng.random(shape)
        y.flat[0] = 1
        theta, beta = int(rng.integers(1, 6)), float(rng.uniform(0.3, 2))
        line = np.exp(-(np.arange(-theta, theta + 1) ** 2) * 8 / theta**2)
        kernel = (
            line[:, None] * line if len(shape) == 2 else line[:, None, None] * np.outer(line, line)
        )
        kernel /= kernel.sum() if normalize else sqrt(2 * pi) * theta / 4
        e = (p - y) ** 2
        ae = np.where(y == 1, ndimage.convolve(y * e, kernel, mode="constant"), e)
        d = ndimage.distance_transform_edt(y == 0)
        w = np.minimum(ae, e) * np.where(y == 1, 1, 2 - 0.5 ** (d / 5))
        tp, fp = (y * (1 - w)).sum(), ((1 - y) * w).sum()
        precision, recall = tp / (tp + fp), tp / y.sum()
        f = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        options: dict[str, Any] = {
            "theta": theta,
            "beta": beta,
            "distance": "euclidean",
            "error": "squared",
            "normalize_kernel": normalize,
        }
        assert ref.weighted_fbeta_score(p, y, **options) == close(f, rel=1e-12)
        assert ref.weighted_fbeta_loss(p, y, **options) == close(1 - f, rel=1e-12, abs=1e-12)

    @given(seeds, st.sampled_from([(6, 25), (3, 4, 5)]), st.integers(1, 12))
    def test_exact_score_against_the_matrix(
        self, seed: int, shape: tuple[int, ...], theta: int
    ) -> None:
        # W eq. 2 to 6 with the n × n matrix A.
        rng = np.random.default_rng(seed)
        y, p = (rng.random(shape) < 0.3).ravel().astype(float), rng.random(shape).ravel()
        y[0] = 1
        at = np.argwhere(np.ones(shape))
        d, e, sigma = cdist(at, at), np.abs(p - y), theta / 4
        a = np.outer(y, y) * np.exp(-(d**2) / (2 * sigma**2)) / sqrt(2 * pi * sigma**2)
        a += np.diag(1 - y)
        delta = d[:, y == 1].min(axis=1)
        w = np.minimum(a @ e, e) * np.where(y == 1, 1, 2 - np.exp(log(0.5) / 5 * delta))
        tp, fp, fn = ((1 - w) * y).sum(), (w * (1 - y)).sum(), (w * y).sum()
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        f = 2 * precision * recall / (precision + recall)
        p, y = p.reshape(shape), y.reshape(shape)
        assert ref.exact_weighted_fbeta_score(p, y, theta=theta) == close(f, rel=1e-12)
        # Whatever the image, the cut costs less than the tail beyond 4σ.
        assert ref.weighted_fbeta_score(p, y, theta=theta) == close(f, abs=1e-2)


# Anchor softmax


class TestAnchors:
    # Distances of (0, 0): 0 and 5; of (3, 0): 3 and 4.
    anchors = np.array([[0.0, 0.0], [3.0, 4.0]])
    features = np.array([[0.0, 0.0], [3.0, 0.0]])

    def test_probabilities_by_hand(self) -> None:
        p, q = 1 / (1 + exp(-5)), 1 / (1 + exp(-1))
        result = ref.anchor_probabilities(self.features, self.anchors)
        assert_allclose(result, [[p, 1 - p], [q, 1 - q]], rtol=1e-13)

    def test_loss_by_hand(self) -> None:
        # −log p = log(1 + e^−5) for pixel 0 and anchor 0, log(1 + e) for pixel 1 and anchor 1.
        loss = ref.anchor_softmax_loss(self.features, self.anchors, [0, 1])
        assert loss == close((log(1 + exp(-5)) + log(1 + exp(1))) / 2, rel=1e-14)

    def test_three_regions(self) -> None:
        # Distances 0, 1, 3.
        anchors, total = column(0, 1, -3), 1 + exp(-1) + exp(-3)
        result = ref.anchor_probabilities(column(0), anchors)
        assert_allclose(result, [[1 / total, exp(-1) / total, exp(-3) / total]])
        assert ref.anchor_softmax_loss(column(0), anchors, [2]) == close(log(total) + 3)

    def test_far_anchors(self) -> None:
        # Distances 1000 and 3000: the probability underflows, its logarithm must not.
        assert ref.anchor_softmax_loss(column(0), column(1000, -3000), [1]) == close(2000)

    def test_tiny_distance_is_zero(self) -> None:
        result = ref.anchor_probabilities(column(0), column(0, 9e-13))
        assert_array_equal(result, [[0.5, 0.5]])

    def test_mask_removes(self) -> None:
        features = np.insert(self.features, 1, 1e300, axis=0)
        mask = np.array([True, False, True])
        masked = ref.anchor_softmax_loss(features, self.anchors, [0, -9, 1], mask=mask)
        assert masked == ref.anchor_softmax_loss(self.features, self.anchors, [0, 1])
        assert ref.anchor_softmax_loss(features, self.anchors, [0] * 3, mask=mask & ~mask) == 0

    def test_region_anchors_by_hand(self) -> None:
        # (1·0 + 3·2)/4 = 1.5; no weight; hard weights choose.
        weights = [[1, 0, 0], [3, 0, 0], [0, 0, 1]]
        assert_allclose(ref.region_anchors(column(0, 2, 5), weights), [[1.5], [0], [5]])

    @given(seeds)
    def test_against_scipy(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        features, weights = rng.normal(size=(4, 3, 5)), rng.random((4, 3, 2))
        anchors = ref.region_anchors(features, weights)
        for r in range(2):
            expected = np.average(features.reshape(12, 5), axis=0, weights=weights[..., r].ravel())
            assert_allclose(anchors[r], expected, rtol=1e-12)
        p = softmax(-cdist(features.reshape(12, 5), anchors), axis=1)
        result = ref.anchor_probabilities(features, anchors)
        assert_allclose(result, p.reshape(4, 3, 2), rtol=1e-12)
        labels = rng.integers(0, 2, (4, 3))
        expected = log_loss(labels.ravel(), p, labels=[0, 1])
        assert ref.anchor_softmax_loss(features, anchors, labels) == close(expected)


class TestUpdatePrior:
    def test_by_hand(self) -> None:
        assert_allclose(ref.update_prior([0.2, 1], [0.6, 0], 1), [0.6, 0])  # all new
        assert_allclose(ref.update_prior([0.2, 1], [0.6, 0], 2), [0.4, 0.5])  # (Y + Z)/2
        assert_allclose(ref.update_prior([0.2, 1], [0.6, 0], 4), [0.3, 0.75])  # (3Y + Z)/4

    def test_is_the_mean_of_the_iterations(self) -> None:
        maps = np.random.default_rng(0).random((5, 2, 3))
        prior = np.full((2, 3), 99.0)
        for t, z in enumerate(maps, start=1):
            prior = ref.update_prior(prior, z, t)
        assert_allclose(prior, maps.mean(axis=0))

    def test_step(self) -> None:
        with pytest.raises(ValueError, match="step"):
            ref.update_prior([0.2], [0.6], 0)


# Mutual information


class TestMutualInformation:
    # σ(log 3) = ¾: −log σ(log 3) = −log(1 − σ(−log 3)) = log 4/3; the other way log 4.
    def test_by_hand(self) -> None:
        scores, joint = np.array([log(3), 0, -log(3)]), np.array([True, True, False])
        # Joint: (log 4/3 + log 2)/2; product: log 4/3.
        loss = ref.js_mutual_information_loss(scores, joint)
        assert loss == close((log(4 / 3) + log(2)) / 2 + log(4 / 3))
        assert ref.js_mutual_information(scores, joint) == close(log(2) - loss / 2)
        # Pooled: three losses, log 4/3, log 2, log 4/3.
        loss = ref.js_mutual_information_loss(scores, joint, balance=False)
        assert loss == close(2 * (2 * log(4 / 3) + log(2)) / 3)

    def test_signs(self) -> None:
        # A critic that is wrong on both kinds: log 4 twice.
        loss = ref.js_mutual_information_loss([-log(3), log(3)], [True, False])
        assert loss == close(2 * log(4))

    def test_indifferent_critic(self) -> None:
        assert ref.js_mutual_information_loss(np.zeros(4), [1, 0, 0, 0]) == close(2 * log(2))
        assert ref.js_mutual_information(np.zeros(4), [1, 0, 0, 0]) == close(0, abs=1e-15)

    def test_extreme_scores(self) -> None:
        assert ref.js_mutual_information_loss([1000, -1000], [True, False]) == 0
        assert ref.js_mutual_information([1000, -1000], [True, False]) == log(2)
        assert ref.js_mutual_information_loss([-1000, 1000], [True, False]) == close(2000)

    def test_one_kind_absent(self) -> None:
        for score, kind in ((log(3), True), (-log(3), False)):
            assert ref.js_mutual_information_loss([score], [kind]) == close(log(4 / 3))
            assert ref.js_mutual_information([score], [kind]) == close(log(2) - log(4 / 3) / 2)
            pooled = ref.js_mutual_information_loss([score], [kind], balance=False)
            assert pooled == close(2 * log(4 / 3))

    def test_mask_removes(self) -> None:
        scores, joint = np.array([log(3), 1e300, -log(3)]), np.array([True, True, False])
        mask = np.array([True, False, True])
        loss = ref.js_mutual_information_loss(scores, joint, mask=mask)
        assert loss == close(2 * log(4 / 3))
        assert ref.js_mutual_information(scores, joint, mask=mask) == close(log(1.5))
        for balance in (True, False):
            loss = ref.js_mutual_information_loss(scores, joint, balance=balance, mask=mask & ~mask)
            assert loss == 0
        assert ref.js_mutual_information(scores, joint, mask=mask & ~mask) == log(2)

    def test_all_pairs(self) -> None:
        scores = np.random.default_rng(0).normal(size=(4, 4))
        loss = sum(
            math.log1p(exp(-t)) / 4 if i == j else math.log1p(exp(t)) / 12
            for (i, j), t in np.ndenumerate(scores)
        )
        assert ref.js_mutual_information_loss(scores, np.eye(4, dtype=bool)) == close(loss)

    @given(st.floats(-20, 20), st.floats(-20, 20))
    def test_two_points(self, a: float, b: float) -> None:
        # P = (¾, ¼), Q = (¼, ¾), M = (½, ½): JS = KL(P‖M) = ¾ log 3/2 + ¼ log 1/2.
        # Joint pairs in the proportion 3 : 1, product pairs 1 : 3; the critic is a, b.
        js = 0.75 * log(1.5) + 0.25 * log(0.5)
        joint = [True] * 4 + [False] * 4
        assert ref.js_mutual_information([a, a, a, b, a, b, b, b], joint) <= js + 1e-12
        # The optimal critic log P/Q attains it.
        a, b = log(3), -log(3)
        assert ref.js_mutual_information([a, a, a, b, a, b, b, b], joint) == close(js)

    @given(seeds)
    def test_against_sklearn(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        scores, joint = rng.normal(size=(3, 5)) * 3, rng.random((3, 5)) < 0.5
        joint[0, :2] = True, False
        p = 1 / (1 + np.exp(-scores))

        def cross_entropy(kind: np.ndarray) -> float:
            return float(log_loss(joint[kind], p[kind], labels=[False, True]))

        pooled = ref.js_mutual_information_loss(scores, joint, balance=False)
        assert pooled == close(2 * cross_entropy(joint | True))
        balanced = ref.js_mutual_information_loss(scores, joint)
        assert balanced == close(cross_entropy(joint) + cross_entropy(~joint))
        assert ref.js_mutual_information(scores, joint) <= log(2)


class TestForegroundVector:
    features = np.array([[1.0, 0.0], [3.0, 2.0], [10.0, 8.0]])

    def test_by_hand(self) -> None:
        # Weights 0.9/1.9 and 1/1.9; the threshold itself is in, 0.89 is out.
        result = ref.foreground_vector(self.features, [0.9, 1, 0.89])
        assert_allclose(result, [(0.9 + 3) / 1.9, 2 / 1.9])

    def test_threshold(self) -> None:
        assert_allclose(
            ref.foreground_vector(self.features, [0.5, 0, 0.5], threshold=0.4), [5.5, 4]
        )

    def test_falls_back_to_the_highest_prior(self) -> None:
        assert_allclose(ref.foreground_vector(self.features, [0.5, 0.5, 0.2]), [2, 1])
        assert_allclose(ref.foreground_vector(self.features, [0.1, 0.5, 0.2]), [3, 2])

    @pytest.mark.parametrize("threshold", [0.9, 0.0])
    def test_no_prior_at_all(self, threshold: float) -> None:
        result = ref.foreground_vector(self.features, [0, 0, 0], threshold=threshold)
        assert_allclose(result, [14 / 3, 10 / 3])


def test_relation_pairs() -> None:
    joint, mask = ref.relation_pairs([[0.8, 0.79, 0.31], [0.3, 0, 1]])
    assert_array_equal(joint, [[True, False, False], [False, False, True]])
    assert_array_equal(mask, [[True, False, False], [True, True, True]])
    assert joint.dtype == mask.dtype == np.bool_
    joint, mask = ref.relation_pairs([0.5, 0.4, 0.6], foreground=0.6, background=0.4)
    assert_array_equal(joint, [False, False, True])
    assert_array_equal(mask, [False, True, True])
    for background in (0.8, 0.9):
        with pytest.raises(ValueError, match="background"):
            ref.relation_pairs([0.5], background=background)


def test_merge_by_confidence() -> None:
    # Confidences 0.9, 0.8, 0.6, 0.7, ½ against 0.7, 0.9, 0.9, 0.7, ½: a tie goes to the refined.
    merged = ref.merge_by_confidence([0.9, 0.2, 0.6, 0.3, 0.5], [0.7, 0.1, 0.1, 0.7, 0.5])
    assert_array_equal(merged, [0.9, 0.1, 0.1, 0.7, 0.5])


# All of them


MASKED: dict[str, Callable[..., float]] = {
    "metric": lambda f, y, m: ref.metric_loss(f, y, mask=m),
    "pairwise": lambda f, y, m: ref.metric_loss(f, y, form="pairwise", mask=m),
    "normalized": lambda f, y, m: ref.metric_loss(f, y, normalize=True, mask=m),
    "hard": lambda f, y, m: ref.metric_loss(f, y, hard_negatives=True, mask=m),
    "cas": lambda f, y, m: ref.cas_loss(f, y, mask=m),
    "cace": lambda f, y, m: ref.class_agnostic_cross_entropy(f, y, mask=m),
    "anchor": lambda f, y, m: ref.anchor_softmax_loss(f, [[0, 1], [2, 3]], y, mask=m),
    "js": lambda f, y, m: ref.js_mutual_information_loss(f[..., 0], y, mask=m),
}


@pytest.mark.parametrize("name", MASKED)
@given(seeds)
def test_masked_is_removed(name: str, seed: int) -> None:
    loss, rng = MASKED[name], np.random.default_rng(seed)
    features, labels = rng.normal(size=(3, 4, 2)), rng.integers(0, 2, (3, 4))
    mask = rng.random((3, 4)) < 0.6
    # Removing pixels leaves a list of them; the shape of the image plays no part in these losses.
    expected = loss(features[mask], labels[mask], None)
    features[~mask], labels[~mask] = 1e300, 9
    assert loss(features, labels, mask) == expected


@pytest.mark.parametrize("name", MASKED)
def test_nan_shows(name: str) -> None:
    features, labels = np.ones((4, 2)), np.array([0, 1, 0, 1])
    features[1] = np.nan
    assert math.isnan(MASKED[name](features, labels, None))


def test_nan_shows_in_weighted_fbeta() -> None:
    for probs in (row(np.nan, 0), row(1, np.nan)):
        for target in (row(1, 0), row(0, 0)):
            assert math.isnan(ref.weighted_fbeta_loss(probs, target))
            assert math.isnan(ref.exact_weighted_fbeta_score(probs, target))


F, Y = np.zeros((3, 4, 2)), np.zeros((3, 4), dtype=int)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("features", lambda: ref.metric_loss([1.0, 2.0], [0, 1])),
        ("labels", lambda: ref.metric_loss(F, Y.T)),
        ("mask", lambda: ref.metric_loss(F, Y, mask=Y[0] == 0)),
        ("form", lambda: ref.metric_loss(F, Y, form="triplet")),
        ("hard_negatives", lambda: ref.metric_loss(F, Y, form="pairwise", hard_negatives=True)),
        ("background", lambda: ref.semantic_distance(F, Y[0])),
        ("labels", lambda: ref.cas_loss(F, F)),
        ("logits", lambda: ref.class_agnostic_cross_entropy(np.zeros((3, 4, 3)), Y)),
        ("per", lambda: ref.class_agnostic_cross_entropy(F, Y, per="batch")),
        ("probs", lambda: ref.weighted_fbeta_loss([0.5, 0.5], [0, 1])),
        ("target", lambda: ref.weighted_fbeta_score(Y, Y.T)),
        ("error", lambda: ref.weighted_fbeta_loss(Y, Y, error="cubed")),
        ("distance", lambda: ref.weighted_fbeta_loss(Y, Y, distance="chessboard")),
        ("distance_weights", lambda: ref.weighted_fbeta_loss(Y, Y, distance_weights=[2.0])),
        ("mask", lambda: ref.exact_weighted_fbeta_score(Y, Y, mask=[True])),
        ("target", lambda: ref.distance_weights([0, 1])),
        ("weights", lambda: ref.region_anchors(F, Y)),
        ("anchors", lambda: ref.anchor_probabilities(F, np.zeros((2, 3)))),
        ("labels", lambda: ref.anchor_softmax_loss(F, np.zeros((2, 2)), Y[0])),
        ("probabilities", lambda: ref.update_prior(Y, Y[0], 1)),
        ("joint", lambda: ref.js_mutual_information(Y, [True])),
        ("prior", lambda: ref.foreground_vector(F, Y[0])),
        ("refined", lambda: ref.merge_by_confidence(Y, Y[0])),
    ],
)
def test_errors_name_the_argument(argument: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: expected .* got "):
        call()
