"""Every public function in both backends against the exact references, in float64 and float32."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import strategies as draw
from tests.support.backends import CHANNELS, Backend, close
from tests.support.strategies import Problem, exact


def agrees(
    backend: Backend, function: str, problem: Problem, *, batched: bool = True, **options: Any
) -> None:
    """The function gives the reference's values, in the dtype of its arguments."""
    args, own, dtype = problem
    options = own | options
    expected = exact(function, *args, **options)
    got = backend.call(function, *args, **options, **({"reduction": "none"} if batched else {}))
    assert got.dtype == dtype
    close(got, expected, dtype)


def test_every_public_function_is_compared_here(backend: Backend) -> None:
    # `flip_labels` draws at random: see the properties.
    public = {name for name in backend.functions.__all__ if name[0].islower()}
    assert public - {"flip_labels", "deep_supervision"} == set(CHANNELS)


@given(problem=draw.metric())
def test_metric_loss(backend: Backend, problem: Problem) -> None:
    agrees(backend, "metric_loss", problem)


@given(problem=draw.background())
def test_semantic_distance(backend: Backend, problem: Problem) -> None:
    agrees(backend, "semantic_distance", problem, batched=False)


@given(problem=draw.cas())
def test_cas_loss(backend: Backend, problem: Problem) -> None:
    agrees(backend, "cas_loss", problem)


@given(problem=draw.cross_entropy())
def test_class_agnostic_cross_entropy(backend: Backend, problem: Problem) -> None:
    agrees(backend, "class_agnostic_cross_entropy", problem)


@given(problem=draw.maps())
def test_weighted_fbeta(backend: Backend, problem: Problem) -> None:
    agrees(backend, "weighted_fbeta_loss", problem)
    agrees(backend, "weighted_fbeta_score", problem)


@given(problem=draw.maps(shapes=((5, 4),)), phi=st.sampled_from((0, 2)))
def test_weighted_fbeta_defaults(backend: Backend, problem: Problem, phi: int) -> None:
    for function in ("weighted_fbeta_loss", "weighted_fbeta_score"):
        agrees(
            backend,
            function,
            Problem(problem.args, {"mask": problem.options["mask"]}, problem.dtype),
        )
    # B passed back, with options that it replaces set otherwise, is the default.
    mask, dtype = problem.options["mask"], problem.dtype
    p, y = problem.args
    weights = backend.call("distance_weights", y.astype(dtype), mask=mask)
    direct = backend.call("weighted_fbeta_loss", p, y, mask=mask, reduction="none")
    passed = backend.call(
        "weighted_fbeta_loss",
        p,
        y,
        mask=mask,
        distance_weights=weights,
        phi=phi,
        distance="euclidean",
        reduction="none",
    )
    np.testing.assert_array_equal(passed, direct)


@given(problem=draw.evaluated())
def test_weighted_fmeasure(backend: Backend, problem: Problem) -> None:
    agrees(backend, "weighted_fmeasure", problem)


@given(problem=draw.targets())
def test_distance_weights(backend: Backend, problem: Problem) -> None:
    agrees(backend, "distance_weights", problem, batched=False)


@given(foreground=draw.foregrounds())
def test_distance_transform(backend: Backend, foreground: np.ndarray) -> None:
    expected = exact("distance_transform", foreground, return_indices=True)
    got = backend.call("distance_transform", foreground, return_indices=True)
    assert got[0].dtype == "float32"
    np.testing.assert_array_equal(np.isinf(got[0]), np.isinf(expected[0]))
    finite = np.isfinite(expected[0])
    close(got[0][finite], expected[0][finite], "float32")
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(backend.call("distance_transform", foreground), got[0])


@given(problem=draw.anchored())
def test_anchor_softmax_loss(backend: Backend, problem: Problem) -> None:
    agrees(backend, "anchor_softmax_loss", problem)


@given(problem=draw.anchored(masked=False))
def test_anchor_probabilities(backend: Backend, problem: Problem) -> None:
    agrees(
        backend, "anchor_probabilities", Problem(problem.args[:2], {}, problem.dtype), batched=False
    )


@given(problem=draw.weighted())
def test_region_anchors(backend: Backend, problem: Problem) -> None:
    agrees(backend, "region_anchors", problem, batched=False)


@given(problem=draw.pairs())
def test_js_mutual_information(backend: Backend, problem: Problem) -> None:
    agrees(backend, "js_mutual_information_loss", problem)
    agrees(backend, "js_mutual_information_loss", problem, balance=False)
    agrees(backend, "js_mutual_information", problem)


@given(problem=draw.priors(2), step=st.sampled_from((1, 2, 3, 100)))
def test_update_prior(backend: Backend, problem: Problem, step: int) -> None:
    agrees(
        backend, "update_prior", Problem((*problem.args, step), {}, problem.dtype), batched=False
    )


@given(problem=draw.priors(2))
def test_merge_by_confidence(backend: Backend, problem: Problem) -> None:
    agrees(backend, "merge_by_confidence", problem, batched=False)
    prior, _ = problem.args
    # Confidences that are equal, often because the maps are complements: the refined map wins.
    agrees(
        backend,
        "merge_by_confidence",
        Problem((prior, 1 - prior), {}, problem.dtype),
        batched=False,
    )


@given(problem=draw.priors(), rng=draw.rngs, threshold=st.sampled_from((0.0, 0.25, 0.5, 0.9, 1.0)))
def test_foreground_vector(
    backend: Backend, problem: Problem, rng: np.random.Generator, threshold: float
) -> None:
    (prior,), _, dtype = problem
    features = 3 * rng.normal(size=(*prior.shape, draw.CHANNELS_OF[prior.shape[1:]]))
    agrees(
        backend,
        "foreground_vector",
        Problem((features.astype(dtype), prior), {}, dtype),
        batched=False,
        threshold=threshold,
    )


@given(problem=draw.priors(), thresholds=st.sampled_from(((0.8, 0.3), (0.5, 0.25), (1.0, 0.0))))
def test_relation_pairs(
    backend: Backend, problem: Problem, thresholds: tuple[float, float]
) -> None:
    foreground, background = thresholds
    options = {"foreground": foreground, "background": background}
    got = backend.call("relation_pairs", *problem.args, **options)
    for found, expected in zip(got, exact("relation_pairs", *problem.args, **options), strict=True):
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, expected)


# Extreme inputs, each as a test of its own, so that no seed can miss it.

EXTREME = {
    "metric far from the origin": (
        "metric_loss",
        lambda r: (r.normal(size=(2, 5, 4, 3)) + 1e4, r.integers(0, 2, (2, 5, 4))),
    ),
    "anchors far from the origin": (
        "anchor_softmax_loss",
        lambda r: (
            r.normal(size=(2, 5, 4, 3)) + 1e4,
            r.normal(size=(2, 2, 3)) + 1e4,
            r.integers(0, 2, (2, 5, 4)),
        ),
    ),
    "features that are their anchors": (
        "anchor_softmax_loss",
        lambda r: (np.ones((2, 5, 4, 3)), np.ones((2, 2, 3)), r.integers(0, 2, (2, 5, 4))),
    ),
    "logits of 1e4": (
        "class_agnostic_cross_entropy",
        lambda r: (1e4 * r.choice((-1, 1), (2, 5, 4, 2)), r.integers(0, 2, (2, 5, 4))),
    ),
    "scores of 1e4": (
        "js_mutual_information_loss",
        lambda r: (1e4 * r.choice((-1.0, 1.0), (2, 5, 4)), r.random((2, 5, 4)) < 0.5),
    ),
    "scores above the threshold of F.softplus": (
        "js_mutual_information_loss",
        lambda r: (25 + r.random((2, 5, 4)), r.random((2, 5, 4)) < 2),
    ),
}


@pytest.mark.parametrize("dtype", draw.DTYPES)
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_values(backend: Backend, name: str, dtype: str) -> None:
    function, make = EXTREME[name]
    args = tuple(
        x.astype(dtype) if x.dtype == np.float64 else x for x in make(np.random.default_rng(0))
    )
    agrees(backend, function, Problem(args, {}, dtype))


def test_a_small_loss_keeps_its_relative_precision(backend: Backend) -> None:
    # softplus(−25) is 1.4e-11, and 0 to any absolute tolerance.
    scores = np.full((1, 4), 25.0)
    joint = np.ones((1, 4), bool)
    got = backend.call("js_mutual_information_loss", scores, joint)
    np.testing.assert_allclose(got, np.log1p(np.exp(-25)), rtol=1e-12)
    # log(1 + exp(20.5)) is more than 20.5: F.softplus forgets it above 20.
    got = backend.call("js_mutual_information_loss", scores * 0 + 20.5, ~joint)
    np.testing.assert_allclose(got, np.logaddexp(0, 20.5), rtol=1e-13)
    logits = np.stack([np.zeros((1, 4)), np.full((1, 4), 25.0)], axis=-1)
    got = backend.call("class_agnostic_cross_entropy", logits, joint)
    np.testing.assert_allclose(got, np.log1p(np.exp(-25)), rtol=1e-12)


def test_an_image_of_one_pixel(backend: Backend) -> None:
    one, label = np.full((1, 1, 1, 2), 0.25), np.ones((1, 1, 1), int)
    agrees(backend, "metric_loss", Problem((one, label), {}))
    agrees(backend, "cas_loss", Problem((one, label), {}))
    for target in (0, 1):
        agrees(backend, "weighted_fbeta_loss", Problem((one, np.full((1, 1, 1, 2), target)), {}))


def test_many_pixels_in_float32(backend: Backend) -> None:
    """Sums keep their digits: one value after the other, 2²⁰ of them are off by a percent."""
    n = 2**20
    labels = (np.arange(n) >= n // 3).astype(np.uint8)[None]
    probs = (np.where(labels == 1, 0.9, 0.3)[..., None] - [0.02, 0.07]).astype(np.float32)
    agrees(backend, "cas_loss", Problem((probs, labels), {"num_regions": 3}, "float32"))
    agrees(backend, "metric_loss", Problem((probs, labels), {}, "float32"))
    agrees(
        backend, "js_mutual_information_loss", Problem((probs[..., 0], labels == 1), {}, "float32")
    )
    anchors = probs[:, :2] + np.float32(0.25)
    agrees(backend, "anchor_softmax_loss", Problem((probs, anchors, labels), {}, "float32"))


def test_region_anchors_of_many_pixels_in_float32(backend: Backend) -> None:
    n = 2**20
    features = (np.where(np.arange(n) >= n // 3, 0.9, 0.3)[:, None] - [0.02, 0.07])[None]
    features = features.astype(np.float32)
    agrees(backend, "region_anchors", Problem((features, features), {}, "float32"), batched=False)
