"""The primitives of `core.ops.Ops` in JAX."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from saliency_losses.core.regions import blocks

# Pixels that one matrix product adds up.
_RUN = 256


def array(name: str, x: Any) -> Array:
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a JAX array, got {type(x).__name__}") from error


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


def widen(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def promote(*xs: Array) -> tuple[Array, ...]:
    widest = jnp.result_type(*(x.dtype for x in xs))
    return tuple(x.astype(widest) for x in xs)


def cast(x: Array, like: Array) -> Array:
    return x.astype(like.dtype)


def floats(x: Array) -> Array:
    return x if kind(x) == "float" else x.astype(jnp.float32)


def int32(x: Array) -> Array:
    return x.astype(jnp.int32)


def integers_to(x: Array, most: int) -> Array:
    return x.astype(jnp.int32)


def integers(x: Array) -> Array:
    return x if x.dtype.itemsize > 2 else x.astype(jnp.int32)


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


def clip(x: Array, low: int, high: int) -> Array:
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


def sum_pixels(x: Array) -> Array:
    # In runs, and then the runs: fused with a product, XLA adds a million pixels up less exactly.
    # The barrier keeps it from joining the two sums.
    rest = -x.shape[1] % _RUN
    x = jnp.pad(x, ((0, 0), (0, rest), *[(0, 0)] * (x.ndim - 2)))
    runs = x.reshape(x.shape[0], x.shape[1] // _RUN, _RUN, *x.shape[2:]).sum(2)
    joined: Array = lax.optimization_barrier(runs)  # type: ignore[no-untyped-call]
    return joined.sum(1)


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
    return x.sum(1)


def max_pixels(x: Array) -> Array:
    return x.max(1)


def any_per_image(x: Array) -> Array:
    return flat(x).any(1)


def sum_images(x: Array) -> Array:
    return x.sum()


def region_index(labels: Array, num_regions: int) -> Array:
    pixels = labels.shape[1]
    runs = blocks(pixels, num_regions)
    run = jnp.arange(pixels, dtype=labels.dtype) // -(-max(pixels, 1) // runs)
    return jnp.clip(labels, 0, num_regions - 1) + num_regions * run[None]


def region_count(index: Array, counted: Array | None, num_regions: int) -> Array:
    ones = jnp.ones_like(index) if counted is None else counted.astype(index.dtype)
    return region_sum(ones[..., None], index, num_regions)[..., 0]


def region_sum(x: Array, index: Array, num_regions: int) -> Array:
    runs = blocks(index.shape[1], num_regions)

    def of_image(x: Array, index: Array) -> Array:
        sums = jax.ops.segment_sum(x, index, runs * num_regions)
        return sums.reshape(runs, num_regions, x.shape[-1]).sum(0)

    return jax.vmap(of_image)(x, index)


def region_take(x: Array, index: Array) -> Array:
    if x.ndim == 2:
        return region_take(x[..., None], index)[..., 0]
    runs = blocks(index.shape[1], x.shape[1])
    return jnp.take_along_axis(jnp.tile(x, (1, runs, 1)), index[..., None], axis=1)


def own_gradient(function: Callable[..., tuple[Array, ...]], pull: Callable[..., Array], x: Array,
                 *constants: Array) -> tuple[Array, ...]:
    return function(x, *constants)


def weighted_sums(x: Array, weights: Array) -> Array:
    # In runs: one product over all pixels is added up one by one on a CPU, 1 % off at a million.
    rest = -x.shape[1] % _RUN
    x = jnp.pad(x, ((0, 0), (0, rest), (0, 0)))
    weights = jnp.pad(weights, ((0, 0), (0, 0), (0, rest)))
    sums = jnp.einsum(
        "nkpc,nrkp->nkrc",
        x.reshape(x.shape[0], -1, _RUN, x.shape[2]),
        weights.reshape(*weights.shape[:2], -1, _RUN),
        precision=lax.Precision.HIGHEST,  # no TF32
    )
    return sums.sum(1)


def recomputed(function: Callable[..., Array], *inputs: Array) -> Array:
    return function(*inputs)  # XLA keeps less of it by itself than a checkpoint would cost


def squared_distances(x: Array, centers: Array) -> Array:
    @jax.checkpoint
    def to_one(center: Array) -> Array:
        difference = x - center[:, None]
        return (difference * difference).sum(-1)

    return jnp.moveaxis(lax.map(to_one, jnp.moveaxis(centers, 1, 0)), 0, 1)


def sort_descending(x: Array) -> Array:
    return jnp.sort(x, axis=1, descending=True)


def take_pixel(x: Array, index: Array) -> Array:
    return jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]


def cumulative_count(x: Array) -> Array:
    return jnp.cumsum(x, axis=1)


def pad(x: Array, axis: int, before: int, after: int, value: float) -> Array:
    width = [(0, 0)] * x.ndim
    width[axis] = (before, after)
    return jnp.pad(x, width, constant_values=value)


def shifts(x: Array, axis: int, reach: int, value: float) -> list[Array]:
    padded, length = pad(x, axis, reach, reach, value), x.shape[axis]
    return [lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(2 * reach + 1)]


def filter_axis(x: Array, taps: Sequence[float], axis: int) -> Array:
    total = jnp.zeros_like(x)
    for tap, shifted in zip(taps, shifts(x, axis, len(taps) // 2, 0.0), strict=True):
        total = total + tap * shifted
    return total


def image_by_image(function: Callable[..., Sequence[Array]], *xs: Array) -> Sequence[Array]:
    return function(*xs)


def nearest_true(x: Array, far: int) -> Array:
    place = positions(x, x.ndim - 1)
    # The loop is two to ten times faster on a CPU.
    before, after = lax.platform_dependent(
        x, cpu=lambda x: loop_to_last_and_next(x, far), default=lambda x: last_and_next(x, far))
    return jnp.where(place - before <= after - place, before, after)


def last_and_next(x: Array, far: int) -> tuple[Array, Array]:
    """Along the last axis the index of the last True up to each pixel, and of the next one."""
    axis, place = x.ndim - 1, positions(x, x.ndim - 1)
    return (lax.cummax(jnp.where(x, place, -far), axis=axis),
            lax.cummin(jnp.where(x, place, x.shape[-1] - 1 + far), axis=axis, reverse=True))


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
            k = length - 1 - k
            reached = lax.dynamic_index_in_dim(x, k, axis=1) + (place - k) ** 2 == value
            return jnp.where(reached, k, source)

        source = lax.fori_loop(0, length, first, jnp.zeros_like(x), unroll=16)
    return jnp.moveaxis(value, 1, axis), jnp.moveaxis(source, 1, axis)


def _lowest_parabola(x: Array, width: int) -> Array:
    """min_k x_k + width (i − k)² along axis 1."""
    place = jnp.arange(x.shape[1]).reshape(1, -1, *[1] * (x.ndim - 2))

    def nearer(k: Array, nearest: Array) -> Array:
        source = lax.dynamic_index_in_dim(x, k, axis=1)
        return jnp.minimum(nearest, source + (width * (place - k) ** 2).astype(x.dtype))

    # Unrolled, a result stays in registers over several rows: two to four times faster.
    lowest: Array = lax.fori_loop(0, x.shape[1], nearer, x, unroll=16)
    return lowest


def positions(x: Array, axis: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, x.shape, axis)


def take_along(x: Array, index: Array, axis: int) -> Array:
    taken: Array = jnp.take_along_axis(x, index, axis)
    return taken


def join(xs: Sequence[Array]) -> Array:
    return jnp.stack(list(xs), 1)


def known_within(x: Array, low: float, high: float) -> None:
    return None


def first(values: Array, bad: Array) -> float | None:
    if isinstance(values, jax.core.Tracer) or isinstance(bad, jax.core.Tracer):
        return None
    if not bad.is_fully_addressable or not bool(bad.any()):
        return None
    found = np.broadcast_to(np.asarray(values), bad.shape)[np.asarray(bad)].astype(np.float64)
    found = found[~np.isnan(found)]
    return float(found[0]) if found.size else None


def random(rng: Any, shape: Sequence[int], like: Array) -> Array:
    try:
        return jax.random.uniform(rng, tuple(shape))
    except (TypeError, ValueError) as error:
        raise TypeError(f"rng must be a JAX key, got {type(rng).__name__}; "
                        "for example jax.random.key(0)") from error
