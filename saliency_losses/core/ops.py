"""The primitives that each backend supplies, as a protocol.

`saliency_losses.torch._ops` and `saliency_losses.jax._ops` implement it. Four kinds of arrays pass
between the primitives, always with the images on the first axis:

* a *map* ``(N, P)`` has one value per pixel;
* *features* have one vector per pixel, in the backend's own memory order: ``(N, C, P)`` in PyTorch,
  ``(N, P, C)`` in JAX;
* *regions* have one vector per region, in the order of features with R in place of P;
* *stacks* ``(N, R, P)`` have one map per region.

Arrays bring their own arithmetic, comparison, ``&``, ``|``, ``~``, ``.shape`` and ``.ndim``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Array = Any


class Ops(Protocol):
    # Arguments
    def array(self, name: str, x: Any) -> Array:
        """`x` as an array of the backend; a TypeError names the argument if it is not an array."""

    def is_array(self, x: Any) -> bool:
        """Whether `x` is an array of the backend, traced or not."""

    def kind(self, x: Array) -> str:
        """The kind of dtype: "bool", "integer", "float" or "other"."""

    def dtype_name(self, x: Array) -> str:
        """The dtype as users write it."""

    # Layout
    def map_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape ``(N, *spatial)`` of a map that matches features of the public `shape`."""

    def channels(self, shape: Sequence[int]) -> int:
        """The number of channels in the public `shape` of features."""

    def stack_shape(self, shape: Sequence[int], channels: int) -> tuple[int, ...]:
        """The public shape of features with `channels`, for a map `shape` ``(N, *spatial)``."""

    def features(self, x: Array) -> Array:
        """Features from the public layout; a view if the memory order allows it."""

    def images(self, x: Array) -> Array:
        """Maps ``(N, K, *spatial)`` from the public layout."""

    def public_images(self, x: Array) -> Array:
        """The inverse of `images`."""

    def regions(self, x: Array) -> Array:
        """Regions from the public ``(N, R, C)``."""

    def public_regions(self, x: Array) -> Array:
        """The inverse of `regions`."""

    def stack(self, x: Array) -> Array:
        """A stack from the public layout with R channels."""

    def public_stack(self, x: Array, shape: Sequence[int]) -> Array:
        """The public layout of a stack whose maps have the public `shape` ``(N, *spatial)``."""

    def reshape(self, x: Array, shape: Sequence[int]) -> Array: ...

    def flat(self, x: Array) -> Array:
        """An array ``(N, ...)`` as a map ``(N, P)``."""

    def over_channels(self, x: Array) -> Array:
        """A map, to broadcast over the channels of features."""

    def over_pixels(self, x: Array) -> Array:
        """One value ``(N,)`` or vector ``(N, C)`` per image, to broadcast over its pixels."""

    def num_pixels(self, x: Array) -> int:
        """The number of pixels P of features."""

    def channel(self, x: Array, index: int) -> Array:
        """One channel of features, as a map."""

    def over_stack(self, x: Array) -> Array:
        """A map, to broadcast over the maps of a stack."""

    def take_stack(self, x: Array, index: Array) -> Array:
        """At each pixel, the value of the stack's map that `index` names, a map of integers."""

    def unstack(self, x: Array) -> Sequence[Array]:
        """The maps of a stack, as a sequence."""

    # Precision
    def epsilon(self, x: Array) -> float:
        """The distance from 1 to the next larger number of the dtype; 0 for bools and integers."""

    def widen(self, x: Array) -> Array:
        """Half precision to float32; wider floats unchanged."""

    def floats(self, x: Array) -> Array:
        """Bools and integers as float32; floats unchanged."""

    def integers_to(self, x: Array, most: int) -> Array:
        """Bools as integers of the fastest dtype that holds 0 to `most`."""

    def integers(self, x: Array) -> Array:
        """Bools, integers and whole floats as integers that can index arrays."""

    def promote(self, *xs: Array) -> tuple[Array, ...]:
        """Floats, converted to the widest dtype among them."""

    def cast(self, x: Array, like: Array) -> Array:
        """`x` in the dtype of `like`."""

    def stop_gradient(self, x: Array) -> Array: ...

    # Elementwise functions
    def where(self, condition: Array, x: Any, y: Any) -> Array: ...
    def sqrt(self, x: Array) -> Array: ...
    def exp(self, x: Array) -> Array: ...
    def abs(self, x: Array) -> Array: ...
    def relu(self, x: Array) -> Array:
        """max(x, 0), with gradient 0 at 0."""

    def clip(self, x: Array, low: float, high: float) -> Array: ...
    def maximum(self, x: Array, low: float) -> Array: ...
    def minimum(self, x: Array, y: Array) -> Array: ...
    def at_least(self, x: Array, low: Any) -> Array:
        """1 where x >= low, else 0, in the dtype of `x`, without a gradient."""

    def isnan(self, x: Array) -> Array: ...
    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)), exact to rounding for any x."""

    def sigmoid(self, x: Array) -> Array: ...
    def softmax(self, x: Array) -> Array:
        """Softmax over the channels, in the public layout."""

    def equals(self, x: Array, value: int) -> Array:
        """Whether x == value, for any Python integer, even outside the range of the dtype."""

    # Reductions
    def sum_pixels(self, x: Array) -> Array:
        """Sums over pixels: a map to ``(N,)``, features to ``(N, C)``.

        The rounding error does not grow with the number of pixels.
        """

    def sum_channels(self, x: Array) -> Array:
        """Sums over channels: features to a map."""

    def sum_squares(self, x: Array) -> Array:
        """`sum_channels(x * x)`, which may round equal values differently in different places: not
        for comparisons of pixels, nor for means, whose order depends on the labels."""

    def sum_vector(self, x: Array) -> Array:
        """Sums of vectors: ``(N, C)`` to ``(N,)``."""

    def sum_stack(self, x: Array) -> Array:
        """Sums over pixels: a stack to ``(N, R)``."""

    def min_stack(self, x: Array) -> Array:
        """Minimum over the maps of a stack, a map."""

    def logsumexp_stack(self, x: Array) -> Array:
        """Log of the sum of exponentials over the maps of a stack, a map."""

    def count(self, x: Array) -> Array:
        """The number of True pixels of a boolean map, integers ``(N,)``."""

    def max_pixels(self, x: Array) -> Array:
        """The largest value of a map with at least one pixel, ``(N,)``."""

    def any_per_image(self, x: Array) -> Array:
        """Whether each image ``(N,)`` of a boolean array of any rank contains True."""

    def sum_images(self, x: Array) -> Array: ...

    # Regions, in linear time and memory
    def region_index(self, labels: Array, num_regions: int) -> Array:
        """An index for the three functions below, from a map of labels, clipped to 0..R-1."""

    def region_count(self, index: Array, counted: Array | None, num_regions: int) -> Array:
        """The number of counted pixels in each region, integers ``(N, R)``."""

    def region_sum(self, x: Array, index: Array, num_regions: int) -> Array:
        """Sums of features over each region, as regions.

        The rounding error does not grow with the number of pixels.
        """

    def region_take(self, x: Array, index: Array) -> Array:
        """Give each pixel the value of its region: ``(N, R)`` to a map, regions to features."""

    def custom_vjp(
        self,
        function: Callable[..., tuple[Array, ...]],
        vjp: Callable[..., Array],
        x: Array,
        *constants: Array,
    ) -> tuple[Array, ...]:
        """function(x, *constants), with gradient vjp(grads, outputs, x, *constants) in `x`.

        A backend may use `vjp` or differentiate `function` itself. Both functions must refer to no
        arrays but their arguments.
        """

    def weighted_sum(self, x: Array, weights: Array) -> Array:
        """The sum Σ_i w_i x_i ``(N, C)`` of features by a map of weights, exact as `sum_pixels`."""

    def weighted_sums(self, x: Array, weights: Array) -> Array:
        """The sums Σ_i w_ri x_i of features `x` by a stack of weights, as regions."""

    def recomputed(self, function: Callable[..., Array], *inputs: Array) -> Array:
        """function(*inputs), for which backward keeps only `inputs` and recomputes the rest.

        The function must refer to no arrays but its arguments.
        """

    def squared_distances(self, x: Array, centers: Array) -> Array:
        """The stack ‖x_i − c_r‖² of features `x` and regions `centers`.

        Squares are taken of differences, and backward keeps no (pixels x R x C) buffer.
        """

    # Sorting and selection
    def sort_descending(self, x: Array) -> Array:
        """The values of a map in descending order."""

    def take_pixel(self, x: Array, index: Array) -> Array:
        """The value of a map at one pixel per image, ``(N,)``."""

    def cumulative_count(self, x: Array) -> Array:
        """The sums of a map of bools or counts up to and including each pixel, integers."""

    def histogram(self, x: Array, bins: int) -> Array:
        """The number of pixels of each value 0..bins−1 of a map of integers, ``(N, bins)``."""

    # Spatial operations on ``(B, *spatial)``
    def shifts(self, x: Array, axis: int, reach: int, value: float) -> Sequence[Array]:
        """x_{i+k} for each k = −reach..reach along `axis`, with `value` outside `x`."""

    def filter_axes(self, x: Array, taps: Sequence[Sequence[float]]) -> Array:
        """Correlation along each spatial axis with its `taps`, with zeros outside `x`.

        The taps of an axis are symmetric and odd in number.
        """

    def split_columns(self, x: Array, count: Array) -> Sequence[Array]:
        """The first `count` ``(B,)`` columns of images ``(B, H, W)``, and the others.

        Each of the two may also hold the columns of the other as zeros.
        """

    def resize(self, x: Array, size: Sequence[int]) -> Array:
        """Features in the public layout, interpolated linearly to another spatial size.

        Interpolation is between the centres of pixels, with edges repeated. Rounding takes no value
        out of the range that its channel has in its image; the gradient is that of the
        interpolation.
        """

    def nearest_true(self, x: Array, far: int) -> Array:
        """The index of the nearest True along the last axis; of two equally near, the lower.

        In a row without True, an index at least `far` away. `far` must be at least the length.
        """

    def nearest_parabola(
        self, x: Array, axis: int, bound: float, steepness: float | None
    ) -> tuple[Array, Array]:
        """The minimum over k of x_k + s (i − k)² along `axis`, and the first k that attains it.

        Where `steepness` s is None, it is 1, `x` holds integers >= 0, and below `bound` x + length²
        fits in 32 bits. Otherwise `x` holds floats, and of nearly equal k any may be returned.
        Values >= `bound` mean "no foreground": where the minimum is >= `bound`, the results need
        only be >= `bound` and any k.
        """

    def nearest_foreground(
        self,
        foreground: Array,
        spacing: Sequence[float] | None,
        like: Array | None,
        return_indices: bool,
    ) -> Sequence[Array] | None:
        """The squared distance to the nearest True and, if asked for, its index along each axis.

        By another library, if there is one for this array; otherwise None. Integers without
        `spacing`, else in the dtype of `like`, or float32; as large as the dtype allows in an image
        without True. Of equally near pixels the first in row-major order.
        """

    def positions(self, x: Array, axis: int) -> Array:
        """The indices 0, 1, … along `axis`, integers in the shape of `x`."""

    def take_along(self, x: Array, index: Array, axis: int) -> Array:
        """The values x_index along `axis`; `x`, `index` and the result have one shape."""

    def join(self, xs: Sequence[Array]) -> Array:
        """R arrays ``(B, *spatial)``, joined to ``(B, R, *spatial)``."""

    def concatenate(self, xs: Sequence[Array]) -> Array:
        """Arrays ``(B, T_i)``, one beside the other."""

    def image_by_image(
        self, function: Callable[..., Sequence[Array]], *xs: Array
    ) -> Sequence[Array]:
        """function(*xs), called with one image at a time where that is faster.

        The result for an image must not depend on the other images.
        """

    # Reading values, random numbers
    def known_within(self, x: Array, low: float, high: float) -> bool:
        """True if a cheap check shows that every value lies in [low, high].

        False if some do not, or if no cheap check exists (on a GPU, while tracing).
        """

    def no_image(self, x: Array) -> Array:
        """False for each image of `x`, bools ``(N,)``."""

    def first(self, values: Array, bad: Array) -> float | None:
        """The first number of `values` where `bad` is True, NaN skipped.

        None if no such number exists, or if no cheap check exists (on a GPU, while tracing).
        """

    def random(self, rng: Any, shape: Sequence[int], like: Array) -> Array:
        """Uniform random numbers in [0, 1) on the device of `like`; TypeError for a wrong `rng`."""
