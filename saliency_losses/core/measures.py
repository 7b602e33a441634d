"""Measures of soft maps against binary masks, as the field's evaluation programs define them.

Maps of several channels are measured one by one. `Maps` holds what several measures share.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import hypot, prod
from operator import mul
from typing import Any, NamedTuple

from saliency_losses.core import checks
from saliency_losses.core.fbeta import counted_maps
from saliency_losses.core.fmeasure import of_maps, stretched, without_pixels
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import count_in_dtype, root

LEVELS = 256
"""The number of thresholds 0, 1/255, …, 1 of a curve."""
LEVEL_BY_LEVEL = "levels"
"""Stands for these thresholds."""
TINY = 1e-30
"""A denominator at which a numerator of 0 gives 0."""
# Below float64, 255 · (k/255) may round to less than k. The margin is far below one level and far
# above that rounding. In float64 there is none, so that rounding is as in the field's programs.
MARGIN = 2**-10


def check_options(normalize: bool, activation: str | None, ignore_index: int | None) -> None:
    checks.flag("normalize", normalize)
    checks.activation(activation)
    checks.ignore_index(ignore_index)


class once:
    """`functools.cached_property` without the lock that it takes up to Python 3.11, which
    torch.compile does not support."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute = compute

    def __get__(self, instance: Any, owner: type) -> Any:
        value = self.compute(instance)
        setattr(instance, self.compute.__name__, value)
        return value


class Maps:
    """Maps with their masks, ``(M, *spatial)`` with M = N · K, and what several measures share."""

    def __init__(
        self,
        xp: Ops,
        probs: Array,
        target: Array,
        normalize: bool,
        activation: str | None,
        ignore_index: int | None,
        mask: Array,
    ) -> None:
        check_options(normalize, activation, ignore_index)
        p, y, counted, bad = counted_maps(
            xp, probs, target, activation, ignore_index, mask, binary=True
        )
        if 0 in p.shape[2:]:
            raise ValueError(
                f"probs must have at least one pixel per image, got shape {tuple(probs.shape)}"
            )
        if normalize and p.shape[0]:
            p = stretched(xp, p, counted)
        self.xp, self.images, self.channels = xp, p.shape[0], p.shape[1]
        each_map = (self.images * self.channels, *p.shape[2:])
        self.p = xp.reshape(p, each_map)
        self.object = xp.reshape(y, each_map)
        # The other operand, which holds everywhere, gives the pixels of (N, 1, …) to every channel.
        self.counted = None if counted is None else xp.reshape(counted & (y | ~y), each_map)
        # Thresholds would turn a NaN into background.
        lost = xp.reshape(xp.isnan(self.total), (self.images, self.channels))
        self.bad = bad | xp.any_per_image(lost) | without_pixels(xp, p, counted)
        self.counted_at: dict[tuple[float | str, ...], tuple[Array, Array]] = {}

    def sum(self, values: Array) -> Array:
        """The sum over the pixels of each map, ``(M,)``."""
        return self.xp.sum_pixels(self.xp.flat(values))

    def count(self, region: Array) -> Array:
        """The number of True pixels of each map, in the dtype of the maps."""
        return count_in_dtype(self.xp, self.xp.flat(region), self.p)

    def among_counted(self, region: Array) -> Array:
        return region if self.counted is None else region & self.counted

    def per_map(self, values: Array) -> Array:
        """Values ``(M,)``, to broadcast over the pixels."""
        return self.xp.reshape(values, (values.shape[0],) + (1,) * (self.p.ndim - 1))

    # Sums over a region multiply by its 0/1 indicator: `where` is 20 times slower on a CPU.

    @once
    def y(self) -> Array:
        """1 in the object."""
        return self.xp.cast(self.object, self.p)

    @once
    def background(self) -> Array:
        """1 in the counted background."""
        if self.counted is None:
            return 1 - self.y
        return self.xp.cast(self.counted, self.p) - self.y

    @once
    def total(self) -> Array:
        """The sum of the map."""
        return self.sum(self.p)

    @once
    def error(self) -> Array:
        """|p − y|."""
        return self.xp.abs(self.p - self.y)

    # Exact, since a class without pixels has rules of its own.

    @once
    def object_count(self) -> Array:
        return self.xp.count(self.xp.flat(self.object))

    @once
    def positives(self) -> Array:
        return self.xp.cast(self.object_count, self.p)

    @once
    def negatives(self) -> Array:
        if self.counted is None:
            pixels = prod(self.p.shape[1:])
        else:
            pixels = self.xp.count(self.xp.flat(self.counted))
        return self.xp.cast(pixels - self.object_count, self.p)

    @once
    def pixels(self) -> Array:
        """The number of counted pixels."""
        return self.positives + self.negatives

    @once
    def divisor(self) -> Array:
        """The number of counted pixels, at least 1."""
        return self.xp.maximum(self.pixels, 1.0)

    def threshold(self, threshold: float | str) -> Any:
        if threshold != "adaptive":
            return threshold
        return self.per_map(self.xp.clip(2 * self.total / self.divisor, 0, 1))

    def selected(self, threshold: float | str) -> Array:
        """The counted pixels whose value is at least the threshold."""
        return self.among_counted(self.p >= self.threshold(threshold))

    def counts_at(self, thresholds: Iterable[float | str]) -> tuple[Array, Array]:
        """The counts at several thresholds, one beside the other, computed once."""
        each = tuple(thresholds)
        if each not in self.counted_at:
            found = [self.counts_by_level if t == LEVEL_BY_LEVEL else self.counts(t) for t in each]
            hits, alarms = zip(*found, strict=True)
            self.counted_at[each] = self.xp.concatenate(hits), self.xp.concatenate(alarms)
        return self.counted_at[each]

    def counts(self, threshold: float | str) -> tuple[Array, Array]:
        """The numbers of hits and of false alarms at a threshold, ``(M, 1)``."""
        selected = self.xp.at_least(self.p, self.threshold(threshold))
        hits, alarms = self.sum(selected * self.y), self.sum(selected * self.background)
        return hits[:, None], alarms[:, None]

    @once
    def counts_by_level(self) -> tuple[Array, Array]:
        """The numbers of hits and of false alarms at the 256 thresholds, ``(M, 256)``."""
        xp = self.xp
        margin = MARGIN if xp.epsilon(self.p) > MARGIN**4 else 0.0
        most = 2 * LEVELS
        level = xp.integers_to(255 * self.p + margin, most)
        level = xp.clip(level, 0, 255)  # A NaN becomes any level.
        place = level + LEVELS * xp.integers_to(self.object, most)
        at_level = xp.histogram(xp.flat(place), most)
        # The levels of the background precede those of the object.
        below = xp.cumulative_count(at_level) - at_level
        hits = xp.cast(prod(self.p.shape[1:]) - below[:, LEVELS:], self.p)
        alarms = xp.cast(below[:, LEVELS : LEVELS + 1] - below[:, :LEVELS], self.p)
        if self.counted is not None:  # The ignored pixels are background of level 0.
            alarms = xp.minimum(alarms, self.negatives[:, None])
        return hits, alarms

    def reduce(self, values: Array, reduction: str) -> Array:
        """Values ``(M,)`` or ``(M, T)``: the mean over the maps of an image, then `reduction`."""
        xp = self.xp
        if self.channels > 1:
            each = xp.reshape(values, (self.images, self.channels, *values.shape[1:]))
            values = xp.sum_vector(each) / self.channels
        per_image = checks.nan_where_bad(xp, values, self.bad)
        if reduction == "none":
            return per_image
        total = xp.sum_vector(per_image[None])[0]
        return total / max(self.images, 1) if reduction == "mean" else total


def measured(
    xp: Ops,
    probs: Array,
    target: Array,
    measure: Callable[[Maps], Array | tuple[Array, ...]],
    normalize: bool,
    activation: str | None,
    ignore_index: int | None,
    mask: Array,
    reduction: str,
) -> Array:
    """A measure of all maps, averaged over the maps of each image and reduced over the images."""
    checks.reduction(reduction)
    maps = Maps(xp, probs, target, normalize, activation, ignore_index, mask)
    values = measure(maps)
    if isinstance(values, tuple):
        return tuple(maps.reduce(part, reduction) for part in values)
    return maps.reduce(values, reduction)


def check_threshold(threshold: Any) -> None:
    if isinstance(threshold, str):
        if threshold != "adaptive":
            raise ValueError(f'threshold must be "adaptive" or a number, got {threshold!r}')
    else:
        checks.number("threshold", threshold, 0, 1)


def absolute_error(maps: Maps) -> Array:
    """The mean of |p − y|."""
    return maps.sum(maps.error) / maps.divisor


# Measures of binary maps, from counts ``(M, T)`` at T thresholds ----------------------------------

Counts = tuple[Array, Array]
"""The numbers of hits and of false alarms."""


def precision_recall(maps: Maps, counts: Counts) -> tuple[Array, Array]:
    hits, alarms = counts
    precision = hits / maps.xp.maximum(hits + alarms, 1.0)
    return precision, hits / maps.xp.maximum(maps.positives[:, None], 1.0)


def f_measure(maps: Maps, counts: Counts, beta: Any) -> Array:
    """(1 + β²) P R / (β² P + R) = (1 + β²) TP / (β² |Y| + TP + FP); 0 without hits."""
    hits, alarms = counts
    beta = checks.as_scalar(maps.xp, beta, hits)
    denominator = beta**2 * maps.positives[:, None] + hits + alarms
    return (1 + beta**2) * hits / maps.xp.maximum(denominator, TINY)


def intersection_over_union(maps: Maps, counts: Counts) -> Array:
    """TP / (|Y| + FP); 1 if both sets are empty."""
    hits, alarms = counts
    return _ratio(maps.xp, hits, maps.positives[:, None] + alarms, 1.0)


def dice_coefficient(maps: Maps, counts: Counts) -> Array:
    """2 TP / (|Y| + TP + FP); 1 if both sets are empty."""
    hits, alarms = counts
    return _ratio(maps.xp, 2 * hits, maps.positives[:, None] + hits + alarms, 1.0)


def e_measure(maps: Maps, counts: Counts) -> Array:
    """The mean of (1 + 2ab / (a² + b²))² / 4, where a and b are map and mask minus their means.

    With only one class in the mask, the share of pixels that have it. The sum is divided by one
    less than the number of pixels, as in the authors' program.
    """
    xp = maps.xp
    hits, alarms = counts
    positives, negatives = maps.positives[:, None], maps.negatives[:, None]
    misses, rejected, divisor = positives - hits, negatives - alarms, maps.divisor[:, None]
    # a and b at hits, false alarms, misses and rejected pixels
    low = -(hits + alarms) / divisor
    high = 1 + low
    a = xp.join([high, high, low, low])
    low = -positives / divisor
    high = 1 + low
    b = xp.join([high, low, high, low])
    # 1 + 2ab / (a² + b²) = (a + b)² / (a² + b²); b is not 0 where both classes occur.
    aligned = (a + b) ** 2 / xp.maximum(a * a + b * b, TINY)
    mixed = xp.sum_vector(xp.join([hits, alarms, misses, rejected]) * aligned**2) / 4
    empty = positives == 0
    one_class = xp.where(empty, rejected, hits)
    total = xp.where(empty | (negatives == 0), one_class, mixed)
    return total / xp.maximum(maps.pixels[:, None] - 1, 1.0)


def roc_area(maps: Maps) -> Array:
    """The share of pairs of an object and a background pixel that are in order; ties count half."""
    xp = maps.xp
    hits, alarms = maps.counts_by_level
    # Per level: its share of the object, and the share of the background that is lower.
    above = xp.maximum(maps.positives, 1.0)[:, None], xp.maximum(maps.negatives, 1.0)[:, None]
    hits, alarms = hits / above[0], alarms / above[1]
    share = hits[:, :-1] - hits[:, 1:]
    lower = 1 - (alarms[:, :-1] + alarms[:, 1:]) / 2
    area = xp.sum_vector(share * lower) + hits[:, -1] * (1 - alarms[:, -1] / 2)
    return xp.where((maps.positives > 0) & (maps.negatives > 0), area, float("nan"))


def _ratio(xp: Ops, numerator: Array, denominator: Array, otherwise: float) -> Array:
    """The quotient, and `otherwise` where the denominator is 0."""
    zero = denominator == 0
    return xp.where(zero, otherwise, numerator / xp.where(zero, 1.0, denominator))


# Structure ----------------------------------------------------------------------------------------


def two_axes(maps: Maps, name: str) -> None:
    if maps.p.ndim != 3:
        raise ValueError(
            f"{name} is defined for images of two spatial axes, got {maps.p.ndim - 1}; measure a "
            "volume slice by slice"
        )


def structure(maps: Maps, alpha: float) -> Array:
    """S = α · object part + (1 − α) · region part, at least 0."""
    two_axes(maps, "smeasure")
    xp = maps.xp
    cells = _cells(maps)
    score = alpha * _object_part(maps, cells) + (1 - alpha) * _region_part(maps, cells)
    mean, empty = maps.total / maps.divisor, maps.positives == 0
    one_class = xp.where(empty, 1 - mean, mean)
    return xp.where(empty | (maps.negatives == 0), one_class, xp.maximum(score, 0.0))


class Cells(NamedTuple):
    """Of object and background in the four parts around the object's centre, ``(M, 2, 4)``.

    Axis 1: upper and lower. Axis 2: object and background on the left, then on the right.
    """

    size: Array
    total: Array
    mean: Array
    squares: Array
    """The sum of (p − mean)²."""


def _cells(maps: Maps) -> Cells:
    xp, p = maps.xp, maps.p
    count, rows = p.shape[:2]
    # The row and the column of the centre belong to the upper left part.
    upper, left = _up_to_centre(maps)
    of_object, of_background, (on_left, on_right) = (
        xp.split_columns(x, left) for x in (maps.y, maps.background, p)
    )
    regions = of_object[0], of_background[0], of_object[1], of_background[1]
    values = on_left, on_left, on_right, on_right
    upper = xp.cast(upper, p)[:, None]

    def sums(parts: Iterable[Array]) -> Array:
        sides = [xp.sum_pixels(xp.reshape(x, (count * rows, x.shape[2]))) for x in parts]
        of_rows = xp.join([xp.reshape(side, (count, rows)) for side in sides])
        of_upper = of_rows * upper
        halves = [xp.reshape(x, (count * 4, rows)) for x in (of_upper, of_rows - of_upper)]
        return xp.join([xp.reshape(xp.sum_pixels(half), (count, 4)) for half in halves])

    size, total = sums(regions), sums(map(mul, values, regions))
    mean = total / xp.maximum(size, 1.0)
    of_rows = upper * mean[:, 0, :, None] + (1 - upper) * mean[:, 1, :, None]
    rest = (x - of_rows[:, k, :, None] for k, x in enumerate(values))
    squares = sums(x * x * region for x, region in zip(rest, regions, strict=True))
    return Cells(size, total, mean, squares)


def _object_part(maps: Maps, cells: Cells) -> Array:
    """2 m / (m² + 1 + s) of each class with its mean m and deviation s, by the size of the class.

    For the background, m and s are those of 1 − p.
    """
    xp = maps.xp

    def of_class(x: Array) -> Array:
        x = xp.sum_vector(x)
        return x[:, :2] + x[:, 2:]

    size = of_class(cells.size)
    mean = of_class(cells.total) / xp.maximum(size, 1.0)
    apart = cells.mean - xp.concatenate([mean, mean])[:, None]
    squares = of_class(cells.squares + cells.size * apart * apart)
    squares = _above_rounding(xp, squares, size, mean)
    deviation = root(xp, squares / xp.maximum(size - 1, 1.0))
    mean = xp.join([mean[:, 0], 1 - mean[:, 1]])
    return xp.sum_vector(2 * size * mean / (mean * mean + 1 + deviation)) / maps.divisor


def _region_part(maps: Maps, cells: Cells) -> Array:
    """The structural similarity of the four parts around the object's centre, by their sizes."""
    xp = maps.xp
    of_object, of_background = (Cells(*(x[:, :, k::2] for x in cells)) for k in (0, 1))
    size = of_object.size + of_background.size
    divisor = xp.maximum(size, 1.0)
    p_mean, y_mean = (of_object.total + of_background.total) / divisor, of_object.size / divisor
    # Sums stand for variances, as their common divisor cancels.
    y_squares, apart = y_mean * of_background.size, of_object.mean - of_background.mean
    covariance = y_squares * apart
    p_squares = of_object.squares + of_background.squares + covariance * apart
    p_squares = _above_rounding(xp, p_squares, size, p_mean)
    numerator = 4 * p_mean * y_mean * covariance
    denominator = (p_mean * p_mean + y_mean * y_mean) * (p_squares + y_squares)
    similarity = size * _ratio(xp, numerator, denominator, 1.0)
    return xp.sum_vector(xp.sum_vector(similarity)) / maps.divisor


def _above_rounding(xp: Ops, squares: Array, size: Array, mean: Array) -> Array:
    """Sums of squared deviations from means, 0 where the rounding of the mean explains them."""
    return xp.where(squares <= size * (4 * xp.epsilon(mean) * mean) ** 2, 0.0, squares)


def _up_to_centre(maps: Maps) -> tuple[Array, Array]:
    """Which rows lie up to the object's centre, bools ``(M, H)``, and how many columns, ``(M,)``.

    The centre is the mean index, rounded, halves to the even number.
    """
    xp = maps.xp
    count, rows, columns = maps.p.shape
    # Sums of a row or a column of 0 and 1 are exact.
    of_rows = xp.reshape(xp.sum_pixels(xp.reshape(maps.y, (count * rows, columns))), (count, rows))
    size, divisor = maps.object_count[:, None], xp.maximum(maps.positives, 1.0)
    half, up_to = 2 * size + 1, []
    for sums in (of_rows, xp.sum_vector(maps.y)):
        pixels = xp.integers(sums)
        place = xp.positions(pixels, 1)
        mean = xp.sum_pixels(xp.cast(place, sums) * sums) / divisor
        offset = place - xp.integers(mean + 0.5)[:, None]
        # A symmetric object has its mean on a half, so the rounding must be exact. The excess of
        # twice the mean over an index is an integer, in whose sum any overflow cancels; two or more
        # away from the centre its sign stays the same.
        excess = xp.sum_vector(offset * pixels)[:, None] - xp.clip(offset, -2, 2) * size
        up_to.append(4 * excess + half > place % 2)
    return up_to[0], xp.count(up_to[1])


# Boundaries ---------------------------------------------------------------------------------------


def boundary_iou(maps: Maps, threshold: float | str, width: float) -> Array:
    """The intersection over union of the inner bands of map and mask; 1 if both are empty."""
    two_axes(maps, "boundary_iou")
    reach = max(1, round(width * hypot(*maps.p.shape[1:])))
    of_mask, of_map = (
        _inner_band(maps.xp, x, reach) for x in (maps.object, maps.selected(threshold))
    )
    both, either = maps.count(of_mask & of_map), maps.count(of_mask | of_map)
    return _ratio(maps.xp, both, either, 1.0)


def boundary_accuracy(maps: Maps, threshold: float | str) -> Array:
    """The share of right pixels near the mask's boundary, the mean over five widths of the band.

    Without a boundary, the share of all pixels.
    """
    two_axes(maps, "boundary_accuracy")
    xp = maps.xp
    right = maps.among_counted(maps.selected(threshold) == maps.object)
    everywhere = maps.count(right) / xp.maximum(maps.pixels, 1.0)
    total: Array = 0.0
    widest = sum(maps.p.shape[1:]) / 300
    for step in range(5):
        radius = 1 + int((widest - 1) / 5 * step)
        near = maps.among_counted(
            _disk_spread(xp, maps.object, radius) & _disk_spread(xp, ~maps.object, radius)
        )
        size = maps.count(near)
        share = maps.count(right & near) / xp.maximum(size, 1.0)
        total = total + xp.where(size > 0, share, everywhere) / 5
    return total


def _inner_band(xp: Ops, region: Array, reach: int) -> Array:
    """The pixels of a region at most `reach` rows or columns from one outside it, as the image's
    outside is."""
    outside = xp.integers_to(~region, 1)
    for axis in (1, 2):
        outside = _spread(xp, outside, axis, reach, 1)
    return region & (outside > 0)


def _disk_spread(xp: Ops, region: Array, radius: int) -> Array:
    """The pixels whose disk of this radius, drawn row by row as OpenCV does, meets the region."""
    x = xp.integers_to(region, 1)
    rows = {0: x}
    spread = x * 0
    for up in range(radius + 1):
        width = round((radius**2 - up**2) ** 0.5)
        if width not in rows:
            rows[width] = _spread(xp, x, 2, width, 0)
        shifted = xp.shifts(rows[width], 1, up, 0)
        spread = spread | shifted[0] | shifted[-1]
    return spread > 0


def _spread(xp: Ops, x: Array, axis: int, reach: int, outside: int) -> Array:
    """The maximum of 0 and 1 within `reach` pixels along `axis`, with `outside` beyond the edge."""
    done = 0
    while done < reach:
        step = min(done + 1, reach - done)
        shifted = xp.shifts(x, axis, step, outside)
        x = shifted[0] | x | shifted[-1]
        done += step
    return x


# Several measures together ------------------------------------------------------------------------

BETA = 0.3**0.5
_f = partial(f_measure, beta=BETA)
FROM_COUNTS: dict[str, tuple[Callable[[Maps, Counts], Array], float | str]] = {
    "f": (_f, "adaptive"),
    "e": (e_measure, "adaptive"),
    "iou": (intersection_over_union, 0.5),
    "dice": (dice_coefficient, 0.5),
    "f_curve": (_f, LEVEL_BY_LEVEL),
    "e_curve": (e_measure, LEVEL_BY_LEVEL),
    "precision_curve": (lambda *x: precision_recall(*x)[0], LEVEL_BY_LEVEL),
    "recall_curve": (lambda *x: precision_recall(*x)[1], LEVEL_BY_LEVEL),
}
"""Measures of binary maps, and their thresholds."""
CURVES = tuple(n for n, (_, threshold) in FROM_COUNTS.items() if threshold == LEVEL_BY_LEVEL)
OTHERS: dict[str, Callable[[Maps], Array]] = {
    "mae": absolute_error,
    "weighted_f": lambda maps: of_maps(maps.xp, maps.error, maps.y, maps.object, 1.0),
    "s": lambda maps: structure(maps, 0.5),
    "boundary_iou": lambda maps: boundary_iou(maps, 0.5, 0.02),
    "boundary_accuracy": lambda maps: boundary_accuracy(maps, 0.5),
    "auroc": roc_area,
}
OF_AN_IMAGE = (
    *("mae", "f", "weighted_f", "s", "e", "iou", "dice", "boundary_iou", "boundary_accuracy"),
    *("auroc", "f_curve", "e_curve", "precision_curve", "recall_curve"),
)

OF_CURVES = {
    "max_f": ("f_curve", "max"),
    "mean_f": ("f_curve", "mean"),
    "max_e": ("e_curve", "max"),
    "mean_e": ("e_curve", "mean"),
}
# An image without an area under the curve would leave the whole set without one.
NAMES = (*(n for n in OF_AN_IMAGE if n not in ("auroc", *CURVES)), *OF_CURVES)
"""The measures of a data set."""


def check_names(names: Any, known: tuple[str, ...] = NAMES) -> tuple[str, ...]:
    found = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ()
    if not found or not all(name in known for name in found):
        shown = found or names
        raise ValueError(
            f"names must be one or more of {', '.join(known)}, got {shown!r}; pass a tuple of names"
        )
    return found


def saliency_measures(
    xp: Ops,
    probs: Array,
    target: Array,
    *,
    names: Any,
    normalize: bool,
    activation: str | None,
    ignore_index: int | None,
    mask: Array = None,
    reduction: str = "none",
) -> dict[str, Array]:
    """Several measures by name, a number or a curve for each image, reduced over the images."""
    names = check_names(names, OF_AN_IMAGE)
    checks.reduction(reduction)
    maps = Maps(xp, probs, target, normalize, activation, ignore_index, mask)
    results = _from_counts(maps, [n for n in names if n in FROM_COUNTS], reduction)
    others = [n for n in names if n in OTHERS]
    if others:
        values = maps.reduce(xp.join([OTHERS[n](maps) for n in others]), reduction)
        results |= {name: values[..., place] for place, name in enumerate(others)}
    return {name: results[name] for name in names}


def _from_counts(maps: Maps, names: Sequence[str], reduction: str) -> dict[str, Array]:
    """Measures of binary maps, each computed at once for all its thresholds."""
    thresholds: dict[Callable[[Maps, Counts], Array], list[str]] = {}
    for name in names:
        thresholds.setdefault(FROM_COUNTS[name][0], []).append(name)
    results = {}
    for measure, asked in thresholds.items():
        counts = maps.counts_at(FROM_COUNTS[name][1] for name in asked)
        values, start = maps.reduce(measure(maps, counts), reduction), 0
        for name in asked:
            if name in CURVES:
                results[name] = values[..., start : start + LEVELS]
                start += LEVELS
            else:
                results[name] = values[..., start]
                start += 1
    return results


def parts_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """What these measures of a data set need of each image."""
    return tuple(dict.fromkeys(OF_CURVES[n][0] if n in OF_CURVES else n for n in names))


def results(names: tuple[str, ...], means: dict[str, Array]) -> dict[str, Array]:
    """The measures of a data set from the means over its images."""

    def result(name: str) -> Array:
        if name not in OF_CURVES:
            return means[name]
        part, how = OF_CURVES[name]
        return means[part].max() if how == "max" else means[part].mean()

    return {name: result(name) for name in names}


# Sums over images ---------------------------------------------------------------------------------


def ignored_images(xp: Ops, target: Array, ignore_index: int | None) -> Array:
    """The images ``(N,)`` without a counted pixel."""
    target = xp.array("target", target)
    kept = checks.drop_ignored(xp, ignore_index, target, None)
    return xp.no_image(target) if kept is None else ~xp.any_per_image(kept)


def added(state: Array, value: Array) -> tuple[Array, Array]:
    """A sum of many images with one more value: the sum, and what its rounding has lost.

    Added plainly in float32, 100,000 images of 0.1 have a mean that is off by 1e-5.
    """
    total, lost = state
    rounded = total + value
    part = rounded - total
    lost = lost + ((total - (rounded - part)) + (value - part))
    new = rounded + lost
    return new, lost - (new - rounded)
