"""The primitives of `core.ops.Ops` in PyTorch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from saliency_losses.core.regions import blocks
from saliency_losses.torch._autograd import custom_vjp as custom_vjp
from saliency_losses.torch._autograd import filter_axes as filter_axes
from saliency_losses.torch._autograd import image_by_image as image_by_image
from saliency_losses.torch._autograd import recomputed as recomputed
from saliency_losses.torch._autograd import shifts as shifts
from saliency_losses.torch._autograd import squared_distances as squared_distances
from saliency_losses.torch._distance import nearest_parabola as nearest_parabola
from saliency_losses.torch._distance import nearest_true as nearest_true
from saliency_losses.torch._distance import positions as positions
from saliency_losses.torch._environment import eager_on_cpu, recording, replicate_like
from saliency_losses.torch._scipy import nearest_foreground as nearest_foreground

# Up to this many regions are looped over; a scatter adds one value after another.
FEW_REGIONS = 4


def array(name: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(x).__name__}; convert an array by "
            "torch.from_numpy"
        )
    if type(x) not in (Tensor, Parameter) and _is_plain(type(x)):
        # For example MONAI's MetaTensor, whose overrides support fewer functions.
        with torch._C.DisableTorchFunctionSubclass():
            return x.as_subclass(Tensor)
    return x


def _is_plain(kind: type[Tensor]) -> bool:
    """Whether tensors of that subclass store their values as a plain tensor does."""
    return kind.__torch_dispatch__ is Tensor.__torch_dispatch__


def is_array(x: Any) -> bool:
    return isinstance(x, Tensor)


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


def epsilon(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0


def widen(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def promote(*xs: Tensor) -> tuple[Tensor, ...]:
    widest = reduce(torch.promote_types, (x.dtype for x in xs))
    return tuple(x.to(widest) for x in xs)


def cast(x: Tensor, like: Tensor) -> Tensor:
    return _as_bytes(x).to(like.dtype)


def _as_bytes(x: Tensor) -> Tensor:
    """Bools as bytes where that is faster, since PyTorch converts bools one at a time."""
    if x.dtype != torch.bool or not eager_on_cpu(x) or recording():
        return x
    return (x & x).view(torch.uint8)  # A True that NumPy got from a file may be the byte 255.


def floats(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.float()


def integers_to(x: Tensor, most: int) -> Tensor:
    # Narrow integers are proportionally faster; the compiler does not vectorise 16-bit ones.
    if torch.compiler.is_compiling() or most >= 2**15:
        return x.to(torch.int32)
    return _as_bytes(x).to(torch.uint8 if most < 2**8 else torch.int16)


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


def relu(x: Tensor) -> Tensor:
    return x.relu()


def clip(x: Tensor, low: float, high: float) -> Tensor:
    return x.clamp(low, high)


def maximum(x: Tensor, low: float) -> Tensor:
    return x.clamp_min(low)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


def at_least(x: Tensor, low: Any) -> Tensor:
    if eager_on_cpu(x):  # In place: PyTorch is five times slower where the dtype changes.
        return x.detach().clone().ge_(low)
    selected: Tensor = x >= low
    return selected.to(x.dtype)


def isnan(x: Tensor) -> Tensor:
    return x.isnan()


def softplus(x: Tensor) -> Tensor:
    # Above the threshold F.softplus returns x: exact to rounding at 40, but not at the default 20.
    return F.softplus(x, threshold=40)


def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


def softmax(x: Tensor) -> Tensor:
    return x.softmax(1)


def equals(x: Tensor, value: int) -> Tensor:
    # A narrow integer would be compared with the value's last bits.
    return (x if x.is_floating_point() else x.long()) == value


def sum_pixels(x: Tensor) -> Tensor:
    return x.sum(-1)


def sum_channels(x: Tensor) -> Tensor:
    return x.sum(1)


def sum_squares(x: Tensor) -> Tensor:
    return sum_channels(x * x)


def sum_vector(x: Tensor) -> Tensor:
    return x.sum(1)


def sum_stack(x: Tensor) -> Tensor:
    return x.sum(2)


def min_stack(x: Tensor) -> Tensor:
    return x.amin(1)


def logsumexp_stack(x: Tensor) -> Tensor:
    return x.logsumexp(1)


def count(x: Tensor) -> Tensor:
    # PyTorch copies the map to the dtype of the sum; 32 bits halve that copy.
    return x.sum(1, dtype=torch.int32).long()


def max_pixels(x: Tensor) -> Tensor:
    return x.amax(1)


def any_per_image(x: Tensor) -> Tensor:
    return flat(x).any(1)


def sum_images(x: Tensor) -> Tensor:
    return x.sum()


def region_index(labels: Tensor, num_regions: int) -> Tensor:
    index = labels.clamp(0, num_regions - 1)
    if num_regions <= FEW_REGIONS:
        return index.to(torch.uint8)
    pixels = labels.shape[1]
    runs = blocks(pixels, num_regions)
    length = -(-max(pixels, 1) // runs)
    # Not by division, which torch 2.13 miscompiles on a CPU if the last run is shorter.
    run = torch.bucketize(
        torch.arange(pixels, device=labels.device),
        torch.arange(length, max(pixels, length), length, device=labels.device),
        right=True,
    )
    return index + num_regions * replicate_like(labels, run)


def _is_region(index: Tensor, r: int) -> Tensor:
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return index == r  # torch 2.13 has no batching rule for `eq_`.
    # In place, since PyTorch compares with vector instructions only if the dtype stays the same.
    return index.clone().eq_(r)


def region_count(index: Tensor, counted: Tensor | None, num_regions: int) -> Tensor:
    if num_regions <= FEW_REGIONS:
        regions = [_is_region(index, r) for r in range(num_regions)]
        if counted is not None:
            regions = [region & counted for region in regions]
        return torch.stack([count(region) for region in regions], 1)
    ones = index.new_ones(()).expand(index.shape) if counted is None else counted.long()
    return region_sum(ones.unsqueeze(1), index, num_regions).squeeze(1)


def region_sum(x: Tensor, index: Tensor, num_regions: int) -> Tensor:
    if num_regions <= FEW_REGIONS:
        regions = (_is_region(index, r).to(x.dtype).unsqueeze(1) for r in range(num_regions))
        return torch.stack([(x * region).sum(2) for region in regions], 2)
    runs = blocks(index.shape[1], num_regions)
    sums = x.new_zeros(*x.shape[:2], runs * num_regions)
    sums = sums.scatter_add(2, index.unsqueeze(1).expand(x.shape), x)
    return sums.reshape(*x.shape[:2], runs, num_regions).sum(2)


def region_take(x: Tensor, index: Tensor) -> Tensor:
    if x.ndim == 2:
        return region_take(x.unsqueeze(1), index).squeeze(1)
    if x.shape[2] <= FEW_REGIONS:
        regions = (_is_region(index, r).to(x.dtype).unsqueeze(1) for r in range(x.shape[2]))
        first, *others = (x[:, :, r, None] * region for r, region in enumerate(regions))
        return sum(others, first)
    runs = blocks(index.shape[1], x.shape[2])
    return x.repeat(1, 1, runs).gather(2, index.unsqueeze(1).expand(-1, x.shape[1], -1))


def weighted_sum(x: Tensor, weights: Tensor) -> Tensor:
    # A sum instead of a matrix product: exact in float32 at any size, unaffected by TF32 and
    # autocast.
    return (x * weights.unsqueeze(1)).sum(2)


def weighted_sums(x: Tensor, weights: Tensor) -> Tensor:
    return torch.stack([weighted_sum(x, weights[:, r]) for r in range(weights.shape[1])], 2)


def sort_descending(x: Tensor) -> Tensor:
    return x.sort(1, descending=True).values


def take_pixel(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(1)).squeeze(1)


def cumulative_count(x: Tensor) -> Tensor:
    return x.cumsum(1)


def histogram(x: Tensor, bins: int) -> Tensor:
    if eager_on_cpu(x):
        if len(x) > 1:
            x = x + bins * torch.arange(len(x), device=x.device).unsqueeze(1)
        return torch.bincount(x.flatten(), minlength=bins * len(x)).reshape(len(x), bins)
    # The result of bincount has a size that the compiler cannot know.
    x = x.long()
    return x.new_zeros(x.shape[0], bins).scatter_add(1, x, torch.ones_like(x))


def split_columns(x: Tensor, count: Tensor) -> Sequence[Tensor]:
    if len(x) == 1 and eager_on_cpu(x) and not recording():
        return x.tensor_split([int(count)], 2)
    first = x * (positions(x, 2) < count.reshape(-1, 1, 1))
    return first, x - first


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    mode = ("linear", "bilinear", "trilinear")[x.ndim - 3]
    resized = F.interpolate(x, tuple(size), mode=mode, align_corners=False)
    # Rounding may make interpolation weights sum to slightly more than 1.
    pixels, values = tuple(range(2, x.ndim)), resized.detach()
    low, high = x.detach().amin(pixels, keepdim=True), x.detach().amax(pixels, keepdim=True)
    return resized + (values.clamp(low, high) - values)


def take_along(x: Tensor, index: Tensor, axis: int) -> Tensor:
    if x.shape[0] == 1 and x.ndim == 2 and axis == 1 and eager_on_cpu(x):
        return x.index_select(1, index[0])  # takes 32-bit indices, and half the time
    return x.gather(axis, index.long())


def join(xs: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(xs), 1)


def concatenate(xs: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(xs), 1)


class Look:
    """Where a Module reads values, and whether it could read any."""

    def __init__(self, everywhere: bool) -> None:
        self.everywhere = everywhere
        self.done = False


_look: ContextVar[Look | None] = ContextVar("look", default=None)


@contextmanager
def looking(everywhere: bool) -> Iterator[Look]:
    """Context that reads values on every device or on none, instead of where reading is free."""
    look = Look(everywhere)
    token = _look.set(look)
    try:
        yield look
    finally:
        _look.reset(token)


def _costs_nothing(x: Tensor) -> bool:
    # Reading a CUDA tensor makes the host wait for the device.
    return x.device.type == "cpu"


def _read(x: Tensor, question: Callable[[Tensor], bool]) -> bool | None:
    """question(x), or None if values cannot or should not be read."""
    if torch.compiler.is_compiling():
        return None
    look = _look.get()
    if look is None:
        if not _costs_nothing(x):
            return None
    elif not look.everywhere or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    try:
        result = question(x.detach())
    except RuntimeError:
        return None  # vmap, tracers, the meta device: no values; or no pixels
    if look is not None and x.numel() and x.ndim:  # An empty batch, or an option, shows nothing.
        look.done = True
    return result


def known_within(x: Tensor, low: float, high: float) -> bool:
    def within(x: Tensor) -> bool:
        least, most = x.aminmax()
        return bool(least >= low) and bool(most <= high)

    return _costs_nothing(x) and _read(x, within) is True


def no_image(x: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0], dtype=torch.bool)


def first(values: Tensor, bad: Tensor) -> float | None:
    if not _read(bad, lambda bad: bool(bad.any())):
        return None
    numbers = values.detach().expand(bad.shape)
    # A DTensor cannot be indexed by bools.
    numbers, bad = (getattr(x, "full_tensor", lambda x=x: x)() for x in (numbers, bad))
    numbers = numbers[bad]
    numbers = numbers[~numbers.isnan()]
    return numbers[0].item() if numbers.numel() else None


def random(rng: Any, shape: Sequence[int], like: Tensor) -> Tensor:
    if not isinstance(rng, torch.Generator):
        raise TypeError(
            f"rng must be a torch.Generator, got {type(rng).__name__}; "
            "for example torch.Generator().manual_seed(0)"
        )
    return torch.rand(tuple(shape), generator=rng, device=like.device)
