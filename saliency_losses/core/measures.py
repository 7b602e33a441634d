"""Measures of soft maps against binary masks, as the field's evaluation programs define them.

Maps of several channels are measured one by one. `Maps` holds what several measures share.
"""

from collections.abc import Callable
from functools import cached_property
from math import hypot
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.fbeta import counted_maps
from saliency_losses.core.fmeasure import of_maps, stretched
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import count_in_dtype, root

LEVELS = 256
"""The number of thresholds 0, 1/255, …, 1 of a curve."""
# Below float64, 255 · (k/255) may round to less than k. The margin is far below one level and far
# above that rounding. In float64 there is none, so that rounding is as in the field's programs.
MARGIN = 2**-10


def check_options(normalize: bool, activation: str | None, ignore_index: int | None) -> None:
    checks.flag("normalize", normalize)
    checks.activation(activation)
    checks.ignore_index(ignore_index)


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
        # Thresholds would turn a NaN into background.
        self.bad = bad | xp.any_per_image(xp.isnan(p))
        each_map = (self.images * self.channels, *p.shape[2:])
        self.p = xp.reshape(p, each_map)
        self.object = xp.reshape(y == 1, each_map)
        # The comparison, which holds everywhere, gives the pixels of (N, 1, …) to every channel.
        self.counted = None if counted is None else xp.reshape(counted & (y >= 0), each_map)

    def count(self, region: Array) -> Array:
        """The number of True pixels of each map, in the dtype of the maps."""
        return count_in_dtype(self.xp, self.xp.flat(region), self.p)

    def among_counted(self, region: Array) -> Array:
        return region if self.counted is None else region & self.counted

    def per_map(self, values: Array) -> Array:
        """Values ``(M,)``, to broadcast over the pixels."""
        return self.xp.reshape(values, (values.shape[0],) + (1,) * (self.p.ndim - 1))

    # Sums over a region multiply by its 0/1 indicator: `where` is 40 times slower on a CPU.

    @cached_property
    def y(self) -> Array:
        """1 in the object."""
        return self.xp.cast(self.object, self.p)

    @cached_property
    def background(self) -> Array:
        """1 in the counted background."""
        return self.xp.cast(self.among_counted(~self.object), self.p)

    @cached_property
    def positives(self) -> Array:
        return self.count(self.object)

    @cached_property
    def negatives(self) -> Array:
        return self.count(self.among_counted(~self.object))

    @property
    def pixels(self) -> Array:
        """The number of counted pixels."""
        return self.positives + self.negatives

    def mean_over(self, values: Array, region: Array, size: Array) -> Array:
        """The mean over the `size` pixels where `region` is 1, not 0; 0 for an empty region."""
        return self.xp.sum_pixels(self.xp.flat(values * region)) / self.xp.maximum(size, 1.0)

    def selected(self, threshold: float | str) -> Array:
        """The counted pixels whose value is at least the threshold."""
        if threshold != "adaptive":
            return self.among_counted(self.p >= threshold)
        xp = self.xp
        mean = xp.sum_pixels(xp.flat(self.p)) / xp.maximum(self.pixels, 1.0)
        return self.among_counted(self.p >= self.per_map(xp.clip(2 * mean, 0, 1)))

    @cached_property
    def adaptive_counts(self) -> tuple[Array, Array]:
        return self.counts("adaptive")

    @cached_property
    def counts_at_half(self) -> tuple[Array, Array]:
        return self.counts(0.5)

    def counts(self, threshold: float | str) -> tuple[Array, Array]:
        """The numbers of hits and of false alarms at a threshold, ``(M, 1)``."""
        selected = self.selected(threshold)
        hits = self.count(selected & self.object)
        return hits[:, None], (self.count(selected) - hits)[:, None]

    @cached_property
    def counts_by_level(self) -> tuple[Array, Array]:
        """The numbers of hits and of false alarms at the 256 thresholds, ``(M, 256)``."""
        xp = self.xp
        margin = MARGIN if xp.epsilon(self.p) > MARGIN**4 else 0.0
        level = xp.clip(xp.integers(255 * self.p + margin), 0, 255)  # A NaN becomes any level.
        place = level + LEVELS * xp.integers(self.object)
        if self.counted is not None:
            place = xp.where(self.counted, place, 2 * LEVELS)
        histogram = xp.histogram(xp.flat(place), 2 * LEVELS + 1)

        def at_least(at_level: Array) -> Array:
            below = xp.cumulative_count(at_level) - at_level
            return xp.cast(xp.sum_vector(at_level)[:, None] - below, self.p)

        return at_least(histogram[:, LEVELS : 2 * LEVELS]), at_least(histogram[:, :LEVELS])

    def reduce(self, values: Array, reduction: str) -> Array:
        """Values ``(M,)`` or ``(M, T)``: the mean over the maps of an image, then `reduction`."""
        xp = self.xp
        per_image = sum(values[k :: self.channels] / self.channels for k in range(self.channels))
        per_image = checks.nan_where_bad(xp, per_image, self.bad)
        if reduction == "none":
            return per_image
        total = xp.sum_vector(xp.reshape(per_image, (1, *per_image.shape)))[0]
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
    xp = maps.xp
    error = xp.abs(maps.p - maps.y)
    return xp.sum_pixels(xp.flat(error)) / xp.maximum(maps.pixels, 1.0)


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
    return _ratio(maps.xp, (1 + beta**2) * hits, denominator, 0.0)


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
    pixels = positives + negatives
    misses, rejected = positives - hits, negatives - alarms
    map_mean = (hits + alarms) / xp.maximum(pixels, 1.0)
    mask_mean = positives / xp.maximum(pixels, 1.0)

    def part(size: Array, a: Array, b: Array) -> Array:
        return size * (1 + _ratio(xp, 2 * a * b, a * a + b * b, 0.0)) ** 2 / 4

    mixed = (
        part(hits, 1 - map_mean, 1 - mask_mean)
        + part(alarms, 1 - map_mean, -mask_mean)
        + part(misses, -map_mean, 1 - mask_mean)
        + part(rejected, -map_mean, -mask_mean)
    )
    one_class = xp.where(positives == 0, rejected, hits)
    total = xp.where((positives == 0) | (negatives == 0), one_class, mixed)
    return total / xp.maximum(pixels - 1, 1.0)


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
    score = alpha * _object_part(maps) + (1 - alpha) * _region_part(maps)
    mean = xp.sum_pixels(xp.flat(maps.p)) / xp.maximum(maps.pixels, 1.0)
    one_class = xp.where(maps.positives == 0, 1 - mean, mean)
    return xp.where(
        (maps.positives == 0) | (maps.negatives == 0), one_class, xp.maximum(score, 0.0)
    )


def _object_part(maps: Maps) -> Array:
    """2 m / (m² + 1 + s) of each class with its mean m and deviation s, by the size of the class.

    For the background, m and s are those of 1 − p.
    """
    xp = maps.xp
    mean = maps.mean_over(maps.p, maps.y, maps.positives)
    background_mean = maps.mean_over(maps.p, maps.background, maps.negatives)
    residual = maps.p - (maps.per_map(mean) * maps.y + maps.per_map(background_mean) * (1 - maps.y))
    squares = residual * residual
    total: Array = 0.0
    for region, size, m in (
        (maps.y, maps.positives, mean),
        (maps.background, maps.negatives, 1 - background_mean),
    ):
        variance = maps.mean_over(squares, region, size) * size / xp.maximum(size - 1, 1.0)
        total = total + size * 2 * m / (m * m + 1 + root(xp, variance))
    return total / xp.maximum(maps.pixels, 1.0)


def _region_part(maps: Maps) -> Array:
    """The structural similarity of the four parts around the object's centre, by their sizes."""
    xp, y = maps.xp, maps.y
    count, rows, columns = y.shape
    # The row and the column of the centre belong to the upper left part.
    upper, left = (xp.cast(x, y) for x in _up_to_centre(maps))
    left = xp.reshape(left, (count, 1, columns))

    def sums(x: Array) -> list[Array]:
        """The sums over the upper left, upper right, lower left and lower right part, ``(M,)``."""
        lefts, rights = (
            xp.reshape(xp.sum_pixels(xp.reshape(x * side, (count * rows, columns))), (count, rows))
            for side in (left, 1 - left)
        )
        return [
            xp.sum_pixels(of_rows * side)
            for side in (upper, 1 - upper)
            for of_rows in (lefts, rights)
        ]

    counted = y + maps.background
    sizes, p_sums, y_sums = sums(counted), sums(maps.p), sums(y)
    divisors = [xp.maximum(size, 1.0) for size in sizes]
    p_means = [total / size for total, size in zip(p_sums, divisors, strict=True)]
    y_means = [total / size for total, size in zip(y_sums, divisors, strict=True)]
    # The mean of each pixel's part: by rows for either side, and then by columns.
    by_row = [
        xp.reshape(
            upper * p_means[side][:, None] + (1 - upper) * p_means[2 + side][:, None],
            (count, rows, 1),
        )
        for side in (0, 1)
    ]
    rest = (maps.p - (by_row[0] * left + by_row[1] * (1 - left))) * counted
    total: Array = 0.0
    for size, x, y_mean, rest_sum, squares, product in zip(
        sizes, p_means, y_means, sums(rest), sums(rest * rest), sums(rest * y), strict=True
    ):
        # Sums stand for variances, as their common divisor cancels. The sum of `rest` is rounding
        # error, with which the covariance is exactly 0 where the mask is constant.
        covariance = product - y_mean * rest_sum
        y_squares = size * y_mean * (1 - y_mean)
        # The mean of equal values is rounded too; that must not make a variance.
        squares = xp.where(squares <= size * (4 * xp.epsilon(x) * x) ** 2, 0.0, squares)
        numerator = 4 * x * y_mean * covariance
        denominator = (x * x + y_mean * y_mean) * (squares + y_squares)
        total = total + size * _ratio(xp, numerator, denominator, 1.0)
    return total / xp.maximum(maps.pixels, 1.0)


def _up_to_centre(maps: Maps) -> tuple[Array, Array]:
    """The rows ``(M, H)`` and the columns ``(M, W)`` up to the object's centre, bools.

    The centre is the mean index, rounded, halves to the even number.
    """
    xp = maps.xp
    count, rows, columns = maps.object.shape
    of_rows = xp.reshape(xp.count(xp.reshape(maps.object, (count * rows, columns))), (count, rows))
    of_columns = xp.sum_vector(xp.integers(maps.object))
    up_to = []
    for pixels in (of_rows, of_columns):
        place = xp.positions(pixels, 1)
        mean = xp.sum_pixels(xp.cast(place, maps.p) * xp.cast(pixels, maps.p)) / xp.maximum(
            maps.positives, 1.0
        )
        near = xp.integers(mean + 0.5)
        # A symmetric object has its mean on a half, so the rounding must be exact. The remainder is
        # an integer, in whose sum any overflow cancels.
        twice = 2 * xp.sum_vector((place - near[:, None]) * pixels)
        size, odd = xp.sum_vector(pixels), near % 2 == 1
        up = (twice > size) | ((twice == size) & odd)
        down = (twice < -size) | ((twice == -size) & odd)
        centre = xp.where(up, near + 1, xp.where(down, near - 1, near))
        up_to.append(place <= centre[:, None])
    return up_to[0], up_to[1]


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
CURVES: dict[str, Callable[[Maps], Array]] = {
    "f_curve": lambda maps: f_measure(maps, maps.counts_by_level, BETA),
    "e_curve": lambda maps: e_measure(maps, maps.counts_by_level),
    "precision_curve": lambda maps: precision_recall(maps, maps.counts_by_level)[0],
    "recall_curve": lambda maps: precision_recall(maps, maps.counts_by_level)[1],
}
VALUES: dict[str, Callable[[Maps], Array]] = {
    "mae": absolute_error,
    "f": lambda maps: f_measure(maps, maps.adaptive_counts, BETA)[:, 0],
    "weighted_f": lambda maps: of_maps(maps.xp, maps.p, maps.object, 1.0),
    "s": lambda maps: structure(maps, 0.5),
    "e": lambda maps: e_measure(maps, maps.adaptive_counts)[:, 0],
    "iou": lambda maps: intersection_over_union(maps, maps.counts_at_half)[:, 0],
    "dice": lambda maps: dice_coefficient(maps, maps.counts_at_half)[:, 0],
    "boundary_iou": lambda maps: boundary_iou(maps, 0.5, 0.02),
    "boundary_accuracy": lambda maps: boundary_accuracy(maps, 0.5),
    "auroc": roc_area,
}
OF_AN_IMAGE = (*VALUES, *CURVES)

OF_CURVES = {
    "max_f": ("f_curve", "max"),
    "mean_f": ("f_curve", "mean"),
    "max_e": ("e_curve", "max"),
    "mean_e": ("e_curve", "mean"),
}
# An image without an area under the curve would leave the whole set without one.
NAMES = (*(name for name in VALUES if name != "auroc"), *OF_CURVES)
"""The measures of a data set."""


def check_names(names: Any, known: tuple[str, ...] = NAMES) -> tuple[str, ...]:
    if isinstance(names, str) or not names or not set(names) <= set(known):
        raise ValueError(
            f"names must be one or more of {', '.join(known)}, got {names!r}; pass a tuple of names"
        )
    return tuple(names)


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
    functions = VALUES | CURVES
    return {name: maps.reduce(functions[name](maps), reduction) for name in names}


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
