"""SciPy's distance transform as an operator of PyTorch, for tensors on a CPU."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saliency_losses.torch._environment import eager_on_cpu, recording

try:
    from scipy.ndimage import distance_transform_edt
except ImportError:
    distance_transform_edt = None


CACHED = 2**15  # pixels whose squares are summed while they lie in the cache


def nearest_foreground(
    foreground: Tensor, spacing: Sequence[float] | None, like: Tensor | None, return_indices: bool
) -> list[Tensor] | None:
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch >= 2.7
    if (
        distance_transform_edt is None
        or foreground.device.type != "cpu"
        or hasattr(foreground, "device_mesh")
        or exporting()  # an exported program runs without Python
    ):
        return None
    # PyTorch's call of its own operator takes a tenth of SciPy's time at 256².
    plainly = eager_on_cpu(foreground) and not recording()
    double = like is not None and like.dtype == torch.float64
    squared, places = (computed if plainly else transform)(
        foreground, spacing, double, return_indices
    )
    return [squared, *places.unbind(1)]


def computed(
    foreground: Tensor, spacing: Sequence[float] | None, double: bool, return_indices: bool
) -> tuple[Tensor, Tensor]:
    """The squared distance ``(B, *spatial)`` to the nearest True, and its indices.

    Squares are int32, or with `spacing` float32 or `double`. The indices ``(B, axes, *spatial)``,
    int32, are those of the first of the nearest in row-major order; without `return_indices` there
    are no axes. In an image without True the squares are as large as the dtype allows.
    """
    images = foreground.contiguous().numpy()
    kind = np.float64 if double else np.float32
    squared = np.empty(images.shape, np.int32 if spacing is None else kind)
    indices = np.empty(
        (len(images), _axes(foreground, return_indices), *images.shape[1:]), np.int32
    )

    def of_image(n: int) -> None:
        if images[n].any():
            places = (
                indices[n]
                if return_indices
                else np.empty((images.ndim - 1, *images.shape[1:]), np.int32)
            )
            _nearest(images[n], spacing, places)
            _square(places, spacing, squared[n])
        else:
            squared[n] = np.iinfo(np.int32).max if spacing is None else np.inf
            indices[n] = 0

    threads = min(torch.get_num_threads(), len(images))
    if threads > 1:  # SciPy releases the interpreter's lock
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(of_image, range(len(images))))
    else:
        list(map(of_image, range(len(images))))
    return torch.from_numpy(squared), torch.from_numpy(indices)


transform = torch.library.custom_op(
    "saliency_losses::distance_transform", computed, mutates_args=(), device_types="cpu"
)


def _nearest(
    foreground: NDArray[np.bool_], spacing: Sequence[float] | None, places: NDArray[np.int32]
) -> None:
    """Write the indices of the nearest True to `places`."""
    # Of equally near pixels SciPy takes the first in column-major order.
    distance_transform_edt(
        ~foreground.T,
        sampling=None if spacing is None else spacing[::-1],
        return_distances=False,
        return_indices=True,
        indices=places[::-1].transpose(0, *range(foreground.ndim, 0, -1)),
    )


def _square(
    places: NDArray[np.int32], spacing: Sequence[float] | None, squared: NDArray[Any]
) -> None:
    """Write the squared distances to `places` to `squared`."""
    here = np.indices(squared.shape, np.int32, sparse=True)
    rows = max(1, CACHED * len(squared) // squared.size)
    for start in range(0, len(squared), rows):
        part = slice(start, start + rows)
        axes = here[0][part], *here[1:]
        along = [place[part] - axis for place, axis in zip(places, axes, strict=True)]
        if spacing is not None:
            along = [size * distance for size, distance in zip(spacing, along, strict=True)]
        squared[part] = reduce(np.add, (distance * distance for distance in along))


@transform.register_fake
def _(
    foreground: Tensor, spacing: Sequence[float] | None, double: bool, return_indices: bool
) -> tuple[Tensor, Tensor]:
    axes = _axes(foreground, return_indices)
    kind = torch.float64 if double else torch.float32
    return (
        foreground.new_empty(foreground.shape, dtype=torch.int32 if spacing is None else kind),
        foreground.new_empty((len(foreground), axes, *foreground.shape[1:]), dtype=torch.int32),
    )


@transform.register_vmap
def _(
    info: Any,
    in_dims: tuple[int | None, ...],
    foreground: Tensor,
    spacing: Sequence[float] | None,
    double: bool,
    return_indices: bool,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    images = foreground.movedim(in_dims[0] or 0, 0)
    results = transform(images.flatten(0, 1), spacing, double, return_indices)
    squared, places = (result.unflatten(0, images.shape[:2]) for result in results)
    return (squared, places), (0, 0)


def _axes(foreground: Tensor, return_indices: bool) -> int:
    return foreground.ndim - 1 if return_indices else 0
