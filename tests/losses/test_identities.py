"""Identities from the papers, checked on the losses themselves."""

from itertools import permutations
from math import log, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, ndimage
from scipy.stats import norm

from tests.support import strategies as draw
from tests.support.backends import Backend, close

Rng = np.random.Generator
LABELS = np.array([[1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]])  # |S| = 4, |B| = 8
EQUAL = np.array([[1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1, 0]])


def parts(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features[0][labels[0] == 1], features[0][labels[0] == 0]


def spread(x: np.ndarray) -> float:
    return float(((x - x.mean(0)) ** 2).sum(1).mean())


# The metric loss


@given(rng=draw.rngs, labels=st.sampled_from((LABELS, EQUAL)))
def test_both_forms_are_their_sums_over_pixels_and_over_pairs(
    backend: Backend, rng: Rng, labels: np.ndarray
) -> None:
    features = rng.normal(size=(1, 12, 3)) + rng.normal(size=3)
    salient, rest = parts(features, labels)
    gap = salient.mean(0) - rest.mean(0)

    def mean_square(x: np.ndarray, others: np.ndarray) -> np.ndarray:
        return ((x[:, None] - others[None]) ** 2).sum(-1).mean(1)

    # M eq. 3 and eq. 2, as they stand.
    centroid = np.concatenate(
        [
            ((a - a.mean(0)) ** 2).sum(1) - ((a - b.mean(0)) ** 2).sum(1)
            for a, b in ((salient, rest), (rest, salient))
        ]
    ).mean()
    pairwise = np.concatenate(
        [mean_square(a, a) - mean_square(a, b) for a, b in ((salient, rest), (rest, salient))]
    ).mean()
    close(backend.call("metric_loss", features, labels), centroid)
    close(backend.call("metric_loss", features, labels, form="pairwise"), pairwise)
    # The identities.
    close(-(gap @ gap), centroid)
    imbalance = (len(salient) - len(rest)) / 12
    close(centroid + imbalance * (spread(salient) - spread(rest)), pairwise)


@given(rng=draw.rngs)
def test_both_forms_agree_for_equal_sizes_or_equal_spreads_only(backend: Backend, rng: Rng) -> None:
    def difference(features: np.ndarray, labels: np.ndarray) -> float:
        return float(
            backend.call("metric_loss", features, labels, form="pairwise")
            - backend.call("metric_loss", features, labels)
        )

    features = rng.normal(size=(1, 12, 3))
    close(difference(features, EQUAL), 0)
    # Of two sizes, but scaled to equal spreads about their means.
    level = features.copy()
    for label in (0, 1):
        own = features[0][LABELS[0] == label]
        level[0][LABELS[0] == label] = own.mean(0) + (own - own.mean(0)) / sqrt(spread(own))
    close(difference(level, LABELS), 0)
    # Neither: a region of 4 three times as spread as the one of 8, (4 − 8)/12 (9 − 1).
    level[0][LABELS[0] == 1] = 3 * level[0][LABELS[0] == 1]
    close(difference(level, LABELS), -8 / 3)


@given(rng=draw.rngs)
def test_nothing_in_the_centroid_form_pulls_a_pixel_to_its_own_mean(
    backend: Backend, rng: Rng
) -> None:
    features = rng.normal(size=(1, 12, 3))
    means = np.stack([part.mean(0) for part in parts(features, LABELS)[::-1]])[LABELS]
    scattered = means + 100 * (features - means)
    loss = backend.call("metric_loss", means, LABELS)
    close(backend.call("metric_loss", scattered, LABELS), loss)
    # Unbounded below: features twice as far are four times as good.
    close(backend.call("metric_loss", 2 * scattered, LABELS), 4 * loss)


@given(rng=draw.rngs)
def test_held_means_give_every_pixel_the_same_pull(backend: Backend, rng: Rng) -> None:
    features = rng.normal(size=(1, 12, 3))
    salient, rest = parts(features, LABELS)
    gap, sign = salient.mean(0) - rest.mean(0), 2.0 * LABELS[..., None] - 1
    own = backend.gradient("metric_loss", features, LABELS)
    held = backend.gradient("metric_loss", features, LABELS, stop_gradient=True)
    close(own, -2 * sign * gap / np.where(LABELS == 1, 4, 8)[..., None])
    close(held, -2 * sign * gap / 12)
    # Held means of the chosen pixels: 4 salient, and the 4 hardest of the background.
    hard = backend.gradient(
        "metric_loss", features, LABELS, stop_gradient=True, hard_negatives=True
    )
    loss = np.where(LABELS == 1, np.inf, 2 * (features @ gap))
    chosen = loss >= np.sort(loss[0])[-8]
    close(hard, -2 * sign * gap / 8 * chosen[..., None])


@pytest.mark.parametrize("salient", [0, 1])
def test_of_equally_hard_pixels_the_earlier_are_chosen(backend: Backend, salient: int) -> None:
    # The features sum to 0 and all sums are exact, so that the 8 losses are equal to the bit.
    labels = np.array([[0, 0, 1, 0, 0, 0, 1, 0, 0, 0]])
    features = np.where(labels == 1, 4.0, -1.0)[..., None]
    labels = labels if salient else 1 - labels
    for dtype in draw.DTYPES:
        got = backend.gradient(
            "metric_loss", features.astype(dtype), labels, hard_negatives=True, stop_gradient=True
        )[0, :, 0]
        np.testing.assert_array_equal(np.flatnonzero(got), [0, 1, 2, 6])


def test_hard_negatives_choose_the_highest_loss_not_the_lowest(backend: Backend) -> None:
    # μ_S = 0, μ_B = 4: of the background, 1 is nearest to the wrong mean.
    features = np.array([[[0.0], [3.0], [1.0], [8.0]]])
    got = backend.gradient(
        "metric_loss", features, np.array([[1, 0, 0, 0]]), hard_negatives=True, stop_gradient=True
    )
    np.testing.assert_array_equal(got[0, :, 0] != 0, [True, False, True, False])


@given(rng=draw.rngs)
def test_normalized_loss_depends_on_directions_alone(backend: Backend, rng: Rng) -> None:
    features = rng.normal(size=(1, 12, 3))
    longer = features * rng.uniform(0.1, 10, (1, 12, 1))
    for options in ({}, {"form": "pairwise"}, {"hard_negatives": True}):
        close(
            backend.call("metric_loss", longer, LABELS, normalize=True, **options),
            backend.call("metric_loss", features, LABELS, normalize=True, **options),
        )
    at = backend.gradient("metric_loss", features, LABELS, normalize=True)
    close((at * features).sum(-1), np.zeros((1, 12)))


# The class-agnostic loss


def discriminator(probs: np.ndarray, labels: np.ndarray) -> float:
    """Σ_{r≠q} ‖ŝ_r − ŝ_q‖² over ordered pairs, in float64."""
    s = probs[0].astype(np.float64)
    means = [s[labels[0] == r].mean(0) for r in np.unique(labels)]
    return float(sum(((a - b) ** 2).sum() for a in means for b in means))


@given(rng=draw.rngs, averaged=st.booleans())
def test_cas_pair_sum(backend: Backend, rng: Rng, averaged: bool) -> None:
    probs, labels = rng.random((1, 12, 3)), rng.choice(rng.permutation(7)[:4], (1, 12))
    present = len(np.unique(labels))
    pairs = max(present * (present - 1), 1) if averaged else 1
    close(
        backend.call("cas_loss", probs, labels, num_regions=7, alpha=0.0, average_regions=averaged),
        -discriminator(probs, labels) / pairs,
    )
    regions = [probs[0][labels[0] == r] for r in np.unique(labels)]
    uniformer = sum(map(spread, regions)) / (present if averaged else 1)
    close(
        backend.call("cas_loss", probs, labels, num_regions=7, alpha=1.0, average_regions=averaged),
        uniformer,
    )


@pytest.mark.parametrize("apart", [1e-2, 1e-3, 1e-4])
def test_cas_pair_sum_of_nearly_equal_means_in_float32(backend: Backend, apart: float) -> None:
    # Σ‖ŝ_r‖² − R‖m‖² would lose all digits: 1e-8 of the difference of two numbers near 1.
    labels = np.arange(12)[None] % 4
    probs = (0.5 + apart * labels[..., None] * [1, -1, 0.5]).astype(np.float32)
    expected = discriminator(probs, labels)
    got = -backend.call("cas_loss", probs, labels, num_regions=4, alpha=0.0)
    # Each mean is rounded to 6e-8, the numbers of float32 near ½.
    np.testing.assert_allclose(got, expected, rtol=4 * 6e-8 / apart)


@pytest.mark.parametrize("narrow", [1e-2, 1e-3])
def test_cas_spread_of_nearly_equal_descriptors_in_float32(backend: Backend, narrow: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(1000)[None] % 2
    probs = (0.7 + narrow * rng.random((1, 1000, 3))).astype(np.float32)
    expected = sum(spread(part) for part in parts(probs.astype(np.float64), labels))
    got = backend.call("cas_loss", probs, labels, alpha=1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-6 / narrow)


@given(rng=draw.rngs, alpha=st.floats(0, 1), regions=st.sampled_from((2, 5)))
def test_constant_descriptors_are_a_saddle(
    backend: Backend, rng: Rng, alpha: float, regions: int
) -> None:
    labels = rng.integers(0, regions, (1, 12))
    options = {"num_regions": regions, "alpha": alpha}
    for value in (draw.softmax(rng.normal(size=3)), np.full(3, 0.5)):
        probs = np.broadcast_to(value, (1, 12, 3)).copy()
        assert abs(backend.call("cas_loss", probs, labels, **options)) < 1e-15
        got = backend.gradient("cas_loss", probs, labels, **options)
        assert abs(got).max() < 1e-14
    assert (got == 0).all()  # exactly, at ½
    flat = backend.gradient("cas_loss", probs.astype(np.float32), labels, **options)
    assert (flat == 0).all()


@given(rng=draw.rngs, alpha=st.floats(0.05, 0.95), factor=st.sampled_from((0.1, 0.9, 1.1, 10.0)))
def test_constant_descriptors_are_left_only_above_the_fisher_ratio(
    backend: Backend, rng: Rng, alpha: float, factor: float
) -> None:
    """Along a direction u the loss changes by (α (V_r + V_q) − 2 (1 − α) ‖μ_r − μ_q‖²) t²."""
    labels = LABELS
    u = rng.normal(size=(1, 12, 3))
    means = np.stack([part.mean(0) for part in parts(u, labels)[::-1]])
    within = u - means[labels]
    fisher = ((means[1] - means[0]) ** 2).sum() / sum(spread(part) for part in parts(u, labels))
    threshold = alpha / (2 * (1 - alpha))
    u = means[labels] + within * sqrt(fisher / (factor * threshold))
    u /= abs(u).max()
    for size in (0.4, 1e-3):
        moved = 0.5 + size * u
        loss = backend.call("cas_loss", moved, labels, alpha=alpha)
        v = sum(spread(part) for part in parts(u, labels))
        close(loss / size**2, alpha * v * (1 - factor))
        assert (loss < 0) == (factor > 1)


# The weighted F-beta loss


def false_negatives(backend: Backend, p: np.ndarray, y: np.ndarray, **options: object) -> float:
    """FN of a map without false positives: loss = FN / (2 |Y| − FN)."""
    loss = float(backend.call("weighted_fbeta_loss", p, y, **options))
    return 2 * y.sum() * loss / (1 + loss)


@pytest.mark.parametrize(("rank", "total"), [(2, 5.64), (3, 31.81)])
def test_the_printed_kernel_sums_to_more_than_1(backend: Backend, rank: int, total: float) -> None:
    # One miss in the middle of a full map: FN = min(g(0), 1).
    y = np.ones((1, *[21] * rank, 1))
    p = y.copy()
    p[(0, *[10] * rank, 0)] = 0
    printed = false_negatives(backend, p, y)
    unit = false_negatives(backend, p, y, normalize_kernel=True)
    assert printed == pytest.approx(1 / (sqrt(2 * pi) * 9 / 4))
    assert printed / unit == pytest.approx(total, abs=0.005)


def blob() -> tuple[np.ndarray, np.ndarray]:
    """A mask and a smooth prediction of it such as networks give: blurred, uneven, displaced."""
    rng = np.random.default_rng(0)
    y = ndimage.gaussian_filter(rng.normal(size=(96, 96)), 12) > 0
    uneven = ndimage.gaussian_filter(rng.normal(size=y.shape), 6)
    p = ndimage.gaussian_filter(np.roll(y, (2, 3), (0, 1)).astype(float), 4) + 3 * uneven
    return p.clip(0.02, 0.98), y


def smoothed(error: np.ndarray, y: np.ndarray, normalize: bool) -> np.ndarray:
    taps = np.exp(-(np.arange(-9, 10) ** 2) / (2 * 2.25**2))
    x = np.where(y, error, 0)
    for axis in (0, 1):
        x = ndimage.correlate1d(x, taps, axis, mode="constant")
    return x / (taps.sum() ** 2 if normalize else sqrt(2 * pi) * 2.25)


@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_the_printed_kernel_does_next_to_nothing_and_the_unit_kernel_much(
    backend: Backend, error: str
) -> None:
    p, y = blob()
    e = np.abs(p - y) ** (2 if error == "squared" else 1)
    eased = {normalize: (smoothed(e, y, normalize) < e)[y].mean() for normalize in (False, True)}
    assert eased[False] < 0.01
    assert 0.25 < eased[True] < 0.65
    # The losses agree: with the printed kernel FN is the plain sum of the misses' errors.
    hits = np.where(y, p, 0)[None, ..., None]
    target = y[None, ..., None]
    plain = e[y].sum()
    for normalize in (False, True):
        fn = false_negatives(backend, hits, target, error=error, normalize_kernel=normalize)
        assert fn == pytest.approx(np.minimum(smoothed(e, y, normalize), e)[y].sum())
        assert (fn > 0.995 * plain) == (not normalize)


def test_a_larger_beta_favours_recall(backend: Backend) -> None:
    y = np.zeros((2, 12, 12, 1))
    y[:, 3:9, 3:9] = 1
    p = y.copy()
    p[0, 3:5, 3:9] = 0  # misses
    p[1, 1:3, 3:9] = 1  # false alarms
    low, high = (
        backend.call("weighted_fbeta_loss", p, y, beta=beta, reduction="none")
        for beta in (0.5, 2.0)
    )
    assert high[0] > low[0]
    assert high[1] < low[1]


# The anchors


@given(rng=draw.rngs)
def test_the_prior_is_the_running_mean_of_the_results(backend: Backend, rng: Rng) -> None:
    first, results = rng.random((2, 5, 4)), rng.random((6, 2, 5, 4))
    prior = backend.call("update_prior", first, results[0], 1)
    np.testing.assert_array_equal(prior, results[0])  # wholly replaced
    for step, result in enumerate(results[1:], start=2):
        prior = backend.call("update_prior", prior, result, step)
        close(prior, results[:step].mean(0))


# Mutual information


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """The Jensen–Shannon divergence of two distributions on finitely many points, in nats."""
    m = (p + q) / 2
    return float((p * np.log(p / m) + q * np.log(q / m)).sum() / 2)


@given(k=st.integers(1, 11), other=st.integers(1, 11), rng=draw.rngs)
def test_the_optimal_critic_of_two_points_attains_the_divergence(
    backend: Backend, k: int, other: int, rng: Rng
) -> None:
    # 12 joint pairs, k of them at the first point; 12 product pairs, `other` of them.
    at = np.concatenate([np.arange(12) >= k, np.arange(12) >= other])[None].astype(int)
    joint = (np.arange(24) < 12)[None]
    p, q = np.array([k, 12 - k]) / 12, np.array([other, 12 - other]) / 12
    js = divergence(p, q)
    best = np.log(p / q)
    close(backend.call("js_mutual_information", best[at], joint), js)
    for critic in (best + 0.1 * rng.normal(size=2), rng.normal(size=2) * 5, 0.5 * best):
        estimate = backend.call("js_mutual_information", critic[at], joint)
        assert estimate <= js + 1e-12


@pytest.mark.parametrize("mu", [0.25, 1.0, 3.0])
def test_the_optimal_critic_of_two_gaussians_attains_the_divergence(
    backend: Backend, mu: float
) -> None:
    def term(x: float) -> float:
        p, q = norm.pdf(x, mu), norm.pdf(x, -mu)
        return p * log(2 * p / (p + q)) if p > 0 else 0.0

    js, _ = integrate.quad(term, -12, 12, points=[-mu, 0, mu], limit=200)  # the same for q
    x = norm.ppf((np.arange(20000) + 0.5) / 20000)
    x, joint = np.concatenate([x + mu, x - mu])[None], (np.arange(40000) < 20000)[None]
    estimate = backend.call("js_mutual_information", 2 * mu * x, joint)  # log p/q
    assert estimate == pytest.approx(js, abs=1e-4)
    for factor in (0.5, 0.9, 1.1, 2.0):
        worse = backend.call("js_mutual_information", factor * 2 * mu * x, joint)
        assert worse < estimate
        assert worse < js


@given(rng=draw.rngs)
def test_rolled_pairs_are_unbiased_and_permuted_pairs_are_not(backend: Backend, rng: Rng) -> None:
    n = 4
    critic = 3 * rng.normal(size=(n, n)) + 2 * np.eye(n)
    every = backend.call("js_mutual_information_loss", critic[None], np.eye(n, dtype=bool)[None])

    def loss(columns: np.ndarray) -> np.ndarray:
        """Per row of `columns`: the n joint pairs, and row i of the critic with columns[i]."""
        product = critic[np.arange(n), columns]
        scores = np.concatenate([np.broadcast_to(np.diag(critic), product.shape), product], 1)
        joint = np.broadcast_to(np.arange(2 * n) < n, scores.shape)
        return backend.call("js_mutual_information_loss", scores, joint, reduction="none")

    rolled = np.stack([(np.arange(n) + k) % n for k in range(1, n)])
    close(loss(rolled).mean(), every)
    # A permutation keeps a joint pair with probability 1/n.
    permuted = loss(np.array(list(permutations(range(n))))).mean()
    diagonal, off = np.logaddexp(0, np.diag(critic)).mean(), np.logaddexp(0, critic)
    off = off[~np.eye(n, dtype=bool)].mean()
    close(every, np.logaddexp(0, -np.diag(critic)).mean() + off)
    close(permuted - every, (diagonal - off) / n)


@given(rng=draw.rngs)
def test_the_pooled_form_is_twice_binary_cross_entropy_and_equal_for_equal_numbers(
    backend: Backend, rng: Rng
) -> None:
    scores, joint = rng.normal(size=(1, 12)), rng.permuted(np.arange(12) < 6)[None]
    balanced = backend.call("js_mutual_information_loss", scores, joint)
    close(backend.call("js_mutual_information_loss", scores, joint, balance=False), balanced)
    few = np.arange(12)[None] < 3
    probability = 1 / (1 + np.exp(-scores))
    entropy = -np.where(few, np.log(probability), np.log(1 - probability)).mean()
    close(backend.call("js_mutual_information_loss", scores, few, balance=False), 2 * entropy)
