"""The class-agnostic segmentation loss and its companions (Sharma et al.; "C")."""

from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import mean, zero_ignored


def check_options(
    xp: Ops,
    num_regions: int,
    alpha: Any,
    average_regions: bool,
    activation: str | None,
    ignore_index: int | None,
    reduction: str,
) -> None:
    checks.integer("num_regions", num_regions, 1)
    checks.scheduled(xp, "alpha", alpha, 0, 1)
    checks.flag("average_regions", average_regions)
    checks.activation(activation)
    checks.ignore_index(ignore_index)
    checks.reduction(reduction)


def cas_loss(
    xp: Ops,
    probs: Array,
    labels: Array,
    *,
    num_regions: int,
    alpha: Any,
    average_regions: bool,
    activation: str | None,
    ignore_index: int | None,
    mask: Array,
    reduction: str,
) -> Array:
    """Uniformer minus discriminator of the regions' mean descriptors (C eq. 1).

    α Σ_r mean_{i in r} ‖s_i − ŝ_r‖² − (1 − α) Σ_{r≠q} ‖ŝ_r − ŝ_q‖², reduced over the images.
    """
    check_options(xp, num_regions, alpha, average_regions, activation, ignore_index, reduction)
    num_regions = int(num_regions)
    s, index, counted, area, bad = _regions(
        xp, probs, labels, num_regions, activation, ignore_index, mask
    )
    share = 1.0 / xp.maximum(area, 1.0)

    def moments(s: Array, index: Array, share: Array, *counted: Array) -> tuple[Array, Array]:
        means = xp.region_sum(s, index, num_regions) * xp.over_channels(share)
        # C eq. 1, uniformer: Σ_r mean_{i in r} ‖s_i − ŝ_r‖²
        residual = s - xp.region_take(means, index)
        weight = zero_ignored(xp, xp.region_take(share, index), counted[0] if counted else None)
        return means, xp.sum_pixels(xp.sum_squares(residual) * weight)

    def vjp(
        grads: tuple[Array, Array],
        outputs: tuple[Array, Array],
        s: Array,
        index: Array,
        share: Array,
        *_: Array,
    ) -> Array:
        # The uniformer is stationary in the means; ignored pixels are constant.
        slope = 2 * xp.over_pixels(grads[1]) * share
        shift = xp.over_channels(share) * grads[0] - xp.over_channels(slope) * outputs[0]

        def line(s: Array, index: Array, slope: Array, shift: Array) -> tuple[Array]:
            slopes = xp.over_channels(xp.region_take(slope, index))
            return (s * slopes + xp.region_take(shift, index),)

        return xp.image_by_image(line, s, index, slope, shift)[0]

    constants = (index, share) if counted is None else (index, share, counted)
    region_mean, uniformer = xp.custom_vjp(
        lambda *args: tuple(xp.image_by_image(moments, *args)), vjp, s, *constants
    )

    # C eq. 1, discriminator: Σ_{r≠q} ‖ŝ_r − ŝ_q‖² = 2R Σ_r ‖ŝ_r − m‖², accurate for close means
    regions, deviation = _deviation(xp, region_mean, area > 0)
    discriminator = 2 * regions * xp.sum_pixels(xp.sum_channels(deviation * deviation))

    if average_regions:
        uniformer = uniformer / xp.maximum(regions, 1.0)
        discriminator = discriminator / xp.maximum(regions * (regions - 1), 1.0)
    alpha = checks.as_scalar(xp, alpha, uniformer)
    loss = alpha * uniformer - (1 - alpha) * discriminator
    return checks.reduce(xp, checks.nan_where_bad(xp, loss, bad), reduction)


def pixel_costs(
    xp: Ops,
    probs: Array,
    labels: Array,
    *,
    num_regions: int,
    alpha: Any,
    average_regions: bool,
    activation: str | None,
    ignore_index: int | None,
    mask: Array,
) -> Array:
    """The cost of each pixel, a map ``(N, P)`` whose mean over the counted pixels is the loss.

    The pixels of the first region of an ordered pair share its term evenly.
    """
    num_regions = int(num_regions)
    s, index, _, area, _ = _regions(xp, probs, labels, num_regions, activation, ignore_index, mask)
    share = 1.0 / xp.maximum(area, 1.0)
    means = xp.region_sum(s, index, num_regions) * xp.over_channels(share)
    residual = s - xp.region_take(means, index)
    uniformer = xp.sum_squares(residual)
    # Σ_q ‖ŝ_r − ŝ_q‖² = R ‖ŝ_r − m‖² + Σ_q ‖ŝ_q − m‖²
    regions, deviation = _deviation(xp, means, area > 0)
    squared = xp.sum_channels(deviation * deviation)
    discriminator = xp.over_pixels(regions) * squared + xp.over_pixels(xp.sum_pixels(squared))
    if average_regions:
        uniformer = uniformer / xp.over_pixels(xp.maximum(regions, 1.0))
        discriminator = discriminator / xp.over_pixels(xp.maximum(regions * (regions - 1), 1.0))
    alpha = checks.as_scalar(xp, alpha, uniformer)
    cost = alpha * uniformer - (1 - alpha) * xp.region_take(discriminator, index)
    return cost * xp.region_take(share * xp.over_pixels(xp.sum_pixels(area)), index)


def _regions(
    xp: Ops,
    probs: Array,
    labels: Array,
    num_regions: int,
    activation: str | None,
    ignore_index: int | None,
    mask: Array,
) -> tuple[Array, Array, Array | None, Array, Array]:
    """Descriptors; the region index of each pixel; the counted pixels or None for all; the areas
    ``(N, R)`` of the regions; the images with a value out of range."""
    s = checks.probabilities(xp, probs, activation)
    labels, counted, bad = checks.labels(xp, labels, mask, ignore_index, num_regions, "probs", s)

    index = xp.region_index(xp.flat(labels), num_regions)
    if counted is not None:
        counted = xp.flat(counted)
    s = xp.features(s)
    if activation is None:
        s, outside = checks.unit_values(
            xp, "probs", s, probs, None if counted is None else xp.over_channels(counted)
        )
        bad = bad | outside
    s = zero_ignored(xp, s, counted)
    area = xp.cast(xp.region_count(index, counted, num_regions), s)
    return s, index, counted, area, bad


def _deviation(xp: Ops, means: Array, present: Array) -> tuple[Array, Array]:
    """The number of regions present ``(N,)``, and their means minus the mean of those means."""
    regions = xp.sum_pixels(xp.cast(present, means))
    middle = xp.sum_pixels(means) / xp.over_pixels(xp.maximum(regions, 1.0))
    return regions, zero_ignored(xp, means - xp.over_pixels(middle), present)


def check_cross_entropy_options(per: str, ignore_index: int | None, reduction: str) -> None:
    checks.option("per", per, ("image", "pixel"))
    checks.ignore_index(ignore_index)
    checks.reduction(reduction)


def class_agnostic_cross_entropy(
    xp: Ops,
    logits: Array,
    labels: Array,
    *,
    per: str,
    ignore_index: int | None,
    mask: Array,
    reduction: str,
) -> Array:
    """Cross-entropy with the labels or the exchanged labels, whichever is smaller (C §4.2).

    min(mean_i −log p_i[y_i], mean_i −log p_i[1 − y_i]) per image, or the mean of the minima.
    """
    check_cross_entropy_options(per, ignore_index, reduction)
    margin, counted, bad = _margins(xp, logits, labels, per, ignore_index, mask)
    loss = mean(xp, xp.softplus(-margin), counted)
    if per == "image":
        exchanged = mean(xp, xp.softplus(margin), counted)
        loss = xp.where(exchanged < loss, exchanged, loss)
    return checks.reduce(xp, checks.nan_where_bad(xp, loss, bad), reduction)


def cross_entropy_pixel_costs(
    xp: Ops, logits: Array, labels: Array, *, per: str, ignore_index: int | None, mask: Array
) -> Array:
    """The cost of each pixel, a map ``(N, P)`` whose mean over the counted pixels is the loss."""
    margin, counted, _ = _margins(xp, logits, labels, per, ignore_index, mask)
    as_labelled, exchanged = xp.softplus(-margin), xp.softplus(margin)
    if per == "pixel":
        return as_labelled
    better = mean(xp, exchanged, counted) < mean(xp, as_labelled, counted)
    return xp.where(xp.over_pixels(better), exchanged, as_labelled)


def _margins(
    xp: Ops, logits: Array, labels: Array, per: str, ignore_index: int | None, mask: Array
) -> tuple[Array, Array | None, Array]:
    """The logit of the label minus the other (per="image"), or the larger minus the smaller
    (per="pixel"); the counted pixels or None for all; the images with a bad label."""
    logits = checks.features(xp, "logits", logits)
    if xp.channels(logits.shape) != 2:
        raise ValueError(
            f"logits must have shape {checks.public_layout(xp, '2')}, got {tuple(logits.shape)}"
        )
    labels, counted, bad = checks.labels(xp, labels, mask, ignore_index, 2, "logits", logits)

    salient = xp.flat(labels == 1)
    if counted is not None:
        counted = xp.flat(counted)
    x = zero_ignored(xp, xp.features(logits), counted)
    # The two-class cross-entropy is softplus(other logit − logit of the label).
    score = xp.channel(x, 1) - xp.channel(x, 0)
    margin = xp.abs(score) if per == "pixel" else xp.where(salient, score, -score)
    return margin, counted, bad


def flip_labels(
    xp: Ops, labels: Array, probability: float, rng: Any, *, per: str, ignore_index: int | None
) -> Array:
    """Binary labels, exchanged at random with `probability`, for each pixel or each image.

    1 − y where a uniform random number lies below `probability`, else y; the dtype is kept.
    """
    checks.option("per", per, ("pixel", "image"))
    checks.ignore_index(ignore_index)
    checks.number("probability", probability, 0, 1)
    x = checks.label_array(xp, "labels", labels)
    if x.ndim < 2:
        raise ValueError(f"labels must have shape (N, *spatial), got {tuple(x.shape)}")
    counted = checks.drop_ignored(xp, ignore_index, x, None)
    x, bad = checks.label_values(xp, "labels", x, labels, 2, counted, masks=False)
    images = (x.shape[0],) + (1,) * (x.ndim - 1)
    flip = xp.random(rng, x.shape if per == "pixel" else images, x) < probability
    if counted is not None:
        flip = flip & counted
    # Where values cannot be read, wrong labels must reach the loss: as they are, or as NaN.
    flip = flip & ((x == 0) | (x == 1))
    flipped = xp.cast(xp.where(flip, 1 - x, x), xp.array("labels", labels))
    return checks.nan_where_bad(xp, flipped, bad) if xp.kind(flipped) == "float" else flipped
