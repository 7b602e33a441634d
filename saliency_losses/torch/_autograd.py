"""Primitives with a custom backward, as autograd Functions."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from saliency_losses.torch._environment import compiling_plainly, eager_on_cpu

_Taps = tuple[tuple[float, ...], ...]


def custom_vjp(
    function: Callable[..., tuple[Tensor, ...]],
    vjp: Callable[..., Tensor],
    x: Tensor,
    *constants: Tensor,
) -> tuple[Tensor, ...]:
    if torch.compiler.is_compiling():
        return function(x, *constants)
    results: tuple[Tensor, ...] = _CustomVjp.apply(  # type: ignore[no-untyped-call]
        function, vjp, x, *constants
    )
    return results


class _CustomVjp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        function: Callable[..., tuple[Tensor, ...]],
        vjp: Callable[..., Tensor],
        x: Tensor,
        *constants: Tensor,
    ) -> tuple[Tensor, ...]:
        return function(x, *constants)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, ctx.vjp, x, *constants = inputs
        # PyTorch requires 64-bit indices, but 32 bits suffice to store them.
        narrow = [c.int() if c.dtype == torch.int64 else c for c in constants]
        ctx.save_for_backward(x, *narrow, *output)
        ctx.save_for_forward(x, *constants)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = (t.long() if t.dtype == torch.int32 else t for t in ctx.saved_tensors)
        constants, outputs = rest[: -len(grads)], rest[-len(grads) :]
        gradient = ctx.vjp(grads, outputs, x, *constants)
        return None, None, gradient, *(None for _ in constants)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, tangent: Tensor, *___: None) -> tuple[Tensor, ...]:
        x, *constants = ctx.saved_tensors
        outputs = ctx.function(x, *constants)
        # The VJP is linear in the gradients; its transpose is the JVP.
        return _vjp(
            lambda *grads: (ctx.vjp(grads, outputs, x, *constants),),
            tuple(torch.zeros_like(y) for y in outputs),
            (tangent,),
        )


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    if compiling_plainly():
        recomputing: Tensor = checkpoint(function, *inputs, use_reentrant=False)
        return recomputing
    if torch.compiler.is_compiling():
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
        function, floats, inputs = _function_of_floats(ctx.function, ctx.saved_tensors)
        gradients = iter(_vjp(function, floats, (grad,)))
        return None, *(next(gradients) if x.is_floating_point() else None for x in inputs)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        # The VJP is linear in the gradients; its transpose, the VJP of the VJP, is the JVP.
        function, floats, inputs = _function_of_floats(ctx.function, ctx.saved_tensors)
        float_tangents = [t for t, x in zip(tangents, inputs, strict=True) if x.is_floating_point()]
        (tangent,) = _vjp(
            lambda *grads: _vjp(function, floats, grads),
            tuple(map(torch.zeros_like, function(*floats))),
            tuple(
                torch.zeros_like(x) if t is None else t
                for t, x in zip(float_tangents, floats, strict=True)
            ),
        )
        return tangent


def _function_of_floats(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> tuple[Callable[..., tuple[Tensor]], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The function restricted to its floating-point inputs, those inputs, and all inputs.

    The function returns a tuple of its one result.
    """

    def of_floats(*floats: Tensor) -> tuple[Tensor]:
        rest = iter(floats)
        return (function(*(next(rest) if x.is_floating_point() else x for x in inputs)),)

    return of_floats, tuple(x for x in inputs if x.is_floating_point()), inputs


def _vjp(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    grads: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """The gradient of Σ grads · function(*inputs) in each input."""
    if torch._C._are_functorch_transforms_active():
        results: tuple[Tensor, ...] = torch.func.vjp(function, *inputs)[1](grads)
        return results
    # By autograd, since torch.func does not work inside hooks on saved tensors.
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, as one input may have been computed from another: the gradient in the one must not
        # go on to the other.
        inputs = tuple(
            x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs
        )
        gradients: tuple[Tensor, ...] = torch.autograd.grad(
            function(*inputs), inputs, grads, create_graph=differentiable, materialize_grads=True
        )
    return gradients


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        # The compiler itself recomputes differences instead of storing them.
        return _squared_distances(x, centers)
    result: Tensor = _SquaredDistances.apply(x, centers)  # type: ignore[no-untyped-call]
    return result


def _squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    return torch.stack(
        [(x - centers[:, :, r : r + 1]).square().sum(1) for r in range(centers.shape[2])], 1
    )


class _SquaredDistances(torch.autograd.Function):
    """Autograd would store all (pixels x R x C) differences; recomputing them is cheaper."""

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
        of_x, of_centers = image_by_image(_squared_distances_vjp, *ctx.saved_tensors, grad)
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


def _squared_distances_vjp(x: Tensor, centers: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of squared distances in `x` and `centers`."""
    of_x, of_centers = None, []
    for r in range(centers.shape[2]):
        of_difference = (x - centers[:, :, r : r + 1]) * (2 * grad[:, r : r + 1])
        of_x = of_difference if of_x is None else of_x + of_difference
        of_centers.append(-of_difference.sum(2))
    assert of_x is not None
    return of_x, torch.stack(of_centers, 2)


def image_by_image(function: Callable[..., Sequence[Tensor]], *xs: Tensor) -> Sequence[Tensor]:
    if (
        xs[0].device.type != "cpu"
        or torch.compiler.is_compiling()
        or xs[0].shape[0] < 2
        or prod(xs[0].shape[1:]) < 2**16 * torch.get_num_threads()
    ):
        return function(*xs)
    # Temporaries of one large image stay in the cache, those of a batch need new memory pages. A
    # small image does not keep all threads busy.
    images = ([x[n : n + 1] for x in xs] for n in range(xs[0].shape[0]))
    return [torch.cat(parts) for parts in zip(*(function(*image) for image in images), strict=True)]


def shifts(x: Tensor, axis: int, reach: int, value: float) -> list[Tensor]:
    padded = F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [reach, reach], value=value)
    return _windows(padded, axis, x.shape[axis])


def _windows(x: Tensor, axis: int, length: int) -> list[Tensor]:
    """All windows of that length along `axis`."""
    number = x.shape[axis] - length + 1
    if not compiling_plainly():
        return [x.narrow(axis, k, length) for k in range(number)]
    # Such views make the compiler materialise a padded map, instead of checking for each pixel of
    # each window whether it lies inside.
    x = x.contiguous()
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    return [x.as_strided(shape, x.stride(), k * x.stride(axis)) for k in range(number)]


def filter_axes(x: Tensor, taps: Sequence[Sequence[float]]) -> Tensor:
    fixed = tuple(map(tuple, taps))

    def filtered(x: Tensor) -> Tensor:
        return image_by_image(lambda image: [_filtered(image, fixed)], x)[0]

    result: Tensor
    if compiling_plainly():
        result = _CompiledFilter.apply(x, fixed)  # type: ignore[no-untyped-call]
    elif torch.compiler.is_compiling() or (eager_on_cpu(x) and not x.requires_grad):
        result = filtered(x)
    else:
        result = _SelfAdjoint.apply(x, filtered)  # type: ignore[no-untyped-call]
    return result


class _SelfAdjoint(torch.autograd.Function):
    """A linear map that is its own transpose; autograd would go back through each of its steps."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _SelfAdjoint.apply(grad, ctx.function), None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        result: Tensor = _SelfAdjoint.apply(tangent, ctx.function)  # type: ignore[no-untyped-call]
        return result


class _CompiledFilter(torch.autograd.Function):
    """A filter as `_SelfAdjoint`, in the only form that the compiler accepts: no `jvp`."""

    @staticmethod
    def forward(x: Tensor, taps: _Taps) -> Tensor:
        return _filtered(x, taps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.taps = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return filter_axes(grad, ctx.taps), None


def _filtered(x: Tensor, taps: _Taps) -> Tensor:
    # Sums of windows, since autocast would compute a matrix product in half precision. Padded along
    # all axes at once, which saves the compiler one map.
    shape = x.shape
    x = F.pad(x, [len(each) // 2 for each in reversed(taps) for _ in range(2)])
    for axis, (first, *rest) in reversed(list(enumerate(taps, 1))):
        windows = _windows(x, axis, shape[axis])
        x = first * windows[0]
        for tap, window in zip(rest, windows[1:], strict=True):
            x.add_(window, alpha=tap)
    return x
