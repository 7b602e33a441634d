"""Robustness checks of losses: empty masks, half precision, finite differences, vmap and others."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from jax.test_util import check_grads
from torch.autograd.gradcheck import GradcheckError, gradcheck

from benchmarks.backends import Backend, Step
from benchmarks.cases import Array, Inputs
from benchmarks.other_libraries import COMPILED, EAGER, JIT, Loss, Peer, isolated

BATCH, SIZE, SMALL = 2, 32, 8
TOLERANCE = 1e-4  # for equal float32 numbers, relative to the largest
# Predictions that may have a lower loss: steps down the gradient, and logits scaled by factors.
STEPS, SCALES = (1e-3, 1e-2, 0.1, 1.0), (0.5, 0.9, 1.1, 2.0, 10.0)


@dataclasses.dataclass
class Finding:
    """Result of one check: ok, gradient 0, no, error, or – if the check does not apply."""

    case: str
    framework: str
    check: str = ""
    size: int | None = None
    verdict: str = ""
    value: float | None = None
    note: str = ""


Outcome = tuple[str, float | None, str]  # verdict, value, note


class Subject:
    """A loss under test, with its backends and its inputs."""

    def __init__(self, peer: Peer, loss: Loss, seed: int) -> None:
        self.peer, self.loss, self.seed = peer, loss, seed
        self.is_jax = peer.framework == "jax"
        # `usual` is how users call the loss: eager in PyTorch, compiled in JAX.
        self.usual, self.eager, self.compiled = (
            (JIT, Backend("jax", "eager"), JIT) if self.is_jax else (EAGER, EAGER, COMPILED)
        )
        self.steps: dict[Backend, Step] = {}

    def inputs(self, masks: Array, dtype: type = np.float32) -> Inputs:
        """Inputs whose prediction shows another object than `masks`, so that there is an error."""
        size = masks.shape[-1]
        made = self.peer.inputs(self.seed, masks, np.roll(discs(len(masks), size), size // 4, -1))
        return {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in made.items()}

    def step(
        self, inputs: Inputs, backend: Backend | None = None
    ) -> tuple[float, dict[str, Array]]:
        """The loss and its gradients as float64 NumPy arrays."""
        backend = backend or self.usual
        if backend not in self.steps:
            self.steps[backend] = backend.step(self.loss, self.peer.gradients)
        value, gradients = self.steps[backend](backend.place(inputs))
        return float(value), {k: np.asarray(v, np.float64) for k, v in gradients.items()}

    def per_image(self, inputs: Inputs) -> list[float]:
        """The loss of each image, in a call of its own."""
        images = range(len(inputs[self.peer.arguments[0]]))
        return [self.step({k: v[n : n + 1] for k, v in inputs.items()})[0] for n in images]

    def vmapped(self, inputs: Inputs) -> Array:
        """The loss of each image, in one vectorized call."""
        placed = self.usual.place(inputs)

        def image_loss(*arrays: Any) -> Any:
            return self.loss({k: a[None] for k, a in zip(placed, arrays, strict=True)})

        vmapped = jax.jit(jax.vmap(image_loss)) if self.is_jax else torch.func.vmap(image_loss)
        return np.asarray(vmapped(*placed.values()))


def discs(batch: int, size: int, radius: float = 0.35) -> Array:
    """Masks (N, size, size) of a disc; `radius` is a fraction of the side length."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    inside: Array = axis[:, None] ** 2 + axis**2 < radius**2
    return np.broadcast_to(inside, (batch, size, size)).copy()


def _finite(subject: Subject, inputs: Inputs) -> Outcome:
    value, gradients = subject.step(inputs)
    broken = not all(np.isfinite(g).all() for g in gradients.values())
    if not np.isfinite(value) or broken:
        return "no", value, f"loss {value:g}, gradient {'not ' if broken else ''}finite"
    if not any(g.any() for g in gradients.values()):
        return "gradient 0", value, ""
    return "ok", value, ""


def empty_mask(subject: Subject, size: int) -> Outcome:
    return _finite(subject, subject.inputs(np.zeros((BATCH, size, size), bool)))


def full_mask(subject: Subject, size: int) -> Outcome:
    return _finite(subject, subject.inputs(np.ones((BATCH, size, size), bool)))


def half_precision(subject: Subject, size: int) -> Outcome:
    return _finite(subject, subject.inputs(discs(1, size, 0.45), np.float16))


def differences(subject: Subject, size: int) -> Outcome:
    """Compare float64 gradients with finite differences."""
    placed = subject.usual.place(subject.inputs(discs(BATCH, size), np.float64))
    names = subject.peer.gradients
    leaves = [placed[name] for name in names]

    def loss(*arrays: Any) -> Any:
        return subject.loss(placed | dict(zip(names, arrays, strict=True)))

    dtype = str(loss(*leaves).dtype)
    if "float64" not in dtype:
        return "no", None, f"the result is {dtype}"
    mismatch = AssertionError if subject.is_jax else GradcheckError
    try:
        if subject.is_jax:
            check_grads(jax.jit(loss), leaves, order=1, modes=("rev",))
        else:
            gradcheck(loss, [leaf.requires_grad_() for leaf in leaves])
    except mismatch as error:
        return "no", None, _first_line(error)
    return "ok", None, ""


def batch_is_mean(subject: Subject, size: int) -> Outcome:
    """Compare the loss of a batch, one small and one large object, with its images' mean loss."""
    inputs = subject.inputs(np.concatenate([discs(1, size, 0.1), discs(1, size, 0.45)]))
    whole, mean = subject.step(inputs)[0], float(np.mean(subject.per_image(inputs)))
    return _compared(whole, mean), whole, f"{whole:.3g} for the batch, {mean:.3g} for its images"


def vmap(subject: Subject, size: int) -> Outcome:
    """Compare `vmap` over the images with a call for each image."""
    inputs = subject.inputs(discs(BATCH, size))
    return _compared(subject.vmapped(inputs), subject.per_image(inputs)), None, ""


def one_graph(subject: Subject, size: int) -> Outcome:
    """Compare the compiled value and gradients with the uncompiled ones."""
    inputs = subject.inputs(discs(BATCH, size))
    value, gradients = subject.step(inputs, subject.eager)
    compiled, compiled_gradients = subject.step(inputs, subject.compiled)
    if _compared(compiled, value) != "ok":
        return "no", compiled, f"{value:g} uncompiled"
    wrong = [
        name for name in gradients if _compared(compiled_gradients[name], gradients[name]) != "ok"
    ]
    return ("no", compiled, f"gradient of {', '.join(wrong)}") if wrong else ("ok", compiled, "")


def soft_target(subject: Subject, size: int) -> Outcome:
    """Check that no prediction down the gradient or with scaled logits beats p = t."""
    if "target" not in subject.peer.arguments:
        return "–", None, ""
    inputs = subject.inputs(discs(BATCH, size), np.float64)
    (name,) = subject.peer.gradients
    target = np.random.default_rng(subject.seed).uniform(0.1, 0.9, inputs["target"].shape)
    at = np.log(target / (1 - target))
    inputs |= {"target": target, name: at}
    value, gradients = subject.step(inputs, subject.eager)
    slope = gradients[name].reshape(at.shape)
    down = -slope / max(np.abs(slope).max(), np.finfo(float).tiny)
    others = [at + step * down for step in STEPS] + [at * scale for scale in SCALES]
    least = min(subject.step(inputs | {name: other}, subject.eager)[0] for other in others)
    note = f"{value:.3g} at p = t, {least:.3g} elsewhere"
    return "ok" if least > value - 1e-6 else "no", value, note


CHECKS: dict[str, tuple[Callable[[Subject, int], Outcome], int]] = {
    "empty mask": (empty_mask, SIZE),
    "full mask": (full_mask, SIZE),
    "float16": (half_precision, 512),
    "float64, finite differences": (differences, SMALL),
    "batch = mean of images": (batch_is_mean, SIZE),
    "vmap": (vmap, SIZE),
    "compiled in one graph": (one_graph, SIZE),
    "p = t is a minimum": (soft_target, SMALL),
}


def findings(peer: Peer, loss: Loss, seed: int, quick: bool) -> Iterator[Finding]:
    """Run every check on one loss; `quick` skips compilation and limits sizes to 64²."""
    subject = Subject(peer, loss, seed)
    for name, (check, size) in CHECKS.items():
        if quick and check is one_graph:
            continue
        finding = Finding(peer.label, peer.framework_name, name, min(size, 64) if quick else size)
        with isolated(), jax.enable_x64(check in (differences, soft_target)):
            try:
                outcome = check(subject, int(finding.size or 0))
            except Exception as error:
                outcome = "error", None, f"{type(error).__name__}: {_first_line(error)}"
        finding.verdict, finding.value, finding.note = outcome
        yield finding


def _compared(found: Any, expected: Any) -> str:
    scale = max(1e-6, float(np.abs(expected).max()))
    return "ok" if np.allclose(found, expected, rtol=0, atol=TOLERANCE * scale) else "no"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""
