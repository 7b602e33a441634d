"""Primitives of the distance transform: nearest foreground along one axis."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from saliency_losses.jax._environment import compiled


def positions(x: Array, axis: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, x.shape, axis)


@compiled(1)
def nearest_true(x: Array, far: int) -> Array:
    place = positions(x, x.ndim - 1)
    # The loop is two to ten times faster on a CPU.
    before, after = lax.platform_dependent(
        x, cpu=lambda x: loop_to_last_and_next(x, far), default=lambda x: last_and_next(x, far)
    )
    return jnp.where(place - before <= after - place, before, after)


def last_and_next(x: Array, far: int) -> tuple[Array, Array]:
    """Along the last axis, the indices of the last True up to each pixel and the next from it."""
    axis, place = x.ndim - 1, positions(x, x.ndim - 1)
    return (
        lax.cummax(jnp.where(x, place, -far), axis=axis),
        lax.cummin(jnp.where(x, place, x.shape[-1] - 1 + far), axis=axis, reverse=True),
    )


def loop_to_last_and_next(x: Array, far: int) -> tuple[Array, Array]:
    length, columns = x.shape[-1], jnp.moveaxis(x, -1, 0)

    def step(place: Array, column: tuple[Array, Array]) -> tuple[Array, Array]:
        place = jnp.where(column[1], column[0], place)
        return place, place

    def scan(absent: int, reverse: bool) -> Array:
        start = jnp.full_like(columns[0], absent, jnp.int32)
        steps = jnp.arange(length, dtype=jnp.int32), columns
        return jnp.moveaxis(lax.scan(step, start, steps, reverse=reverse)[1], 0, -1)

    return scan(-far, False), scan(length - 1 + far, True)


@compiled(1, 2)
def nearest_parabola(x: Array, axis: int, bound: int) -> tuple[Array, Array]:
    x = jnp.minimum(jnp.moveaxis(x, axis, 1), bound)
    length = x.shape[1]
    place = jnp.arange(length, dtype=x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    if (bound + (length - 1) ** 2) * length + length - 1 < 2**32:
        # Value and place in one number, so that one minimum finds both.
        key = x.astype(jnp.uint32) * length + place.astype(jnp.uint32)
        key = _lowest_parabola(key, length)
        value, source = (key // length).astype(x.dtype), (key % length).astype(x.dtype)
    else:
        value = _lowest_parabola(x, 1)

        def first(k: Array, source: Array) -> Array:
            k = jnp.maximum(length - 1 - k, 0)
            reached = lax.dynamic_index_in_dim(x, k, axis=1) + (place - k) ** 2 == value
            return jnp.where(reached, k, source)

        source = _over_rows(length, first, jnp.zeros_like(x))
    return jnp.moveaxis(value, 1, axis), jnp.moveaxis(source, 1, axis)


def _lowest_parabola(x: Array, width: int) -> Array:
    """The minimum over k of x_k + width (i − k)² along axis 1."""
    length = x.shape[1]
    place = jnp.arange(length).reshape(1, -1, *[1] * (x.ndim - 2))

    def nearer(k: Array, nearest: Array) -> Array:
        k = jnp.minimum(k, length - 1)
        source = lax.dynamic_index_in_dim(x, k, axis=1)
        return jnp.minimum(nearest, source + (width * (place - k) ** 2).astype(x.dtype))

    return _over_rows(length, nearer, x)


def _over_rows(length: int, step: Callable[[Array, Array], Array], x: Array) -> Array:
    """`x` after a step for each k from 0 to `length`, rounded up to a multiple of 16."""
    # Unrolled, a result stays in registers over several rows: two to four times faster. A remainder
    # of fewer than 16 rows would cost more than all full runs, hence the rounding up.
    result: Array = lax.fori_loop(0, length + -length % 16, step, x, unroll=16)
    return result
