"""Primitives of the distance transform: nearest foreground along one axis."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_losses.torch._environment import compiling_for_cpu, index_range

try:
    from torch.fx.experimental.symbolic_shapes import has_static_value
except ImportError:  # an older torch

    def has_static_value(size: Any) -> bool:  # type: ignore[misc]
        return False


def positions(x: Tensor, axis: int) -> Tensor:
    place = index_range(x, x.shape[axis], torch.int32)
    return place.reshape(-1, *[1] * (x.ndim - 1 - axis)).expand(x.shape)


def nearest_true(x: Tensor, far: int) -> Tensor:
    last = x.shape[-1] - 1
    place = index_range(x, last + 1, torch.int32)
    # Products instead of `where`, which on a CPU is slower than this whole function.
    before = (x * (place + far)).cummax(-1).values - far
    after = last + far - (x.flip(-1) * (place + far)).cummax(-1).values.flip(-1)
    nearer = place - before <= after - place
    return after + nearer * (before - after)


def nearest_parabola(
    x: Tensor, axis: int, bound: float, steepness: float | None
) -> tuple[Tensor, Tensor]:
    x = x.clamp(max=bound).movedim(axis, 1)
    lanes = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)
    if steepness is None:
        value, source = _integer_minimum(lanes, int(bound))
    else:
        value, source = _float_minimum(lanes, steepness)
    return value.reshape(x.shape).movedim(1, axis), source.reshape(x.shape).movedim(1, axis)


def _integer_minimum(x: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    # With dynamic sizes the compiler could not unroll the levels of `_lower_envelope`.
    fixed = not torch.compiler.is_compiling() or has_static_value(bound)
    dense = not fixed or (compiling_for_cpu(x) and _in_32_bits(x.shape[1], bound))
    return (_dense_minimum if dense else _lower_envelope)(x, bound)


def _float_minimum(x: Tensor, steepness: float) -> tuple[Tensor, Tensor]:
    """min_k x_k + steepness (i − k)² and its first k along axis 1 of three."""
    k = index_range(x, x.shape[1], torch.int32)
    rise = (steepness * (k.unsqueeze(1) - k).to(x.dtype) ** 2).unsqueeze(2)
    if torch.compiler.is_compiling():
        value, source = (x.unsqueeze(1) + rise).min(2)  # the compiler does not store the sum
    else:
        found = [(x + each).min(1) for each in rise]
        value = torch.stack([each.values for each in found], 1)
        source = torch.stack([each.indices for each in found], 1)
    return value, source.int()


def _lower_envelope(x: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """min_k x_k + (i − k)² and its first k along axis 1 of three, for 0 ≤ x ≤ `bound`.

    Two of these parabolas cross once, so the minimising k (the source) never decreases with i.
    First, every eighth place is solved over all sources. Each level then solves the places halfway
    between solved ones, over the sources between those of the two neighbours. All places of a level
    share one running minimum over the sources: an offset puts the values of each place below those
    of the place before.
    """
    length = x.shape[1]
    reach = 1 << (length - 1).bit_length()
    beyond = bound + reach**2  # above any x_k + (i − k)²
    # Reversed, since a running minimum keeps the last of equal values.
    x = x.flip(1)
    # In 64 bits the first step would cost more than all others, so it solves one place only.
    short = beyond * reach < 2**31
    stride = min(8, reach) if short else reach
    value, source = _every_nth(stride, x if short else x.long(), reach)
    dtype = (
        torch.int32 if beyond * reach < 2**32 else torch.int64
    )  # half of the places get an offset
    x, value, source = (part.mT.contiguous().to(dtype) for part in (x, value, source))
    k = index_range(x, reach, dtype)

    # For each source: the number of solved places, except the first, with an earlier source.
    after = source[..., 1:] + 1
    count = x.new_zeros(*x.shape[:2], length + 1)
    place = count.scatter_add(2, after.long(), torch.ones_like(after))[..., :length]
    place = place.cumsum(2, dtype=dtype)
    source = torch.cat([source, torch.full_like(source[..., :1], length - 1)], 2)
    while stride > 1:
        half, n, first = stride // 2, k[: value.shape[2]], source[..., :-1]
        offset = torch.add(half - k[:length], place, alpha=stride)
        lowest, at = torch.addcmul(x, offset, offset).sub_(place, alpha=beyond).cummin(2)
        last = source[..., 1:].long()
        lowest = lowest.gather(2, last) + beyond * n
        # The first source of a place is counted with the place before, so it is tried separately.
        by_first = value + half * (half + 2 * (stride * n - first))
        middle = torch.where(lowest <= by_first, at.gather(2, last).to(dtype), first)
        if half > 1:
            passed = (k[:length] - middle.gather(2, place.long())).clamp(0, 1)
            place = passed.add_(place, alpha=2)
        value = _interleave(value, torch.minimum(lowest, by_first))
        source, stride = _interleave(source, middle), half
    return (
        value[..., :length].int().mT.flip(1),
        (length - 1 - source[..., :length].int()).mT.flip(1),
    )


def _in_32_bits(length: int, bound: int) -> bool:
    """Whether value and place of `_dense_minimum` fit together in a 32-bit number."""
    return (bound + length**2) * length < 2**32


def _dense_minimum(x: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """`_lower_envelope` as one reduction, which a compiler fuses."""
    length, lanes = x.shape[1:]
    dtype = torch.int32 if _in_32_bits(length, bound) else torch.int64
    half = 2**31 // length  # the keys begin at the lowest 32-bit number
    k = index_range(x, length, dtype)
    key = (x.to(dtype) - half) * length + k.unsqueeze(1)
    rise = length * (k.unsqueeze(1) - k) ** 2
    tiles = key.unsqueeze(1)
    if compiling_for_cpu(x):
        rise = _materialise(rise)
        if has_static_value(bound):
            # All rows of sixteen lanes fit in the first-level cache.
            tiles = F.pad(key, [0, -lanes % 16])
            tiles = tiles.reshape(len(x), length, -(-lanes // 16), 16).transpose(1, 2)
            tiles = _materialise(tiles)
        else:
            # Rows a power of two apart would compete for the same cache lines.
            tiles = _materialise(F.pad(key, [0, 16])).narrow(2, 0, lanes).unsqueeze(1)
    tiles = (tiles.unsqueeze(2) + rise.unsqueeze(2)).amin(3)
    key = tiles.transpose(1, 2).flatten(2)[..., :lanes]
    value = torch.div(key, length, rounding_mode="floor")
    return (value + half).int(), (key - value * length).int()


def _materialise(x: Tensor) -> Tensor:
    """`x` as a view that makes the compiler store it instead of recomputing it at every use."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


def _every_nth(stride: int, x: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """min_k x_k + (i − k)² and its last k along axis 1, at every `stride`-th i."""
    k = index_range(x, x.shape[1], x.dtype)
    # Value and place in one number, so that one minimum finds both.
    key = x * reach + (reach - 1 - k).unsqueeze(1)
    rise = (reach * (k[::stride].unsqueeze(1) - k) ** 2).unsqueeze(2)
    if torch.compiler.is_compiling():
        lowest = (key.unsqueeze(1) + rise).amin(2)  # the compiler does not store the sum
    else:
        # In place, since new memory would cost more than the additions.
        changes = rise.diff(dim=0, prepend=torch.zeros_like(rise[:1]))
        lowest = torch.stack([key.add_(change).amin(1) for change in changes], 1)
    return lowest // reach, reach - 1 - lowest % reach


def _interleave(x: Tensor, y: Tensor) -> Tensor:
    """x_0, y_0, x_1, y_1, … along the last axis."""
    both = x.new_empty(*x.shape[:-1], x.shape[-1] + y.shape[-1])
    both[..., ::2], both[..., 1::2] = x, y
    return both
