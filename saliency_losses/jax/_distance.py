"""Primitives of the distance transform: nearest foreground along one axis."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from saliency_losses.jax._environment import compiled

Top = tuple[Array, Array, Array]  # per lane a parabola's index, its value, its first place


def positions(x: Array, axis: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, x.shape, axis)


@compiled(1)
def nearest_true(x: Array, far: int) -> Array:
    # The loop is two to ten times faster on a CPU.
    nearest: Array = lax.platform_dependent(
        x, cpu=partial(loop_to_nearest, far=far), default=partial(scan_to_nearest, far=far)
    )
    return nearest


def scan_to_nearest(x: Array, far: int) -> Array:
    axis, place = x.ndim - 1, positions(x, x.ndim - 1)
    before = lax.cummax(jnp.where(x, place, -far), axis=axis)
    after = lax.cummin(jnp.where(x, place, x.shape[-1] - 1 + far), axis=axis, reverse=True)
    return jnp.where(place - before <= after - place, before, after)


def loop_to_nearest(x: Array, far: int) -> Array:
    length, columns = x.shape[-1], jnp.moveaxis(x, -1, 0)
    dtype = _index_dtype(length + far)
    places = jnp.arange(length, dtype=dtype)

    def forward(before: Array, column: tuple[Array, Array]) -> tuple[Array, Array]:
        before = jnp.where(column[1], column[0], before)
        return before, before

    def backward(after: Array, column: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        place, here, before = column
        after = jnp.where(here, place, after)
        return after, jnp.where(place - before <= after - place, before, after)

    none = jnp.zeros_like(columns[0], dtype)
    _, before = lax.scan(forward, none - far, (places, columns))
    start = none + (length - 1 + far)
    _, nearest = lax.scan(backward, start, (places, columns, before), reverse=True)
    return jnp.moveaxis(nearest, 0, -1).astype(jnp.int32)


@compiled(1, 2, 3)
def nearest_parabola(
    x: Array, axis: int, bound: float, steepness: float | None
) -> tuple[Array, Array]:
    lanes = jnp.moveaxis(jnp.minimum(x, bound), axis, 0)
    width = 1 if steepness is None else steepness
    value, source = lax.platform_dependent(
        lanes, cpu=partial(lower_envelope, width=width), default=partial(dense_minimum, width=width)
    )
    return jnp.moveaxis(value, 0, axis), jnp.moveaxis(source, 0, axis)


def dense_minimum(x: Array, width: float) -> tuple[Array, Array]:
    """The minimum over k of x_k + width (i − k)² along axis 0, and the first such k."""
    length, place = len(x), positions(x, 0)

    def nearer(k: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        k = jnp.minimum(k, length - 1)
        value = lax.dynamic_index_in_dim(x, k) + width * (place - k) ** 2
        return jnp.where(value < found[0], value, found[0]), jnp.where(
            value < found[0], k, found[1]
        )

    # Unrolled, a result stays in registers over several rows: two to four times faster. A remainder
    # of fewer than 16 rows would cost more than all full runs, hence the rounding up.
    found: tuple[Array, Array] = lax.fori_loop(
        1,
        length + -length % 16 + 1,
        nearer,
        # The zeros are made from x, so that both vary alike over the devices of a `shard_map`.
        (x[:1] + width * place**2, jnp.zeros_like(x, place.dtype)),
        unroll=16,
    )
    return found


def lower_envelope(x: Array, width: float) -> tuple[Array, Array]:
    """`dense_minimum` in linear time (Felzenszwalb and Huttenlocher, 2012), all lanes in step.

    The parabolas enter from left to right. Each lane keeps a stack of those that are the lowest
    from some place on: for each parabola, that place and the parabola below it.
    """
    length, dtype = len(x), _index_dtype(len(x))
    none = jnp.zeros_like(x, dtype)
    bottom = jnp.full_like(x[0], -1, jnp.int32)

    def enter(q: Array, stack: tuple[Array, Array, Top]) -> tuple[Array, Array, Top]:
        start, below, top = stack
        value = lax.dynamic_index_in_dim(x, q, keepdims=False)

        def hidden(top: Top) -> Any:
            t, height, first = top
            lower = value + width * (first - q) ** 2 < height + width * (first - t) ** 2
            return lower & (t >= 0)

        def pop(state: tuple[Top, Array]) -> tuple[Top, Array]:
            top, goes = state
            t = jnp.where(goes, _at(below, top[0]), top[0])
            top = t, _at(x, t), _at(start, t)
            return top, goes & hidden(top)

        top, _ = lax.while_loop(lambda state: state[1].any(), pop, (top, hidden(top)))
        first = _first_below(value, q, top, width)
        lowest = first < length
        start = lax.dynamic_update_index_in_dim(start, first.astype(dtype), q, 0)
        below = lax.dynamic_update_index_in_dim(below, top[0].astype(dtype), q, 0)
        entered = jnp.full_like(bottom, q), value, first
        return start, below, _where(lowest, entered, top)

    def read(top: Top, i: Array) -> tuple[Top, tuple[Array, Array]]:
        t, height, first = top
        lowest = height + width * (i - t) ** 2, t.astype(dtype)
        t = jnp.where(first >= i, _at(below, t), t)
        return (t, _at(x, t), _at(start, t)), lowest

    stack = none, none, (bottom, x[0], jnp.zeros_like(bottom))
    start, below, top = lax.fori_loop(0, length, enter, stack)
    _, (value, source) = lax.scan(read, top, jnp.arange(length, dtype=jnp.int32), reverse=True)
    return value, source.astype(jnp.int32)


def _first_below(value: Array, q: Array, top: Top, width: float) -> Array:
    """The first place where parabola q lies below the top of the stack; at most the length.

    It lies after the top's first place.
    """
    t, height, first = top
    apart = jnp.maximum(q - t, 1)
    if jnp.issubdtype(value.dtype, jnp.integer):
        place = lax.div(value - height + (q - t) * (q + t), 2 * apart) + 1
    else:
        crossing = (value - height) / (2 * width * apart) + 0.5 * (q + t)
        place = jnp.clip(jnp.floor(crossing), first, 2.0**30).astype(jnp.int32) + 1
    result: Array = jnp.where(t < 0, 0, place)
    return result


def _where(condition: Array, one: Top, other: Top) -> Top:
    return (
        jnp.where(condition, one[0], other[0]),
        jnp.where(condition, one[1], other[1]),
        jnp.where(condition, one[2], other[2]),
    )


def _at(x: Array, index: Array) -> Array:
    """The value at `index` along axis 0, in each lane; any value where it is −1."""
    index = jnp.maximum(index, 0)[None]
    taken = jnp.take_along_axis(x, index, axis=0, mode="promise_in_bounds")[0]
    return taken if x.dtype.itemsize > 2 else taken.astype(jnp.int32)


def _index_dtype(most: int) -> Any:
    """The narrowest dtype of places up to `most`; the narrower, the less memory is moved."""
    return jnp.int16 if most < 2**15 else jnp.int32
