"""Weights under PyTorch's names and in its layout, so that a file serves both frameworks."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from reference_models.errors import InputError
from reference_models.files import Arrays, describe_mismatch

# The lists of layers that PyTorch numbers without a name of their own.
UNNAMED = ("layers",)
NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def torch_name(path: Iterable[str | int]) -> str:
    """`("critic", "layers", 0, "kernel")` is "critic.0.weight" there."""
    *parts, leaf = (str(part) for part in path)
    return ".".join([*(part for part in parts if part not in UNNAMED), NAMES.get(leaf, leaf)])


def to_torch(state: nnx.State) -> Arrays:
    """Every variable of the state by PyTorch's name, as a copy in its layout."""
    return {
        torch_name(path): _turned(np.array(variable[...]), path[-1], to_torch=True)
        for path, variable in nnx.to_flat_state(state)
    }


def from_torch(state: nnx.State, arrays: Arrays, of: str = "the weights") -> nnx.State:
    """A state like `state` with the values of `arrays`; an `InputError` unless both have the same
    names and shapes. PyTorch's `num_batches_tracked` is passed over. of: what `arrays` are, for
    the message."""
    given = {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
    if found := describe_mismatch(given, to_torch(state)):
        raise InputError(f"{of} do not fit: {found}")
    filled = []
    for path, variable in nnx.to_flat_state(state):
        turned = _turned(given[torch_name(path)], path[-1], to_torch=False)
        # A copy: `asarray` would share the memory, which may be that of a network in training.
        filled.append((path, variable.replace(jnp.array(turned, variable.dtype))))
    return nnx.from_flat_state(filled)


def _turned(array: np.ndarray, leaf: Any, to_torch: bool) -> np.ndarray:
    """Kernels `(height, width, in, out)` to `(out, in, height, width)`, matrices transposed."""
    if leaf != "kernel":
        return array
    order = (3, 2, 0, 1) if to_torch else (2, 3, 1, 0)
    return array.transpose(order if array.ndim == 4 else (1, 0))
