"""Queries of the execution environment: torch.compile, device, device mesh."""

import torch
from torch import Tensor


def compiling_plainly() -> bool:
    """Whether torch.compile is tracing, without a transform of `torch.func`."""
    # Under `torch.func`, torch 2.13 miscompiles second derivatives of a function with a custom
    # backward, and cannot vmap it.
    return torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def compiling_for_cpu(x: Tensor) -> bool:
    return compiling_plainly() and x.device.type == "cpu"


def eager_on_cpu(x: Tensor) -> bool:
    """Whether `x` is plain memory of a CPU: not compiled, transformed, or of a subclass."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def recording() -> bool:
    """Whether operators are recorded or replaced: by `make_fx`, fake tensors, `torch.jit.trace`."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch._C._len_torch_dispatch_stack() > 0


def replicate_like(x: Tensor, local: Tensor) -> Tensor:
    """`local`, equal on all processes, as a replicated DTensor if `x` is a DTensor."""
    if not hasattr(x, "device_mesh"):
        return local
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(
        local, x.device_mesh, [Replicate()] * x.device_mesh.ndim, run_check=False
    )


def index_range(x: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """The integers 0, 1, …, count − 1 on the device (mesh) of `x`."""
    return replicate_like(x, torch.arange(count, dtype=dtype, device=x.device))
