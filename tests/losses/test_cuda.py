"""The PyTorch functions on a GPU: the CPU's numbers, and no waiting for the device.

What JAX does on a GPU the whole suite tests where JAX has one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from saliency_losses.torch import distance_transform
from tests.support.backends import BACKENDS, TorchBackend
from tests.support.cases import CASES, Case, bind

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
]


class CudaBackend(TorchBackend):
    def array(self, x: Any, channels: bool) -> Tensor:
        return super().array(x, channels).cuda()


CUDA, CPU = CudaBackend(), BACKENDS["torch"]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def value_and_gradients(backend: TorchBackend, case: Case) -> list[Tensor]:
    of, inputs = bind(backend, case)
    return results(of, inputs)


def results(of: Any, inputs: list[Tensor]) -> list[Tensor]:
    inputs = [x.detach().requires_grad_() for x in inputs]
    value = of(*inputs)
    return [value.detach(), *torch.autograd.grad(value.sum(), inputs)]


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_are_the_cpus(case: Case, dtype: str) -> None:
    expected = value_and_gradients(CPU, case.astype(dtype))
    for got, own in zip(value_and_gradients(CUDA, case.astype(dtype)), expected, strict=True):
        tolerance = 1e-10 if dtype == "float64" else 1e-5
        torch.testing.assert_close(got.cpu(), own, rtol=tolerance, atol=tolerance)


@every
def test_nothing_waits_for_the_gpu(case: Case, request: pytest.FixtureRequest) -> None:
    of, inputs = bind(CUDA, case.astype("float32"))
    results(of, inputs)  # libraries load at their first call
    request.getfixturevalue("no_waiting")
    results(of, inputs)


@every
def test_compiled_it_is_the_same(case: Case) -> None:
    of, inputs = bind(CUDA, case.astype("float32"))
    torch.compiler.reset()
    compiled = torch.compile(of, fullgraph=True)
    for got, own in zip(results(compiled, inputs), results(of, inputs), strict=True):
        torch.testing.assert_close(got, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 300), (2, 130, 257), (1, 1030, 40), (2, 9, 20, 33)])
def test_distances_are_the_cpus(shape: tuple[int, ...]) -> None:
    foreground = torch.from_numpy(np.random.default_rng(0).random(shape) < 0.002)
    foreground[0] = False
    expected = distance_transform(foreground, return_indices=True)
    given = foreground.cuda()
    distance_transform(given, return_indices=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = distance_transform(given, return_indices=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for got, own in zip(found, expected, strict=True):
        torch.testing.assert_close(got.cpu(), own)
