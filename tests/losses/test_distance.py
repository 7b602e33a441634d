"""The distance transform: against SciPy, at large sides, transformed."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from saliency_losses import reference
from saliency_losses.jax import distance_transform as jax_transform
from saliency_losses.jax import weighted_fbeta_loss as jax_loss
from saliency_losses.jax._distance import (
    dense_minimum,
    loop_to_nearest,
    lower_envelope,
    scan_to_nearest,
)
from saliency_losses.torch import WeightedFBetaLoss, _scipy, distance_weights
from saliency_losses.torch import distance_transform as torch_transform
from saliency_losses.torch import weighted_fbeta_loss as torch_loss
from tests.support.backends import Backend, close
from tests.support.strategies import foregrounds


@pytest.fixture
def without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scipy, "distance_transform_edt", None)


def agrees_with_scipy(
    backend: Backend, foreground: np.ndarray, spacing: tuple[float, ...] | None = None
) -> None:
    """Distances are SciPy's, and each index is of a foreground pixel at that distance."""
    alone = backend.call("distance_transform", foreground, spacing=spacing)
    distances, indices = backend.call(
        "distance_transform", foreground, spacing=spacing, return_indices=True
    )
    np.testing.assert_array_equal(alone, distances)
    for image, distance, index in zip(foreground, distances, indices, strict=True):
        expected = distance_transform_edt(~image, sampling=spacing)
        np.testing.assert_allclose(distance, expected, rtol=1e-6)
        assert image[tuple(np.moveaxis(index, -1, 0))].all()
        apart = np.moveaxis(np.indices(image.shape), 0, -1) - index
        length = np.linalg.norm(apart * (spacing or 1), axis=-1)
        np.testing.assert_allclose(length, distance, rtol=1e-6)


SHAPES = [(200,), (64, 64), (100, 37), (3, 150), (20, 30, 25)]
SPACINGS = (0.7, 2.5, 1.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.002, 0.2])
@pytest.mark.parametrize("spaced", [False, True])
def test_it_is_scipys(backend: Backend, shape: tuple[int, ...], share: float, spaced: bool) -> None:
    rng = np.random.default_rng(0)
    foreground = rng.random((2, *shape)) < share
    foreground[:, *(0 for _ in shape)] = True
    agrees_with_scipy(backend, foreground, SPACINGS[: len(shape)] if spaced else None)


@given(foregrounds(), st.booleans())
def test_bits_without_scipy(foreground: np.ndarray, return_indices: bool) -> None:
    images = torch.from_numpy(foreground)
    expected = torch_transform(images, return_indices=return_indices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_scipy, "distance_transform_edt", None)
        found = torch_transform(images, return_indices=return_indices)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.usefixtures("without_scipy")
@pytest.mark.parametrize("shape", SHAPES)
def test_spacing_without_scipy(shape: tuple[int, ...]) -> None:
    foreground = np.random.default_rng(0).random((2, *shape)) < 0.02
    foreground[:, *(0 for _ in shape)] = True
    images, spacing = torch.from_numpy(foreground), SPACINGS[: len(shape)]
    for transform in (torch_transform, torch.compile(torch_transform, fullgraph=True)):
        found = transform(images, spacing=spacing)
        for image, distance in zip(foreground, found, strict=True):
            expected = distance_transform_edt(~image, sampling=spacing)
            np.testing.assert_allclose(distance, expected, rtol=1e-6)


@given(foregrounds(), st.tuples(*[st.floats(0.01, 100)] * 3))
def test_any_spacing(foreground: np.ndarray, sizes: tuple[float, ...]) -> None:
    spacing = sizes[: foreground.ndim - 1]
    for transform in (torch_transform, jax_transform):
        array = torch.from_numpy(foreground) if transform is torch_transform else foreground
        for image, distance in zip(foreground, transform(array, spacing=spacing), strict=True):
            expected = reference.distance_transform(image, spacing=spacing)
            np.testing.assert_allclose(distance, expected, rtol=1e-6)


def test_extreme_spacings(backend: Backend) -> None:
    foreground = np.zeros((1, 5, 6), dtype=bool)
    foreground[0, 1, 2] = True
    agrees_with_scipy(backend, foreground, (1e-9, 1e9))


@pytest.mark.parametrize(
    ("spacing", "error", "message"),
    [
        ((1, 0), ValueError, "positive and finite"),
        ((1, float("nan")), ValueError, "positive and finite"),
        ((1, float("inf")), ValueError, "positive and finite"),
        ((1, 2, 3), ValueError, "each of the 2 spatial axes"),
        (2.0, TypeError, "a sequence of numbers"),
        (("a", "b"), TypeError, "a sequence of numbers"),
    ],
)
def test_wrong_spacings(
    backend: Backend, spacing: Any, error: type[Exception], message: str
) -> None:
    maps = np.zeros((1, 4, 4, 1), np.float32)
    with pytest.raises(error, match=message):
        backend.call("distance_transform", maps[..., 0] > 0, spacing=spacing)
    for function in ("weighted_fbeta_loss", "weighted_fbeta_score"):
        with pytest.raises(error, match=message):
            backend.call(function, maps, maps, distance="euclidean", spacing=spacing)
    with pytest.raises(error, match=message):
        backend.call("distance_weights", maps, distance="euclidean", spacing=spacing)
    with pytest.raises(error, match=message):
        backend.call("weighted_fmeasure", maps, maps, spacing=spacing)


def test_a_window_has_no_spacing(backend: Backend) -> None:
    maps = np.zeros((1, 4, 4, 1), np.float32)
    with pytest.raises(ValueError, match='spacing must be None with distance="window"'):
        backend.call("distance_weights", maps, spacing=(1, 2))
    with pytest.raises(ValueError, match='spacing must be None with distance="window"'):
        WeightedFBetaLoss(spacing=(1, 2))


@pytest.mark.parametrize("shape", [(9, 8), (5, 6, 4)])
def test_weights_losses_and_measures_with_spacing(backend: Backend, shape: tuple[int, ...]) -> None:
    rng, spacing = np.random.default_rng(0), SPACINGS[: len(shape)]
    target = (rng.random((1, *shape, 1)) < 0.1).astype(np.float32)
    probs = rng.random(target.shape).astype(np.float32)
    distance = distance_transform_edt(target[0, ..., 0] == 0, sampling=spacing)
    expected = 2 - np.exp(np.log(0.5) / 5 * distance)
    options = {"distance": "euclidean", "spacing": spacing}
    weights = backend.call("distance_weights", target, **options)
    close(weights[0, ..., 0], expected, "float32")
    for function in ("weighted_fbeta_loss", "weighted_fbeta_score"):
        close(
            backend.call(function, probs, target, **options),
            backend.call(function, probs, target, distance_weights=weights),
            "float32",
        )
    close(
        backend.call("weighted_fmeasure", probs, target, spacing=spacing),
        reference.weighted_fmeasure(probs[0, ..., 0], target[0, ..., 0], spacing=spacing),
        "float32",
    )


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


def test_jax_on_other_devices() -> None:
    """What runs there is what runs on a CPU."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((2, 5, 30)) < 0.1)
    np.testing.assert_array_equal(scan_to_nearest(x, 40), loop_to_nearest(x, 40))
    values = jnp.asarray(rng.integers(0, 300, (30, 2, 5)), jnp.int32)
    for one, two in zip(dense_minimum(values, 1), lower_envelope(values, 1), strict=True):
        np.testing.assert_array_equal(one, two)
    floats = values.astype(jnp.float32)
    one, two = dense_minimum(floats, 1.7)[0], lower_envelope(floats, 1.7)[0]
    np.testing.assert_allclose(one, two, rtol=1e-6)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_jax_envelope(values: list[int]) -> None:
    """The first source of the least value, among many ties."""
    x = np.array(values, np.int32)
    k = np.arange(len(x))
    all_values = x + (k[:, None] - k) ** 2
    value, source = lower_envelope(jnp.asarray(x)[:, None], 1)
    np.testing.assert_array_equal(value[:, 0], all_values.min(1))
    np.testing.assert_array_equal(source[:, 0], all_values.argmin(1))


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


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
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


def test_views_and_one_call_for_many_images(backend: Backend) -> None:
    foreground = np.random.default_rng(0).random((6, 20, 30)) < 0.02
    if backend.name == "torch":
        view = torch.from_numpy(foreground).transpose(1, 2)[1::2]
        found = torch_transform(view, return_indices=True)
        expected = torch_transform(view.contiguous(), return_indices=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    agrees_with_scipy(backend, foreground | np.eye(20, 30, dtype=bool))


def test_torch_threads() -> None:
    """SciPy's calls share the threads of PyTorch."""
    images = torch.rand(7, 40, 30) < 0.02
    expected = torch_transform(images, return_indices=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = torch_transform(images, return_indices=True)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_an_exported_program_needs_no_scipy() -> None:
    class Transform(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch_transform(x)

    images = torch.rand(2, 12, 9) < 0.2
    program = torch.export.export(Transform(), (images,))
    assert "saliency_losses" not in str(program.graph)
    torch.testing.assert_close(program.module()(images), torch_transform(images))


def test_fake_and_meta_tensors() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        distance, indices = torch_transform(torch.ones(2, 5, 4) > 0, return_indices=True)
    assert (distance.shape, indices.shape) == ((2, 5, 4), (2, 2, 5, 4))
    meta = torch_transform(torch.empty(2, 5, 4, dtype=torch.bool, device="meta"))
    assert (meta.shape, meta.device.type) == ((2, 5, 4), "meta")


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("spacing", [None, (0.5, 2.0)])
def test_torch_losses_compiled_mapped_and_differentiated(
    spacing: tuple[float, float] | None,
) -> None:
    torch.manual_seed(0)
    probs = torch.rand(2, 1, 12, 9)
    target = (torch.rand(2, 1, 12, 9) < 0.2).float()
    loss = partial(torch_loss, distance="euclidean", spacing=spacing)
    expected = torch.func.grad(loss)(probs, target)
    compiled = torch.compile(torch.func.grad(loss), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(probs, target), expected)
    each = torch.func.vmap(torch.func.grad(lambda p, y: loss(p[None], y[None])))(probs, target)
    torch.testing.assert_close(each / 2, expected)
    weights = distance_weights(target, distance="euclidean", spacing=spacing)
    given_weights = torch.func.grad(partial(torch_loss, distance_weights=weights))(probs, target)
    torch.testing.assert_close(given_weights, expected)
    half = loss(probs.half(), target.half())
    torch.testing.assert_close(half, loss(probs.half().float(), target))


@pytest.mark.parametrize("spacing", [None, (0.5, 2.0)])
def test_jax_losses_compiled_mapped_and_differentiated(
    spacing: tuple[float, float] | None,
) -> None:
    rng = np.random.default_rng(0)
    probs = jnp.asarray(rng.random((2, 12, 9, 1)), jnp.float32)
    target = jnp.asarray(rng.random((2, 12, 9, 1)) < 0.2, jnp.float32)
    loss = partial(jax_loss, distance="euclidean", spacing=spacing)
    expected = jax.grad(loss)(probs, target)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(probs, target), expected, atol=1e-7)
    each = jax.vmap(jax.grad(lambda p, y: loss(p[None], y[None])))(probs, target)
    np.testing.assert_allclose(each / 2, expected, atol=1e-7)
    exported = jax.export.export(jax.jit(loss))(probs, target)
    np.testing.assert_allclose(exported.call(probs, target), loss(probs, target), rtol=1e-6)
