"""Noise and JPEG for test images."""

import numpy as np
import pytest

from reference_models.data.corruption import add_noise, corrupt, jpeg
from reference_models.data.scenes import scenes
from reference_models.errors import InputError


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return scenes(4, 64, seed=0)[0]


def test_noise_has_the_variance_asked_for():
    grey = np.full((4, 64, 64, 3), 128, np.uint8)
    noisy = add_noise(grey, 0.01, seed=0) / 255
    assert noisy.mean() == pytest.approx(128 / 255, abs=2e-3)
    # Clipped at five standard deviations, so hardly; 49152 samples know it to 0.6 %.
    assert noisy.var() == pytest.approx(0.01, rel=0.03)
    # White: neighbours in space and among the channels know nothing of each other.
    deviation = noisy - noisy.mean()
    for one, other in (
        (deviation[:, 1:], deviation[:, :-1]),
        (deviation[:, :, 1:], deviation[:, :, :-1]),
        (deviation[..., 1:], deviation[..., :-1]),
    ):
        assert abs((one * other).mean()) < 0.03 * 0.01


def test_strong_noise_is_clipped_not_wrapped():
    for level, share in ((0, 0.5), (255, 0.5)):
        flat = np.full((1, 64, 64, 3), level, np.uint8)
        noisy = add_noise(flat, 0.29, seed=0)
        assert (noisy == level).mean() == pytest.approx(share, abs=0.02)


def test_the_seed_and_the_place_decide_the_noise(images):
    noisy = add_noise(images, 0.07, seed=0)
    np.testing.assert_array_equal(noisy, add_noise(images, 0.07, seed=0))
    np.testing.assert_array_equal(noisy[:2], add_noise(images[:2], 0.07, seed=0))
    assert (noisy != add_noise(images, 0.07, seed=1)).any()
    twins = add_noise(np.stack([images[0]] * 2), 0.07, seed=0)
    assert (twins[0] != twins[1]).any()


def test_a_better_jpeg_is_closer(images):
    errors = [
        np.abs(jpeg(images, quality).astype(float) - images).mean()
        for quality in (1, 3, 6, 20, 60, 95)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0


def test_recipes_are_read(images):
    np.testing.assert_array_equal(corrupt(images, "", 0), images)
    np.testing.assert_array_equal(corrupt(images, "noise 0", 0), images)
    np.testing.assert_array_equal(corrupt(images, "noise 0.07", 3), add_noise(images, 0.07, 3))
    np.testing.assert_array_equal(corrupt(images, "jpeg 3", 3), jpeg(images, 3))
    for recipe in ("noise 0.07", "jpeg 3"):
        there = corrupt(images, recipe, 0)
        assert (there.dtype, there.shape) == (images.dtype, images.shape)


def test_random_strengths_lie_in_the_papers_ranges_and_depend_on_seed_and_place():
    grey = np.full((8, 64, 64, 3), 128, np.uint8)
    # Noise of equal seeds differs by its scale alone.
    noisy = corrupt(grey, "noise of random variance", 0)
    drawn = [
        min(
            np.arange(0.05, 0.31, 0.01),
            key=lambda v, i=i: np.abs(add_noise(grey, v, 0)[i].astype(int) - noisy[i]).sum(),
        )
        for i in range(len(grey))
    ]
    assert 0.06 < min(drawn) < max(drawn) < 0.3
    assert max(drawn) - min(drawn) > 0.05
    some = corrupt(grey[:2], "noise of random variance", 0, places=[5, 2])
    np.testing.assert_array_equal(some, noisy[[5, 2]])
    assert (corrupt(grey, "noise of random variance", 1) != noisy).any()


def test_random_qualities_are_the_papers():
    images, _, _ = scenes(16, 32, seed=0)
    coarse = corrupt(images, "jpeg of random quality", 0)
    fixed = {quality: jpeg(images, quality) for quality in range(1, 9)}
    drawn = [
        [q for q, images in fixed.items() if np.array_equal(images[i], coarse[i])]
        for i in range(len(coarse))
    ]
    assert {quality for one in drawn for quality in one} == {3, 4, 5, 6}


@pytest.mark.parametrize(
    "recipe",
    [
        "noise",
        "noise -0.1",
        "noise nan",
        "noise inf",
        "jpeg 0",
        "jpeg 2.5",
        "jpeg 101",
        "blur 3",
        "noise of",
    ],
)
def test_bad_recipes_are_named(images, recipe):
    with pytest.raises(InputError, match=f'got "{recipe}"; give .* for example "noise 0.07"'):
        corrupt(images, recipe, 0)
