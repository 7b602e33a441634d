"""The primitives of `core.ops.Ops` in PyTorch."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_losses.core.regions import blocks


def array(name: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}; "
                        "an array: torch.from_numpy")
    return x


def kind(x: Tensor) -> str:
    if x.dtype == torch.bool:
        return "bool"
    if x.is_floating_point():
        return "float"
    return "other" if x.is_complex() else "integer"


def dtype_name(x: Tensor) -> str:
    return str(x.dtype)


def map_shape(shape: Sequence[int]) -> tuple[int, ...]:
    return (shape[0], *shape[2:])


def channels(shape: Sequence[int]) -> int:
    return shape[1]


def stack_shape(shape: Sequence[int], channels: int) -> tuple[int, ...]:
    return (shape[0], channels, *shape[1:])


def features(x: Tensor) -> Tensor:
    return x.flatten(2)


def images(x: Tensor) -> Tensor:
    return x


def public_images(x: Tensor) -> Tensor:
    return x


def regions(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def public_regions(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def stack(x: Tensor) -> Tensor:
    return x.flatten(2)


def public_stack(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.reshape(*stack_shape(shape, x.shape[1]))


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.reshape(*shape)


def flat(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], prod(x.shape[1:]))


def over_channels(x: Tensor) -> Tensor:
    return x.unsqueeze(1)


def over_pixels(x: Tensor) -> Tensor:
    return x.unsqueeze(-1)


def num_pixels(x: Tensor) -> int:
    return x.shape[2]


def channel(x: Tensor, index: int) -> Tensor:
    return x[:, index]


def over_stack(x: Tensor) -> Tensor:
    return x.unsqueeze(1)


def take_stack(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(1)).squeeze(1)


def unstack(x: Tensor) -> list[Tensor]:
    return list(x.unbind(1))


def widen(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def promote(*xs: Tensor) -> tuple[Tensor, ...]:
    widest = reduce(torch.promote_types, (x.dtype for x in xs))
    return tuple(x.to(widest) for x in xs)


def cast(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def floats(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.float()


def int32(x: Tensor) -> Tensor:
    return x.int()


def integers(x: Tensor) -> Tensor:
    return x.long()


def stop_gradient(x: Tensor) -> Tensor:
    return x.detach()


def where(condition: Tensor, x: Any, y: Any) -> Tensor:
    return torch.where(condition, x, y)


def sqrt(x: Tensor) -> Tensor:
    return x.sqrt()


def exp(x: Tensor) -> Tensor:
    return x.exp()


def abs(x: Tensor) -> Tensor:
    return x.abs()


def clip(x: Tensor, low: int, high: int) -> Tensor:
    return x.clamp(low, high)


def maximum(x: Tensor, low: float) -> Tensor:
    return x.clamp_min(low)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


def isnan(x: Tensor) -> Tensor:
    return x.isnan()


def softplus(x: Tensor) -> Tensor:
    # F.softplus drops the logarithm above its threshold of 20.
    return -F.logsigmoid(-x)


def sum_pixels(x: Tensor) -> Tensor:
    return x.sum(-1)


def sum_channels(x: Tensor) -> Tensor:
    return x.sum(1)


def sum_vector(x: Tensor) -> Tensor:
    return x.sum(1)


def sum_stack(x: Tensor) -> Tensor:
    return x.sum(2)


def min_stack(x: Tensor) -> Tensor:
    return x.amin(1)


def logsumexp_stack(x: Tensor) -> Tensor:
    return x.logsumexp(1)


def count(x: Tensor) -> Tensor:
    return x.sum(1)


def max_pixels(x: Tensor) -> Tensor:
    return x.amax(1)


def any_per_image(x: Tensor) -> Tensor:
    return flat(x).any(1)


def sum_images(x: Tensor) -> Tensor:
    return x.sum()


def region_index(labels: Tensor, num_regions: int) -> Tensor:
    pixels = labels.shape[1]
    runs = blocks(pixels, num_regions)
    run = torch.arange(pixels, device=labels.device) // -(-max(pixels, 1) // runs)
    return labels.clamp(0, num_regions - 1) + num_regions * run


def region_count(index: Tensor, counted: Tensor | None, num_regions: int) -> Tensor:
    ones = torch.ones_like(index) if counted is None else counted.to(index.dtype)
    return region_sum(ones.unsqueeze(1), index, num_regions).squeeze(1)


def region_sum(x: Tensor, index: Tensor, num_regions: int) -> Tensor:
    runs = blocks(index.shape[1], num_regions)
    sums = x.new_zeros(*x.shape[:2], runs * num_regions)
    sums = sums.scatter_add(2, index.unsqueeze(1).expand(x.shape), x)
    return sums.reshape(*x.shape[:2], runs, num_regions).sum(2)


def region_take(x: Tensor, index: Tensor) -> Tensor:
    if x.ndim == 2:
        return region_take(x.unsqueeze(1), index).squeeze(1)
    runs = blocks(index.shape[1], x.shape[2])
    return x.repeat(1, 1, runs).gather(2, index.unsqueeze(1).expand(-1, x.shape[1], -1))


def weighted_sum(x: Tensor, weights: Tensor) -> Tensor:
    # A sum and not a matrix product: exact in float32 at any size, and TF32 and autocast leave it
    # alone.
    return (x * weights.unsqueeze(1)).sum(2)


def weighted_sums(x: Tensor, weights: Tensor) -> Tensor:
    return torch.stack([weighted_sum(x, weights[:, r]) for r in range(weights.shape[1])], 2)


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        # The compiler recomputes differences by itself rather than keep them.
        return _squared_distances(x, centers)
    result: Tensor = _SquaredDistances.apply(x, centers)  # type: ignore[no-untyped-call]
    return result


def _squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    return torch.stack([(x - centers[:, :, r : r + 1]).square().sum(1)
                        for r in range(centers.shape[2])], 1)


class _SquaredDistances(torch.autograd.Function):
    """Autograd would keep every difference, (pixels x R x C); they are cheaper to take again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, centers: Tensor) -> Tensor:
        return _squared_distances(x, centers)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, centers = ctx.saved_tensors
        of_x, of_centers = torch.zeros_like(x), []
        for r in range(centers.shape[2]):
            pull = (x - centers[:, :, r : r + 1]) * (2 * grad[:, r : r + 1])
            of_x = of_x + pull
            of_centers.append(-pull.sum(2))
        return of_x, torch.stack(of_centers, 2)

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, centers_tangent: Tensor | None) -> Tensor:
        x, centers = ctx.saved_tensors
        tangents = []
        for r in range(centers.shape[2]):
            change = torch.zeros_like(x) if x_tangent is None else x_tangent
            if centers_tangent is not None:
                change = change - centers_tangent[:, :, r : r + 1]
            tangents.append(2 * ((x - centers[:, :, r : r + 1]) * change).sum(1))
        return torch.stack(tangents, 1)


def sort_descending(x: Tensor) -> Tensor:
    return x.sort(1, descending=True).values


def take_pixel(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(1)).squeeze(1)


def cumulative_count(x: Tensor) -> Tensor:
    return x.cumsum(1)


def pad(x: Tensor, axis: int, before: int, after: int, value: float) -> Tensor:
    return F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [before, after], value=value)


def filter_axis(x: Tensor, taps: Sequence[float], axis: int) -> Tensor:
    # Shifted sums: a matrix product would be faster, but its gradient, if taken under autocast,
    # would be in half precision.
    length, halo = x.shape[axis], len(taps) // 2
    padded = pad(x, axis, halo, halo, 0.0)
    total = taps[0] * padded.narrow(axis, 0, length)
    for k in range(1, len(taps)):
        total = total.add(padded.narrow(axis, k, length), alpha=taps[k])
    return total


def parabolas(x: Tensor, axis: int) -> Tensor:
    return _lowest_parabola(x.movedim(axis, 1), 1).movedim(1, axis)


def nearest_parabola(x: Tensor, axis: int, bound: int) -> tuple[Tensor, Tensor]:
    x = x.movedim(axis, 1)
    length = x.shape[1]
    # Value and place in one number, so that one minimum finds both.
    largest = (bound + (length - 1) ** 2) * length + length - 1
    key = x.clamp(max=bound).to(torch.int32 if largest < 2**31 else torch.int64)
    place = torch.arange(length, dtype=key.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 2))
    key = _lowest_parabola(key * length + place, length)
    value = torch.div(key, length, rounding_mode="floor")
    source = (key - value * length).int()
    return value.int().movedim(1, axis), source.movedim(1, axis)


def _lowest_parabola(x: Tensor, width: int) -> Tensor:
    """min_k x_k + width (i − k)² along axis 1."""
    place = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
    place = place.reshape(-1, *[1] * (x.ndim - 2))
    if torch.compiler.is_compiling():
        # One reduction, which the compiler fuses; a loop would be unrolled.
        rise = width * (place.unsqueeze(1) - place.unsqueeze(0)) ** 2
        return (x.unsqueeze(1) + rise).amin(2)
    # Image by image, in place: what is read and written again and again stays in the cache.
    nearest = x.clone()
    for n in range(x.shape[0]):
        source, image = x[n], nearest[n]
        for k in range(x.shape[1]):
            image.clamp_max_(source[k : k + 1] + width * (place - k) ** 2)
    return nearest


def positions(x: Tensor, axis: int) -> Tensor:
    place = torch.arange(x.shape[axis], dtype=torch.int32, device=x.device)
    return place.reshape(-1, *[1] * (x.ndim - 1 - axis)).expand(x.shape)


def take_along(x: Tensor, index: Tensor, axis: int) -> Tensor:
    return x.gather(axis, index.long())


def join(xs: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(xs), 1)


def first(values: Tensor, bad: Tensor) -> float | None:
    # Reading a CUDA tensor would make the host wait for the device.
    if torch.compiler.is_compiling() or bad.device.type != "cpu":
        return None
    try:
        if not bool(bad.any()):
            return None
        found = values.detach().expand(bad.shape)[bad]
        found = found[~found.isnan()]
        return found[0].item() if found.numel() else None
    except RuntimeError:
        return None  # vmap and tracers hold no values


def random(rng: Any, shape: Sequence[int], like: Tensor) -> Tensor:
    if not isinstance(rng, torch.Generator):
        raise TypeError(f"rng must be a torch.Generator, got {type(rng).__name__}; "
                        "for example torch.Generator().manual_seed(0)")
    return torch.rand(tuple(shape), generator=rng, device=like.device)
