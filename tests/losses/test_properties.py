"""What holds for any data: invariances, bounds, optima, masks, batches, gradients."""

from math import log
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import strategies as draw
from tests.support.backends import BACKENDS, LOSSES, Backend, close, torch
from tests.support.strategies import KINDS, POINTWISE, VARIANTS, Variant, exact

N, SPATIAL = draw.N, (5, 4)
P = 20
any_variant = st.sampled_from(VARIANTS)
pointwise = st.sampled_from(POINTWISE)
labellings = st.sampled_from(("random", "first", "last", "one pixel"))
kinds = st.sampled_from(KINDS)
Rng = np.random.Generator


def per_image(backend: Backend, variant: Variant, args: tuple[Any, ...], **more: Any) -> np.ndarray:
    return backend.call(variant.function, *args, **variant.options, **more, reduction="none")


def gradient(
    backend: Backend, variant: Variant, args: tuple[Any, ...], wrt: int = 0, **more: Any
) -> np.ndarray:
    return backend.gradient(
        variant.function, *args, wrt=wrt, **variant.options, **more, reduction="sum"
    )


def mapped(args: tuple[Any, ...], variant: Variant, change: Any) -> tuple[Any, ...]:
    """`change` applied to every argument that has pixels: all but the anchors."""
    return tuple(
        x if variant.function == "anchor_softmax_loss" and i == 1 else change(x)
        for i, x in enumerate(args)
    )


def optimum(variant: Variant, channels: int = 3) -> float:
    options = variant.options
    if variant.function == "cas_loss":  # with every region present and M = R
        regions, alpha = options.get("num_regions", 2), options.get("alpha", 0.5)
        pairs = 1 if options.get("average_regions") else regions * (regions - 1)
        return -2 * (1 - alpha) * pairs
    return {"metric_loss": -4.0, "js_mutual_information": log(2), "weighted_fbeta_score": 1.0}.get(
        variant.function, 0.0
    )


# Invariances


@given(variant=pointwise, rng=draw.rngs)
def test_permuted_pixels_give_the_same_loss_and_the_permuted_gradient(
    backend: Backend, variant: Variant, rng: Rng
) -> None:
    args, order = draw.arguments(variant, rng), rng.permutation(P)
    mask = rng.random((N, *SPATIAL)) < 0.8

    def permute(x: np.ndarray) -> np.ndarray:
        return x.reshape(N, P, *x.shape[3:])[:, order].reshape(x.shape)

    other = mapped(args, variant, permute)
    close(
        per_image(backend, variant, other, mask=permute(mask)),
        per_image(backend, variant, args, mask=mask),
    )
    close(
        gradient(backend, variant, other, mask=permute(mask)),
        permute(gradient(backend, variant, args, mask=mask)),
    )


@given(
    options=st.sampled_from(
        ({}, {"form": "pairwise"}, {"hard_negatives": True}, {"stop_gradient": True})
    ),
    rng=draw.rngs,
)
def test_distances_ignore_a_common_offset(
    backend: Backend, options: dict[str, Any], rng: Rng
) -> None:
    variant = Variant("metric_loss", options)
    features, labels = draw.arguments(variant, rng)
    offset = 1000 * rng.normal(size=3)
    moved = features + offset
    close(
        per_image(backend, variant, (moved, labels)),
        per_image(backend, variant, (features, labels)),
    )
    close(
        gradient(backend, variant, (moved, labels)), gradient(backend, variant, (features, labels))
    )
    weights = rng.random(labels.shape)
    close(
        backend.call("semantic_distance", moved, weights),
        backend.call("semantic_distance", features, weights),
    )
    anchors = rng.normal(size=(N, 2, 3))
    close(
        backend.call("anchor_softmax_loss", moved, anchors + offset, labels),
        backend.call("anchor_softmax_loss", features, anchors, labels),
    )


@given(
    rng=draw.rngs,
    distance=st.sampled_from(("window", "euclidean")),
    normalize=st.booleans(),
    shift=st.tuples(st.integers(0, 7), st.integers(0, 8)),
)
def test_weighted_fbeta_ignores_where_the_content_lies(
    backend: Backend, rng: Rng, distance: str, normalize: bool, shift: tuple[int, int]
) -> None:
    # Outside the image and away from the content there is neither error nor foreground.
    p, y = np.zeros((2, N, 12, 14, 1))
    p[:, :5, :6], y[:, :5, :6] = rng.random((N, 5, 6, 1)), rng.random((N, 5, 6, 1)) < 0.4
    y[:, 2, 2] = 1
    options = {"distance": distance, "normalize_kernel": normalize, "reduction": "none"}
    moved = [np.roll(x, shift, (1, 2)) for x in (p, y)]
    close(
        backend.call("weighted_fbeta_loss", *moved, **options),
        backend.call("weighted_fbeta_loss", p, y, **options),
    )


@given(rng=draw.rngs, averaged=st.booleans(), masked=st.booleans())
def test_cas_ignores_the_names_of_regions(
    backend: Backend, rng: Rng, averaged: bool, masked: bool
) -> None:
    variant = Variant("cas_loss", {"num_regions": 5, "average_regions": averaged})
    probs, labels = draw.arguments(variant, rng)
    mask = rng.random(labels.shape) < 0.6 if masked else None
    renamed = np.stack([rng.permutation(5)[own] for own in labels])
    close(
        per_image(backend, variant, (probs, renamed), mask=mask),
        per_image(backend, variant, (probs, labels), mask=mask),
    )
    close(
        gradient(backend, variant, (probs, renamed), mask=mask),
        gradient(backend, variant, (probs, labels), mask=mask),
    )


@given(rng=draw.rngs, per=st.sampled_from(("image", "pixel")))
def test_class_agnostic_cross_entropy_ignores_an_exchange_and_is_below_cross_entropy(
    backend: Backend, rng: Rng, per: str
) -> None:
    variant = Variant("class_agnostic_cross_entropy", {"per": per})
    logits, labels = draw.arguments(variant, rng)
    loss = per_image(backend, variant, (logits, labels))
    close(per_image(backend, variant, (logits, 1 - labels)), loss)
    close(per_image(backend, variant, (logits[..., ::-1].copy(), labels)), loss)
    own, total = np.take_along_axis(logits, labels[..., None], -1)[..., 0], np.exp(logits).sum(-1)
    cross_entropy = (np.log(total) - own).mean((1, 2))
    assert (loss <= cross_entropy + 1e-12).all()
    assert (loss >= 0).all()
    if per == "image":
        exchanged = np.take_along_axis(logits, 1 - labels[..., None], -1)[..., 0]
        close(loss, np.minimum(cross_entropy, (np.log(total) - exchanged).mean((1, 2))))


# Masks


@given(variant=pointwise, rng=draw.rngs)
def test_masked_is_removed(backend: Backend, variant: Variant, rng: Rng) -> None:
    args = draw.arguments(variant, rng, (20,))
    kept = np.stack([np.sort(rng.permutation(P)[:15]) for _ in range(N)])
    mask = np.zeros((N, P), bool)
    np.put_along_axis(mask, kept, True, 1)
    removed = mapped(
        args, variant, lambda x: np.stack([own[i] for own, i in zip(x, kept, strict=True)])
    )
    close(per_image(backend, variant, args, mask=mask), per_image(backend, variant, removed))
    at = gradient(backend, variant, args, mask=mask)
    close(at[mask].reshape(N, 15, -1), gradient(backend, variant, removed).reshape(N, 15, -1))
    assert (at[~mask] == 0).all()


@given(rng=draw.rngs, variant=st.sampled_from(draw.FBETA))
def test_masked_pixels_neither_err_nor_are_foreground(
    backend: Backend, rng: Rng, variant: Variant
) -> None:
    p, y = draw.arguments(variant, rng)
    mask = rng.random((N, *SPATIAL)) < 0.6
    mask[:, 0, 0], y[:, 0, 0] = True, True
    at, rest = mask[..., None], {}
    close(
        per_image(backend, variant, (p, y), mask=mask),
        per_image(backend, variant, (np.where(at, p, 0), y & at), **rest),
    )
    distance = variant.options.get("distance", "window")
    close(
        backend.call("distance_weights", y, distance=distance, mask=mask),
        backend.call("distance_weights", y & at, distance=distance),
        "float32",
    )
    # Without foreground the error is a mean over the counted pixels.
    none, share = np.zeros_like(y), mask.mean((1, 2))
    if variant.function == "weighted_fbeta_loss":
        close(
            per_image(backend, variant, (p, none), mask=mask) * share,
            per_image(backend, variant, (np.where(at, p, 0), none)),
        )


@given(variant=any_variant, rng=draw.rngs)
def test_ignored_pixels_may_hold_anything(backend: Backend, variant: Variant, rng: Rng) -> None:
    args = draw.arguments(variant, rng, dtype="float32")  # where squares of 1e30 overflow
    mask = rng.random((N, *SPATIAL)) < 0.5

    def wrong(x: np.ndarray) -> np.ndarray:
        if x.dtype.kind == "f":
            bounded = variant.function in (
                "cas_loss",
                "weighted_fbeta_loss",
                "weighted_fbeta_score",
            )
            return draw.spoil(
                x,
                mask,
                rng.choice(
                    (7.0, -7.0, draw.HUGE, -draw.HUGE) if bounded else (draw.HUGE, -draw.HUGE)
                ),
            )
        if x.dtype == bool:
            return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - 3)), x, ~x)
        return draw.spoil(x, mask, int(rng.choice((255, -1, 10**6))))

    other = mapped(args, variant, wrong)
    np.testing.assert_array_equal(
        per_image(backend, variant, other, mask=mask), per_image(backend, variant, args, mask=mask)
    )
    got = gradient(backend, variant, other, mask=mask)
    np.testing.assert_array_equal(got, gradient(backend, variant, args, mask=mask))
    assert (got[~mask] == 0).all()


@given(variant=any_variant, rng=draw.rngs, kind=kinds)
def test_an_image_without_counted_pixels_has_loss_and_gradient_0(
    backend: Backend, variant: Variant, rng: Rng, kind: str
) -> None:
    args = draw.arguments(variant, rng, kind=kind)
    mask = rng.random((N, *SPATIAL)) < 0.5
    mask[1] = False
    empty = {"js_mutual_information": log(2), "weighted_fbeta_score": 1.0}.get(variant.function, 0)
    losses = per_image(backend, variant, args, mask=mask)
    assert losses[1] == empty
    for wrt in (0, 1) if variant.function == "anchor_softmax_loss" else (0,):
        assert (gradient(backend, variant, args, wrt, mask=mask)[1] == 0).all()
    # It stays in the mean over the images.
    close(
        backend.call(variant.function, *args, **variant.options, mask=mask), (losses[0] + empty) / 2
    )


@pytest.mark.parametrize("variant", draw.METRIC, ids=repr)
@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_an_image_that_lacks_a_region_has_metric_loss_and_gradient_0(
    backend: Backend, variant: Variant, kept: int, masked: bool
) -> None:
    features, labels = draw.arguments(variant, np.random.default_rng(0))
    mask = labels == kept if masked else None  # the other region is there, but ignored
    labels = labels if masked else np.full_like(labels, kept)
    assert (per_image(backend, variant, (features, labels), mask=mask) == 0).all()
    assert (gradient(backend, variant, (features, labels), mask=mask) == 0).all()


@given(variant=any_variant, rng=draw.rngs)
def test_a_full_mask_is_no_mask(backend: Backend, variant: Variant, rng: Rng) -> None:
    args, mask = draw.arguments(variant, rng), np.ones((N, *SPATIAL), bool)
    close(per_image(backend, variant, args, mask=mask), per_image(backend, variant, args))
    close(gradient(backend, variant, args, mask=mask), gradient(backend, variant, args))


# Batches


def other_batches(backend: Backend) -> list[tuple[int, np.ndarray]]:
    """Where image 0 stands in which other batch: after itself, and alone where that is cheap."""
    # JAX would compile everything again for a single image.
    alone = [(0, np.array([0]))] if backend.name == "torch" else []
    return [(1, np.array([0, 0])), *alone]


@given(variant=any_variant, rng=draw.rngs, kind=kinds, masked=st.booleans())
def test_an_image_ignores_its_batch(
    backend: Backend, variant: Variant, rng: Rng, kind: str, masked: bool
) -> None:
    args = draw.arguments(variant, rng, kind=kind)
    mask = rng.random((N, *SPATIAL)) < 0.5 if masked else None
    loss = per_image(backend, variant, args, mask=mask)[0]
    at = gradient(backend, variant, args, mask=mask)[0]
    for place, batch in other_batches(backend):
        own = tuple(x[batch] for x in args)
        rest = {"mask": mask[batch] if mask is not None else None}
        np.testing.assert_allclose(
            per_image(backend, variant, own, **rest)[place], loss, rtol=1e-12, atol=1e-12
        )
        np.testing.assert_allclose(
            gradient(backend, variant, own, **rest)[place], at, rtol=1e-12, atol=1e-12
        )


@given(rng=draw.rngs)
def test_companions_ignore_the_batch(backend: Backend, rng: Rng) -> None:
    features, weights = rng.normal(size=(N, *SPATIAL, 3)), rng.random((N, *SPATIAL, 2))
    prior, anchors = rng.random((N, *SPATIAL)), rng.normal(size=(N, 2, 3))
    for function, *args in (
        ("semantic_distance", features, prior),
        ("region_anchors", features, weights),
        ("anchor_probabilities", features, anchors),
        ("foreground_vector", features, prior),
        ("distance_weights", weights > 0.9),
    ):
        alone = backend.call(function, *args)[0]
        for place, batch in other_batches(backend):
            close(backend.call(function, *(x[batch] for x in args))[place], alone)


@given(variant=any_variant, rng=draw.rngs)
def test_reductions_agree(backend: Backend, variant: Variant, rng: Rng) -> None:
    args = draw.arguments(variant, rng)
    losses = per_image(backend, variant, args)
    assert losses.shape == (N,)
    close(backend.call(variant.function, *args, **variant.options, reduction="sum"), losses.sum())
    close(backend.call(variant.function, *args, **variant.options, reduction="mean"), losses.mean())
    close(backend.call(variant.function, *args, **variant.options), losses.mean())


# Bounds and optima


@given(
    rng=draw.rngs,
    kind=kinds,
    labelling=labellings,
    form=st.sampled_from(
        ({}, {"form": "pairwise"}, {"hard_negatives": True}, {"stop_gradient": True})
    ),
    zeros=st.booleans(),
)
def test_metric_loss_is_bounded_by_the_length_of_the_features(
    backend: Backend, rng: Rng, kind: str, labelling: str, form: dict[str, Any], zeros: bool
) -> None:
    for normalize in (True, False):
        variant = Variant("metric_loss", form | {"normalize": normalize})
        features, labels = draw.arguments(variant, rng, kind=kind, labelling=labelling)
        if zeros:
            features = features * (rng.random((*labels.shape, 1)) < 0.5)
        loss = per_image(backend, variant, (features, labels))
        squared = (features**2).sum(-1).reshape(N, -1).max(1) if not normalize else 1.0
        uneven = np.abs(2 * (labels == 1).reshape(N, -1).mean(1) - 1)
        most = {"form": uneven, "hard_negatives": 1.0}.get(next(iter(form), ""), 0.0)
        assert (loss >= -4 * squared - 1e-12).all()
        assert (loss <= most * squared + 1e-12).all()
        if normalize and "form" in form and not zeros and kind != "zero":
            assert (loss <= uneven**2 / (1 + uneven) + 1e-12).all()


def test_metric_loss_attains_its_upper_ends(backend: Backend) -> None:
    # Three quarters salient: a = ½. Background of one direction, salient pixels to both sides of
    # it, of mean 1/(1 + a) = 2/3 along it.
    aside = np.sqrt(1 - 4 / 9)
    features = np.array([[[1, 0]] * 2 + [[2 / 3, aside], [2 / 3, -aside]] * 3])
    labels = np.array([[0] * 2 + [1] * 6])
    pairwise = {"form": "pairwise", "normalize": True}
    close(backend.call("metric_loss", features, labels, **pairwise), 0.25 / 1.5)
    # Vectors of length 0 as background, opposite ones as salient: a.
    features = np.array([[[0, 0]] * 2 + [[0, 1], [0, -1]] * 3], float)
    close(backend.call("metric_loss", features, labels, **pairwise), 0.5)
    # Few salient pixels without a mean, as many of the background against its mean: nearly 1.
    features = np.array([[[0, 1], [0, -1]] + [[1, 0]] * 2 + [[-1, 0]] * 196], float)
    labels = np.array([[1] * 2 + [0] * 198])
    loss = backend.call("metric_loss", features, labels, hard_negatives=True, normalize=True)
    assert 0.97 < loss < 1


@given(
    rng=draw.rngs,
    kind=kinds,
    labelling=labellings,
    alpha=st.floats(0, 1),
    regions=st.sampled_from((2, 3, 5)),
    averaged=st.booleans(),
)
def test_cas_loss_is_bounded(
    backend: Backend,
    rng: Rng,
    kind: str,
    labelling: str,
    alpha: float,
    regions: int,
    averaged: bool,
) -> None:
    variant = Variant(
        "cas_loss", {"num_regions": regions, "alpha": alpha, "average_regions": averaged}
    )
    probs, labels = draw.arguments(variant, rng, kind=kind, labelling=labelling)
    if kind == "constant":
        probs = np.eye(3)[rng.integers(0, 3, labels.shape)]  # one-hot at random: the widest spread
    channels, loss = probs.shape[-1], per_image(backend, variant, (probs, labels))
    present = np.array([len(np.unique(own)) for own in labels])
    uniformers, pairs = (1, present > 1) if averaged else (present, present * (present - 1))
    assert (loss >= -2 * (1 - alpha) * pairs - 1e-12).all()
    assert (loss <= alpha * uniformers * (1 - 1 / channels) + 1e-12).all()


def test_cas_loss_attains_its_upper_end(backend: Backend) -> None:
    # In every region each one-hot descriptor equally often: equal means, the widest spread.
    labels, hot = np.repeat([[0, 1, 2]], 4, 1), np.eye(4)[np.tile(np.arange(4), 3)][None]
    for averaged, bound in ((False, 3), (True, 1)):
        loss = backend.call(
            "cas_loss", hot, labels, num_regions=3, alpha=0.7, average_regions=averaged
        )
        close(loss, 0.7 * bound * (1 - 1 / 4))


@given(
    rng=draw.rngs,
    variant=st.sampled_from(draw.FBETA[:-1]),
    kind=kinds,
    labelling=labellings,
    beta=st.floats(0.1, 10),
    masked=st.booleans(),
)
def test_weighted_fbeta_is_between_0_and_1_and_score_is_1_minus_loss(
    backend: Backend,
    rng: Rng,
    variant: Variant,
    kind: str,
    labelling: str,
    beta: float,
    masked: bool,
) -> None:
    args = draw.arguments(variant, rng, kind=kind, labelling=labelling)
    mask = rng.random((N, *SPATIAL)) < 0.6 if masked else None
    options = variant.options | {"beta": beta, "mask": mask, "reduction": "none"}
    loss = backend.call("weighted_fbeta_loss", *args, **options)
    shared = {"distance": "window", "error": "squared"}  # where the defaults differ
    score = backend.call("weighted_fbeta_score", *args, **shared | options)
    assert ((loss >= 0) & (loss <= 1 + 1e-12)).all()
    close(score, 1 - loss)
    weights = backend.call("distance_weights", args[1], mask=mask)
    assert ((weights >= 1) & (weights <= 2)).all()


@given(problem=draw.pairs())
def test_js_estimate_is_at_most_log_2(backend: Backend, problem: draw.Problem) -> None:
    args, options, dtype = problem
    estimate = backend.call("js_mutual_information", *args, **options, reduction="none")
    loss = backend.call("js_mutual_information_loss", *args, **options, reduction="none")
    assert (estimate <= np.asarray(log(2), dtype)).all()
    assert (loss >= 0).all()
    close(estimate, log(2) - loss / 2, dtype)


@given(variant=any_variant, rng=draw.rngs, dtype=draw.dtypes)
def test_a_perfect_prediction_attains_the_optimum(
    backend: Backend, variant: Variant, rng: Rng, dtype: str
) -> None:
    args = draw.arguments(variant, rng, kind="perfect", dtype=dtype)
    got = per_image(backend, variant, args)
    if variant.function == "anchor_softmax_loss":  # approached as the anchors part
        gap = np.linalg.norm(args[1][:, 0] - args[1][:, 1], axis=-1)
        close(got, np.log1p(np.exp(-gap)), dtype)
        return
    close(got, np.full(N, optimum(variant)), dtype)
    if variant.function.startswith("weighted_fbeta"):
        assert (got == optimum(variant)).all()
    random = per_image(
        backend,
        variant,
        draw.arguments(variant, rng, dtype=dtype)
        if variant.function != "metric_loss"
        else (np.tanh(draw.arguments(variant, rng, dtype=dtype)[0]) / 2, args[1]),
    )
    better = (
        np.less
        if variant.function not in ("js_mutual_information", "weighted_fbeta_score")
        else np.greater
    )
    assert better(got, random).all()


@given(
    rng=draw.rngs,
    distance=st.sampled_from(("window", "euclidean")),
    error=st.sampled_from(("squared", "absolute")),
)
def test_a_farther_false_alarm_costs_at_least_as_much(
    backend: Backend, rng: Rng, distance: str, error: str
) -> None:
    y = np.zeros((10, 3, 12, 1))
    y[:, :, 0] = 1
    p = np.where(y == 1, rng.uniform(0.5, 1), 0.0)
    for away in range(1, 11):
        p[away - 1, 1, away] = 0.8
    loss = backend.call(
        "weighted_fbeta_loss", p, y, distance=distance, error=error, reduction="none"
    )
    steps = np.diff(loss)
    assert (steps[:4] > 1e-6).all()
    if distance == "window":  # beyond φ = 5 all are equally far
        assert steps[4] > 1e-6
        close(loss[5:], np.full(5, loss[-1]))
    else:
        assert (steps > 1e-6).all()


@pytest.mark.parametrize("theta", [4, 8, 12])
def test_misses_in_a_heap_cost_more_than_misses_among_hits(backend: Backend, theta: int) -> None:
    y = np.ones((2, 16, 16, 1))
    p = np.ones_like(y)
    p[0, 2::4, 2::4] = 0
    p[1, 6:10, 6:10] = 0
    scattered, heaped = backend.call(
        "weighted_fbeta_loss", p, y, theta=theta, normalize_kernel=True, reduction="none"
    )
    assert scattered < heaped


# Far and near in float32


@pytest.mark.parametrize("far", [1e2, 1e3, 1e4, 1e5])
def test_equally_far_anchors_give_equal_probabilities_that_sum_to_1(
    backend: Backend, far: float
) -> None:
    # The distances are equal to the last bit: their size must not blur the softmax of them.
    features = np.random.default_rng(0).random((1, 4, 3)).astype(np.float32)
    anchors, labels = np.full((1, 2, 3), far, np.float32), np.array([[0, 1, 1, 0]])
    probabilities = backend.call("anchor_probabilities", features, anchors)
    close(probabilities, np.full((1, 4, 2), 0.5), "float32")
    close(backend.call("anchor_softmax_loss", features, anchors, labels), log(2), "float32")


@given(rng=draw.rngs, dtype=draw.dtypes, scale=st.sampled_from((1e-14, 1e-3, 1.0, 30.0)))
def test_anchor_probabilities_sum_to_1(
    backend: Backend, rng: Rng, dtype: str, scale: float
) -> None:
    features = (scale * rng.normal(size=(N, *SPATIAL, 3))).astype(dtype)
    anchors = (scale * rng.normal(size=(N, 4, 3))).astype(dtype)
    probabilities = backend.call("anchor_probabilities", features, anchors)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    close(probabilities.sum(-1), np.ones((N, *SPATIAL)), dtype)


# Gradients


@given(variant=any_variant, rng=draw.rngs, kind=kinds, labelling=labellings, masked=st.booleans())
def test_loss_and_gradient_are_finite_on_degenerate_input(
    backend: Backend, variant: Variant, rng: Rng, kind: str, labelling: str, masked: bool
) -> None:
    args = draw.arguments(variant, rng, kind=kind, labelling=labelling, dtype="float32")
    more = {"mask": rng.random((N, *SPATIAL)) < 0.3} if masked else {}
    assert np.isfinite(per_image(backend, variant, args, **more)).all()
    for wrt in (0, 1) if variant.function == "anchor_softmax_loss" else (0,):
        got = gradient(backend, variant, args, wrt, **more)
        assert got.dtype == np.float32
        assert np.isfinite(got).all()


@pytest.mark.parametrize("dtype", draw.DTYPES)
def test_the_gradient_at_distance_0_is_0(backend: Backend, dtype: str) -> None:
    rng = np.random.default_rng(0)
    point = rng.normal(size=3).astype(dtype)
    features = np.broadcast_to(point, (N, *SPATIAL, 3)).copy()
    labels = rng.integers(0, 2, (N, *SPATIAL))
    anchors = np.broadcast_to(point, (N, 2, 3)).copy()
    for wrt in (0, 1):
        got = backend.gradient("anchor_softmax_loss", features, anchors, labels, wrt=wrt)
        assert (got == 0).all()
    # A mean of equal float32 numbers may round; powers of two do not.
    zero = np.zeros_like(features)
    weights = np.ones((N, *SPATIAL), dtype)
    assert (backend.gradient("semantic_distance", zero, weights) == 0).all()
    assert (backend.gradient("metric_loss", zero, labels, normalize=True) == 0).all()


@given(variant=any_variant, rng=draw.rngs, kind=kinds, labelling=labellings, masked=st.booleans())
def test_torch_and_jax_have_the_same_gradient(
    variant: Variant, rng: Rng, kind: str, labelling: str, masked: bool
) -> None:
    if kind == "constant" and variant.options.get("hard_negatives"):
        kind = "zero"  # constant to rounding only, which ranks the pixels in either way
    args = draw.arguments(variant, rng, kind=kind, labelling=labelling)
    more = {"mask": rng.random((N, *SPATIAL)) < 0.6} if masked else {}
    for wrt in (0, 1) if variant.function == "anchor_softmax_loss" else (0,):
        got = gradient(BACKENDS["torch"], variant, args, wrt, **more)
        assert np.isfinite(got).all()
        close(got, gradient(BACKENDS["jax"], variant, args, wrt, **more))


@given(rng=draw.rngs, error=st.sampled_from(("absolute", "squared")), normalize=st.booleans())
def test_torch_and_jax_have_the_same_gradient_at_kinks_of_the_weighted_fbeta_loss(
    rng: Rng, error: str, normalize: bool
) -> None:
    # Some pixels without error, some foreground pixels where AE = E.
    y = rng.random((N, *SPATIAL, 2)) < 0.5
    p = np.where(rng.random(y.shape) < 0.5, y, rng.integers(0, 3, y.shape) / 2)
    options = {"error": error, "normalize_kernel": normalize}
    close(
        BACKENDS["torch"].gradient("weighted_fbeta_loss", p, y, **options),
        BACKENDS["jax"].gradient("weighted_fbeta_loss", p, y, **options),
    )


@given(rng=draw.rngs, per=st.sampled_from(("image", "pixel")))
def test_torch_and_jax_have_the_same_gradient_at_ties_of_the_two_cross_entropies(
    rng: Rng, per: str
) -> None:
    # A score and its negative under one label: sums of two, which are equal to the last bit.
    score, label = rng.integers(-2, 3, (6, 1)).astype(float), rng.integers(0, 2, (6, 1))
    score, labels = np.concatenate([score, -score], 1), np.concatenate([label, label], 1)
    logits = np.stack([0 * score, score], -1)
    options = {"per": per}
    close(
        BACKENDS["torch"].gradient("class_agnostic_cross_entropy", logits, labels, **options),
        BACKENDS["jax"].gradient("class_agnostic_cross_entropy", logits, labels, **options),
    )


COMPANIONS = {
    "semantic_distance": lambda r: (r.normal(size=(N, *SPATIAL, 3)), r.random((N, *SPATIAL))),
    "region_anchors": lambda r: (r.normal(size=(N, *SPATIAL, 3)), r.random((N, *SPATIAL, 2))),
    "anchor_probabilities": lambda r: (r.normal(size=(N, *SPATIAL, 3)), r.normal(size=(N, 2, 3))),
    "foreground_vector": lambda r: (r.normal(size=(N, *SPATIAL, 3)), r.random((N, *SPATIAL))),
    "merge_by_confidence": lambda r: (r.random((N, *SPATIAL)), r.random((N, *SPATIAL))),
}


@given(function=st.sampled_from(list(COMPANIONS)), rng=draw.rngs)
def test_torch_and_jax_have_the_same_gradient_of_companions(function: str, rng: Rng) -> None:
    args = COMPANIONS[function](rng)
    for wrt in (0, 1):
        close(
            BACKENDS["torch"].gradient(function, *args, wrt=wrt),
            BACKENDS["jax"].gradient(function, *args, wrt=wrt),
        )


STEP = 1e-6


@given(
    variant=st.sampled_from([v for v in VARIANTS if not v.options.get("stop_gradient")]),
    rng=draw.rngs,
    masked=st.booleans(),
)
def test_the_gradient_is_that_of_the_reference(
    backend: Backend, variant: Variant, rng: Rng, masked: bool
) -> None:
    """Along a random direction, by central differences."""
    args = list(draw.arguments(variant, rng))
    if variant.function.startswith("weighted_fbeta") or variant.function == "cas_loss":
        args[0] = 0.1 + 0.8 * args[0]
    more = {"mask": rng.random((N, *SPATIAL)) < 0.7} if masked else {}
    for wrt in (0, 1) if variant.function == "anchor_softmax_loss" else (0,):
        direction = rng.normal(size=args[wrt].shape)
        ends = []
        for sign in (1, -1):
            moved = [*args[:wrt], args[wrt] + sign * STEP * direction, *args[wrt + 1 :]]
            ends.append(exact(variant.function, *moved, **variant.options, **more).sum())
        slope = (ends[0] - ends[1]) / (2 * STEP)
        got = (gradient(backend, variant, tuple(args), wrt, **more) * direction).sum()
        np.testing.assert_allclose(got, slope, rtol=1e-5, atol=1e-6)


@given(
    function=st.sampled_from([f for f in COMPANIONS if f != "merge_by_confidence"]), rng=draw.rngs
)
def test_the_gradient_of_companions_is_that_of_the_reference(
    backend: Backend, function: str, rng: Rng
) -> None:
    args = list(COMPANIONS[function](rng))
    for wrt in (0, 1):
        direction = rng.normal(size=args[wrt].shape)
        if function == "foreground_vector" and wrt == 1:  # no step over the threshold or 1
            args[1] = 0.01 + 0.98 * args[1]
            direction *= np.abs(args[1] - 0.9) > 1e-4
        ends = [
            exact(
                function, *args[:wrt], args[wrt] + sign * STEP * direction, *args[wrt + 1 :]
            ).sum()
            for sign in (1, -1)
        ]
        got = (backend.gradient(function, *args, wrt=wrt) * direction).sum()
        np.testing.assert_allclose(got, (ends[0] - ends[1]) / (2 * STEP), rtol=1e-5, atol=1e-6)


# Random flips


def flip(
    backend: Backend, labels: np.ndarray, probability: float, seed: int, per: str
) -> np.ndarray:
    rng = torch.Generator().manual_seed(seed) if backend.name == "torch" else jax.random.key(seed)
    prepared = backend.array(labels, False)
    return backend.numpy(backend.functions.flip_labels(prepared, probability, rng, per=per), False)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64"])
@pytest.mark.parametrize("per", ["pixel", "image"])
def test_flipped_labels(backend: Backend, per: str, dtype: str) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (400, 5, 4)).astype(dtype)
    changed = {}
    for probability in (0.0, 0.3, 1.0):
        flipped = flip(backend, labels, probability, 5, per)
        assert flipped.dtype == labels.dtype
        changed[probability] = flipped != labels
        assert np.isin(flipped, (0, 1)).all()
        np.testing.assert_array_equal(flip(backend, labels, probability, 5, per), flipped)
    assert not changed[0.0].any()
    assert changed[1.0].all()
    share = changed[0.3].reshape(400, -1).mean(1)
    if per == "image":
        assert np.isin(share, (0, 1)).all()
        assert abs(share.mean() - 0.3) < 4 * np.sqrt(0.21 / 400)
    else:
        assert len(np.unique(share)) > 2
        assert abs(share.mean() - 0.3) < 4 * np.sqrt(0.21 / 8000)
        # Each place of an image is flipped as often as any other.
        assert abs(changed[0.3].mean(0) - 0.3).max() < 5 * np.sqrt(0.21 / 400)
    assert (flip(backend, labels, 0.3, 6, per) != flip(backend, labels, 0.3, 5, per)).any()


def test_every_loss_has_a_variant_here() -> None:
    assert {variant.function for variant in VARIANTS} >= set(LOSSES)
