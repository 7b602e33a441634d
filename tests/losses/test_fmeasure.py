"""The weighted F-measure against the evaluation program that the field uses."""

import numpy as np
import py_sod_metrics
import pytest
from numpy.typing import NDArray
from py_sod_metrics import sod_metrics
from scipy import ndimage

from saliency_losses import reference
from tests.support.backends import Backend

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def masks() -> list[Bools]:
    """A disc, a disc at the border, a bar, two pixels, noise; not square."""
    y, x = np.mgrid[:40, :53]
    noise = np.random.default_rng(1).random((40, 53)) < 0.3
    corners = np.zeros_like(noise)
    corners[0, 0] = corners[39, 52] = True
    return [
        (y - 18) ** 2 + (x - 22) ** 2 < 80,
        (y - 38) ** 2 + (x - 50) ** 2 < 150,
        (y > 10) & (y < 14),
        corners,
        noise,
    ]


def prediction(mask: Bools, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    soft = ndimage.gaussian_filter(mask.astype(float), 2) + rng.normal(0, 0.2, mask.shape)
    return np.asarray(soft.clip(0, 1))


def program(values: Floats, mask: Bools, beta: float = 1.0) -> float:
    return float(py_sod_metrics.WeightedFmeasure(beta=beta**2).cal_wfm(values, mask))


def ours(backend: Backend, values: Floats, mask: Bools, beta: float = 1.0) -> float:
    return float(
        backend.call("weighted_fmeasure", values[None, ..., None], mask[None, ..., None], beta=beta)
    )


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("beta", [0.3**0.5, 1.0, 2.0])
def test_it_is_the_programs_where_equally_near_pixels_are_taken_alike(
    backend: Backend, mask: Bools, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_in_row_major_order(background: Bools, return_indices: bool) -> tuple[Floats, Floats]:
        distance, indices = reference.distance_transform(~background, return_indices=return_indices)
        return distance, np.moveaxis(indices, -1, 0)

    monkeypatch.setattr(sod_metrics, "bwdist", first_in_row_major_order)
    values = prediction(mask)
    assert ours(backend, values, mask, beta) == pytest.approx(program(values, mask, beta), abs=1e-9)


@pytest.mark.parametrize("mask", masks()[:4])
def test_it_is_the_programs_where_no_pixels_are_equally_near(backend: Backend, mask: Bools) -> None:
    """An error that is the same all over the foreground leaves nothing to choose."""
    values = np.where(mask, 0.7, prediction(mask))
    assert ours(backend, values, mask) == pytest.approx(program(values, mask), abs=1e-9)


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("seed", range(3))
def test_the_programs_choice_among_equally_near_pixels_matters_little(
    backend: Backend, mask: Bools, seed: int
) -> None:
    """Both lie between the measures with the best and with the worst of all such choices."""
    values = prediction(mask, seed)
    low, high = (measure_by_choice(values, mask, choose) for choose in (np.max, np.min))
    for got in (ours(backend, values, mask), program(values, mask)):
        assert low - 1e-9 <= got <= high + 1e-9
    assert high - low < (0.04 if mask.sum() > 400 else 0.005)  # of the noise, and of shapes


def measure_by_choice(values: Floats, mask: Bools, choose: object) -> float:
    """The measure with, for every pixel, the chosen error of all its nearest foreground pixels."""
    error, places = np.abs(values - mask), np.argwhere(mask)
    distance, spread = np.zeros(mask.shape), np.zeros(mask.shape)
    for pixel in np.ndindex(mask.shape):
        squared = ((places - pixel) ** 2).sum(axis=1)
        distance[pixel] = np.sqrt(squared.min())
        nearest = places[squared == squared.min()]
        spread[pixel] = choose(error[tuple(nearest.T)])  # type: ignore[operator]
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / 50)
    for axis in (0, 1):
        spread = ndimage.convolve1d(spread, kernel / kernel.sum(), axis, mode="constant")
    weighted = np.where(
        mask, np.minimum(error, spread), error * (2 - np.exp(np.log(0.5) / 5 * distance))
    )
    hit = mask.sum() - weighted[mask].sum()
    return float(2 * hit / (mask.sum() + hit + weighted[~mask].sum()))


def test_without_foreground_it_is_zero_as_the_programs(backend: Backend) -> None:
    pixels = np.random.default_rng(0).random((3, 6, 7, 1))
    pixels[2] = 0
    mask = np.zeros_like(pixels, dtype=bool)
    mask[1, 2:4, 2:5] = True
    measures = backend.call("weighted_fmeasure", pixels, mask, reduction="none")
    assert measures[0] == measures[2] == 0
    assert 0 < measures[1] < 1
    measure = py_sod_metrics.WeightedFmeasure()
    measure.step(pixels[0, ..., 0], mask[0, ..., 0], normalize=False)
    assert measure.get_results()["wfm"] == 0


def test_maps_of_an_image_are_averaged_and_batches_change_nothing(backend: Backend) -> None:
    y = np.stack(masks())[..., None]
    p = np.stack([prediction(mask) for mask in masks()])[..., None]
    each = backend.call("weighted_fmeasure", p, y, reduction="none")
    for n in range(len(y)):
        alone = backend.call("weighted_fmeasure", p[n : n + 1], y[n : n + 1])
        np.testing.assert_allclose(alone, each[n], rtol=1e-12)
    pair = backend.call(
        "weighted_fmeasure",
        np.concatenate([p[:1], p[1:2]], -1),
        np.concatenate([y[:1], y[1:2]], -1),
    )
    np.testing.assert_allclose(pair, each[:2].mean(), rtol=1e-12)
    np.testing.assert_allclose(backend.call("weighted_fmeasure", p, y), each.mean(), rtol=1e-12)
    assert backend.call("weighted_fmeasure", y.astype(float), y) == 1
