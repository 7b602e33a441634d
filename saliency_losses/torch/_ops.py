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

try:
    from torch.fx.experimental.symbolic_shapes import has_static_value
except ImportError:  # an older torch

    def has_static_value(size: Any) -> bool:  # type: ignore[misc]
        return False


def array(name: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(x).__name__}; an array: torch.from_numpy"
        )
    if type(x) not in (Tensor, Parameter) and _is_plain(type(x)):
        # Such as MONAI's MetaTensor, whose own versions of functions may know less.
        with torch._C.DisableTorchFunctionSubclass():
            return x.as_subclass(Tensor)
    return x


def _is_plain(kind: type[Tensor]) -> bool:
    """Whether tensors of that subclass hold their values as a plain one does."""
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
    return x.to(like.dtype)


def floats(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.float()


def integers_to(x: Tensor, most: int) -> Tensor:
    # Narrow integers are faster in proportion; the compiler handles those of 16 bits one by one.
    narrow = torch.uint8 if most < 2**8 and not torch.compiler.is_compiling() else torch.int32
    return x.to(narrow)


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


def clip(x: Tensor, low: float, high: float) -> Tensor:
    return x.clamp(low, high)


def maximum(x: Tensor, low: float) -> Tensor:
    return x.clamp_min(low)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


def isnan(x: Tensor) -> Tensor:
    return x.isnan()


def softplus(x: Tensor) -> Tensor:
    # Above the threshold x is returned: at 40 that is exact to rounding, at the default 20 not.
    return F.softplus(x, threshold=40)


def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


def softmax(x: Tensor) -> Tensor:
    return x.softmax(1)


def equals(x: Tensor, value: int) -> Tensor:
    return x == value


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
    # PyTorch copies the map to the dtype of the sum, and 32 bits are half of 64.
    return x.sum(1, dtype=torch.int32).long()


def max_pixels(x: Tensor) -> Tensor:
    return x.amax(1)


def any_per_image(x: Tensor) -> Tensor:
    return flat(x).any(1)


def sum_images(x: Tensor) -> Tensor:
    return x.sum()


def region_index(labels: Tensor, num_regions: int) -> Tensor:
    pixels = labels.shape[1]
    runs = blocks(pixels, num_regions)
    length = -(-max(pixels, 1) // runs)
    # Not by division: torch 2.13 compiles that wrongly on a CPU if the last run is shorter.
    run = torch.bucketize(
        torch.arange(pixels, device=labels.device),
        torch.arange(length, max(pixels, length), length, device=labels.device),
        right=True,
    )
    return labels.clamp(0, num_regions - 1) + num_regions * _beside(labels, run)


def region_count(index: Tensor, counted: Tensor | None, num_regions: int) -> Tensor:
    ones = index.new_ones(()).expand(index.shape) if counted is None else counted.long()
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


def _beside(x: Tensor, made: Tensor) -> Tensor:
    """`made`, which all processes have alike, as `x` takes it if that is a DTensor."""
    if not hasattr(x, "device_mesh"):
        return made
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(
        made, x.device_mesh, [Replicate()] * x.device_mesh.ndim, run_check=False
    )


def _places(x: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """0, 1, …, count − 1."""
    return _beside(x, torch.arange(count, dtype=dtype, device=x.device))


def own_gradient(
    function: Callable[..., tuple[Tensor, ...]],
    pull: Callable[..., Tensor],
    x: Tensor,
    *constants: Tensor,
) -> tuple[Tensor, ...]:
    if torch.compiler.is_compiling():
        return function(x, *constants)
    results: tuple[Tensor, ...] = _OwnGradient.apply(  # type: ignore[no-untyped-call]
        function, pull, x, *constants
    )
    return results


class _OwnGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        function: Callable[..., tuple[Tensor, ...]],
        pull: Callable[..., Tensor],
        x: Tensor,
        *constants: Tensor,
    ) -> tuple[Tensor, ...]:
        return function(x, *constants)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.pull, x, *constants = inputs
        # PyTorch takes indices of 64 bits only, but half of that holds them.
        narrow = [c.int() if c.dtype == torch.int64 else c for c in constants]
        ctx.save_for_backward(x, *narrow, *output)
        ctx.save_for_forward(x, *constants)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = (t.long() if t.dtype == torch.int32 else t for t in ctx.saved_tensors)
        constants, outputs = rest[: -len(grads)], rest[-len(grads) :]
        pulled = ctx.pull(grads, outputs, x, *constants)
        return None, None, pulled, *(None for _ in constants)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, tangent: Tensor, *___: None) -> tuple[Tensor, ...]:
        x, *constants = ctx.saved_tensors
        outputs = ctx.function(x, *constants)
        # The pull is linear in the gradients, and the transpose of the wanted push.
        return _pulled(
            lambda *grads: (ctx.pull(grads, outputs, x, *constants),),
            tuple(torch.zeros_like(y) for y in outputs),
            (tangent,),
        )


def weighted_sum(x: Tensor, weights: Tensor) -> Tensor:
    # A sum and not a matrix product: exact in float32 at any size, and TF32 and autocast leave it
    # alone.
    return (x * weights.unsqueeze(1)).sum(2)


def weighted_sums(x: Tensor, weights: Tensor) -> Tensor:
    return torch.stack([weighted_sum(x, weights[:, r]) for r in range(weights.shape[1])], 2)


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        # The compiler decides by itself what to keep.
        return function(*inputs)
    result: Tensor = _Recomputed.apply(function, *inputs)  # type: ignore[no-untyped-call]
    return result


class _Recomputed(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        return function(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        function, floats, inputs = _of_floats(ctx.function, ctx.saved_tensors)
        slopes = iter(_pulled(function, floats, (grad,)))
        return None, *(next(slopes) if x.is_floating_point() else None for x in inputs)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        # The pull is linear in its argument, and the transpose of the wanted push: its own pull.
        function, floats, inputs = _of_floats(ctx.function, ctx.saved_tensors)
        given = [t for t, x in zip(tangents, inputs, strict=True) if x.is_floating_point()]
        (moved,) = _pulled(
            lambda *grads: _pulled(function, floats, grads),
            tuple(map(torch.zeros_like, function(*floats))),
            tuple(
                torch.zeros_like(x) if t is None else t for t, x in zip(given, floats, strict=True)
            ),
        )
        return moved


def _of_floats(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> tuple[Callable[..., tuple[Tensor]], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The function of its floating-point inputs alone, as a tuple of its one result; and those."""

    def of(*floats: Tensor) -> tuple[Tensor]:
        rest = iter(floats)
        return (function(*(next(rest) if x.is_floating_point() else x for x in inputs)),)

    return of, tuple(x for x in inputs if x.is_floating_point()), inputs


def _pulled(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    grads: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """The gradient of Σ grads · function(*inputs) in each of the inputs."""
    if torch._C._are_functorch_transforms_active():
        results: tuple[Tensor, ...] = torch.func.vjp(function, *inputs)[1](grads)
        return results
    # By autograd itself, since torch.func refuses to work within hooks on saved tensors.
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in inputs)
        found: tuple[Tensor, ...] = torch.autograd.grad(
            function(*inputs), inputs, grads, create_graph=further, materialize_grads=True
        )
    return found


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        # The compiler recomputes differences by itself rather than keep them.
        return _squared_distances(x, centers)
    result: Tensor = _SquaredDistances.apply(x, centers)  # type: ignore[no-untyped-call]
    return result


def _squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    return torch.stack(
        [(x - centers[:, :, r : r + 1]).square().sum(1) for r in range(centers.shape[2])], 1
    )


def image_by_image(function: Callable[..., Sequence[Tensor]], *xs: Tensor) -> Sequence[Tensor]:
    if (
        xs[0].device.type != "cpu"
        or torch.compiler.is_compiling()
        or xs[0].shape[0] < 2
        or prod(xs[0].shape[1:]) < 2**16 * torch.get_num_threads()
    ):
        return function(*xs)
    # Temporaries of one large image stay in the cache, and those of a batch ask for new pages; but
    # a small one does not keep all threads busy.
    images = ([x[n : n + 1] for x in xs] for n in range(xs[0].shape[0]))
    return [torch.cat(parts) for parts in zip(*(function(*image) for image in images), strict=True)]


class _SquaredDistances(torch.autograd.Function):
    """Autograd would keep every difference, (pixels x R x C); they are cheaper to take again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, centers: Tensor) -> Tensor:
        return image_by_image(lambda *image: [_squared_distances(*image)], x, centers)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        of_x, of_centers = image_by_image(_pulls, *ctx.saved_tensors, grad)
        return of_x, of_centers

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


def _pulls(x: Tensor, centers: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of squared distances."""
    of_x, of_centers = None, []
    for r in range(centers.shape[2]):
        pull = (x - centers[:, :, r : r + 1]) * (2 * grad[:, r : r + 1])
        of_x = pull if of_x is None else of_x + pull
        of_centers.append(-pull.sum(2))
    assert of_x is not None
    return of_x, torch.stack(of_centers, 2)


def sort_descending(x: Tensor) -> Tensor:
    return x.sort(1, descending=True).values


def take_pixel(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.unsqueeze(1)).squeeze(1)


def cumulative_count(x: Tensor) -> Tensor:
    return x.cumsum(1)


def _compiling_plainly() -> bool:
    # Under `torch.func` torch 2.13 compiles the gradient's gradient of a function with its own
    # backward wrongly, and cannot map it.
    return torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def _compiling_for_cpu(x: Tensor) -> bool:
    return _compiling_plainly() and x.device.type == "cpu"


def shifts(x: Tensor, axis: int, reach: int, value: float) -> list[Tensor]:
    padded = F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [reach, reach], value=value)
    length = x.shape[axis]
    if not _compiling_plainly():
        return [padded.narrow(axis, k, length) for k in range(2 * reach + 1)]
    # Such views make the compiler write the padded map out, and not look at every pixel of every
    # shift whether it lies inside.
    padded = padded.contiguous()
    step = padded.stride(axis)
    return [padded.as_strided(x.shape, padded.stride(), k * step) for k in range(2 * reach + 1)]


def filter_axis(x: Tensor, taps: Sequence[float], axis: int) -> Tensor:
    result: Tensor
    if _compiling_plainly():
        result = _CompiledFilter.apply(x, axis, tuple(taps))  # type: ignore[no-untyped-call]
    elif torch.compiler.is_compiling():
        result = _filtered(x, axis, taps)
    else:
        result = _Filter.apply(x, axis, *taps)  # type: ignore[no-untyped-call]
    return result


class _Filter(torch.autograd.Function):
    """Backward is one filter more; autograd would go back through every shift."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, axis: int, *taps: float) -> Tensor:
        return image_by_image(lambda image: [_filtered(image, axis, taps)], x)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.axis, *ctx.taps = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return filter_axis(grad, ctx.taps[::-1], ctx.axis), None, *(None for _ in ctx.taps)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return filter_axis(tangent, ctx.taps, ctx.axis)


class _CompiledFilter(torch.autograd.Function):
    """The same in the only form that the compiler takes: taps in one argument, and no `jvp`."""

    @staticmethod
    def forward(x: Tensor, axis: int, taps: tuple[float, ...]) -> Tensor:
        return _filtered(x, axis, taps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.axis, ctx.taps = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return filter_axis(grad, ctx.taps[::-1], ctx.axis), None, None


def _filtered(x: Tensor, axis: int, taps: Sequence[float]) -> Tensor:
    # Shifted sums: a matrix product would be in half precision under autocast.
    first, *rest = shifts(x, axis, len(taps) // 2, 0.0)
    total = taps[0] * first
    for tap, shifted in zip(taps[1:], rest, strict=True):
        total.add_(shifted, alpha=tap)
    return total


def nearest_true(x: Tensor, far: int) -> Tensor:
    last = x.shape[-1] - 1
    place = _places(x, last + 1, torch.int32)
    # Products, since `where` is slower on a CPU than all of this.
    before = (x * (place + far)).cummax(-1).values - far
    after = last + far - (x.flip(-1) * (place + far)).cummax(-1).values.flip(-1)
    nearer = place - before <= after - place
    return after + nearer * (before - after)


def nearest_parabola(x: Tensor, axis: int, bound: int) -> tuple[Tensor, Tensor]:
    x = x.clamp(max=bound).movedim(axis, 1)
    lanes = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)
    # With sizes left open the compiler could not unroll the levels.
    fixed = not torch.compiler.is_compiling() or has_static_value(bound)
    dense = not fixed or (_compiling_for_cpu(x) and _in_32_bits(lanes.shape[1], bound))
    value, source = (_lowest if dense else _lower_envelope)(lanes, bound)
    return value.reshape(x.shape).movedim(1, axis), source.reshape(x.shape).movedim(1, axis)


def _lower_envelope(x: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """min_k x_k + (i − k)² and its first k along axis 1 of three, for 0 ≤ x ≤ `bound`.

    Two of these parabolas cross once, so the k of the minimum never goes back as i goes on. Every
    eighth place is solved by all sources; then the place halfway between two solved ones by the
    sources from the one's to the other's, and so on. All places of such a level share one running
    minimum over the sources: an offset puts those of each place below those of the place before.
    """
    length = x.shape[1]
    reach = 1 << (length - 1).bit_length()
    beyond = bound + reach**2  # any x_k + (i − k)²
    # Backwards, since a running minimum keeps the later of equals.
    x = x.flip(1)
    # In 64 bits the first step would cost more than all others: then only the first place.
    short = beyond * reach < 2**31
    stride = min(8, reach) if short else reach
    value, source = _every(stride, x if short else x.long(), reach)
    dtype = torch.int32 if beyond * reach < 2**32 else torch.int64  # half of them get an offset
    x, value, source = (part.mT.contiguous().to(dtype) for part in (x, value, source))
    k = _places(x, reach, dtype)

    # By source: how many of the solved places, but the first, have theirs before it.
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
        # The first of a place's sources counts there for the place before.
        by_first = value + half * (half + 2 * (stride * n - first))
        middle = torch.where(lowest <= by_first, at.gather(2, last).to(dtype), first)
        if half > 1:
            passed = (k[:length] - middle.gather(2, place.long())).clamp(0, 1)
            place = passed.add_(place, alpha=2)
        value = _in_turn(value, torch.minimum(lowest, by_first))
        source, stride = _in_turn(source, middle), half
    return (
        value[..., :length].int().mT.flip(1),
        (length - 1 - source[..., :length].int()).mT.flip(1),
    )


def _in_32_bits(length: int, bound: int) -> bool:
    """Whether `_lowest` has value and place in one number of 32 bits."""
    return (bound + length**2) * length < 2**32


def _lowest(x: Tensor, bound: int) -> tuple[Tensor, Tensor]:
    """The same as one reduction, which a compiler fuses."""
    length, lanes = x.shape[1:]
    dtype = torch.int32 if _in_32_bits(length, bound) else torch.int64
    half = 2**31 // length  # the numbers begin at the lowest of 32 bits
    k = _places(x, length, dtype)
    key = (x.to(dtype) - half) * length + k.unsqueeze(1)
    rise = length * (k.unsqueeze(1) - k) ** 2
    tiles = key.unsqueeze(1)
    if _compiling_for_cpu(x):
        rise = _written(rise)
        if has_static_value(bound):
            # All rows of sixteen lanes fit the first-level cache.
            tiles = F.pad(key, [0, -lanes % 16])
            tiles = tiles.reshape(len(x), length, -(-lanes // 16), 16).transpose(1, 2)
            tiles = _written(tiles)
        else:
            # Rows a power of two apart would share few places in the cache.
            tiles = _written(F.pad(key, [0, 16])).narrow(2, 0, lanes).unsqueeze(1)
    tiles = (tiles.unsqueeze(2) + rise.unsqueeze(2)).amin(3)
    key = tiles.transpose(1, 2).flatten(2)[..., :lanes]
    value = torch.div(key, length, rounding_mode="floor")
    return (value + half).int(), (key - value * length).int()


def _written(x: Tensor) -> Tensor:
    """x, which for such a view the compiler writes out, and does not compute at every use."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


def _every(stride: int, x: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """min_k x_k + (i − k)² and its last k along axis 1, for every stride-th i."""
    k = _places(x, x.shape[1], x.dtype)
    # Value and place in one number, so that one minimum finds both.
    key = x * reach + (reach - 1 - k).unsqueeze(1)
    rise = (reach * (k[::stride].unsqueeze(1) - k) ** 2).unsqueeze(2)
    if torch.compiler.is_compiling():
        lowest = (key.unsqueeze(1) + rise).amin(2)  # the compiler does not write the sum out
    else:
        # In place: fresh memory would cost more than the additions.
        changes = rise.diff(dim=0, prepend=torch.zeros_like(rise[:1]))
        lowest = torch.stack([key.add_(change).amin(1) for change in changes], 1)
    return lowest // reach, reach - 1 - lowest % reach


def _in_turn(x: Tensor, y: Tensor) -> Tensor:
    """x_0, y_0, x_1, y_1, … along the last axis."""
    both = x.new_empty(*x.shape[:-1], x.shape[-1] + y.shape[-1])
    both[..., ::2], both[..., 1::2] = x, y
    return both


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    mode = ("linear", "bilinear", "trilinear")[x.ndim - 3]
    resized = F.interpolate(x, tuple(size), mode=mode, align_corners=False)
    # Its weights may sum to 1 and a rounding.
    pixels, found = tuple(range(2, x.ndim)), resized.detach()
    low, high = x.detach().amin(pixels, keepdim=True), x.detach().amax(pixels, keepdim=True)
    return resized + (found.clamp(low, high) - found)


def positions(x: Tensor, axis: int) -> Tensor:
    place = _places(x, x.shape[axis], torch.int32)
    return place.reshape(-1, *[1] * (x.ndim - 1 - axis)).expand(x.shape)


def take_along(x: Tensor, index: Tensor, axis: int) -> Tensor:
    return x.gather(axis, index.long())


def join(xs: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(xs), 1)


class Look:
    """How a Module looks at values, and whether there were values that it could look at."""

    def __init__(self, everywhere: bool) -> None:
        self.everywhere = everywhere
        self.done = False


_look: ContextVar[Look | None] = ContextVar("look", default=None)


@contextmanager
def looking(everywhere: bool) -> Iterator[Look]:
    """Within it values are read on any device, or nowhere, instead of where that costs nothing."""
    look = Look(everywhere)
    token = _look.set(look)
    try:
        yield look
    finally:
        _look.reset(token)


def _costs_nothing(x: Tensor) -> bool:
    # Reading a CUDA tensor makes the host wait for the device.
    return x.device.type == "cpu"


def _read(x: Tensor, what: Callable[[Tensor], bool]) -> bool | None:
    """what(x), None where values cannot or should not be read."""
    if torch.compiler.is_compiling():
        return None
    look = _look.get()
    if look is None:
        if not _costs_nothing(x):
            return None
    elif not look.everywhere or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    try:
        found = what(x.detach())
    except RuntimeError:
        return None  # vmap, tracers and the meta device hold no values; or no pixels
    if look is not None:
        look.done = True
    return found


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
    found = values.detach().expand(bad.shape)[bad]
    found = found[~found.isnan()]
    return found[0].item() if found.numel() else None


def random(rng: Any, shape: Sequence[int], like: Tensor) -> Tensor:
    if not isinstance(rng, torch.Generator):
        raise TypeError(
            f"rng must be a torch.Generator, got {type(rng).__name__}; "
            "for example torch.Generator().manual_seed(0)"
        )
    return torch.rand(tuple(shape), generator=rng, device=like.device)
