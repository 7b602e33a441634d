"""The primitives of `core.ops.Ops` in JAX."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from saliency_losses.core.regions import blocks
from saliency_losses.jax._distance import nearest_parabola as nearest_parabola
from saliency_losses.jax._distance import nearest_true as nearest_true
from saliency_losses.jax._distance import positions as positions
from saliency_losses.jax._environment import barrier, compiled, is_staging
from saliency_losses.jax._sums import FEW_REGIONS, broadcast_pixels, region_sums, split, sum_in_runs
from saliency_losses.jax._sums import squared_distances as squared_distances
from saliency_losses.jax._sums import sum_pixels as sum_pixels
from saliency_losses.jax._sums import sum_squares as sum_squares
from saliency_losses.jax._sums import weighted_sum as weighted_sum


def array(name: str, x: Any) -> Array:
    try:
        array = jnp.asarray(x)
        np.dtype(getattr(x, "dtype", array.dtype))  # A tensor of PyTorch has another.
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be a JAX array, got {type(x).__name__}; convert it by jax.numpy.asarray"
        ) from error
    if isinstance(array, jax.core.Tracer) or not is_staging():
        return array
    # A barrier around constants of a program: XLA would fold them for seconds at compile time.
    return barrier(array)


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
    # The gradient of a gather is a scatter, which XLA computes pixel by pixel.
    is_taken = index[:, None] == jnp.arange(x.shape[1], dtype=index.dtype)[None, :, None]
    return jnp.where(is_taken, x, 0.0).sum(1)


def unstack(x: Array) -> list[Array]:
    return [part[:, 0] for part in split(x)]


def epsilon(x: Array) -> float:
    return float(jnp.finfo(x.dtype).eps) if kind(x) == "float" else 0.0


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


def relu(x: Array) -> Array:
    return jax.nn.relu(x)


def clip(x: Array, low: float, high: float) -> Array:
    return jnp.clip(x, low, high)


def maximum(x: Array, low: float) -> Array:
    return jnp.maximum(x, low)


def minimum(x: Array, y: Array) -> Array:
    return jnp.minimum(x, y)


def at_least(x: Array, low: Any) -> Array:
    return cast(x >= low, x)


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
    result: Array = x == value
    return result


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
    return sum_in_runs(x.astype(jnp.int32))


def max_pixels(x: Array) -> Array:
    return x.max(1)


def any_per_image(x: Array) -> Array:
    return count(flat(x)) > 0


def sum_images(x: Array) -> Array:
    return x.sum()


def region_index(labels: Array, num_regions: int) -> Array:
    index = jnp.clip(labels, 0, num_regions - 1)
    if num_regions <= FEW_REGIONS:
        return index
    pixels = labels.shape[1]
    runs = blocks(pixels, num_regions)
    run = jnp.arange(pixels, dtype=labels.dtype) // -(-max(pixels, 1) // runs)
    return index + num_regions * run[None]


def region_count(index: Array, counted: Array | None, num_regions: int) -> Array:
    if num_regions <= FEW_REGIONS:
        regions = [index == r for r in range(num_regions)]
        return jnp.stack(
            [count(region if counted is None else region & counted) for region in regions], 1
        )
    ones = jnp.ones_like(index) if counted is None else counted.astype(index.dtype)
    return region_sum(ones[..., None], index, num_regions)[..., 0]


def region_sum(x: Array, index: Array, num_regions: int) -> Array:
    if num_regions <= FEW_REGIONS:
        return region_sums(x, index, num_regions)
    runs = blocks(index.shape[1], num_regions)

    def of_image(x: Array, index: Array) -> Array:
        sums = jax.ops.segment_sum(x, index, runs * num_regions)
        return sums.reshape(runs, num_regions, x.shape[-1]).sum(0)

    return jax.vmap(of_image)(x, index)


def region_take(x: Array, index: Array) -> Array:
    if x.ndim == 2:
        return region_take(x[..., None], index)[..., 0]
    if x.shape[1] <= FEW_REGIONS:
        result, *others = (broadcast_pixels(value, index.shape[1]) for value in split(x))
        for r, other in enumerate(others, 1):
            result = jnp.where((index == r)[..., None], other, result)
        return result
    runs = blocks(index.shape[1], x.shape[1])
    return jnp.take_along_axis(jnp.tile(x, (1, runs, 1)), index[..., None], axis=1)


def custom_vjp(
    function: Callable[..., tuple[Array, ...]],
    vjp: Callable[..., Array],
    x: Array,
    *constants: Array,
) -> tuple[Array, ...]:
    @jax.custom_jvp
    def differentiable(x: Array, *constants: Array) -> tuple[Array, ...]:
        return function(x, *constants)

    @differentiable.defjvp
    def jvp(primals: Sequence[Array], tangents: Sequence[Array]) -> tuple[Any, Any]:
        outputs = differentiable(*primals)
        # The VJP is linear in the gradients; its transpose is the JVP.
        transposed = jax.linear_transpose(lambda *grads: vjp(grads, outputs, *primals), *outputs)
        return outputs, transposed(tangents[0])

    results: tuple[Array, ...] = differentiable(x, *constants)
    return results


def recomputed(function: Callable[..., Array], *inputs: Array) -> Array:
    return function(*inputs)  # XLA itself stores less than a checkpoint would cost


def weighted_sums(x: Array, weights: Array) -> Array:
    return jnp.stack([weighted_sum(x, weights[:, r]) for r in range(weights.shape[1])], 1)


def sort_descending(x: Array) -> Array:
    return jnp.sort(x, axis=1, descending=True)


def take_pixel(x: Array, index: Array) -> Array:
    return jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]


def cumulative_count(x: Array) -> Array:
    return jnp.cumsum(x, axis=1)


def histogram(x: Array, bins: int) -> Array:
    def of_image(x: Array) -> Array:
        return jnp.zeros(bins, x.dtype).at[x].add(1)

    return jax.vmap(of_image)(x)


def shifts(x: Array, axis: int, reach: int, value: float) -> list[Array]:
    width = [(0, 0)] * x.ndim
    width[axis] = (reach, reach)
    return _windows(jnp.pad(x, width, constant_values=value), axis, x.shape[axis])


def _windows(x: Array, axis: int, length: int) -> list[Array]:
    """All windows of that length along `axis`."""
    starts = range(x.shape[axis] - length + 1)
    return [lax.slice_in_dim(x, k, k + length, axis=axis) for k in starts]


def filter_axes(x: Array, taps: Sequence[Sequence[float]]) -> Array:
    return _filtered(x, tuple(map(tuple, taps)))


@compiled(1)
def _filtered(x: Array, taps: tuple[tuple[float, ...], ...]) -> Array:
    # As custom_linear_solve, since it lets us state the transpose; the system itself is never used.
    # JAX would transpose the shifted sums to sums of padded arrays, which is four times slower.
    filtered: Array = lax.custom_linear_solve(
        lambda x: x, x, lambda _, x: _correlate(x, taps), lambda _, x: _correlate(x, taps)
    )
    return filtered


def _correlate(x: Array, taps: Sequence[Sequence[float]]) -> Array:
    # Padded along all axes at once: XLA would fuse a second padding with the sums of the first
    # axis, and then test each pixel of them for lying inside, which takes twice as long.
    shape = x.shape
    x = jnp.pad(x, [(0, 0), *((len(each) // 2,) * 2 for each in taps)])
    for axis, each in reversed(list(enumerate(taps, 1))):
        windows, middle = _windows(x, axis, shape[axis]), len(each) // 2
        x = each[middle] * windows[middle]
        for k in range(middle):
            x = x + each[k] * (windows[k] + windows[-1 - k])
    return x


def image_by_image(function: Callable[..., Sequence[Array]], *xs: Array) -> Sequence[Array]:
    return function(*xs)


def split_columns(x: Array, count: Array) -> Sequence[Array]:
    first = jnp.where(positions(x, 2) < count[:, None, None], x, 0.0)
    return first, x - first


def resize(x: Array, size: Sequence[int]) -> Array:
    resized = jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear", antialias=False)
    # Rounding may make interpolation weights sum to slightly more than 1.
    pixels = tuple(range(1, x.ndim - 1))
    low, high = x.min(pixels, keepdims=True), x.max(pixels, keepdims=True)
    bounded: Array = resized + lax.stop_gradient(jnp.clip(resized, low, high) - resized)
    return bounded


def take_along(x: Array, index: Array, axis: int) -> Array:
    taken: Array = jnp.take_along_axis(x, index, axis)
    return taken


def nearest_foreground(
    foreground: Array, spacing: Sequence[float] | None, like: Array | None, return_indices: bool
) -> None:
    return None  # a call of the host would stop programs from being exported and sharded


def join(xs: Sequence[Array]) -> Array:
    return jnp.stack(list(xs), 1)


def concatenate(xs: Sequence[Array]) -> Array:
    return jnp.concatenate(list(xs), 1)


def known_within(x: Array, low: float, high: float) -> bool:
    return False


def no_image(x: Array) -> Array:
    return jnp.zeros(x.shape[0], jnp.bool_)


def first(values: Array, bad: Array) -> float | None:
    if isinstance(values, jax.core.Tracer) or isinstance(bad, jax.core.Tracer):
        return None
    if not getattr(bad, "is_fully_addressable", True) or not bool(bad.any()):
        return None
    numbers = np.broadcast_to(np.asarray(values), bad.shape)[np.asarray(bad)].astype(np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers[0]) if numbers.size else None


def random(rng: Any, shape: Sequence[int], like: Array) -> Array:
    try:
        return jax.random.uniform(rng, tuple(shape), jnp.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"rng must be a JAX key, got {type(rng).__name__}; for example jax.random.key(0)"
        ) from error
