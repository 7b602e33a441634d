"""The sides of a comparison: a case and its inputs in, a call that finishes its work out."""

from __future__ import annotations

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
Step = Callable[[Any], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Side:
    library: str  # exact, numpy, torch, jax
    mode: str  # numpy, eager, compile, jit
    device: str = "cpu"  # cpu, cuda

    @property
    def name(self) -> str:
        joint = " " if self.mode == "eager" else "."
        name = self.library if self.mode == "numpy" else f"{self.library}{joint}{self.mode}"
        return name if self.device == "cpu" else f"{name}, {self.device}"

    def function(self, case: Case, backward: bool) -> Callable[[Any], Any]:
        """From placed inputs to the loss, returned when all work, gradients included, is done."""
        if self.library == "exact":
            return _exact(case)
        library = saliency_losses.torch if self.library == "torch" else saliency_losses.jax
        loss = getattr(library, case.loss)
        step = self.step(
            lambda inputs: loss(**inputs, **case.options), case.gradients if backward else ()
        )
        return lambda placed: step(placed)[0]

    def step(self, loss: Callable[[Any], Any], gradients: tuple[str, ...]) -> Step:
        """From placed inputs to the loss and its gradients, when all work is done."""
        if self.library == "numpy":
            return lambda arrays: (loss(arrays), {})
        return (_torch if self.library == "torch" else _jax)(self, loss, gradients)

    def place(self, inputs: Inputs) -> Any:
        """The inputs as `function` takes them, on the side's device."""
        if self.library == "torch":
            return {k: as_torch(v, self.device) for k, v in inputs.items()}
        if self.library == "jax":
            device = jax.devices("gpu" if self.device == "cuda" else "cpu")[0]
            return {k: jax.device_put(v, device) for k, v in inputs.items()}
        if self.library == "numpy":
            return inputs
        # the references take one image, and of W's maps one without a channel axis
        images = range(len(next(iter(inputs.values()))))
        squeezed = {k: v[..., 0] if v.shape[-1] == 1 else v for k, v in inputs.items()}
        return [{k: v[n] for k, v in squeezed.items()} for n in images]


EXACT = Side("exact", "numpy")
OURS = (Side("torch", "eager"), Side("torch", "compile"), Side("jax", "jit"))


def available() -> tuple[Side, ...]:
    """Our sides on this machine: the CPU, and CUDA for each framework that sees one."""
    sides: tuple[Side, ...] = OURS
    if torch.cuda.is_available():
        sides += (Side("torch", "eager", "cuda"), Side("torch", "compile", "cuda"))
    if jax.default_backend() == "gpu":
        sides += (Side("jax", "jit", "cuda"),)
    return sides


def _exact(case: Case) -> Callable[[Any], Any]:
    definition = getattr(reference, str(case.exact))
    return lambda images: np.mean([definition(**image, **case.options) for image in images])


def as_torch(array: Array, device: str = "cpu") -> torch.Tensor:
    """Channels to the second axis; only maps with channels have four axes here."""
    moved = np.moveaxis(array, -1, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(moved)).to(device)


def _torch(side: Side, loss: Callable[[Any], Any], gradients: tuple[str, ...]) -> Step:
    if side.mode == "compile":
        torch.compiler.reset()
        loss = torch.compile(loss, dynamic=False, fullgraph=True)

    def step(tensors: dict[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
        leaves = [tensors[name].requires_grad_() for name in gradients]
        value = loss(tensors)
        found = torch.autograd.grad(value, leaves) if leaves else ()
        if side.device == "cuda":
            torch.cuda.synchronize()
        return value.detach() if leaves else value, dict(zip(gradients, found, strict=True))

    return step


def _jax(side: Side, loss: Callable[[Any], Any], gradients: tuple[str, ...]) -> Step:
    def split(leaves: dict[str, jax.Array], fixed: dict[str, jax.Array]) -> Any:
        return loss({**leaves, **fixed})

    whole = jax.value_and_grad(split) if gradients else lambda *given: (split(*given), {})
    if side.mode == "jit":
        whole = jax.jit(whole)

    def step(arrays: dict[str, jax.Array]) -> tuple[Any, dict[str, Any]]:
        leaves = {k: v for k, v in arrays.items() if k in gradients}
        fixed = {k: v for k, v in arrays.items() if k not in gradients}
        result: tuple[Any, dict[str, Any]] = jax.block_until_ready(whole(leaves, fixed))
        return result

    return step


def bce(library: str, batch: int, size: int) -> Call:
    """The unit: the framework's own BCE on batch × 1 × size² logits, with its gradient."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((batch, size, size, 1)).astype(np.float32)
    target = (rng.random(logits.shape) < 0.5).astype(np.float32)
    if library == "torch":
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
    return lambda: jax.block_until_ready(unit(a, b))[0]


def copy(library: str, array: Array, device: str = "cpu") -> Call:
    """A fresh array the size of `array`."""
    if library == "torch":
        x = as_torch(array, device)
        return lambda: x.clone().flatten()[0]
    a = jax.device_put(array)
    add = jax.jit(lambda a: a + 1)
    return lambda: jax.block_until_ready(add(a)).ravel()[0]


def copy_in_place(library: str, array: Array, device: str = "cpu") -> Call:
    """The same into memory that is there: what `copy` takes longer, new memory pages cost."""
    if library == "torch":
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

    def jax_call() -> jax.Array:
        holder[0] = jax.block_until_ready(add(holder[0]))
        return holder[0].ravel()[0]

    return jax_call


def saved_bytes(case: Case, inputs: Inputs) -> int:
    """Bytes that PyTorch's graph keeps for backward, inputs included, each storage once."""
    tensors = {k: as_torch(v) for k, v in inputs.items()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # kept alive, so that no address is given out twice
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    for name in case.gradients:
        tensors[name].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        getattr(saliency_losses.torch, case.loss)(**tensors, **case.options)
    return sum(storage.nbytes() for storage in kept.values())
