"""What a tensor is computed by: the compiler, a CPU, the processes of a device mesh."""

import torch
from torch import Tensor


def compiling_plainly() -> bool:
    # Under `torch.func` torch 2.13 compiles the gradient's gradient of a function with its own
    # backward wrongly, and cannot map it.
    return torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def compiling_for_cpu(x: Tensor) -> bool:
    return compiling_plainly() and x.device.type == "cpu"


def replicate_like(x: Tensor, local: Tensor) -> Tensor:
    """`made`, which all processes have alike, as `x` takes it if that is a DTensor."""
    if not hasattr(x, "device_mesh"):
        return local
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(
        local, x.device_mesh, [Replicate()] * x.device_mesh.ndim, run_check=False
    )


def index_range(x: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """0, 1, …, count − 1."""
    return replicate_like(x, torch.arange(count, dtype=dtype, device=x.device))
