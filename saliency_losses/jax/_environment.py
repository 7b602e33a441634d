"""What an array is computed by: programs that JAX stages, and the compiler of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array, lax

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(*static: int) -> Callable[[_F], _F]:
    """For what JAX would compile again at every call outside of `jax.jit`: loops, and functions
    made on the spot. Within it nothing changes."""
    return partial(jax.jit, static_argnums=static, inline=True)  # type: ignore[return-value]


def is_staging() -> bool:
    """Whether operations become part of a program, as within `jax.jit`, instead of results."""
    return isinstance(lax.neg(np.zeros((), np.float32)), jax.core.Tracer)


def barrier(x: Array) -> Array:
    behind: Array = lax.optimization_barrier(x)  # type: ignore[no-untyped-call]
    return behind
