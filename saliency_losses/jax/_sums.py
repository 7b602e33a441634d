"""Sums over pixels with bounded rounding error, and their gradients."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from saliency_losses.jax._environment import barrier, compiled

# The number of pixels that one matrix product adds up.
RUN_LENGTH = 256
# Up to this many regions are looped over; a scatter is slow in XLA on a CPU.
FEW_REGIONS = 8
# Up to this many channels are added one by one.
FEW_CHANNELS = 8


@jax.custom_jvp
def sum_pixels(x: Array) -> Array:
    return sum_in_runs(x)


@sum_pixels.defjvp
def _sum_pixels_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return sum_pixels(primals[0]), _linear_sum(tangents[0])


@jax.custom_jvp
def weighted_sum(x: Array, weights: Array) -> Array:
    # Behind the barrier a weight is computed once per pixel, not once per channel.
    return sum_in_runs(x * barrier(weights)[..., None])


@weighted_sum.defjvp
def _weighted_sum_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, weights), (x_tangent, weights_tangent) = primals, tangents
    of_x = _linear_sum(x_tangent * weights[..., None])
    # In runs, since on a CPU one product over a million pixels would be off by 1 %.
    of_weights = jnp.einsum(
        "nkpc,nkp->nkc",
        _runs(x, RUN_LENGTH),
        _runs(weights_tangent, RUN_LENGTH),
        precision=lax.Precision.HIGHEST,
    ).sum(1)  # no TF32
    return weighted_sum(x, weights), of_x + of_weights


@jax.custom_jvp
def sum_squares(x: Array) -> Array:
    squares = x * x
    if x.shape[-1] > FEW_CHANNELS:
        return squares.sum(-1)
    # XLA on a CPU passes a sum to a library, for which it stores the terms.
    first, *others = (squares[..., c] for c in range(x.shape[-1]))
    return sum(others, first)


@sum_squares.defjvp
def _sum_squares_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,) = primals
    return sum_squares(x), 2 * (x * tangents[0]).sum(-1)


def squared_distances(x: Array, centers: Array) -> Array:
    if centers.shape[1] <= FEW_REGIONS:
        return _squared_distances(x, centers)
    return _many_squared_distances(x, centers)


@compiled()
def _many_squared_distances(x: Array, centers: Array) -> Array:
    # In a loop, since many unrolled regions take long to compile.
    each = jnp.moveaxis(centers, 1, 0)[:, :, None]
    return jnp.moveaxis(lax.map(lambda center: _squared_distances(x, center), each), 0, 1)[:, :, 0]


@jax.custom_jvp
def _squared_distances(x: Array, centers: Array) -> Array:
    return jnp.stack(_fused_sums([jnp.square(x - center) for center in split(centers)], 2), 1)


@_squared_distances.defjvp
def _squared_distances_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, centers), (x_tangent, centers_tangent) = primals, tangents

    @jax.checkpoint
    def along(center: Array, change: Array) -> Array:
        # Two products, so that XLA does not store one transpose for the sake of the other.
        return ((x - center) * x_tangent).sum(2) - (
            (x - center) * broadcast_pixels(change, x.shape[1])
        ).sum(2)

    of_each = map(along, split(centers), split(centers_tangent))
    return _squared_distances(x, centers), 2 * jnp.stack(list(of_each), 1)


@compiled()
def sum_in_runs(x: Array) -> Array:
    """The sum over axis 1, in runs of 16 values (first of 256 in maps of floats), then of 16 such
    sums, and so on."""
    if x.ndim == 2 and jnp.issubdtype(x.dtype, jnp.floating):
        x = _runs(x, RUN_LENGTH)
        # A product, for which XLA stores the terms. Fused with their sum they are not vectorised
        # if they hold a `where` or a filter, which is up to five times slower.
        ones = jnp.ones(RUN_LENGTH, x.dtype)
        return sum_in_runs(jnp.dot(x, ones, precision=lax.Precision.HIGHEST)[..., None])[:, 0]
    if x.ndim == 2:
        # Lay out runs of 16 pixels like channels, so that maps take the path of features.
        return sum_in_runs(_runs(x, 16)).sum(1)
    while x.shape[1] > 1:
        # Two sums at once, which XLA fuses on a CPU with the computation of the terms. For a single
        # sum it stores the broadcast terms and calls a library: up to ten times slower.
        x = _runs(x, 16)
        x = jnp.add(*_fused_sums([x[:, :, :8], x[:, :, 8:]], 2))
    return x.sum(1)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def region_sums(x: Array, index: Array, num_regions: int) -> Array:
    """The sums of features over each of a few regions, in one pass."""
    return _region_sums(x, index, num_regions)


@compiled(2)
def _region_sums(x: Array, index: Array, num_regions: int) -> Array:
    runs, regions = _runs(x, 16), _runs(index, 16)[..., None]
    terms = [jnp.where(regions == r, runs, 0.0) for r in range(num_regions)]
    return jnp.stack([sum_in_runs(sums) for sums in _fused_sums(terms, 2)], 1)


@region_sums.defjvp
def _region_sums_jvp(
    num_regions: int, primals: tuple[Array, Array], tangents: tuple[Array, Any]
) -> tuple[Array, Array]:
    x, index = primals
    each = (jnp.where((index == r)[..., None], tangents[0], 0.0) for r in range(num_regions))
    return region_sums(x, index, num_regions), jnp.stack([_linear_sum(x) for x in each], 1)


def _linear_sum(x: Array) -> Array:
    """`sum_in_runs` in a form that JAX can transpose."""
    # The barrier keeps XLA from merging the two sums.
    return barrier(_runs(x, RUN_LENGTH).sum(2)).sum(1)


def _fused_sums(xs: Sequence[Array], axis: int) -> Sequence[Array]:
    """The sums of all arrays over an axis, in one pass."""
    zeros = tuple(np.zeros((), x.dtype) for x in xs)
    totals: tuple[Array, ...] = lax.reduce(tuple(xs), zeros, _add_each, (axis,))
    return totals


def _add_each(xs: Sequence[Array], ys: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(map(lax.add, xs, ys))


def _runs(x: Array, length: int) -> Array:
    """``(N, P, ...)`` as ``(N, runs, length, ...)``, padded with zeros."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % length), *[(0, 0)] * (x.ndim - 2)))
    return x.reshape(x.shape[0], x.shape[1] // length, length, *x.shape[2:])


def broadcast_pixels(x: Array, pixels: int) -> Array:
    """Broadcast ``(N, 1, C)`` over pixels; the transpose is a sum in runs."""
    # Complex, since XLA fuses a complex sum too instead of calling a library.
    over = jnp.broadcast_to(
        lax.complex(x, jnp.zeros_like(x)), (x.shape[0], -(-pixels // 16), x.shape[2])
    )
    over = jnp.broadcast_to(barrier(over)[:, :, None], (*over.shape[:2], 16, x.shape[2]))
    return over.reshape(x.shape[0], 16 * over.shape[1], x.shape[2])[:, :pixels].real


def split(x: Array) -> Sequence[Array]:
    """Slices of length 1 along axis 1; the transpose is one concatenation."""
    return lax.split(x, (1,) * x.shape[1], axis=1)
