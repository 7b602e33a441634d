"""Helpers for compilation: jit, staging, optimisation barriers."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array, lax

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(*static: int) -> Callable[[_F], _F]:
    """Decorator that caches the compilation of a function called outside `jax.jit`.

    For functions with loops or local functions, which JAX would otherwise compile at every call.
    Within `jax.jit` it changes nothing.
    """
    return partial(jax.jit, static_argnums=static, inline=True)  # type: ignore[return-value]


def is_staging() -> bool:
    """Whether operations are staged into a program, as within `jax.jit`, not executed."""
    return isinstance(lax.neg(np.zeros((), np.float32)), jax.core.Tracer)


def barrier(x: Array) -> Array:
    behind: Array = lax.optimization_barrier(x)
    return behind
