"""The primitives that a backend supplies: `saliency_losses.torch._ops`, `saliency_losses.jax._ops`.

Four kinds of arrays pass between them, always with the images on the first axis:

* a *map* ``(N, P)`` has one value per pixel;
* *features* have one vector per pixel, in the backend's own memory order: ``(N, C, P)`` in PyTorch,
  ``(N, P, C)`` in JAX;
* *regions* have one vector per region, ordered as features are with R in the place of P;
* *stacks* ``(N, R, P)`` have one map per region.

Arithmetic, comparison, ``&``, ``|``, ``~``, ``.shape`` and ``.ndim`` are the arrays' own.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Array = Any


class Ops(Protocol):
    # What an argument is
    def array(self, name: str, x: Any) -> Array:
        """`x` as the backend's array; TypeError that names the argument if it is none."""

    def is_array(self, x: Any) -> bool:
        """Whether it is an array of the backend, traced or not."""

    def kind(self, x: Array) -> str:
        """ "bool", "integer", "float" or "other"."""

    def dtype_name(self, x: Array) -> str:
        """The dtype as a user would write it."""

    # Layout
    def map_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape ``(N, *spatial)`` of a map beside features of the public `shape`."""

    def channels(self, shape: Sequence[int]) -> int:
        """The number of channels of features of the public `shape`."""

    def stack_shape(self, shape: Sequence[int], channels: int) -> tuple[int, ...]:
        """The public shape of features with `channels` over maps ``(N, *spatial)`` of `shape`."""

    def features(self, x: Array) -> Array:
        """Features from the public layout; a view where the memory order allows."""

    def images(self, x: Array) -> Array:
        """``(N, K, *spatial)`` from the public layout."""

    def public_images(self, x: Array) -> Array:
        """The inverse of `images`."""

    def regions(self, x: Array) -> Array:
        """Regions from the public ``(N, R, C)``."""

    def public_regions(self, x: Array) -> Array:
        """The inverse of `regions`."""

    def stack(self, x: Array) -> Array:
        """A stack from the public layout of R channels."""

    def public_stack(self, x: Array, shape: Sequence[int]) -> Array:
        """A stack over maps of the public `shape` ``(N, *spatial)``, in the public layout."""

    def reshape(self, x: Array, shape: Sequence[int]) -> Array: ...

    def flat(self, x: Array) -> Array:
        """``(N, ...)`` to ``(N, P)``."""

    def over_channels(self, x: Array) -> Array:
        """A map, to be broadcast over the channels of features."""

    def over_pixels(self, x: Array) -> Array:
        """One value ``(N,)`` or vector ``(N, C)`` per image, to be broadcast over its pixels."""

    def num_pixels(self, x: Array) -> int:
        """P, of features."""

    def channel(self, x: Array, index: int) -> Array:
        """One channel of features, a map."""

    def over_stack(self, x: Array) -> Array:
        """A map, to be broadcast over the maps of a stack."""

    def take_stack(self, x: Array, index: Array) -> Array:
        """From a stack the map that a map of integers names, pixel by pixel."""

    def unstack(self, x: Array) -> Sequence[Array]:
        """The maps of a stack."""

    # Precision
    def epsilon(self, x: Array) -> float:
        """The distance from 1 to the next number of the dtype; 0 for bools and integers."""

    def widen(self, x: Array) -> Array:
        """Half precision to float32; wider floats unchanged."""

    def floats(self, x: Array) -> Array:
        """Bools and integers as float32; floats unchanged."""

    def integers_to(self, x: Array, most: int) -> Array:
        """Bools as integers that hold 0 to `most`, as narrow as is fast."""

    def integers(self, x: Array) -> Array:
        """Bools, integers and whole floats as integers that can index."""

    def promote(self, *xs: Array) -> tuple[Array, ...]:
        """Floats brought to the widest dtype among them."""

    def cast(self, x: Array, like: Array) -> Array:
        """`x` in the dtype of `like`."""

    def stop_gradient(self, x: Array) -> Array: ...

    # Element by element
    def where(self, condition: Array, x: Any, y: Any) -> Array: ...
    def sqrt(self, x: Array) -> Array: ...
    def exp(self, x: Array) -> Array: ...
    def abs(self, x: Array) -> Array: ...
    def clip(self, x: Array, low: float, high: float) -> Array: ...
    def maximum(self, x: Array, low: float) -> Array: ...
    def minimum(self, x: Array, y: Array) -> Array: ...
    def isnan(self, x: Array) -> Array: ...
    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)), exact to rounding for any x."""

    def sigmoid(self, x: Array) -> Array: ...
    def softmax(self, x: Array) -> Array:
        """Over the channels, in the public layout."""

    def equals(self, x: Array, value: int) -> Array:
        """x == value, for any Python integer."""

    # Reductions
    def sum_pixels(self, x: Array) -> Array:
        """A map to ``(N,)``, features to ``(N, C)``; the error does not grow with the pixels."""

    def sum_channels(self, x: Array) -> Array:
        """Features to a map."""

    def sum_vector(self, x: Array) -> Array:
        """``(N, C)`` to ``(N,)``."""

    def sum_stack(self, x: Array) -> Array:
        """A stack to ``(N, R)``."""

    def min_stack(self, x: Array) -> Array:
        """A stack to a map."""

    def logsumexp_stack(self, x: Array) -> Array:
        """A stack to a map."""

    def count(self, x: Array) -> Array:
        """The number of True pixels of a boolean map, ``(N,)`` integers."""

    def max_pixels(self, x: Array) -> Array:
        """The largest value of a map with at least one pixel, ``(N,)``."""

    def any_per_image(self, x: Array) -> Array:
        """``(N,)`` from a boolean array of any rank."""

    def sum_images(self, x: Array) -> Array: ...

    # Regions, in linear time and memory
    def region_index(self, labels: Array, num_regions: int) -> Array:
        """A map of labels, clipped to 0..R-1, made ready for the three functions below."""

    def region_count(self, index: Array, counted: Array | None, num_regions: int) -> Array:
        """The counted pixels of each region, ``(N, R)`` integers."""

    def region_sum(self, x: Array, index: Array, num_regions: int) -> Array:
        """Regions, the sums of features; the error does not grow with the pixels."""

    def region_take(self, x: Array, index: Array) -> Array:
        """Each pixel's own region's value: ``(N, R)`` to a map, regions to features."""

    def custom_vjp(
        self,
        function: Callable[..., tuple[Array, ...]],
        pull: Callable[..., Array],
        x: Array,
        *constants: Array,
    ) -> tuple[Array, ...]:
        """function(x, *constants), whose gradient in `x` is pull(grads, outputs, x, *constants).

        A backend may use that, or its own differentiation of `function`. Neither may refer to
        other arrays than its arguments.
        """

    def weighted_sum(self, x: Array, weights: Array) -> Array:
        """Σ_i w_i x_i ``(N, C)``, from features `x` and a map of weights; exact as `sum_pixels`."""

    def weighted_sums(self, x: Array, weights: Array) -> Array:
        """Regions Σ_i w_ri x_i, from features `x` and a stack of weights."""

    def recomputed(self, function: Callable[..., Array], *inputs: Array) -> Array:
        """function(*inputs), of which only `inputs` may be kept for the gradient.

        The function may not refer to other arrays than its arguments.
        """

    def squared_distances(self, x: Array, centers: Array) -> Array:
        """A stack ‖x_i − c_r‖², from features `x` and regions `centers`.

        Differences are taken before squares, and no (pixels x R x C) buffer is kept for backward.
        """

    # Order
    def sort_descending(self, x: Array) -> Array:
        """The values of a map, the largest first."""

    def take_pixel(self, x: Array, index: Array) -> Array:
        """The value of a map at one pixel per image, ``(N,)``."""

    def cumulative_count(self, x: Array) -> Array:
        """The number of True pixels of a boolean map up to and with each pixel."""

    # Space, on ``(B, *spatial)``
    def shifts(self, x: Array, axis: int, reach: int, value: float) -> Sequence[Array]:
        """`x` moved by −reach..reach along `axis`, `value` outside: each x_{i+k}."""

    def filter_axis(self, x: Array, taps: Sequence[float], axis: int) -> Array:
        """Correlation with an odd number of `taps` along `axis`, zeros outside."""

    def resize(self, x: Array, size: Sequence[int]) -> Array:
        """Features in the public layout at another spatial size, by linear interpolation between
        the centres of pixels, edges repeated.

        No value leaves the range of its channel of its image, whatever is rounded, and the gradient
        is that of the interpolation.
        """

    def nearest_true(self, x: Array, far: int) -> Array:
        """The index along the last axis of the nearest True, the lower of two; where there is none,
        one at least `far` away, and `far` is at least the length."""

    def nearest_parabola(self, x: Array, axis: int, bound: int) -> tuple[Array, Array]:
        """min_k x_k + (i − k)² along `axis` and its first k, on integers from 0.

        From `bound` on, both may be any such; below, x + the square of the axis fits 32 bits.
        """

    def positions(self, x: Array, axis: int) -> Array:
        """0, 1, … along `axis`, integers in the shape of `x`."""

    def take_along(self, x: Array, index: Array, axis: int) -> Array:
        """x_index along `axis`, all of one shape."""

    def join(self, xs: Sequence[Array]) -> Array:
        """``(B, R, *spatial)`` from R of ``(B, *spatial)``."""

    def image_by_image(
        self, function: Callable[..., Sequence[Array]], *xs: Array
    ) -> Sequence[Array]:
        """function(*xs), which treats images alike; one at a time where that is faster."""

    # Values and chance
    def known_within(self, x: Array, low: float, high: float) -> bool:
        """Whether it costs little to see that all values lie in low..high, and they do.

        False if some do not, or if values cannot be read here without cost or at all.
        """

    def no_image(self, x: Array) -> Array:
        """False for each image of `x`, ``(N,)``."""

    def first(self, values: Array, bad: Array) -> float | None:
        """The first number (NaN passed over) of `values` where `bad`.

        None if there is none, or if values cannot be read here without cost or at all.
        """

    def random(self, rng: Any, shape: Sequence[int], like: Array) -> Array:
        """Uniform numbers in [0, 1) on the device of `like`; TypeError for a wrong `rng`."""
