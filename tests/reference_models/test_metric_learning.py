"""The losses of metric learning in both frameworks, against their papers' equations in loops."""

from collections.abc import Callable
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from reference_models.networks import metric_learning as constants
from reference_models.networks.flax import metric_learning as in_flax
from reference_models.networks.torch import metric_learning as in_torch

SIDE, CHANNELS, REGIONS = 12, 3, 4


def some_descriptors() -> tuple[np.ndarray, np.ndarray]:
    """Three images `(H, W, C)` and their labels: of three of the four regions, of two, of one."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3], (3, SIDE, SIDE))
    labels[1] = 2 * (np.arange(SIDE) > 4)
    labels[2] = 1
    # Partly near the region's corner, so that hinges are at rest and at work.
    corners = 2 * np.eye(CHANNELS)[labels % CHANNELS]
    logits = rng.normal(size=(3, SIDE, SIDE, CHANNELS)) + corners
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True), labels


def discriminative(s: np.ndarray, labels: np.ndarray) -> float:
    present = np.unique(labels)
    means = {r: s[labels == r].mean(axis=0) for r in present}
    pull = [
        np.mean([max(np.linalg.norm(means[r] - x) - 2**0.5 / 6, 0) ** 2 for x in s[labels == r]])
        for r in present
    ]
    push = [
        max(2**0.5 - np.linalg.norm(means[r] - means[q]), 0) ** 2
        for r, q in product(present, present)
        if r != q
    ]
    norms = [np.linalg.norm(mean) for mean in means.values()]
    return np.mean(pull) + (np.mean(push) if push else 0) + 0.001 * np.mean(norms)


def triplet(s: np.ndarray, labels: np.ndarray) -> float:
    s, labels = s[::4, ::4].reshape(-1, CHANNELS), labels[::4, ::4].ravel()
    partners = constants.partners(len(s))
    hinges = []
    for anchor in range(len(s)):
        for p, n in product(partners[:, anchor], partners[:, anchor]):
            if labels[p] == labels[anchor] != labels[n]:
                near, far = (((s[anchor] - s[other]) ** 2).sum() for other in (p, n))
                hinges.append(max(near - far + 0.1, 0))
    return np.mean(hinges) if hinges else 0.0


def magnet(s: np.ndarray, labels: np.ndarray) -> float:
    present = np.unique(labels)
    if len(present) == 1:
        return 0.0
    means = {r: s[labels == r].mean(axis=0) for r in present}
    pixels = [(x, r) for x, r in zip(s.reshape(-1, CHANNELS), labels.ravel(), strict=True)]
    variance = sum(((x - means[r]) ** 2).sum() for x, r in pixels) / (len(pixels) - 1)
    hinges = []
    for x, r in pixels:
        to = {q: ((x - means[q]) ** 2).sum() / (2 * variance) for q in present}
        # −log of exp(−d_own − α) / Σ exp(−d_other)
        ratio = np.exp(-to[r] - 1) / sum(np.exp(-to[q]) for q in present if q != r)
        hinges.append(max(-np.log(ratio), 0))
    return float(np.mean(hinges))


LOSSES = {"discriminative": discriminative, "triplet": triplet, "magnet": magnet}


def values(name: str, s: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """In PyTorch and in JAX."""
    more = () if name == "triplet" else (REGIONS,)
    theirs: Callable = getattr(in_torch, f"{name}_loss")
    ours: Callable = getattr(in_flax, f"{name}_loss")
    first = theirs(torch.from_numpy(s).movedim(-1, 1), torch.from_numpy(labels), *more)
    return first.item(), float(ours(jnp.asarray(s), jnp.asarray(labels), *more))


@pytest.mark.parametrize("name", LOSSES)
def test_both_frameworks_compute_the_equations(name: str):
    s, labels = some_descriptors()
    expected = [LOSSES[name](*one) for one in zip(s, labels, strict=True)]
    assert values(name, s, labels) == pytest.approx([np.mean(expected)] * 2, rel=1e-4)
    for image in range(2):
        one = slice(image, image + 1)
        assert values(name, s[one], labels[one]) == pytest.approx([expected[image]] * 2, rel=1e-4)
        assert expected[image] > 0.01


@pytest.mark.parametrize("name", LOSSES)
def test_the_numbers_of_regions_do_not_matter(name: str):
    s, labels = some_descriptors()
    renumbered = np.array([3, 0, 1, 2])[labels]
    assert values(name, s, renumbered) == pytest.approx(values(name, s, labels), rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_where_norms_and_spreads_are_zero(name: str):
    labels = np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE) % 3
    for s in (np.full((1, SIDE, SIDE, CHANNELS), 1 / 3), np.eye(CHANNELS)[labels]):
        more = () if name == "triplet" else (REGIONS,)
        theirs = torch.from_numpy(s).movedim(-1, 1).requires_grad_()
        getattr(in_torch, f"{name}_loss")(theirs, torch.from_numpy(labels), *more).backward()
        assert theirs.grad.isfinite().all()
        ours = jax.grad(getattr(in_flax, f"{name}_loss"))(jnp.asarray(s), labels, *more)
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs.grad.movedim(1, -1), atol=1e-8)
