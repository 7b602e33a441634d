"""The primitives of `core.ops.Ops` in JAX."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from saliency_losses.core.regions import blocks

_F = TypeVar("_F", bound=Callable[..., Any])

# Pixels that one matrix product adds up.
_RUN = 256
# Up to so many regions one after the other; a scatter takes pixel by pixel.
_FEW = 8


def _compiled(*static: int) -> Callable[[_F], _F]:
    """For what JAX would compile again at every call outside of `jax.jit`: loops, and functions
    made on the spot. Within it nothing changes."""
    return partial(jax.jit, static_argnums=static, inline=True)  # type: ignore[return-value]


def array(name: str, x: Any) -> Array:
    try:
        array = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a JAX array, got {type(x).__name__}") from error
    if isinstance(array, jax.core.Tracer) or not _staging():
        return array
    # A constant of a program: XLA would compute with it while it compiles, for seconds.
    return _barrier(array)


def _staging() -> bool:
    """Whether operations become part of a program, as within `jax.jit`, instead of results."""
    return isinstance(lax.neg(np.zeros((), np.float32)), jax.core.Tracer)


def is_array(x: Any) -> bool:
    return isinstance(x, (Array, np.ndarray))


def kind(x: Array) -> str:
    if x.dtype == jnp.bool_:
        return "bool"
    if jnp.issubdtype(x.dtype, jnp.floating):
        return "float"
    return "integer" if jnp.issubdtype(x.dtype, jnp.integer) else "other"


def dtype_name(x: Array) -> str:
    return str(x.dtype)


def map_shape(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[:-1])


def channels(shape: Sequence[int]) -> int:
    return shape[-1]


def stack_shape(shape: Sequence[int], channels: int) -> tuple[int, ...]:
    return (*shape, channels)


def features(x: Array) -> Array:
    return x.reshape(x.shape[0], prod(x.shape[1:-1]), x.shape[-1])


def images(x: Array) -> Array:
    return jnp.moveaxis(x, -1, 1)


def public_images(x: Array) -> Array:
    return jnp.moveaxis(x, 1, -1)


def regions(x: Array) -> Array:
    return x


def public_regions(x: Array) -> Array:
    return x


def stack(x: Array) -> Array:
    return jnp.moveaxis(features(x), -1, 1)


def public_stack(x: Array, shape: Sequence[int]) -> Array:
    return jnp.moveaxis(x, 1, -1).reshape(*stack_shape(shape, x.shape[1]))


def reshape(x: Array, shape: Sequence[int]) -> Array:
    return x.reshape(*shape)


def flat(x: Array) -> Array:
    return x.reshape(x.shape[0], prod(x.shape[1:]))


def over_channels(x: Array) -> Array:
    return x[..., None]


def over_pixels(x: Array) -> Array:
    return x[:, None]


def num_pixels(x: Array) -> int:
    return x.shape[1]


def channel(x: Array, index: int) -> Array:
    return x[..., index]


def over_stack(x: Array) -> Array:
    return x[:, None]


def take_stack(x: Array, index: Array) -> Array:
    # A gather's gradient is a scatter, which XLA does pixel by pixel.
    own = index[:, None] == jnp.arange(x.shape[1], dtype=index.dtype)[None, :, None]
    return jnp.where(own, x, 0.0).sum(1)


def unstack(x: Array) -> list[Array]:
    return [one[:, 0] for one in _split(x)]


def epsilon(x: Array) -> float:
    return float(jnp.finfo(x.dtype).eps) if kind(x) == "float" else 0.0  # type: ignore[no-untyped-call]


def widen(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def promote(*xs: Array) -> tuple[Array, ...]:
    widest = jnp.result_type(*(x.dtype for x in xs))
    return tuple(x.astype(widest) for x in xs)


def cast(x: Array, like: Array) -> Array:
    return jnp.asarray(x, like.dtype)


def floats(x: Array) -> Array:
    return x if kind(x) == "float" else x.astype(jnp.float32)


def integers_to(x: Array, most: int) -> Array:
    return x.astype(jnp.int32)


def integers(x: Array) -> Array:
    return x if kind(x) == "integer" and x.dtype.itemsize > 2 else x.astype(jnp.int32)


def stop_gradient(x: Array) -> Array:
    return lax.stop_gradient(x)


def where(condition: Array, x: Any, y: Any) -> Array:
    return jnp.where(condition, x, y)


def sqrt(x: Array) -> Array:
    return jnp.sqrt(x)


def exp(x: Array) -> Array:
    return jnp.exp(x)


def abs(x: Array) -> Array:
    return jnp.where(x == 0, 0.0, jnp.abs(x))  # gradient 0 at 0, as in PyTorch


def clip(x: Array, low: float, high: float) -> Array:
    return jnp.clip(x, low, high)


def maximum(x: Array, low: float) -> Array:
    return jnp.maximum(x, low)


def minimum(x: Array, y: Array) -> Array:
    return jnp.minimum(x, y)


def isnan(x: Array) -> Array:
    return jnp.isnan(x)


def softplus(x: Array) -> Array:
    return jax.nn.softplus(x)


def sigmoid(x: Array) -> Array:
    return jax.nn.sigmoid(x)


def softmax(x: Array) -> Array:
    return jax.nn.softmax(x)


def equals(x: Array, value: int) -> Array:
    if kind(x) == "integer":
        held = np.iinfo(x.dtype)
        if not held.min <= value <= held.max:
            return jnp.zeros_like(x, jnp.bool_)
    equal: Array = x == value
    return equal


@jax.custom_jvp
def sum_pixels(x: Array) -> Array:
    return _total(x)


@sum_pixels.defjvp
def _sum_pixels_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return sum_pixels(primals[0]), _linear_total(tangents[0])


@_compiled()
def _total(x: Array) -> Array:
    """The sum over axis 1, in runs of 16, then of 16 of those, and so on."""
    if x.ndim == 2:
        # So many pixels of a map side by side as the channels of features are.
        return _total(_runs(x, 16)).sum(1)
    while x.shape[1] > 1:
        # As two sums at once, which XLA's CPU back end fuses with what makes the terms. A single
        # one it hands to a library, and writes the terms' broadcasts out: up to ten times slower.
        x = _runs(x, 16)
        x = jnp.add(*_totals([x[:, :, :8], x[:, :, 8:]], 2))
    return x.sum(1)


def _linear_total(x: Array) -> Array:
    """`_total` as JAX can transpose it."""
    # The barrier keeps XLA from joining the two sums to one.
    return _barrier(_runs(x, _RUN).sum(2)).sum(1)


def _barrier(x: Array) -> Array:
    behind: Array = lax.optimization_barrier(x)  # type: ignore[no-untyped-call]
    return behind


def _over_pixels(x: Array, pixels: int) -> Array:
    """``(N, 1, C)`` over pixels; transposed, a sum in runs."""
    # As complex numbers, whose sum too XLA keeps to itself.
    over = jnp.broadcast_to(
        lax.complex(x, jnp.zeros_like(x)), (x.shape[0], -(-pixels // 16), x.shape[2])
    )
    over = jnp.broadcast_to(_barrier(over)[:, :, None], (*over.shape[:2], 16, x.shape[2]))
    return over.reshape(x.shape[0], 16 * over.shape[1], x.shape[2])[:, :pixels].real


def _totals(xs: Sequence[Array], axis: int) -> Sequence[Array]:
    """The sums over an axis, of all in one pass."""
    zeros = tuple(np.zeros((), x.dtype) for x in xs)
    totals: tuple[Array, ...] = lax.reduce(tuple(xs), zeros, _add_each, (axis,))
    return totals


def _add_each(xs: Sequence[Array], ys: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(map(lax.add, xs, ys))


def _runs(x: Array, length: int) -> Array:
    """``(N, P, ...)`` as ``(N, runs, length, ...)``, filled up with zeros."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % length), *[(0, 0)] * (x.ndim - 2)))
    return x.reshape(x.shape[0], x.shape[1] // length, length, *x.shape[2:])


def sum_channels(x: Array) -> Array:
    return x.sum(-1)


def sum_vector(x: Array) -> Array:
    return x.sum(1)


def sum_stack(x: Array) -> Array:
    return x.sum(2)


def min_stack(x: Array) -> Array:
    return x.min(1)


def logsumexp_stack(x: Array) -> Array:
    return jax.nn.logsumexp(x, axis=1)


def count(x: Array) -> Array:
    return _total(x.astype(jnp.int32))


def max_pixels(x: Array) -> Array:
    return x.max(1)


def any_per_image(x: Array) -> Array:
    return count(flat(x)) > 0


def sum_images(x: Array) -> Array:
    return x.sum()


def region_index(labels: Array, num_regions: int) -> Array:
    index = jnp.clip(labels, 0, num_regions - 1)
    if num_regions <= _FEW:
        return index
    pixels = labels.shape[1]
    runs = blocks(pixels, num_regions)
    run = jnp.arange(pixels, dtype=labels.dtype) // -(-max(pixels, 1) // runs)
    return index + num_regions * run[None]


def region_count(index: Array, counted: Array | None, num_regions: int) -> Array:
    if num_regions <= _FEW:
        regions = [index == r for r in range(num_regions)]
        return jnp.stack([count(own if counted is None else own & counted) for own in regions], 1)
    ones = jnp.ones_like(index) if counted is None else counted.astype(index.dtype)
    return region_sum(ones[..., None], index, num_regions)[..., 0]


def region_sum(x: Array, index: Array, num_regions: int) -> Array:
    if num_regions <= _FEW:
        return jnp.stack(
            [sum_pixels(jnp.where((index == r)[..., None], x, 0.0)) for r in range(num_regions)], 1
        )
    runs = blocks(index.shape[1], num_regions)

    def of_image(x: Array, index: Array) -> Array:
        sums = jax.ops.segment_sum(x, index, runs * num_regions)
        return sums.reshape(runs, num_regions, x.shape[-1]).sum(0)

    return jax.vmap(of_image)(x, index)


def region_take(x: Array, index: Array) -> Array:
    if x.ndim == 2:
        return region_take(x[..., None], index)[..., 0]
    if x.shape[1] <= _FEW:
        own, *others = (_over_pixels(one, index.shape[1]) for one in _split(x))
        for r, other in enumerate(others, 1):
            own = jnp.where((index == r)[..., None], other, own)
        return own
    runs = blocks(index.shape[1], x.shape[1])
    return jnp.take_along_axis(jnp.tile(x, (1, runs, 1)), index[..., None], axis=1)


def own_gradient(
    function: Callable[..., tuple[Array, ...]],
    pull: Callable[..., Array],
    x: Array,
    *constants: Array,
) -> tuple[Array, ...]:
    return function(x, *constants)


@jax.custom_jvp
def weighted_sum(x: Array, weights: Array) -> Array:
    # Behind the barrier a weight is computed once per pixel, not once per channel.
    return _total(x * _barrier(weights)[..., None])


@weighted_sum.defjvp
def _weighted_sum_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, weights), (x_tangent, weights_tangent) = primals, tangents
    of_x = _linear_total(x_tangent * weights[..., None])
    # In runs: one product over all pixels is added up one by one on a CPU, 1 % off at a million.
    of_weights = jnp.einsum(
        "nkpc,nkp->nkc",
        _runs(x, _RUN),
        _runs(weights_tangent, _RUN),
        precision=lax.Precision.HIGHEST,
    ).sum(1)  # no TF32
    return weighted_sum(x, weights), of_x + of_weights


def recomputed(function: Callable[..., Array], *inputs: Array) -> Array:
    return function(*inputs)  # XLA keeps less of it by itself than a checkpoint would cost


def weighted_sums(x: Array, weights: Array) -> Array:
    return jnp.stack([weighted_sum(x, weights[:, r]) for r in range(weights.shape[1])], 1)


def squared_distances(x: Array, centers: Array) -> Array:
    if centers.shape[1] <= _FEW:
        return _squared_distances(x, centers)
    return _many_squared_distances(x, centers)


@_compiled()
def _many_squared_distances(x: Array, centers: Array) -> Array:
    # One after the other in a loop: unrolled, many take long to compile.
    each = jnp.moveaxis(centers, 1, 0)[:, :, None]
    return jnp.moveaxis(lax.map(lambda center: _squared_distances(x, center), each), 0, 1)[:, :, 0]


@jax.custom_jvp
def _squared_distances(x: Array, centers: Array) -> Array:
    return jnp.stack(_totals([jnp.square(x - center) for center in _split(centers)], 2), 1)


@_squared_distances.defjvp
def _squared_distances_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, centers), (x_tangent, centers_tangent) = primals, tangents

    @jax.checkpoint
    def along(center: Array, change: Array) -> Array:
        # Two products, so that neither's transpose is written out for the other's sake.
        return ((x - center) * x_tangent).sum(2) - (
            (x - center) * _over_pixels(change, x.shape[1])
        ).sum(2)

    of_each = map(along, _split(centers), _split(centers_tangent))
    return _squared_distances(x, centers), 2 * jnp.stack(list(of_each), 1)


def _split(x: Array) -> Sequence[Array]:
    """One array of length 1 on axis 1 each; transposed, one concatenation."""
    return lax.split(x, (1,) * x.shape[1], axis=1)


def sort_descending(x: Array) -> Array:
    return jnp.sort(x, axis=1, descending=True)


def take_pixel(x: Array, index: Array) -> Array:
    return jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]


def cumulative_count(x: Array) -> Array:
    return jnp.cumsum(x, axis=1)


def shifts(x: Array, axis: int, reach: int, value: float) -> list[Array]:
    width = [(0, 0)] * x.ndim
    width[axis] = (reach, reach)
    padded, length = jnp.pad(x, width, constant_values=value), x.shape[axis]
    return [lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(2 * reach + 1)]


def filter_axis(x: Array, taps: Sequence[float], axis: int) -> Array:
    return _filtered(x, tuple(taps), axis)


@_compiled(1, 2)
def _filtered(x: Array, taps: tuple[float, ...], axis: int) -> Array:
    # Posed as the solution of a linear system (that is never looked at), since JAX lets one say
    # what the transpose of that is: of shifted sums it makes sums of padded arrays, four times
    # slower.
    filtered: Array = lax.custom_linear_solve(
        lambda x: x,
        x,
        lambda _, x: _correlate(x, taps, axis),
        lambda _, x: _correlate(x, taps[::-1], axis),
    )
    return filtered


def _correlate(x: Array, taps: Sequence[float], axis: int) -> Array:
    total = jnp.zeros_like(x)
    for tap, shifted in zip(taps, shifts(x, axis, len(taps) // 2, 0.0), strict=True):
        total = total + tap * shifted
    return total


def image_by_image(function: Callable[..., Sequence[Array]], *xs: Array) -> Sequence[Array]:
    return function(*xs)


@_compiled(1)
def nearest_true(x: Array, far: int) -> Array:
    place = positions(x, x.ndim - 1)
    # The loop is two to ten times faster on a CPU.
    before, after = lax.platform_dependent(
        x, cpu=lambda x: loop_to_last_and_next(x, far), default=lambda x: last_and_next(x, far)
    )
    return jnp.where(place - before <= after - place, before, after)


def last_and_next(x: Array, far: int) -> tuple[Array, Array]:
    """Along the last axis the index of the last True up to each pixel, and of the next one."""
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

    def found(none: int, reverse: bool) -> Array:
        start = jnp.full_like(columns[0], none, jnp.int32)
        steps = jnp.arange(length, dtype=jnp.int32), columns
        return jnp.moveaxis(lax.scan(step, start, steps, reverse=reverse)[1], 0, -1)

    return found(-far, False), found(length - 1 + far, True)


@_compiled(1, 2)
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
    """min_k x_k + width (i − k)² along axis 1."""
    length = x.shape[1]
    place = jnp.arange(length).reshape(1, -1, *[1] * (x.ndim - 2))

    def nearer(k: Array, nearest: Array) -> Array:
        k = jnp.minimum(k, length - 1)
        source = lax.dynamic_index_in_dim(x, k, axis=1)
        return jnp.minimum(nearest, source + (width * (place - k) ** 2).astype(x.dtype))

    return _over_rows(length, nearer, x)


def _over_rows(length: int, step: Callable[[Array, Array], Array], x: Array) -> Array:
    """x after a step for each k from 0 to `length` or a little beyond."""
    # Unrolled, a result stays in registers over several rows: two to four times faster. But rows
    # that are no whole run would cost more than all runs.
    result: Array = lax.fori_loop(0, length + -length % 16, step, x, unroll=16)
    return result


def resize(x: Array, size: Sequence[int]) -> Array:
    resized = jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear", antialias=False)
    # Its weights may sum to 1 and a rounding.
    pixels = tuple(range(1, x.ndim - 1))
    low, high = x.min(pixels, keepdims=True), x.max(pixels, keepdims=True)
    bounded: Array = resized + lax.stop_gradient(jnp.clip(resized, low, high) - resized)
    return bounded


def positions(x: Array, axis: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, x.shape, axis)


def take_along(x: Array, index: Array, axis: int) -> Array:
    taken: Array = jnp.take_along_axis(x, index, axis)
    return taken


def join(xs: Sequence[Array]) -> Array:
    return jnp.stack(list(xs), 1)


def known_within(x: Array, low: float, high: float) -> bool:
    return False


def no_image(x: Array) -> Array:
    return jnp.zeros(x.shape[0], jnp.bool_)


def first(values: Array, bad: Array) -> float | None:
    if isinstance(values, jax.core.Tracer) or isinstance(bad, jax.core.Tracer):
        return None
    if not getattr(bad, "is_fully_addressable", True) or not bool(bad.any()):
        return None
    found = np.broadcast_to(np.asarray(values), bad.shape)[np.asarray(bad)].astype(np.float64)
    found = found[~np.isnan(found)]
    return float(found[0]) if found.size else None


def random(rng: Any, shape: Sequence[int], like: Array) -> Array:
    try:
        return jax.random.uniform(rng, tuple(shape), jnp.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"rng must be a JAX key, got {type(rng).__name__}; for example jax.random.key(0)"
        ) from error
