"""Memory grows with the pixels, and never with pixels x regions x channels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from torch import Tensor

import saliency_losses.jax as J
import saliency_losses.torch as T


def kept(loss: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Bytes kept for backward, over those of `x`."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held, so that no address is given out twice.
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(x)
    return sum(storage.nbytes() for storage in storages.values()) / (x.numel() * x.element_size())


def features(side: int, channels: int = 16) -> Tensor:
    return torch.randn(2, channels, side, side, requires_grad=True)


def labels(side: int, regions: int = 2) -> Tensor:
    return torch.arange(2 * side * side).reshape(2, side, side) % regions


def probs(side: int, channels: int = 1) -> Tensor:
    return torch.full((2, channels, side, side), 0.5, requires_grad=True)


# Beside whole maps a loss keeps a few numbers per image.
MOST = 2 + 1e-3

LOSSES: list[tuple[str, Callable[[int], Tensor], Callable[[Tensor, int], Tensor]]] = [
    ("metric", features, lambda x, n: T.metric_loss(x, labels(n))),
    ("pairwise", features, lambda x, n: T.metric_loss(x, labels(n), form="pairwise")),
    ("normalized", features, lambda x, n: T.metric_loss(x, labels(n), normalize=True)),
    (
        "pairwise, normalized",
        features,
        lambda x, n: T.metric_loss(x, labels(n), form="pairwise", normalize=True),
    ),
    ("hard", features, lambda x, n: T.metric_loss(x, labels(n), hard_negatives=True)),
    (
        "hard, normalized",
        features,
        lambda x, n: T.metric_loss(x, labels(n), hard_negatives=True, normalize=True),
    ),
    (
        "held, normalized",
        features,
        lambda x, n: T.metric_loss(x, labels(n), stop_gradient=True, normalize=True),
    ),
    ("cas", lambda n: probs(n, 2), lambda x, n: T.cas_loss(x, labels(n))),
    (
        "cas, 5 regions",
        lambda n: probs(n, 5),
        lambda x, n: T.cas_loss(x, labels(n, 5), num_regions=5, average_regions=True),
    ),
    (
        "cross-entropy",
        lambda n: probs(n, 2),
        lambda x, n: T.class_agnostic_cross_entropy(x, labels(n)),
    ),
    (
        "cross-entropy, pixel",
        lambda n: probs(n, 2),
        lambda x, n: T.class_agnostic_cross_entropy(x, labels(n), per="pixel"),
    ),
    *(
        (
            f"anchor, {regions} regions",
            features,
            lambda x, n, r=regions: T.anchor_softmax_loss(x, torch.randn(2, r, 16), labels(n, r)),
        )
        for regions in (2, 32)
    ),
    *(
        (
            f"fbeta, {options}",
            probs,
            lambda x, n, o=options: T.weighted_fbeta_loss(x, labels(n)[:, None], **o),
        )
        for options in (
            {},
            {"error": "absolute"},
            {"distance": "euclidean"},
            {"theta": 40},
            {"phi": 40},
        )
    ),
    # The given weights are one of the two maps.
    (
        "fbeta, weights given",
        probs,
        lambda x, n: T.weighted_fbeta_loss(
            x, labels(n)[:, None], distance_weights=torch.ones(2, 1, n, n)
        ),
    ),
    ("js-mi", probs, lambda x, n: T.js_mutual_information_loss(x, labels(n)[:, None] > 0)),
    (
        "js-mi, pooled",
        probs,
        lambda x, n: T.js_mutual_information_loss(x, labels(n)[:, None] > 0, balance=False),
    ),
]


@pytest.mark.parametrize(("name", "make", "loss"), LOSSES, ids=[row[0] for row in LOSSES])
def test_kept_for_backward_is_linear_and_small(
    name: str, make: Callable[[int], Tensor], loss: Callable[[Tensor, int], Tensor]
) -> None:
    small, large = (kept(lambda x, n=n: loss(x, n), make(n)) for n in (64, 256))
    assert large <= MOST
    assert large <= 1.1 * small


def masked(side: int) -> Tensor:
    return torch.arange(2 * side * side).reshape(2, side, side) % 3 > 0


@pytest.mark.parametrize(
    ("make", "loss"),
    [
        (lambda: probs(64, 2), lambda x: T.cas_loss(x, labels(64), mask=masked(64))),
        (
            lambda: features(64),
            lambda x: T.metric_loss(x, labels(64), normalize=True, mask=masked(64)),
        ),
        (
            lambda: features(64),
            lambda x: T.anchor_softmax_loss(x, torch.randn(2, 2, 16), labels(64), mask=masked(64)),
        ),
        (
            lambda: probs(64),
            lambda x: T.weighted_fbeta_loss(x, labels(64)[:, None], mask=masked(64)),
        ),
        (
            lambda: probs(64),
            lambda x: T.js_mutual_information_loss(
                x, labels(64)[:, None] > 0, mask=masked(64)[:, None]
            ),
        ),
    ],
    ids=["cas", "metric", "anchor", "fbeta", "js-mi"],
)
def test_a_mask_adds_itself(make: Callable[[], Tensor], loss: Callable[[Tensor], Tensor]) -> None:
    x = make()
    # One byte per pixel, against the four of each channel.
    assert kept(loss, x) <= 2 + 0.25 / x.shape[1] + 0.01


def temporaries(loss: Callable[..., jax.Array], *args: jax.Array) -> int:
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*args).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return int(analysis.temp_size_in_bytes)


@pytest.mark.parametrize(
    "options", [{}, {"normalize": True}, {"form": "pairwise"}, {"anchors": True}], ids=str
)
def test_jax_writes_no_features_out(options: dict[str, Any]) -> None:
    """Weights and centres are not spread over the channels or pixels in memory."""
    x, y = jnp.ones((2, 128, 128, 16), jnp.float32), jnp.zeros((2, 128, 128), int)
    if "anchors" in options:
        bytes_ = temporaries(J.anchor_softmax_loss, x, jnp.ones((2, 2, 16), jnp.float32), y)
    else:
        bytes_ = temporaries(lambda x, y: J.metric_loss(x, y, **options), x, y)
    assert bytes_ < 0.5 * x.nbytes


def test_jax_temporaries_are_linear_in_pixels_and_free_of_regions() -> None:
    def anchor(n: int, regions: int) -> int:
        x, a = jnp.ones((1, n, n, 16), jnp.float32), jnp.ones((1, regions, 16), jnp.float32)
        return temporaries(J.anchor_softmax_loss, x, a, jnp.zeros((1, n, n), int))

    pixel = 4 * 128 * 128
    assert anchor(256, 2) < 4.5 * anchor(128, 2)
    # A few maps per region are allowed; features per region would be 16.
    assert anchor(128, 34) - anchor(128, 2) < 32 * 8 * pixel

    def fbeta(n: int, **size: int) -> int:
        p, t = jnp.full((1, n, n, 1), 0.5, jnp.float32), jnp.zeros((1, n, n, 1), int)
        return temporaries(lambda p, t: J.weighted_fbeta_loss(p, t, **size), p, t)

    assert fbeta(256) < 4.5 * fbeta(128)
    assert fbeta(128, phi=20) < 2 * fbeta(128)
