"""The interface of a system to the trainer, as in `networks.torch.system`; channels stand last.

Attributes carry the names of the PyTorch modules, so that weights are known by the same names in
both frameworks (`reference_models.networks.flax.weights`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

Initial = Callable[[Array, tuple[int, ...], Any], Array]


class Batch(NamedTuple):
    """What belongs to N images."""

    images: Array
    """float32 `(N, H, W, 3)` in [0, 1]."""
    labels: Array
    """int32 `(N, H, W)`: 1 on the salient object and 0 elsewhere, or the number of the region."""
    prior: Array
    """float32 `(N, H, W)` in [0, 1]: a saliency map of somebody else's."""
    key: Array
    """The randomness of this step."""


class System(nnx.Module):
    """The five papers' systems and the small network of the README."""

    backbone: nnx.Module
    """Images in [0, 1] to a list of feature maps: frozen or fine-tuned, as the recipe says."""

    def __call__(self, taps: list[Array]) -> Array:
        """The backbone's maps to `(N, h, w, C)`: all that the loss and the maps are made from."""
        raise NotImplementedError

    def loss(self, output: Array, batch: Batch) -> Array:
        raise NotImplementedError

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        """Saliency by name, the main one first: `(N, H, W)` in [0, 1]; labels are not looked at."""
        raise NotImplementedError


class Pixels(nnx.Module):
    """The backbone of a network that has none: the images themselves."""

    channels = (3,)
    strides = (1,)

    def __call__(self, images: Array) -> list[Array]:
        return [images]


class Conv(nnx.Conv):
    """Computes in the type of its weights: where they are made bfloat16, that is bfloat16."""

    def __call__(self, x: Array) -> Array:
        return super().__call__(x.astype(self.kernel[...].dtype))


class Linear(nnx.Linear):
    """Computes in the type of its weights."""

    def __call__(self, x: Array) -> Array:
        return super().__call__(x.astype(self.kernel[...].dtype))


def conv(
    fan_in: int,
    fan_out: int,
    kernel: int = 1,
    *,
    rngs: nnx.Rngs,
    stride: int = 1,
    dilation: int = 1,
    padding: int | Sequence[tuple[int, int]] | None = None,
    bias: bool = True,
    kernel_init: Initial | None = None,
) -> Conv:
    """A square convolution, padded to keep the size, or to divide it. Initial weights are as in
    PyTorch; with a `kernel_init` of one's own the biases begin at 0."""
    initial = like_torch(fan_in * kernel**2)
    return Conv(
        fan_in,
        fan_out,
        kernel_size=(kernel, kernel),
        strides=stride,
        padding=dilation * (kernel // 2) if padding is None else padding,
        kernel_dilation=dilation,
        use_bias=bias,
        kernel_init=kernel_init or initial,
        bias_init=nnx.initializers.zeros if kernel_init else initial,
        rngs=rngs,
    )


def linear(fan_in: int, fan_out: int, rngs: nnx.Rngs) -> Linear:
    """A fully connected layer with the initial weights of PyTorch's."""
    initial = like_torch(fan_in)
    return Linear(fan_in, fan_out, kernel_init=initial, bias_init=initial, rngs=rngs)


def like_torch(fan_in: int) -> Initial:
    """Uniform within ± 1/√fan_in, weights and biases alike."""
    bound = 1 / math.sqrt(fan_in)

    def initial(key: Array, shape: tuple[int, ...], dtype: Any, *_: Any) -> Array:
        return jnp.asarray(in_numpy(key).uniform(-bound, bound, shape).astype(dtype))

    return initial


def he(key: Array, shape: tuple[int, ...], dtype: Any, *_: Any) -> Array:
    """Normal, of variance 2/fan_in."""
    deviation = math.sqrt(2 / math.prod(shape[:-1]))
    return jnp.asarray(in_numpy(key).normal(0, deviation, shape).astype(dtype))


def in_numpy(key: Array) -> np.random.Generator:
    """For initial weights: JAX would compile anew for each of the many shapes."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def resize(x: Array, like: Array) -> Array:
    """`(N, h, w, C)` brought bilinearly to the height and width of `like`."""
    return resize_to(x, like.shape[1:3])


def resize_to(x: Array, size: tuple[int, int]) -> Array:
    """`(N, h, w, C)` brought bilinearly to that height and width."""
    if x.shape[1:3] == size:
        return x
    # PyTorch does not smooth where it makes smaller.
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear", antialias=False)


def shrink(maps: Array, like: Array) -> Array:
    """Float maps `(N, H, W)` in [0, 1] averaged down to the height and width of `like`."""
    rows, columns = (
        averages(before, after)
        for before, after in zip(maps.shape[1:], like.shape[1:3], strict=True)
    )
    # Rounding can leave [0, 1], which the losses do not take.
    return jnp.einsum("ih,nhw,jw->nij", rows, maps, columns, precision="highest").clip(0, 1)


def averages(before: int, after: int) -> np.ndarray:
    """`(after, before)`: the weights with which each output averages the inputs it touches."""
    places, outputs = np.arange(before), np.arange(after)[:, None]
    touched = (places >= outputs * before // after) & (places < -(-(outputs + 1) * before // after))
    return (touched / touched.sum(axis=1, keepdims=True)).astype(np.float32)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """The mean over all pixels; logits `(N, H, W, C)`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
