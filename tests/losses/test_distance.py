"""The distance transform: against SciPy, at large sides, transformed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from saliency_losses.jax import distance_transform as jax_transform
from saliency_losses.jax._distance import last_and_next, loop_to_last_and_next
from saliency_losses.torch import distance_transform as torch_transform
from tests.support.backends import Backend


def agrees_with_scipy(backend: Backend, foreground: np.ndarray) -> None:
    """Distances are SciPy's, and each index is of a foreground pixel at that distance."""
    distances, indices = backend.call("distance_transform", foreground, return_indices=True)
    for image, distance, index in zip(foreground, distances, indices, strict=True):
        np.testing.assert_allclose(distance, distance_transform_edt(~image), rtol=1e-6)
        assert image[tuple(np.moveaxis(index, -1, 0))].all()
        here = np.moveaxis(np.indices(image.shape), 0, -1)
        np.testing.assert_allclose(np.linalg.norm(here - index, axis=-1), distance, rtol=1e-6)


@pytest.mark.parametrize("shape", [(200,), (64, 64), (100, 37), (3, 150), (20, 30, 25)])
@pytest.mark.parametrize("share", [0.002, 0.2])
def test_it_is_scipys(backend: Backend, shape: tuple[int, ...], share: float) -> None:
    rng = np.random.default_rng(0)
    foreground = rng.random((2, *shape)) < share
    foreground[:, *(0 for _ in shape)] = True
    agrees_with_scipy(backend, foreground)


def test_the_far_corner_of_a_large_image(backend: Backend) -> None:
    """Distance and place together would exceed 32 bits here."""
    foreground = np.zeros((1, 1024, 1024), dtype=bool)
    foreground[0, 0, 0] = foreground[0, 0, 3] = True
    agrees_with_scipy(backend, foreground)


def test_a_side_beyond_32_bits(backend: Backend) -> None:
    """JAX finds values and places apart here, PyTorch takes 64 bits."""
    foreground = np.random.default_rng(0).random((1, 2100, 12)) < 0.0003
    foreground[0, 2099, 11] = foreground[0, 5, 0] = True
    agrees_with_scipy(backend, foreground)


@pytest.mark.usefixtures("torch_settings")
def test_large_images_alone_and_together(backend: Backend) -> None:
    """PyTorch takes large ones one by one."""
    foreground = np.random.default_rng(0).random((3, 256, 256)) < 0.0005
    foreground[1] = False
    whole = backend.call("distance_transform", foreground, return_indices=True)
    for n in range(3):
        alone = backend.call("distance_transform", foreground[n : n + 1], return_indices=True)
        for all_images, one in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(all_images[n : n + 1], one)


def test_jax_without_a_loop_over_columns() -> None:
    """What runs on other devices than a CPU."""
    x = jnp.asarray(np.random.default_rng(0).random((2, 5, 30)) < 0.1)
    for one, other in zip(last_and_next(x, 40), loop_to_last_and_next(x, 40), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_long_signal(backend: Backend) -> None:
    """Squares of these distances would exceed 32 bits."""
    foreground = np.zeros((1, 100_000), dtype=bool)
    foreground[0, 0] = True
    distances, indices = backend.call("distance_transform", foreground, return_indices=True)
    np.testing.assert_array_equal(distances[0], np.arange(100_000))
    assert (indices == 0).all()


def test_of_equally_near_pixels_it_is_the_first(backend: Backend) -> None:
    foreground = np.zeros((1, 3, 3), dtype=bool)
    foreground[0, [0, 1, 1, 2], [1, 0, 2, 1]] = True
    _, indices = backend.call("distance_transform", foreground, return_indices=True)
    assert indices[0, 1, 1].tolist() == [0, 1]
    assert indices[0, 0, 0].tolist() == [0, 1]
    assert indices[0, 2, 2].tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(1, 0), (1, 0, 5), (1, 5, 0)])
def test_images_without_pixels_are_refused(backend: Backend, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="foreground must have at least one pixel"):
        backend.call("distance_transform", np.zeros(shape, dtype=bool))


def test_images_without_foreground_and_no_images(backend: Backend) -> None:
    foreground = np.zeros((2, 3, 4), dtype=bool)
    foreground[1, 1, 1] = True
    distances, indices = backend.call("distance_transform", foreground, return_indices=True)
    assert np.isinf(distances[0]).all()
    assert (indices[0] == -1).all()
    assert np.isfinite(distances[1]).all()
    none = backend.call("distance_transform", foreground[:0], return_indices=True)
    assert (none[0].shape, none[1].shape) == ((0, 3, 4), (0, 3, 4, 2))


FOREGROUND = np.random.default_rng(0).random((2, 3, 12, 9)) < 0.1


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("return_indices", [False, True])
def test_torch_transforms(return_indices: bool) -> None:
    images = torch.from_numpy(FOREGROUND)

    def of(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = torch_transform(x, return_indices=return_indices)
        return found if isinstance(found, tuple) else (found,)

    expected = of(images[0])
    compiled = torch.compile(of, fullgraph=True)(images[0])
    mapped = torch.func.vmap(of)(images)
    for one, two, three in zip(expected, compiled, mapped, strict=True):
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(three[0], one)


@pytest.mark.parametrize(("shape", "dynamic"), [((1, 1280, 12), False), ((2, 40, 50), True)])
def test_torch_compiled(shape: tuple[int, ...], dynamic: bool) -> None:
    """The first takes nearly all of 32 bits."""
    foreground = torch.zeros(shape, dtype=torch.bool)
    foreground[:, 0, 0] = foreground[:, 0, 4] = True
    compiled = torch.compile(torch_transform, fullgraph=True, dynamic=dynamic)
    for one, two in zip(
        torch_transform(foreground, return_indices=True),
        compiled(foreground, return_indices=True),
        strict=True,
    ):
        torch.testing.assert_close(two, one)


@pytest.mark.parametrize("return_indices", [False, True])
def test_jax_transforms(return_indices: bool) -> None:
    images = jnp.asarray(FOREGROUND)

    def of(x: jax.Array) -> tuple[jax.Array, ...]:
        found = jax_transform(x, return_indices=return_indices)
        return found if isinstance(found, tuple) else (found,)

    expected = of(images[0])
    for one, two, three in zip(expected, jax.jit(of)(images[0]), jax.vmap(of)(images), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-6)
        np.testing.assert_allclose(three[0], one, rtol=1e-6)
