"""Base classes of networks and backbones in Flax, the batch, layers and resizing.

They match `networks.torch.system`, with channels last. Attributes have the names of the PyTorch
modules, so that weights have the same names in both frameworks (`networks.flax.weights`).
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
    """The data of N images."""

    images: Array
    """float32 `(N, H, W, 3)` in [0, 1]."""
    labels: Array
    """int32 `(N, H, W)`: 1 on the salient object and 0 elsewhere, or the number of the region."""
    prior: Array
    """float32 `(N, H, W)` in [0, 1]: a saliency map of another method."""
    key: Array
    """Random key of this step."""
    counted: Array | None = None
    """bool `(N, H, W)`, False on void pixels, whose labels are 0; None if there are none."""


class FeatureExtractor(nnx.Module):
    """Images `(N, H, W, 3)` in [0, 1] to a list of feature maps, from fine to coarse."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    """Strides of the maps; 0 for a map of one pixel, whatever the image's size."""

    def __call__(self, images: Array) -> list[Array]:
        raise NotImplementedError


class IdentityBackbone(FeatureExtractor):
    """The backbone of a network that has none: it returns the images."""

    channels = (3,)
    strides = (1,)

    def __call__(self, images: Array) -> list[Array]:
        return [images]


class System(nnx.Module):
    """A network, its training loss and its saliency maps: the interface to the trainer."""

    backbone: FeatureExtractor
    """Frozen or fine-tuned, as the recipe says."""

    def __call__(self, taps: list[Array]) -> Array:
        """The backbone's feature maps to `(N, h, w, C)`, from which loss and maps are computed."""
        raise NotImplementedError

    def loss(self, output: Array, batch: Batch) -> Array:
        raise NotImplementedError

    def maps(self, output: Array, batch: Batch) -> dict[str, Array]:
        """Saliency maps by name, the main one first: `(N, H, W)` in [0, 1]. Labels are not used."""
        raise NotImplementedError

    def segmentation(self, output: Array, batch: Batch) -> Array:
        """Region numbers, int32 `(N, H, W)`, of a network for general segmentation."""
        raise NotImplementedError

    def descriptors(self, output: Array, batch: Batch) -> Array:
        """What the loss compares, channels last: features of unit length at the output's size, or
        softmax outputs at the image's, of a network for general segmentation."""
        raise NotImplementedError


class Conv(nnx.Conv):
    """A convolution that computes in the type of its weights, bfloat16 if they are cast to it."""

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        return super().__call__(x.astype(self.kernel[...].dtype))


class Linear(nnx.Linear):
    """A fully connected layer that computes in the type of its weights."""

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        return super().__call__(x.astype(self.kernel[...].dtype))


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation that keeps the unbiased variance for evaluation, as PyTorch does."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        # The fast variance, the mean of squares minus the squared mean, suffers from cancellation.
        super().__init__(channels, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        kept = self.momentum * self.var[...]
        y = super().__call__(x)
        if not self.use_running_average:
            count = x.size // x.shape[-1]
            self.var[...] = kept + (self.var[...] - kept) * (count / (count - 1))
        return y


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
    """A square convolution, padded so that the size is kept, or divided by the stride.

    Initial weights and biases are distributed as in PyTorch; with `kernel_init`, biases are 0.
    """
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


class Deconv(nnx.ConvTranspose):
    """A deconvolution that computes in the type of its weights."""

    def __call__(self, x: Array) -> Array:
        return super().__call__(x.astype(self.kernel[...].dtype))


def deconv(
    fan_in: int,
    fan_out: int,
    kernel: int,
    *,
    rngs: nnx.Rngs,
    stride: int = 1,
    padding: int = 0,
) -> Deconv:
    """PyTorch's square `ConvTranspose2d` without bias."""
    around = kernel - 1 - padding
    return Deconv(
        fan_in,
        fan_out,
        (kernel, kernel),
        strides=stride,
        padding=((around, around), (around, around)),
        use_bias=False,
        kernel_init=like_torch(fan_out * kernel**2),
        # PyTorch's orientation of the kernel.
        transpose_kernel=True,
        rngs=rngs,
    )


def linear(fan_in: int, fan_out: int, rngs: nnx.Rngs) -> Linear:
    """A fully connected layer whose initial weights are distributed as in PyTorch."""
    initial = like_torch(fan_in)
    return Linear(fan_in, fan_out, kernel_init=initial, bias_init=initial, rngs=rngs)


def like_torch(fan_in: int) -> Initial:
    """PyTorch's default initialiser of weights and biases: uniform within ±1/√fan_in."""
    bound = 1 / math.sqrt(fan_in)

    def initial(key: Array, shape: tuple[int, ...], dtype: Any, *_: Any) -> Array:
        return jnp.asarray(in_numpy(key).uniform(-bound, bound, shape).astype(dtype))

    return initial


def he(key: Array, shape: tuple[int, ...], dtype: Any, *_: Any) -> Array:
    """He's initialiser: normal with variance 2/fan_in."""
    deviation = math.sqrt(2 / math.prod(shape[:-1]))
    return jnp.asarray(in_numpy(key).normal(0, deviation, shape).astype(dtype))


def in_numpy(key: Array) -> np.random.Generator:
    """A NumPy generator for initial weights: JAX would compile once for each of many shapes."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def resize(x: Array, size: tuple[int, ...]) -> Array:
    """Resize `(N, h, w, C)` bilinearly to a height and width."""
    if x.shape[1:3] == size:
        return x
    # As in PyTorch, without antialiasing.
    return jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear", antialias=False)


def nearest_resize(labels: Array, size: tuple[int, ...]) -> Array:
    """Labels `(N, H, W)` at the centre of each output pixel: PyTorch's mode "nearest-exact"."""
    rows, columns = (
        (2 * np.arange(after) + 1) * before // (2 * after)
        for before, after in zip(labels.shape[1:], size, strict=True)
    )
    return labels[:, rows][:, :, columns]


def area_resize(maps: Array, size: tuple[int, ...]) -> Array:
    """Resize float maps `(N, H, W)` in [0, 1] to a smaller height and width by averaging."""
    rows, columns = (
        averages(before, after) for before, after in zip(maps.shape[1:], size, strict=True)
    )
    # Rounding can leave [0, 1], and the losses reject such values.
    return jnp.einsum("ih,nhw,jw->nij", rows, maps, columns, precision="highest").clip(0, 1)


def average_to(x: Array, side: int) -> Array:
    """Average `(N, h, w, C)` to `side` x `side`: PyTorch's adaptive pooling."""
    if x.shape[1:3] == (side, side):
        return x
    rows, columns = (averages(before, side).astype(x.dtype) for before in x.shape[1:3])
    return jnp.einsum("ih,nhwc,jw->nijc", rows, x, columns, precision="highest")


def averages(before: int, after: int) -> np.ndarray:
    """Weights `(after, before)` of each input in the average that each output is."""
    places, outputs = np.arange(before), np.arange(after)[:, None]
    touched = (places >= outputs * before // after) & (places < -(-(outputs + 1) * before // after))
    return (touched / touched.sum(axis=1, keepdims=True)).astype(np.float32)


def cross_entropy(logits: Array, labels: Array, counted: Array | None) -> Array:
    """Cross-entropy, the mean over all pixels, or if some do not count, over the counted pixels of
    each image and then over images; logits `(N, H, W, C)`, labels and counted `(N, H, W)`."""
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return each.mean() if counted is None else counted_mean(each, counted)


def counted_mean(values: Array, counted: Array) -> Array:
    """The mean over the counted pixels of each image, then over images; both `(N, H, W)`."""
    pixels = jnp.maximum(counted.sum(axis=(1, 2)), 1)
    return (jnp.where(counted, values, 0).sum(axis=(1, 2)) / pixels).mean()


def reduced(
    labels: Array, counted: Array | None, size: tuple[int, ...]
) -> tuple[Array, Array | None]:
    """Labels 0/1 and counted pixels at a smaller size. A pixel is salient if at least half of its
    counted part is, and counts if more than half of it does."""
    shares = area_resize(labels.astype(jnp.float32), size)
    if counted is None:
        return (shares >= 0.5).astype(jnp.int32), None
    parts = area_resize(counted.astype(jnp.float32), size)
    return (shares >= parts / 2).astype(jnp.int32), parts > 0.5
