"""Backends of a benchmark: each turns a loss and its inputs into a call that finishes its work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
import torch

import saliency_losses.jax
import saliency_losses.torch
from benchmarks.cases import Array, Case, Inputs
from saliency_losses import reference

Call = Callable[[], Any]
Step = Callable[[Any], tuple[Any, dict[str, Any]]]  # from inputs to the loss and its gradients


@dataclass(frozen=True)
class Backend:
    """A framework, how its code is run, and the device.

    The framework "exact" stands for the definitions in `saliency_losses.reference`.
    """

    framework: str  # exact, numpy, torch, jax
    mode: str  # numpy, eager, compile, jit
    device: str = "cpu"  # cpu, cuda

    @property
    def name(self) -> str:
        separator = " " if self.mode == "eager" else "."
        name = self.framework
        if self.mode != "numpy":
            name += separator + self.mode
        return name if self.device == "cpu" else f"{name}, {self.device}"

    def function(self, case: Case, backward: bool) -> Callable[[Any], Any]:
        """Function from placed inputs to the loss; with `backward` it computes gradients too.

        It returns only when all work is done.
        """
        if self.framework == "exact":
            return _exact(case)
        library = saliency_losses.torch if self.framework == "torch" else saliency_losses.jax
        loss = getattr(library, case.loss)
        step = self.step(
            lambda inputs: loss(**inputs, **case.options), case.gradients if backward else ()
        )
        return lambda placed: step(placed)[0]

    def step(self, loss: Callable[[Any], Any], gradients: tuple[str, ...]) -> Step:
        """Function from placed inputs to the loss and its gradients; it waits for all work."""
        if self.framework == "numpy":
            return lambda arrays: (loss(arrays), {})
        return (_torch_step if self.framework == "torch" else _jax_step)(self, loss, gradients)

    def place(self, inputs: Inputs) -> Any:
        """The inputs as `function` and `step` take them, on the backend's device."""
        if self.framework == "torch":
            return {k: as_torch(v, self.device) for k, v in inputs.items()}
        if self.framework == "jax":
            device = jax.devices("gpu" if self.device == "cuda" else "cpu")[0]
            return {k: jax.device_put(v, device) for k, v in inputs.items()}
        if self.framework == "numpy":
            return inputs
        # The references take a single image, and maps of one channel without the channel axis.
        images = range(len(next(iter(inputs.values()))))
        squeezed = {k: v[..., 0] if v.shape[-1] == 1 else v for k, v in inputs.items()}
        return [{k: v[n] for k, v in squeezed.items()} for n in images]


EXACT = Backend("exact", "numpy")
OURS = (Backend("torch", "eager"), Backend("torch", "compile"), Backend("jax", "jit"))


def available() -> tuple[Backend, ...]:
    """The library's backends on this machine: the CPU, and CUDA in each framework that sees it."""
    backends: tuple[Backend, ...] = OURS
    if torch.cuda.is_available():
        backends += (Backend("torch", "eager", "cuda"), Backend("torch", "compile", "cuda"))
    if jax.default_backend() == "gpu":
        backends += (Backend("jax", "jit", "cuda"),)
    return backends


def _exact(case: Case) -> Callable[[Any], Any]:
    definition = getattr(reference, str(case.exact))
    return lambda images: np.mean([definition(**image, **case.options) for image in images])


def _finished(arrays: Any) -> Any:
    """The JAX arrays, once they have been computed."""
    return jax.block_until_ready(arrays)


def as_torch(array: Array, device: str = "cpu") -> torch.Tensor:
    """The array as a tensor; arrays of four axes are maps, whose channels become axis 1."""
    moved = np.moveaxis(array, -1, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(moved)).to(device)


def _torch_step(backend: Backend, loss: Callable[[Any], Any], gradients: tuple[str, ...]) -> Step:
    if backend.mode == "compile":
        torch.compiler.reset()
        loss = torch.compile(loss, dynamic=False, fullgraph=True)

    def step(tensors: dict[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
        leaves = [tensors[name].requires_grad_() for name in gradients]
        value = loss(tensors)
        computed = torch.autograd.grad(value, leaves) if leaves else ()
        if backend.device == "cuda":
            torch.cuda.synchronize()
        return value.detach() if leaves else value, dict(zip(gradients, computed, strict=True))

    return step


def _jax_step(backend: Backend, loss: Callable[[Any], Any], gradients: tuple[str, ...]) -> Step:
    def split(leaves: dict[str, jax.Array], fixed: dict[str, jax.Array]) -> Any:
        return loss({**leaves, **fixed})

    function = jax.value_and_grad(split) if gradients else lambda *inputs: (split(*inputs), {})
    if backend.mode == "jit":
        function = jax.jit(function)

    def step(arrays: dict[str, jax.Array]) -> tuple[Any, dict[str, Any]]:
        leaves = {k: v for k, v in arrays.items() if k in gradients}
        fixed = {k: v for k, v in arrays.items() if k not in gradients}
        result: tuple[Any, dict[str, Any]] = _finished(function(leaves, fixed))
        return result

    return step


def floor(backend: Backend, case: Case, inputs: Inputs) -> Call:
    """The steadiest unit: (x * x).sum() of the case's input, with its gradient, run as the case.

    x are the inputs that get gradients, or a measure's probs.
    """
    names = case.gradients or ("probs",)
    step = backend.step(lambda placed: sum((placed[n] * placed[n]).sum() for n in names), names)
    placed = backend.place({name: inputs[name] for name in names})
    return lambda: step(placed)[0]


def bce(framework: str, batch: int, size: int) -> Call:
    """The unit: the framework's own BCE of batch × 1 × size² logits, with its gradient."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((batch, size, size, 1)).astype(np.float32)
    target = (rng.random(logits.shape) < 0.5).astype(np.float32)
    if framework == "torch":
        x, y = as_torch(logits).requires_grad_(), as_torch(target)

        def torch_call() -> torch.Tensor:
            value = torch.nn.functional.binary_cross_entropy_with_logits(x, y)
            torch.autograd.grad(value, x)
            return value.detach()

        return torch_call
    a, b = jax.device_put(logits), jax.device_put(target)
    unit = jax.jit(
        jax.value_and_grad(lambda a, b: optax.losses.sigmoid_binary_cross_entropy(a, b).mean())
    )
    return lambda: _finished(unit(a, b))[0]


def copy(framework: str, array: Array, device: str = "cpu") -> Call:
    """A copy of `array` into fresh memory."""
    if framework == "torch":
        x = as_torch(array, device)
        return lambda: x.clone().flatten()[0]
    a = jax.device_put(array)
    add = jax.jit(lambda a: a + 1)
    return lambda: _finished(add(a)).ravel()[0]


def copy_in_place(framework: str, array: Array, device: str = "cpu") -> Call:
    """The same copy into existing memory; `copy` takes longer by the cost of fresh pages."""
    if framework == "torch":
        x = as_torch(array, device)
        kept = torch.empty_like(x)

        def torch_call() -> torch.Tensor:
            kept.copy_(x)
            if device == "cuda":
                torch.cuda.synchronize()
            return kept.flatten()[0]

        return torch_call
    holder = [jax.device_put(array)]
    add = jax.jit(lambda a: a + 1, donate_argnums=0)

    def jax_call() -> Any:
        holder[0] = _finished(add(holder[0]))
        return holder[0].ravel()[0]

    return jax_call


def saved_bytes(case: Case, inputs: Inputs) -> int:
    """Bytes that PyTorch's graph keeps for backward; inputs count, and each storage counts once."""
    tensors = {k: as_torch(v) for k, v in inputs.items()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # Keeping the storage alive makes sure that no address is used twice.
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    for name in case.gradients:
        tensors[name].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        getattr(saliency_losses.torch, case.loss)(**tensors, **case.options)
    return sum(storage.nbytes() for storage in kept.values())
