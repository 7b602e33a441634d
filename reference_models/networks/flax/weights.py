"""Conversion of Flax weights to and from PyTorch's names and layout.

Both frameworks read the same weight files.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from reference_models.errors import InputError
from reference_models.files import Arrays, describe_mismatch

# Attributes that Flax has and PyTorch omits from the names: the lists of an `nnx.Sequential`.
UNNAMED = ("layers",)
NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def torch_name(path: Iterable[Any]) -> str:
    """PyTorch's name: `("critic", "layers", 0, "kernel")` gives "critic.0.weight"."""
    *parts, leaf = (str(part) for part in path)
    return ".".join([*(part for part in parts if part not in UNNAMED), NAMES.get(leaf, leaf)])


def to_torch(state: nnx.State[Any, Any]) -> Arrays:
    """Copies of all variables of the state, by PyTorch's names and in its layout."""
    return {
        torch_name(path): transposed(np.array(variable[...]), path[-1], to_torch=True)
        for path, variable in nnx.to_flat_state(state)
    }


def from_torch(
    state: nnx.State[Any, Any], arrays: Arrays, of: str = "the weights"
) -> nnx.State[Any, Any]:
    """A state like `state` with the values of `arrays`, which `of` names in the error message.

    Raises `InputError` unless both have the same names and shapes. PyTorch's
    `num_batches_tracked` is ignored.
    """
    used = {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
    if differences := describe_mismatch(used, to_torch(state)):
        raise InputError(
            f"{of} do not fit: {differences}; load the weights of a network with the same options"
        )
    filled = []
    for path, variable in nnx.to_flat_state(state):
        values = transposed(used[torch_name(path)], path[-1], to_torch=False)
        # A copy: `asarray` would share the memory, possibly with a network in training.
        filled.append((path, variable.replace(jnp.array(values, variable.dtype))))
    return nnx.from_flat_state(filled)


def transposed(array: np.ndarray, leaf: Any, to_torch: bool) -> np.ndarray:
    """Transpose kernels between `(height, width, in, out)` and `(out, in, height, width)`."""
    if leaf != "kernel":
        return array
    order = (3, 2, 0, 1) if to_torch else (2, 3, 1, 0)
    return array.transpose(order if array.ndim == 4 else (1, 0))
