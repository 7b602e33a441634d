"""The small encoder–decoder, in Flax. `reference_models.torch.network` is the same network."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


class SaliencyNet(nnx.Module):
    """Encoder to a quarter of the side, decoder back with one skip; about 94,000 weights.

    Input: float `(N, H, W, 3)` in [0, 1], sides divisible by 4. Output: `(N, H, W, channels)`.
    """

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.stem = conv(3, 24, rngs, stride=2)
        self.skip = conv(24, 24, rngs)
        self.quarter = conv(24, 48, rngs, stride=2)
        self.near = conv(48, 48, rngs)
        self.far = conv(48, 48, rngs, dilation=2)
        self.farther = conv(48, 48, rngs, dilation=4)
        self.decoder = conv(48 + 24, 24, rngs)
        self.head = nnx.Linear(24, channels, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        relu = jax.nn.relu
        skip = relu(self.skip(relu(self.stem(4 * images - 2))))
        deep = relu(self.near(relu(self.quarter(skip))))
        deep = relu(self.farther(relu(self.far(deep))))
        joined = jnp.concatenate([upsample(deep), skip], axis=-1)
        return upsample(self.head(relu(self.decoder(joined))))


class Critic(nnx.Module):
    """Scores pairs of a pixel's feature and a foreground vector; `(N, H, W)`, any real number."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(2 * channels, 32, rngs=rngs)
        self.score = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, features: Array, foreground: Array) -> Array:
        spread = jnp.broadcast_to(foreground[:, None, None, :], features.shape)
        pairs = jnp.concatenate([features, spread], axis=-1)
        return self.score(jax.nn.relu(self.hidden(pairs)))[..., 0]


def conv(fan_in: int, fan_out: int, rngs: nnx.Rngs, stride: int = 1, dilation: int = 1) -> nnx.Conv:
    """A 3 x 3 convolution, padded to keep (or halve) the size, with He's initial weights."""
    return nnx.Conv(
        fan_in,
        fan_out,
        kernel_size=(3, 3),
        strides=stride,
        padding=dilation,
        kernel_dilation=dilation,
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )


def upsample(x: Array) -> Array:
    """Bilinear upsampling by 2."""
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "bilinear")
