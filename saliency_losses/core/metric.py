"""MEnet's metric loss and semantic distance (Cai et al., IJCAI 2018; "M")."""

from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import (
    center,
    count_in_dtype,
    mean,
    root,
    unit_scale,
    zero_ignored,
)


def check_options(
    form: str,
    normalize: bool,
    stop_gradient: bool,
    hard_negatives: bool,
    ignore_index: int | None,
    reduction: str,
) -> None:
    checks.option("form", form, ("centroid", "pairwise"))
    checks.flag("normalize", normalize)
    checks.flag("stop_gradient", stop_gradient)
    checks.flag("hard_negatives", hard_negatives)
    checks.ignore_index(ignore_index)
    checks.reduction(reduction)
    if form == "pairwise" and (stop_gradient or hard_negatives):
        name = "stop_gradient" if stop_gradient else "hard_negatives"
        raise ValueError(
            f'{name}=True needs form="centroid", got form="pairwise", '
            "which has no centroids to hold constant or to rank pixels by"
        )


def metric_loss(
    xp: Ops,
    features: Array,
    labels: Array,
    *,
    form: str,
    normalize: bool,
    stop_gradient: bool,
    hard_negatives: bool,
    ignore_index: int | None,
    mask: Array,
    reduction: str,
) -> Array:
    """The distance of each pixel to the mean of its own region against the other (M eq. 2, 3).

    mean_i ‖f_i − μ_own‖² − ‖f_i − μ_other‖², or over all pairs of pixels, reduced over the images.
    """
    check_options(form, normalize, stop_gradient, hard_negatives, ignore_index, reduction)
    x, salient, background, counted, bad = _checked(xp, features, labels, ignore_index, mask)
    plain = form == "centroid" and not (stop_gradient or hard_negatives)
    if normalize:
        x = zero_ignored(xp, x, counted)
    elif not plain:
        x = center(xp, x, counted)[0]

    num_salient, num_background = count_in_dtype(xp, salient, x), count_in_dtype(xp, background, x)
    in_salient = xp.cast(salient, x) / xp.over_pixels(xp.maximum(num_salient, 1.0))
    in_background = xp.cast(background, x) / xp.over_pixels(xp.maximum(num_background, 1.0))
    difference = in_salient - in_background
    if plain:
        # M eq. 3: the spreads around both means cancel, and −‖μ_S − μ_B‖² remains. The factors to
        # unit length are multiplied into the weights, so that no unit vectors are stored.
        gap = (
            xp.weighted_sum(x, difference * unit_scale(xp, x))
            if normalize
            else _gap(xp, x, difference, counted)
        )
        loss = -xp.sum_vector(gap * gap)
    else:
        if normalize:
            scale = unit_scale(xp, x)
            x = x * xp.over_channels(scale)
        gap = xp.weighted_sum(x, difference)
        mean_salient = xp.weighted_sum(x, in_salient)
        if form == "pairwise":
            # The squared length of a unit vector is 1, without a gradient.
            length_gap = (
                xp.sum_pixels(xp.cast(scale != 0, x) * difference)
                if normalize
                else xp.sum_vector(xp.weighted_sum(x * x, difference))
            )
            imbalance = (num_salient - num_background) / xp.maximum(
                num_salient + num_background, 1.0
            )
            loss = _pairwise(xp, length_gap, gap, mean_salient, imbalance)
        else:
            loss = _per_pixel(
                xp, x, salient, background, gap, mean_salient, stop_gradient, hard_negatives
            )
    # An image that lacks a region has loss 0, but NaN features must not become a 0.
    both = (num_salient > 0) & (num_background > 0)
    loss = xp.where(both | xp.isnan(loss), loss, 0.0)
    return checks.reduce(xp, checks.nan_where_bad(xp, loss, bad), reduction)


def pixel_costs(
    xp: Ops,
    features: Array,
    labels: Array,
    *,
    form: str,
    normalize: bool,
    hard_negatives: bool,
    ignore_index: int | None,
    mask: Array,
) -> Array:
    """The cost of each pixel, a map ``(N, P)`` whose mean over the counted pixels is the loss."""
    x, salient, background, counted, _ = _checked(xp, features, labels, ignore_index, mask)
    x = zero_ignored(xp, x, counted)
    x = x * xp.over_channels(unit_scale(xp, x)) if normalize else center(xp, x, counted)[0]
    num_salient, num_background = count_in_dtype(xp, salient, x), count_in_dtype(xp, background, x)
    mean_salient, mean_background = (
        xp.weighted_sum(x, xp.cast(region, x) / xp.over_pixels(xp.maximum(size, 1.0)))
        for region, size in ((salient, num_salient), (background, num_background))
    )
    costs = _terms(xp, x, salient, background, mean_salient - mean_background, mean_salient)
    if form == "pairwise":
        # M eq. 2 adds V_own − V_other, see `_pairwise`.
        own_mean = xp.where(
            xp.over_channels(salient), xp.over_pixels(mean_salient), xp.over_pixels(mean_background)
        )
        squared = xp.sum_channels((x - own_mean) * (x - own_mean))
        spread_gap = xp.over_pixels(mean(xp, squared, salient) - mean(xp, squared, background))
        costs = costs + xp.where(salient, spread_gap, -spread_gap)
    if hard_negatives:
        chosen = _hardest(xp, costs, salient, background)
        share = (num_salient + num_background) / xp.maximum(count_in_dtype(xp, chosen, x), 1.0)
        costs = xp.where(chosen, costs * xp.over_pixels(share), 0.0)
    both = (num_salient > 0) & (num_background > 0)
    return xp.where(xp.over_pixels(both), costs, 0.0)


def _checked(
    xp: Ops, features: Array, labels: Array, ignore_index: int | None, mask: Array
) -> tuple[Array, Array, Array, Array | None, Array]:
    """Features; the counted salient and background pixels; the counted pixels or None for all;
    the images with a bad label."""
    features = checks.features(xp, "features", features)
    labels, counted, bad = checks.labels(xp, labels, mask, ignore_index, 2, "features", features)

    salient = xp.flat(labels == 1)
    background = ~salient
    if counted is not None:
        counted = xp.flat(counted)
        salient, background = salient & counted, background & counted
    return xp.features(features), salient, background, counted, bad


def _gap(xp: Ops, x: Array, difference: Array, counted: Array | None) -> Array:
    """The difference of the mean features μ_S − μ_B."""

    def gap_per_image(x: Array, difference: Array, *counted: Array) -> list[Array]:
        return [xp.weighted_sum(center(xp, x, *counted or [None])[0], difference)]

    def vjp(grads: list[Array], _: Any, x: Array, difference: Array, *__: Array) -> Array:
        return xp.over_channels(difference) * xp.over_pixels(grads[0])

    constants = [difference] if counted is None else [difference, counted]
    (gap,) = xp.custom_vjp(
        lambda *args: tuple(xp.image_by_image(gap_per_image, *args)), vjp, x, *constants
    )
    return gap


def _pairwise(
    xp: Ops, length_gap: Array, gap: Array, mean_salient: Array, imbalance: Array
) -> Array:
    """M eq. 2 as eq. 3 + (|S| − |B|)(V_S − V_B)/n."""
    # V_S − V_B with V = mean ‖f‖² − ‖μ‖²; the terms that cancel are no larger than the other term.
    spread_gap = length_gap - xp.sum_vector(gap * (2 * mean_salient - gap))
    return imbalance * spread_gap - xp.sum_vector(gap * gap)


def _per_pixel(
    xp: Ops,
    x: Array,
    salient: Array,
    background: Array,
    gap: Array,
    mean_salient: Array,
    stop_gradient: bool,
    hard_negatives: bool,
) -> Array:
    """M eq. 3 as the mean of `_terms` over the chosen pixels."""
    middle = mean_salient - gap / 2
    sign = xp.cast(background, x) - xp.cast(salient, x)
    chosen = salient | background
    if hard_negatives:
        fixed, fixed_gap, fixed_mean = map(xp.stop_gradient, (x, gap, mean_salient))
        terms = _terms(xp, fixed, salient, background, fixed_gap, fixed_mean)
        chosen = _hardest(xp, terms, salient, background)
    if stop_gradient:
        gap, middle = xp.stop_gradient(gap), xp.stop_gradient(middle)
    size = xp.over_pixels(xp.maximum(count_in_dtype(xp, chosen, x), 1.0))
    weights = 2 * sign * xp.cast(chosen, x) / size
    # Sum over the chosen pixels first, then take the product with μ_S − μ_B.
    total = xp.over_pixels(xp.sum_pixels(weights))
    direction = xp.weighted_sum(x, weights) - total * middle
    return xp.sum_vector(direction * gap)


def _terms(
    xp: Ops, x: Array, salient: Array, background: Array, gap: Array, mean_salient: Array
) -> Array:
    """M eq. 3 at each pixel, 0 at ignored pixels.

    ‖f − μ_own‖² − ‖f − μ_other‖² = ∓2 (f − (μ_S + μ_B)/2)·(μ_S − μ_B), minus at salient pixels.
    """
    sign = xp.cast(background, x) - xp.cast(salient, x)
    from_middle = x - xp.over_pixels(mean_salient - gap / 2)
    return 2 * sign * xp.sum_channels(from_middle * xp.over_pixels(gap))


def _hardest(xp: Ops, loss: Array, salient: Array, background: Array) -> Array:
    """All pixels of the smaller region, as many of the larger with the highest loss (M §3.2)."""
    if 0 in loss.shape:
        return salient | background
    num_salient, num_background = xp.count(salient), xp.count(background)
    salient_larger = num_salient > num_background
    larger = xp.where(xp.over_pixels(salient_larger), salient, background)
    quota = xp.where(salient_larger, num_background, num_salient)
    ranked = xp.sort_descending(xp.where(larger, loss, -float("inf")))
    least = xp.over_pixels(xp.take_pixel(ranked, xp.clip(quota - 1, 0, loss.shape[1])))
    above = larger & (loss > least)
    # Ties at the threshold: the first pixels fill the rest of the quota.
    level = larger & (loss == least)
    first = xp.cumulative_count(level) <= xp.over_pixels(quota - xp.count(above))
    return (salient | background) & (~larger | above | (level & first))


def semantic_distance(xp: Ops, features: Array, background: Array) -> Array:
    """The distance of each pixel's features to the weighted mean of the background (M eq. 5).

    ‖f_i − Σ_j w_j f_j / Σ_j w_j‖, a map ``(N, *spatial)``.
    """
    features = checks.features(xp, "features", features)
    weights = checks.real(xp, "background", background)
    checks.matches_features(xp, "background", weights, "features", features)
    weights, bad = checks.weight_values(xp, "background", weights, background)
    features, weights = checks.same_precision(xp, features, weights)

    x, middle = center(xp, xp.features(features), None)
    weights = xp.flat(weights)
    total = xp.reshape(xp.sum_pixels(weights), (weights.shape[0], 1))
    has_weight = total != 0
    background_mean = xp.weighted_sum(x, weights) / xp.where(has_weight, total, 1.0)
    # If all weights are 0, the mean is the zero vector.
    background_mean = xp.where(has_weight, background_mean, -middle)
    residual = x - xp.over_pixels(background_mean)
    distance = root(xp, xp.sum_channels(residual * residual))
    distance = xp.reshape(distance, xp.map_shape(features.shape))
    return checks.nan_where_bad(xp, distance, bad)
