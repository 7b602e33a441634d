"""Argument checks with their error messages, and the reduction over images."""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from numbers import Integral, Real
from typing import Any

from saliency_losses.core.ops import Array, Ops

Spacing = tuple[float, ...] | None  # the size of a pixel along each spatial axis; None for 1


def option(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {_shown(name, value)}"
        )


def flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_shown(name, value)}")


def _shown(name: str, value: object) -> str:
    """The repr of an option, with a hint if the option is traced but must be static."""
    traced = type(value).__name__.endswith("Tracer")
    return repr(value) + (f'; under jit, pass static_argnames="{name}"' if traced else "")


def integer(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {_shown(name, value)}")
    if int(value) < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


def number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {_shown(name, value)}")
    as_float = float(value)
    above = as_float > low if open_low else as_float >= low
    if not (above and as_float <= high):
        bracket = "(" if open_low else "["
        raise ValueError(f"{name} must lie in {bracket}{low}, {high}], got {value}")


def scheduled(
    xp: Ops, name: str, value: Any, low: float, high: float, *, open_low: bool = False
) -> None:
    """Check an option that a schedule may change: a number, or a scalar array if it can be read."""
    if isinstance(value, Real):
        return number(name, value, low, high, open_low=open_low)
    if not xp.is_array(value) or value.shape != () or xp.kind(value) not in ("float", "integer"):
        raise TypeError(f"{name} must be a number or a scalar array, got {value!r}")
    outside = xp.first(value, ~((value > low if open_low else value >= low) & (value <= high)))
    return None if outside is None else number(name, outside, low, high, open_low=open_low)


def as_scalar(xp: Ops, value: Any, like: Array) -> Any:
    """A scalar array in the dtype of `like`, so as not to widen the result; else a Python float."""
    return xp.cast(value, like) if xp.is_array(value) else float(value)


def spacing(value: Any, axes: int | None = None) -> Spacing:
    """`value` as floats, one for each of the spatial `axes`."""
    if value is None:
        return None
    try:
        # Digits in a text would be numbers, and an iterator would be empty at the next check.
        if isinstance(value, str | Iterator):
            raise TypeError
        sizes = tuple(float(size) for size in value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "spacing must be None or a sequence of numbers, one per spatial axis, "
            f"got {_shown('spacing', value)}"
        ) from error
    if axes is not None and len(sizes) != axes:
        raise ValueError(
            f"spacing must have one number for each of the {axes} spatial axes, got {value!r}"
        )
    if not all(1e-9 <= size <= 1e9 for size in sizes):
        raise ValueError(
            f"spacing must be positive and finite, from 1e-9 to 1e9, got {value!r}; "
            "choose another unit of length"
        )
    return sizes


def reduction(value: str) -> None:
    option("reduction", value, ("mean", "sum", "none"))


def activation(value: str | None) -> None:
    option("activation", value, (None, "sigmoid", "softmax"))


def _array(xp: Ops, name: str, x: object) -> Array:
    if isinstance(x, (list, tuple, dict)):
        raise TypeError(
            f"{name} must be one array, got {type(x).__name__}; several outputs of a network: "
            "call the loss once per output or use deep_supervision; numbers: convert them to an "
            "array"
        )
    return xp.array(name, x)


def floating(xp: Ops, name: str, x: object) -> Array:
    """Check a floating-point argument and widen it to at least float32."""
    array = _array(xp, name, x)
    if xp.kind(array) != "float":
        raise TypeError(
            f"{name} must be floating point, got {xp.dtype_name(array)}; "
            "a 0/255 map: divide by 255; other integers: convert to float32"
        )
    return xp.widen(array)


def real(xp: Ops, name: str, x: object, expected: str = "floating point, integer or bool") -> Array:
    """Check a real argument: floats widened to at least float32, integers as `xp.integers`, bools
    unchanged."""
    array = _array(xp, name, x)
    kind = xp.kind(array)
    if kind == "other":
        raise TypeError(f"{name} must be {expected}, got {xp.dtype_name(array)}")
    if kind == "bool":
        return array
    return xp.widen(array) if kind == "float" else xp.integers(array)


def boolean(xp: Ops, name: str, x: object) -> Array:
    array = _array(xp, name, x)
    if xp.kind(array) != "bool":
        raise TypeError(
            f"{name} must be bool, got {xp.dtype_name(array)}; "
            f"compare first, for example {name} > 0.5"
        )
    return array


def same_precision(xp: Ops, x: Array, other: Array) -> tuple[Array, Array]:
    """Both arrays in the wider float dtype; bools and integers take the dtype of `x`."""
    if xp.kind(other) != "float":
        return x, xp.cast(other, x)
    x, other = xp.promote(x, other)
    return x, other


def features(xp: Ops, name: str, x: object, *, low_rank: int = 1) -> Array:
    """Check a floating-point argument with channels and `low_rank` to 3 spatial axes."""
    array = floating(xp, name, x)
    if not low_rank + 2 <= array.ndim <= 5 or xp.channels(array.shape) < 1:
        layout = public_layout(xp, "C")
        repair = ""
        if array.ndim == low_rank + 1:
            one = f"{name}[..., None]" if channels_last(xp) else f"{name}[:, None]"
            repair = f"; maps without an axis for channels: {one}"
        raise ValueError(
            f"{name} must have shape {layout} with C >= 1 and {low_rank} to 3 "
            f"spatial axes, got {tuple(array.shape)}{repair}"
        )
    return array


def probabilities(xp: Ops, x: object, through: str | None, *, low_rank: int = 1) -> Array:
    """Check the argument probs as `features` does, and apply the activation `through`, if any."""
    array = features(xp, "probs", x, low_rank=low_rank)
    if through == "softmax" and xp.channels(array.shape) == 1:
        raise ValueError(
            'activation must be "sigmoid" for probs with one channel, got "softmax", '
            "which turns a single channel into 1 everywhere"
        )
    if through is None:
        return array
    return xp.sigmoid(array) if through == "sigmoid" else xp.softmax(array)


def maps(name: str, x: Array) -> None:
    """Check the rank of a map ``(N, *spatial)`` that has no features to match."""
    if not 2 <= x.ndim <= 4:
        raise ValueError(
            f"{name} must have shape (N, *spatial) with 1 to 3 spatial axes, got {tuple(x.shape)}"
        )


def has_images(name: str, x: Array) -> None:
    """Check an argument of any shape whose first axis is that of the images."""
    if x.ndim < 1:
        raise ValueError(f"{name} must have shape (N, ...), got a scalar")


def channels_last(xp: Ops) -> bool:
    return xp.stack_shape((0, 0), 1)[-1] == 1


def public_layout(xp: Ops, channels: str) -> str:
    return f"(N, *spatial, {channels})" if channels_last(xp) else f"(N, {channels}, *spatial)"


def _layout_repair(xp: Ops, name: str) -> str:
    """The error text for channels on the axis where the other framework has them."""
    if channels_last(xp):
        return f"{name} seems to have its channels first: jax.numpy.moveaxis({name}, 1, -1)"
    return f"{name} seems to have its channels last: {name}.movedim(-1, 1)"


def not_other_layout(xp: Ops, name: str, x: Array) -> None:
    """Reject maps that are one pixel wide but have several channels.

    They are maps with one channel in the layout of the other framework, except for images of a
    single pixel.
    """
    one_wide = x.shape[1 if channels_last(xp) else -1] == 1 and prod(xp.map_shape(x.shape)[1:]) > 1
    if xp.channels(x.shape) > 1 and one_wide:
        raise ValueError(
            f"{name} must have shape {public_layout(xp, 'K')}, got {tuple(x.shape)}; "
            + _layout_repair(xp, name)
        )


def shape(
    name: str,
    x: Array,
    expected: Sequence[int],
    why: str,
    repairs: dict[tuple[int, ...], str] | None = None,
) -> None:
    got, wanted = tuple(x.shape), tuple(expected)
    if got == wanted:
        return
    repairs = {
        **(repairs or {}),
        (*wanted, 1): f"; remove its channel axis: {name}.squeeze(-1)",
        (*wanted[:1], 1, *wanted[1:]): f"; remove its channel axis: {name}.squeeze(1)",
    }
    if wanted[-1:] == (1,):
        repairs[wanted[:-1]] = f"; add its channel axis: {name}[..., None]"
    if wanted[1:2] == (1,):
        repairs[wanted[:1] + wanted[2:]] = f"; add its channel axis: {name}[:, None]"
    raise ValueError(f"{name} must have shape {wanted} {why}, got {got}{repairs.get(got, '')}")


def matches_features(xp: Ops, name: str, x: Array, other: str, array: Array) -> None:
    """Check that `x` is a map ``(N, *spatial)`` for the features `array`, the argument `other`."""
    full = tuple(array.shape)
    other_layout = (full[0], *full[2:]) if channels_last(xp) else full[:-1]
    shape(
        name,
        x,
        xp.map_shape(full),
        f"(N, *spatial) to match {other} of shape {full}",
        {other_layout: "; " + _layout_repair(xp, other)},
    )


def same_shape(name: str, x: Array, other: str, array: Array) -> None:
    """Check that `x` has the shape of `array`, the argument `other`."""
    shape(name, x, tuple(array.shape), f"to match {other}")


def map_per_class(xp: Ops, name: str, x: Array, other: str, array: Array) -> None:
    """Check as `same_shape` does, for a target with one map for each channel of `array`."""
    repairs = {}
    if xp.channels(array.shape) > 1:
        map_shape = tuple(xp.map_shape(array.shape))
        repairs = {
            tuple(xp.stack_shape(map_shape, 1)): "; class numbers: drop that axis; "
            f"one mask: pass only its channel of {other}"
        }
    shape(name, x, tuple(array.shape), f"to match {other}", repairs)


def mask(xp: Ops, x: object, expected: Sequence[int], other: str) -> Array | None:
    """The boolean map of counted pixels; None if all count."""
    if x is None:
        return None
    array = boolean(xp, "mask", x)
    shape("mask", array, expected, f"(N, *spatial) to match {other}")
    return array


def values(
    xp: Ops,
    name: str,
    x: Array,
    wrong: Callable[[Any], Any],
    counted: Array | None,
    expected: str,
    repair: str,
) -> Array:
    """The images ``(N,)`` with a counted value that is `wrong`; their loss becomes NaN.

    If values can be read, the first wrong one raises ValueError. NaN never raises.
    """
    bad = wrong(x) if counted is None else wrong(x) & counted
    offender = xp.first(x, bad)
    if offender is not None:
        where = "" if counted is None else " on counted pixels"
        # As few digits as show what is wrong; 17 digits distinguish all float64 numbers.
        shown = next(
            text
            for text in (f"{offender:.{digits}g}" for digits in (6, 9, 17))
            if wrong(float(text))
        )
        raise ValueError(f"{name} must be {expected}{where}, got {shown}; {repair}")
    return xp.any_per_image(bad)


def label_array(xp: Ops, name: str, x: object) -> Array:
    """Check an argument of labels: floats widened, bools and integers as integers."""
    array = real(xp, name, x, "bool, integer, or floating point with whole values")
    return xp.integers(array) if xp.kind(array) == "bool" else array


def labels(
    xp: Ops,
    x: object,
    mask_argument: object,
    ignore_index: int | None,
    num_regions: int,
    other: str,
    array: Array,
    *,
    name: str = "labels",
    more: str = "raise num_regions",
) -> tuple[Array, Array | None, Array]:
    """Check labels that belong to the features `array`, the argument `other`.

    more: What to do if there are more regions than `num_regions`. Returns the labels as integers
    that can index, the counted pixels or None for all, and the images with a bad label.
    """
    numbers = label_array(xp, name, x)
    matches_features(xp, name, numbers, other, array)
    counted = drop_ignored(xp, ignore_index, numbers, mask(xp, mask_argument, numbers.shape, other))
    numbers, bad = label_values(xp, name, numbers, x, num_regions, counted, more=more)
    return numbers, counted, bad


def drop_ignored(
    xp: Ops, ignore_index: int | None, x: Array, counted: Array | None
) -> Array | None:
    """The `counted` pixels (None for all) except those where `x` equals `ignore_index`."""
    if ignore_index is None:
        return counted
    kept = ~xp.equals(xp.integers(x) if xp.kind(x) == "bool" else x, int(ignore_index))
    return kept if counted is None else kept & counted


def ignore_index(value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(
            "ignore_index must be an integer or None, got " + _shown("ignore_index", value)
        )


def label_values(
    xp: Ops,
    name: str,
    x: Array,
    argument: Array,
    num_regions: int,
    counted: Array | None,
    *,
    more: str = "raise num_regions",
    masks: bool = True,
) -> tuple[Array, Array]:
    """Labels as integers, and the images ``(N,)`` with a counted label outside 0..R−1.

    more: What to do if there are more regions. masks: Whether the function has an argument mask.
    """
    last, whole = num_regions - 1, xp.kind(x) != "float"
    if whole and xp.known_within(x, 0, last):
        return x, xp.no_image(x)
    ignore = f"pixels to ignore: pass ignore_index=255{' or mask=' * masks}"
    repair = (
        f"classes are numbered from 0; {ignore}"
        if name == "target"
        else f"a 0/255 mask: pass {name} > 127; {ignore}; more regions: cas_loss with num_regions"
        if num_regions <= 2
        else f"{more}; {ignore}"
    )
    expected = f"in 0..{last}"
    if whole:
        return x, values(xp, name, x, lambda v: (v < 0) | (v > last), counted, expected, repair)
    # Rounding may have moved labels out of range, see `_values_in_range`.
    near = xp.clip(x, 0, last)
    x = xp.where(xp.abs(x - near) <= 4 * xp.epsilon(argument), near, x)
    bad = values(
        xp,
        name,
        x,
        lambda v: (v < 0) | (v > last) | (v % 1 != 0),
        counted,
        "whole numbers " + expected,
        f"a soft mask: pass {name} > 0.5; {repair}",
    )
    return xp.integers(x), bad


def targets(
    xp: Ops,
    x: object,
    probs: Array,
    mask_argument: object,
    ignore_index: int | None,
    *,
    binary: bool = False,
) -> tuple[Array, Array | None, Array]:
    """Check the target of the argument probs and bring it to the shape ``(N, K, *spatial)``.

    The target may have the shape of probs, be the map of K = 1, or hold class numbers. Returns it
    with the counted pixels ``(N, 1 or K, *spatial)`` or None for all, and the images with a bad
    value.
    """
    spatial, classes = tuple(xp.map_shape(probs.shape)), xp.channels(probs.shape)
    one_map = (spatial[0], 1, *spatial[1:])
    t = real(xp, "target", x)
    if tuple(t.shape) != spatial:
        not_other_layout(xp, "probs", probs)
        map_per_class(xp, "target", t, "probs", probs)
        t = xp.images(t)
    elif classes == 1:
        t = xp.reshape(t, one_map)
    else:
        number, counted, bad = labels(
            xp, x, mask_argument, ignore_index, classes, "probs", probs, name="target"
        )
        if counted is not None:
            counted = xp.reshape(counted, one_map)
        return xp.join([number == k for k in range(classes)]), counted, bad
    return target_values(
        xp, t, x, mask(xp, mask_argument, spatial, "probs"), ignore_index, binary=binary
    )


def target_values(
    xp: Ops,
    t: Array,
    argument: Array,
    counted: Array | None,
    ignore_index: int | None,
    *,
    binary: bool = False,
) -> tuple[Array, Array | None, Array]:
    """As `targets`, for a target ``(N, K, *spatial)`` and the counted pixels ``(N, *spatial)``."""
    if counted is not None:
        counted = xp.reshape(counted, (t.shape[0], 1, *t.shape[2:]))
    counted = drop_ignored(xp, ignore_index, t, counted)
    t, bad = (binary_values if binary else unit_values)(xp, "target", t, argument, counted)
    return t, counted, bad


def unit_values(
    xp: Ops, name: str, x: Array, argument: Array, counted: Array | None = None
) -> tuple[Array, Array]:
    """Check that `x` lies in [0, 1]; returns as `_values_in_range`."""
    repair = (
        "a 0/255 mask: divide by 255; pixels to ignore: pass ignore_index=255 or mask="
        if name == "target"
        else (
            'logits: pass activation="sigmoid" or "softmax"'
            if name == "probs"
            else "logits: apply sigmoid or softmax first"
        )
        + "; a 0/255 map: divide by 255"
    )
    return _values_in_range(xp, name, x, argument, 1, counted, "in [0, 1]", repair)


def binary_values(
    xp: Ops, name: str, x: Array, argument: Array, counted: Array | None
) -> tuple[Array, Array]:
    """Check that `x` is 0 or 1; returns as `_values_in_range`."""
    if xp.kind(x) == "bool":
        return x, xp.no_image(x)
    x, outside = unit_values(xp, name, x, argument, counted)
    bad = values(
        xp,
        name,
        x,
        lambda v: (v != 0) & (v != 1),
        counted,
        "0 or 1 (the measure is defined only for binary targets)",
        f"a soft mask: pass {name} > 0.5",
    )
    return x, bad | outside


def weight_values(xp: Ops, name: str, x: Array, argument: Array) -> tuple[Array, Array]:
    """Check that `x` is non-negative; returns as `_values_in_range`."""
    return _values_in_range(
        xp,
        name,
        x,
        argument,
        float("inf"),
        None,
        "non-negative",
        "logits: apply sigmoid or softmax first",
    )


def two_unit_maps(
    xp: Ops, name: str, first: object, second_name: str, second: object
) -> tuple[Array, Array, Array]:
    """Check two float maps of one shape in [0, 1]; also returns the images with a value outside."""
    x, y = floating(xp, name, first), floating(xp, second_name, second)
    has_images(name, x)
    same_shape(second_name, y, name, x)
    x, bad = unit_values(xp, name, x, first)
    y, second_bad = unit_values(xp, second_name, y, second)
    x, y = xp.promote(x, y)
    return x, y, bad | second_bad


def _values_in_range(
    xp: Ops,
    name: str,
    x: Array,
    argument: Array,
    high: float,
    counted: Array | None,
    expected: str,
    repair: str,
) -> tuple[Array, Array]:
    """`x` in [0, `high`], and the images ``(N,)`` with a counted value outside.

    Sums of probabilities and interpolation round. So values outside by up to four epsilons of the
    dtype of `argument`, the argument before any conversion, become the end of the range, and the
    gradient stays that of `x`.
    """
    if xp.kind(x) == "bool" or xp.known_within(x, 0, high):
        return x, xp.no_image(x)
    # An integer 0 for integers, since JAX can be configured not to promote dtypes.
    slack = 4 * xp.epsilon(argument) or 0

    def outside(v: Array) -> Array:
        return v < -slack if high == float("inf") else (v < -slack) | (v > high + slack)

    bad = values(xp, name, x, outside, counted, expected, repair)
    return clip_straight_through(xp, x, high) if slack else x, bad


def clip_straight_through(xp: Ops, x: Array, high: float) -> Array:
    """Clip rounding errors of `x` to [0, `high`]; the gradient is that of `x`."""
    return x + xp.stop_gradient(xp.clip(x, 0, high) - x)


def nan_where_bad(xp: Ops, x: Array, bad: Array) -> Array:
    """`x` with NaN for the images marked `bad`; the images are on its first axis.

    By `where`, so that the gradient of a bad image is 0 and the network's weights stay finite.
    """
    return xp.where(xp.reshape(bad, (x.shape[0],) + (1,) * (x.ndim - 1)), float("nan"), x)


def reduce(xp: Ops, per_image: Array, how: str) -> Array:
    """The mean or sum of the losses ``(N,)`` over the images, or the losses themselves."""
    if how == "none":
        return per_image
    total = xp.sum_images(per_image)
    return total / max(per_image.shape[0], 1) if how == "mean" else total
