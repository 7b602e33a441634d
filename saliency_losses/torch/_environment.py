"""What a tensor is computed by: the compiler, a CPU, the processes of a device mesh."""

import torch
from torch import Tensor


def _compiling_plainly() -> bool:
    # Under `torch.func` torch 2.13 compiles the gradient's gradient of a function with its own
    # backward wrongly, and cannot map it.
    return torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def _compiling_for_cpu(x: Tensor) -> bool:
    return _compiling_plainly() and x.device.type == "cpu"


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
