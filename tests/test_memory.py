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
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(x)
    return sum(storages.values()) / (x.numel() * x.element_size())


def features(side: int, channels: int = 16) -> Tensor:
    return torch.randn(2, channels, side, side, requires_grad=True)


def labels(side: int, regions: int = 2) -> Tensor:
    return torch.arange(2 * side * side).reshape(2, side, side) % regions


def probs(side: int, channels: int = 1) -> Tensor:
    return torch.full((2, channels, side, side), 0.5, requires_grad=True)


# name, input, loss; at most so many times the input's bytes are kept for backward.
LOSSES: list[tuple[str, Callable[[int], Tensor], Callable[[Tensor, int], Tensor], float]] = [
    ("metric", features, lambda x, n: T.metric_loss(x, labels(n)), 0.2),
    ("pairwise", features, lambda x, n: T.metric_loss(x, labels(n), form="pairwise"), 1.5),
    ("normalized", features, lambda x, n: T.metric_loss(x, labels(n), normalize=True), 1.5),
    ("hard", features, lambda x, n: T.metric_loss(x, labels(n), hard_negatives=True), 2.5),
    ("cas", lambda n: probs(n, 2), lambda x, n: T.cas_loss(x, labels(n)), 4),
    ("anchor", features, lambda x, n: T.anchor_softmax_loss(x, torch.randn(2, 2, 16), labels(n)),
     2),
    ("fbeta", probs, lambda x, n: T.weighted_fbeta_loss(x, labels(n)[:, None]), 4),
    ("js-mi", lambda n: probs(n), lambda x, n: T.js_mutual_information_loss(
        x, labels(n)[:, None] > 0), 4),
]


@pytest.mark.parametrize(("name", "make", "loss", "most"), LOSSES, ids=[row[0] for row in LOSSES])
def test_kept_for_backward_is_linear_and_small(
        name: str, make: Callable[[int], Tensor], loss: Callable[[Tensor, int], Tensor],
        most: float) -> None:
    small, large = (kept(lambda x, n=n: loss(x, n), make(n)) for n in (64, 256))
    assert large <= most
    assert large <= 1.1 * small


def test_anchor_distances_keep_no_difference_per_region() -> None:
    x, many = features(64), 32
    anchors = torch.randn(2, many, 16)
    # A few maps per region, but not features per region.
    bound = 2 + 6 * many / 16
    assert kept(lambda x: T.anchor_softmax_loss(x, anchors, labels(64, many)), x) < bound


def test_region_statistics_keep_nothing_per_region() -> None:
    x = probs(64, 16)
    few, many = (kept(lambda x, r=r: T.cas_loss(x, labels(64, r), num_regions=r), x)
                 for r in (2, 64))
    assert many < 1.5 * few


@pytest.mark.parametrize("size", [{"theta": 40}, {"phi": 40}])
def test_window_sizes_keep_nothing(size: dict[str, int]) -> None:
    x, target = probs(64), labels(64)[:, None]
    default = kept(lambda x: T.weighted_fbeta_loss(x, target), x)
    assert kept(lambda x: T.weighted_fbeta_loss(x, target, **size), x) < 1.5 * default


def temporaries(loss: Callable[..., jax.Array], *args: jax.Array) -> int:
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*args).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return int(analysis.temp_size_in_bytes)


@pytest.mark.parametrize("options", [
    {}, {"normalize": True}, {"form": "pairwise"}, {"anchors": True}], ids=str)
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
