"""Bad input: the right error with the argument, the expectation, what came and the repair."""

from typing import Any

import numpy as np
import pytest

from tests.support.backends import BACKENDS, LOSSES, Backend, torch
from tests.support.cases import CASES, Case

RNG = np.random.default_rng(0)
F = RNG.normal(size=(2, 4, 5, 3))
P = RNG.random((2, 4, 5, 1))
S = np.full((2, 4, 5, 2), 0.5)
Y = np.arange(40).reshape(2, 4, 5) % 2
T = Y[..., None].astype(float)
M = np.ones((2, 4, 5), bool)
A = RNG.normal(size=(2, 2, 3))

# function, arguments, options, exception, what the message must say
BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], tuple[str, ...]]] = [
    ("metric_loss", (F, 255 * Y), {}, ValueError, ("labels", "0..1", "255", "labels > 127")),
    ("cas_loss", (S, 255 * Y), {}, ValueError, ("labels", "got 255", "ignore_index=255")),
    ("cas_loss", (S, 5 * Y), {"num_regions": 4}, ValueError, ("0..3", "got 5", "num_regions")),
    ("cas_loss", (S, 4 * Y), {}, ValueError, ("0..1", "got 4", "num_regions")),
    ("cas_loss", (S, Y - 1), {}, ValueError, ("labels", "got -1")),
    ("cas_loss", (F, Y), {}, ValueError, ("probs", "[0, 1]", "softmax")),
    ("cas_loss", (255 * S, Y), {}, ValueError, ("probs", "got 127.5", "divide by 255")),
    ("cas_loss", (S, Y), {"alpha": 1.5}, ValueError, ("alpha", "[0, 1]", "1.5")),
    ("cas_loss", (S, Y), {"alpha": "1"}, TypeError, ("alpha", "'1'")),
    ("cas_loss", (S, Y), {"num_regions": 0}, ValueError, ("num_regions", "at least 1", "0")),
    ("cas_loss", (S, Y), {"num_regions": 2.0}, TypeError, ("num_regions", "integer", "2.0")),
    ("cas_loss", (S, Y), {"reduction": "avg"}, ValueError, ("reduction", "'mean'", "'avg'")),
    ("cas_loss", (S, Y.astype(complex)), {}, TypeError, ("labels", "whole values", "complex128")),
    ("cas_loss", (S, 0.5 * Y), {}, ValueError, ("labels", "whole", "got 0.5", "labels > 0.5")),
    ("cas_loss", (S, Y), {"mask": Y}, TypeError, ("mask", "bool", "int64")),
    ("cas_loss", (S, Y), {"mask": M[:, :3]}, ValueError, ("mask", "(2, 4, 5)", "(2, 3, 5)")),
    ("cas_loss", (S, Y[:, None]), {}, ValueError, ("labels", "(2, 4, 5)", "squeeze(1)")),
    ("cas_loss", (S, Y[..., None]), {}, ValueError, ("labels", "squeeze(-1)")),
    ("cas_loss", (S, Y[:1]), {}, ValueError, ("labels", "(2, 4, 5)", "(1, 4, 5)")),
    ("cas_loss", (S.astype(int), Y), {}, TypeError, ("probs", "floating point", "int64")),
    ("cas_loss", (S.astype(complex), Y), {}, TypeError, ("probs", "complex128")),
    ("cas_loss", (S[0, 0], Y[0, 0]), {}, ValueError, ("probs", "spatial")),
    ("cas_loss", (S[..., :0], Y), {}, ValueError, ("probs", "C >= 1")),
    ("metric_loss", (F, Y), {"form": "mean"}, ValueError, ("form", "'centroid'", "'mean'")),
    ("metric_loss", (F, Y), {"normalize": 1}, TypeError, ("normalize", "True or False")),
    (
        "metric_loss",
        (F, Y),
        {"form": "pairwise", "stop_gradient": True},
        ValueError,
        ("stop_gradient", "centroid"),
    ),
    (
        "metric_loss",
        (F, Y),
        {"form": "pairwise", "hard_negatives": True},
        ValueError,
        ("hard_negatives", "centroid"),
    ),
    ("semantic_distance", (F, -M.astype(float)), {}, ValueError, ("background", "non-negative")),
    ("class_agnostic_cross_entropy", (F, Y), {}, ValueError, ("logits", "2", "(2,")),
    ("class_agnostic_cross_entropy", (S, Y), {"per": "batch"}, ValueError, ("per", "'image'")),
    ("weighted_fbeta_loss", (P, 255 * T), {}, ValueError, ("target", "[0, 1]", "divide by 255")),
    ("weighted_fbeta_loss", (P, T + 254 * (1 - T)), {}, ValueError, ("to ignore", "mask=")),
    ("weighted_fbeta_loss", (S, T), {}, ValueError, ("target", "only its channel of probs")),
    (
        "weighted_fmeasure",
        (P, 0.5 * T),
        {},
        ValueError,
        ("target", "0 or 1", "defined", "got 0.5", "target > 0.5"),
    ),
    ("weighted_fmeasure", (P, 255 * T), {}, ValueError, ("target", "[0, 1]", "divide by 255")),
    ("weighted_fbeta_loss", (4 * P, T), {}, ValueError, ("probs", "[0, 1]", "sigmoid")),
    ("weighted_fbeta_loss", (P, T), {"beta": 0.0}, ValueError, ("beta", "[1e-09,")),
    ("weighted_fbeta_loss", (P, T), {"beta": float("inf")}, ValueError, ("beta", "[1e-09,", "inf")),
    ("weighted_fmeasure", (P, T), {"beta": 1e30}, ValueError, ("beta", "[1e-09,", "1e+30")),
    ("distance_weights", (T,), {"distance": "euclidean", "spacing": "12"}, TypeError, ("spacing",)),
    ("weighted_fbeta_loss", (P, T), {"theta": 0}, ValueError, ("theta", "at least 1")),
    ("weighted_fbeta_loss", (P, T), {"phi": -1}, ValueError, ("phi", "at least 0")),
    ("weighted_fbeta_loss", (P, T), {"distance": "l1"}, ValueError, ("distance", "'window'")),
    (
        "weighted_fbeta_loss",
        (P, T),
        {"distance_weights": P[:, :2]},
        ValueError,
        ("distance_weights",),
    ),
    ("weighted_fbeta_loss", (P[:, 0], T[:, 0]), {}, ValueError, ("probs", "2 to 3")),
    ("distance_transform", (T[..., 0],), {}, TypeError, ("foreground", "bool", "float64")),
    ("distance_transform", (T > 0,), {"return_indices": 1}, TypeError, ("return_indices", "1")),
    (
        "distance_transform",
        (np.ones(3, bool),),
        {},
        ValueError,
        ("foreground", "1 to 3 spatial axes", "(3,)"),
    ),
    (
        "distance_transform",
        (np.broadcast_to(np.ones((1, 1, 1), bool), (1, 40000, 2)),),
        {},
        ValueError,
        ("foreground", "2**29", "cut the image into parts"),
    ),
    ("distance_weights", (2 * T,), {}, ValueError, ("target", "[0, 1]", "got 2")),
    ("anchor_softmax_loss", (F, A[..., :2], Y), {}, ValueError, ("anchors", "(2, R, 3)")),
    ("anchor_softmax_loss", (F, A, 2 * Y), {}, ValueError, ("labels", "0..1", "got 2")),
    ("region_anchors", (F, -S), {}, ValueError, ("weights", "non-negative", "-0.5")),
    ("region_anchors", (F, S[:, :3]), {}, ValueError, ("weights",)),
    ("update_prior", (M * 0.5, M * 2.0, 1), {}, ValueError, ("probabilities", "[0, 1]")),
    ("update_prior", (M * 0.5, M * 0.5, 0), {}, ValueError, ("step", "at least 1", "0")),
    ("js_mutual_information_loss", (P, T), {}, TypeError, ("joint", "bool", "float64")),
    ("js_mutual_information_loss", (P, M), {}, ValueError, ("joint",)),
    ("foreground_vector", (F, 9.0 * M), {}, ValueError, ("prior", "[0, 1]", "got 9")),
    ("foreground_vector", (F, 1.0 * M), {"threshold": 2}, ValueError, ("threshold", "2")),
    ("relation_pairs", (0.5 * M,), {"foreground": 0.2}, ValueError, ("background", "0.2")),
    ("relation_pairs", (-1.0 * M,), {}, ValueError, ("prior", "got -1")),
    ("merge_by_confidence", (0.5 * M, 7.0 * M), {}, ValueError, ("refined", "got 7")),
]


@pytest.mark.parametrize(
    ("function", "args", "options", "error", "said"),
    BAD,
    ids=[f"{k}-{row[0]}" for k, row in enumerate(BAD)],
)
def test_error_names_argument_expectation_and_repair(
    backend: Backend,
    function: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    said: tuple[str, ...],
) -> None:
    with pytest.raises(error) as caught:
        backend.call(function, *args, **options)
    for part in said:
        assert part in str(caught.value), str(caught.value)


def test_torch_takes_no_list() -> None:
    cas_loss = BACKENDS["torch"].functions.cas_loss
    with pytest.raises(TypeError, match=r"probs must be one array, got list; .*deep_supervision"):
        cas_loss([[0.5]], torch.zeros(1, 1))
    with pytest.raises(TypeError, match="from_numpy"):
        cas_loss(S, torch.zeros(1, 1))


def test_weights_without_channels_are_told_where_to_put_them(backend: Backend) -> None:
    probs, target = backend.array(P, True), backend.array(Y, False)
    axis = {"torch": r"weights\[:, None\]", "jax": r"weights\[\.\.\., None\]"}[backend.name]
    with pytest.raises(ValueError, match="add its channel axis: distance_" + axis):
        backend.functions.weighted_fbeta_loss(probs, target, distance_weights=target * 1.0)
    with pytest.raises(ValueError, match="class numbers: drop that axis"):
        backend.functions.weighted_fbeta_loss(backend.array(S, True), backend.array(T, True))


@pytest.mark.parametrize("rng", [0, None, "seed"])
def test_flip_labels_wants_a_source_of_chance(backend: Backend, rng: Any) -> None:
    with pytest.raises(TypeError, match="rng must be"):
        backend.functions.flip_labels(backend.array(Y, False), 0.5, rng)


REDUCING = [case for case in CASES if case.function in LOSSES]


@pytest.mark.parametrize("case", REDUCING, ids=lambda case: case.name)
def test_nan_never_raises_and_stays_in_its_image(backend: Backend, case: Case) -> None:
    clean = case.per_image()
    spoilt = clean.holding(case.wrt[0], np.nan)
    expected = backend.call(case.function, *clean.args, **clean.options)
    got = backend.call(case.function, *spoilt.args, **spoilt.options)
    assert np.isnan(got[0])
    np.testing.assert_array_equal(got[1:], expected[1:])


def test_nan_beside_a_bad_value_still_raises(backend: Backend) -> None:
    probs = S.copy()
    probs[0, 0, 0], probs[1, 0, 0] = np.nan, 3
    with pytest.raises(ValueError, match="got 3"):
        backend.call("cas_loss", probs, Y)


def test_nan_target_and_nan_features_of_one_region_are_nan(backend: Backend) -> None:
    target, features = T.copy(), F.copy()
    target[0, 0, 0] = features[0, 0, 0] = np.nan
    loss = backend.call("weighted_fbeta_loss", P, target, reduction="none")
    assert np.isnan(loss).tolist() == [True, False]
    loss = backend.call("metric_loss", features, 0 * Y, reduction="none")
    assert np.isnan(loss).tolist() == [True, False]


def test_ignored_pixels_may_hold_anything(backend: Backend) -> None:
    mask, labels, probs, features = M.copy(), Y.copy(), S.copy(), F.copy()
    mask[0, 1] = False
    labels[0, 1], probs[0, 1], features[0, 1] = 255, -7.0, 1e30
    for function, first, clean in (("cas_loss", probs, S), ("metric_loss", features, F)):
        np.testing.assert_array_equal(
            backend.call(function, first, labels, mask=mask),
            backend.call(function, clean, Y, mask=mask),
        )


def test_no_images_and_no_pixels_are_zero(backend: Backend) -> None:
    assert backend.call("cas_loss", S[:0], Y[:0]) == 0
    assert backend.call("cas_loss", S[:0], Y[:0], reduction="none").shape == (0,)
    assert backend.call("cas_loss", S[:, :0], Y[:, :0]) == 0
    assert backend.call("metric_loss", F[:, :0], Y[:, :0]) == 0
    assert backend.call("js_mutual_information_loss", P[:, :0], T[:, :0] > 0) == 0
    for distance in ("window", "euclidean"):
        for none in (P[:0], T[:0]), (P[:, :0], T[:, :0]), (P[:, :, :0], T[:, :, :0]):
            assert backend.call("weighted_fbeta_loss", *none, distance=distance) == 0


@pytest.mark.parametrize("score", [np.inf, -np.inf])
def test_an_infinite_score_has_its_own_cost_alone(backend: Backend, score: float) -> None:
    """0 for a pair that it is right about, otherwise infinite, not NaN."""
    scores = np.array([[1.0, score, -1.0, score]])
    joint = np.array([[True, score > 0, False, score < 0]])
    right = joint.copy()
    right[:, 3] = score > 0
    assert backend.call("js_mutual_information_loss", scores, joint) == np.inf
    assert np.isfinite(backend.call("js_mutual_information_loss", scores, right))
    counted = np.array([[True, True, True, False]])
    assert np.isfinite(backend.call("js_mutual_information_loss", scores, joint, mask=counted))
    gradient = backend.gradient("js_mutual_information_loss", scores, joint)
    assert np.isfinite(gradient).all()


KINDS: tuple[Any, ...] = (np.float16, np.float32, np.float64, np.int64, np.uint8, bool)


@pytest.mark.parametrize("function", LOSSES)
def test_any_arrays_give_a_number_or_an_error_that_names_one(
    backend: Backend, function: str
) -> None:
    rng = np.random.default_rng(1)
    shapes = [(2, 3), (2, 3, 2), (2, 1, 3), (2, 3, 3, 1), (2, 3, 3, 2), (1,), (2, 2, 2, 2, 2, 2)]
    names = (
        "features",
        "labels",
        "probs",
        "logits",
        "target",
        "anchors",
        "scores",
        "joint",
        "mask",
    )
    for _ in range(60):
        arrays = [
            (rng.normal(size=shapes[rng.integers(len(shapes))]) * 2).astype(
                KINDS[rng.integers(len(KINDS))]
            )
            for _ in range(3 if "anchor" in function else 2)
        ]
        try:
            value = getattr(backend.functions, function)(
                *(backend.array(array, False) for array in arrays)
            )
        except (ValueError, TypeError) as error:
            assert any(name in str(error) for name in names), str(error)  # noqa: PT017
        else:
            assert np.isfinite(float(value))
