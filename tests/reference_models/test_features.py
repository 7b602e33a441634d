"""Distances between the features of two regions, against all pairs, and those of a network."""

from dataclasses import replace

import numpy as np
import pytest

from reference_models.measures.features import distances, distances_each
from reference_models.measures.saliency import measure
from reference_models.options import Options
from reference_models.training.frameworks import new_trainer
from reference_models.training.run import load_data


def test_distances_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    features, mask = rng.normal(size=(4, 5, 3)), rng.random((4, 5)) < 0.4
    inside, outside = features[mask], features[~mask]

    def pairs(one: np.ndarray, other: np.ndarray) -> float:
        return float(((one[:, None] - other[None]) ** 2).sum(-1).mean())

    row = distances(features, mask, ~mask)
    assert row["within_object"] == pytest.approx(pairs(inside, inside))
    assert row["within_background"] == pytest.approx(pairs(outside, outside))
    assert row["between"] == pytest.approx(pairs(inside, outside))
    larger = max(row["within_object"], row["within_background"])
    assert row["within_to_between"] == pytest.approx(larger / row["between"])


def test_masks_are_reduced_and_an_image_of_one_region_has_no_distances():
    features = np.zeros((3, 2, 2, 1))
    features[:, 0] = 1
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :4] = True
    masks[1] = True
    first, whole, none = distances_each(features, masks)
    assert first == {
        "within_object": 0.0, "within_background": 0.0, "between": 1.0, "within_to_between": 0.0
    }  # fmt: skip
    assert whole == none == {}
    diagonal = np.eye(2, dtype=bool)
    assert distances(np.ones((2, 2, 3)), diagonal, ~diagonal)["within_to_between"] == 1


def test_void_pixels_have_no_distances():
    rng = np.random.default_rng(1)
    features, masks = rng.normal(size=(1, 4, 6, 3)), rng.random((1, 4, 6)) < 0.4
    counted = np.ones((1, 4, 6), bool)
    counted[:, :, :2] = False
    masks &= counted
    rows = distances_each(features, masks, counted)
    assert rows == [
        pytest.approx(row) for row in distances_each(features[:, :, 2:], masks[:, :, 2:])
    ]
    assert rows != distances_each(features, masks)


def test_the_share_of_binary_values():
    half = np.zeros((1, 10, 10))
    half[:, :4], half[:, 4:6] = 0.95, 0.5
    mask = np.eye(10, dtype=bool)[None]
    assert measure(half, mask, only=["binary"]) == {"binary": pytest.approx(0.8)}


def test_both_frameworks_give_the_features_of_equal_networks():
    options = Options(recipe="metric-head-metric", scale="small", data="scenes", size=64,
                      train_images=4, test_images=3)  # fmt: skip
    images = load_data(options).tests[0].images
    torch, jax = (new_trainer(replace(options, backend=name)) for name in ("torch", "jax"))
    jax.load(torch.weights())
    ours, theirs = (trainer.descriptors(images) for trainer in (jax, torch))
    assert ours.shape == theirs.shape == (3, 16, 16, 16)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
