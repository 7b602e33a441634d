"""What each loss does where losses break, found out by calling it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from jax.test_util import check_grads
from torch.autograd.gradcheck import GradcheckError, gradcheck

from benchmarks.backends import Side, Step
from benchmarks.cases import Array, Inputs
from benchmarks.other_libraries import COMPILED, EAGER, JIT, Loss, Peer, contained
from benchmarks.timing import STAMPS

BATCH, SIDE, SMALL = 2, 32, 8
TOLERANCE = 1e-4  # of equal float32 numbers, of the largest
# how far along the descent, and how much surer or less sure, a better prediction is looked for
STEPS, SCALES = (1e-3, 1e-2, 0.1, 1.0), (0.5, 0.9, 1.1, 2.0, 10.0)


@dataclasses.dataclass
class Finding:
    """The outcome of one check: ok, gradient 0, no, error, or – where it has no meaning."""

    case: str
    side: str  # the framework
    check: str = ""
    size: int | None = None
    verdict: str = ""
    value: float | None = None
    note: str = ""


FIELDS = (*(f.name for f in dataclasses.fields(Finding)), *STAMPS)
Outcome = tuple[str, float | None, str]  # verdict, value, note


class Subject:
    """A loss on its backend, and the inputs it is tried on."""

    def __init__(self, peer: Peer, loss: Loss, seed: int) -> None:
        self.peer, self.loss, self.seed = peer, loss, seed
        self.jax = peer.backend == "jax"
        # JAX's users compile what they call
        self.usual, self.eager, self.compiled = (
            (JIT, Side("jax", "eager"), JIT) if self.jax else (EAGER, EAGER, COMPILED)
        )
        self.steps: dict[Side, Step] = {}

    def inputs(self, masks: Array, dtype: type = np.float32) -> Inputs:
        """For predictions of another object than that of the masks, so that all have to learn."""
        size = masks.shape[-1]
        made = self.peer.inputs(self.seed, masks, np.roll(discs(len(masks), size), size // 4, -1))
        return {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in made.items()}

    def step(self, inputs: Inputs, side: Side | None = None) -> tuple[float, dict[str, Array]]:
        """The loss and its gradients as NumPy arrays in float64."""
        side = side or self.usual
        if side not in self.steps:
            self.steps[side] = side.step(self.loss, self.peer.gradients)
        value, gradients = self.steps[side](side.place(inputs))
        return float(value), {k: np.asarray(v, np.float64) for k, v in gradients.items()}

    def each(self, inputs: Inputs) -> list[float]:
        """The losses of the images, each called alone."""
        images = range(len(inputs[self.peer.wants[0]]))
        return [self.step({k: v[n : n + 1] for k, v in inputs.items()})[0] for n in images]

    def vmapped(self, inputs: Inputs) -> Array:
        """The losses of the images, vectorized."""
        placed = self.usual.place(inputs)

        def one(*arrays: Any) -> Any:
            return self.loss({k: a[None] for k, a in zip(placed, arrays, strict=True)})

        vmapped = jax.jit(jax.vmap(one)) if self.jax else torch.func.vmap(one)
        return np.asarray(vmapped(*placed.values()))


def discs(batch: int, size: int, radius: float = 0.35) -> Array:
    """Masks (N, size, size) of a disc, `radius` a share of the side."""
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
    """float64 gradients against finite differences."""
    placed = subject.usual.place(subject.inputs(discs(BATCH, size), np.float64))
    names = subject.peer.gradients
    leaves = [placed[name] for name in names]

    def loss(*given: Any) -> Any:
        return subject.loss(placed | dict(zip(names, given, strict=True)))

    dtype = str(loss(*leaves).dtype)
    if "float64" not in dtype:
        return "no", None, f"comes out in {dtype}"
    different = AssertionError if subject.jax else GradcheckError
    try:
        if subject.jax:
            check_grads(jax.jit(loss), leaves, order=1, modes=("rev",))
        else:
            gradcheck(loss, [leaf.requires_grad_() for leaf in leaves])
    except different as error:
        return "no", None, _first_line(error)
    return "ok", None, ""


def batch_is_mean(subject: Subject, size: int) -> Outcome:
    """A small and a large object."""
    inputs = subject.inputs(np.concatenate([discs(1, size, 0.1), discs(1, size, 0.45)]))
    whole, mean = subject.step(inputs)[0], float(np.mean(subject.each(inputs)))
    return _equal(whole, mean), whole, f"{whole:.3g} for the batch, {mean:.3g} for its images"


def vmap(subject: Subject, size: int) -> Outcome:
    inputs = subject.inputs(discs(BATCH, size))
    return _equal(subject.vmapped(inputs), subject.each(inputs)), None, ""


def one_graph(subject: Subject, size: int) -> Outcome:
    """Value and gradients compiled, against uncompiled."""
    inputs = subject.inputs(discs(BATCH, size))
    value, gradients = subject.step(inputs, subject.eager)
    again, others = subject.step(inputs, subject.compiled)
    if _equal(again, value) != "ok":
        return "no", again, f"{value:g} uncompiled"
    wrong = [name for name in gradients if _equal(others[name], gradients[name]) != "ok"]
    return ("no", again, f"gradient of {', '.join(wrong)}") if wrong else ("ok", again, "")


def soft_target(subject: Subject, size: int) -> Outcome:
    """Whether p = t is a minimum: nothing lower down the gradient, nor with surer predictions."""
    if "target" not in subject.peer.wants:
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
    "empty mask": (empty_mask, SIDE),
    "full mask": (full_mask, SIDE),
    "float16": (half_precision, 512),
    "float64, finite differences": (differences, SMALL),
    "batch = mean of images": (batch_is_mean, SIDE),
    "vmap": (vmap, SIDE),
    "compiled in one graph": (one_graph, SIDE),
    "p = t is a minimum": (soft_target, SMALL),
}


def findings(peer: Peer, loss: Loss, seed: int, quick: bool) -> Iterator[Finding]:
    """Every check on one loss. With `quick` none compares compiled; half precision at 64²."""
    subject = Subject(peer, loss, seed)
    for name, (check, size) in CHECKS.items():
        if quick and check is one_graph:
            continue
        finding = Finding(peer.label, peer.framework, name, min(size, 64) if quick else size)
        with contained(), jax.enable_x64(check in (differences, soft_target)):
            try:
                outcome = check(subject, int(finding.size or 0))
            except Exception as error:
                outcome = "error", None, f"{type(error).__name__}: {_first_line(error)}"
        finding.verdict, finding.value, finding.note = outcome
        yield finding


def _equal(found: Any, expected: Any) -> str:
    scale = max(1e-6, float(np.abs(expected).max()))
    return "ok" if np.allclose(found, expected, rtol=0, atol=TOLERANCE * scale) else "no"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""
