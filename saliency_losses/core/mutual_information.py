"""The Jensen–Shannon mutual-information estimator (Chen et al., AAAI 2020; "R")."""

from math import log
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import count_in_dtype, zero_ignored


def check_options(balance: bool, reduction: str) -> None:
    checks.flag("balance", balance)
    checks.reduction(reduction)


def js_mutual_information_loss(
    xp: Ops, scores: Array, joint: Array, *, balance: bool, mask: Array, reduction: str
) -> Array:
    """Critic loss whose minimum over critics is 2 (log 2 − JS) (R eq. 5).

    mean_{joint} softplus(−T) + mean_{product} softplus(T), reduced over the images.
    """
    check_options(balance, reduction)
    t, joint, product_pairs = _pairs(xp, scores, joint, mask)

    def surprises(t: Array, joint: Array, product_pairs: Array) -> tuple[Array, Array]:
        surprise = _surprise(xp, t, joint)
        # Not by products, as the surprise of an infinite score may be infinite.
        joint_sum, product_sum = (
            xp.sum_pixels(zero_ignored(xp, surprise, pairs)) for pairs in (joint, product_pairs)
        )
        return joint_sum, product_sum

    def vjp(
        grads: tuple[Array, Array], _: Any, t: Array, joint: Array, product_pairs: Array
    ) -> Array:
        # Ignored scores are constants, so any value will do for them.
        def slopes(
            t: Array, joint: Array, product_pairs: Array, of_joint: Array, of_product: Array
        ) -> tuple[Array]:
            slope = xp.cast(product_pairs, t) * of_product - xp.cast(joint, t) * of_joint
            return (slope * xp.sigmoid(_exchanged(xp, t, joint)),)

        return xp.image_by_image(slopes, t, joint, product_pairs, *map(xp.over_pixels, grads))[0]

    joint_sum, product_sum = xp.custom_vjp(
        lambda *args: tuple(xp.image_by_image(surprises, *args)), vjp, t, joint, product_pairs
    )
    num_joint, num_product = count_in_dtype(xp, joint, t), count_in_dtype(xp, product_pairs, t)
    if balance:
        loss = joint_sum / xp.maximum(num_joint, 1.0) + product_sum / xp.maximum(num_product, 1.0)
    else:
        loss = 2 * (joint_sum + product_sum) / xp.maximum(num_joint + num_product, 1.0)
    return checks.reduce(xp, loss, reduction)


def pixel_costs(xp: Ops, scores: Array, joint: Array, *, balance: bool, mask: Array) -> Array:
    """The cost of each pair, a map ``(N, P)`` whose mean over the counted pairs is the loss."""
    t, joint, product_pairs = _pairs(xp, scores, joint, mask)
    surprise = _surprise(xp, t, joint)
    if not balance:
        return 2 * surprise
    num_joint, num_product = count_in_dtype(xp, joint, t), count_in_dtype(xp, product_pairs, t)
    num_pairs = num_joint + num_product
    return surprise * xp.where(
        joint,
        xp.over_pixels(num_pairs / xp.maximum(num_joint, 1.0)),
        xp.over_pixels(num_pairs / xp.maximum(num_product, 1.0)),
    )


def _pairs(xp: Ops, scores: Array, joint: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Scores, counted joint pairs and counted product pairs, as maps ``(N, P)``."""
    scores = checks.floating(xp, "scores", scores)
    checks.has_images("scores", scores)
    joint = checks.boolean(xp, "joint", joint)
    checks.same_shape("joint", joint, "scores", scores)
    counted = checks.mask(xp, mask, scores.shape, "scores")

    joint = xp.flat(joint)
    if counted is not None:
        counted = xp.flat(counted)
    t = zero_ignored(xp, xp.flat(scores), counted)
    product_pairs = ~joint
    if counted is not None:
        joint, product_pairs = joint & counted, product_pairs & counted
    return t, joint, product_pairs


def _surprise(xp: Ops, t: Array, joint: Array) -> Array:
    # R eq. 5: −log σ(T) = softplus(−T) for joint pairs, −log(1 − σ(T)) = softplus(T) for others
    return xp.softplus(_exchanged(xp, t, joint))


def _exchanged(xp: Ops, t: Array, joint: Array) -> Array:
    """−T for joint pairs, T for others."""
    return (1 - 2 * xp.cast(joint, t)) * t


def js_mutual_information(
    xp: Ops, scores: Array, joint: Array, *, mask: Array, reduction: str
) -> Array:
    """Lower bound of the Jensen–Shannon divergence of joint and product pairs (R eq. 4 and 5).

    log 2 − ½ (mean_{joint} softplus(−T) + mean_{product} softplus(T)), reduced over the images.
    """
    checks.reduction(reduction)
    loss = js_mutual_information_loss(xp, scores, joint, balance=True, mask=mask, reduction="none")
    return checks.reduce(xp, log(2) - loss / 2, reduction)


def foreground_vector(xp: Ops, features: Array, prior: Array, *, threshold: float) -> Array:
    """The mean features of the certain foreground, weighted by the prior (R eq. 7).

    Σ_i s_i f_i / Σ_i s_i over the pixels with prior s_i >= `threshold`, ``(N, C)``.
    """
    checks.number("threshold", threshold, 0, 1)
    x = checks.features(xp, "features", features)
    p = checks.real(xp, "prior", prior)
    checks.matches_features(xp, "prior", p, "features", x)
    if 0 in x.shape[1:]:
        raise ValueError(
            f"features must have at least one pixel per image, got shape {tuple(x.shape)}"
        )
    p, bad = checks.unit_values(xp, "prior", p, prior)
    # In the prior's own precision, as 0.9 is another number in float32 than in float64.
    uncertain = xp.flat(p) < threshold
    x, p = checks.same_precision(xp, x, p)

    p = xp.flat(p)
    weights = xp.where(uncertain, 0.0, p)
    # If no pixel is certain, the pixels of highest prior, with equal weights.
    highest = xp.cast(p == xp.over_pixels(xp.max_pixels(p)), p)
    weights = xp.where(xp.over_pixels(xp.sum_pixels(weights) != 0), weights, highest)
    # R eq. 7
    share = weights / xp.over_pixels(xp.sum_pixels(weights))
    return checks.nan_where_bad(xp, xp.weighted_sum(xp.features(x), share), bad)


def relation_pairs(
    xp: Ops, prior: Array, *, foreground: float, background: float
) -> tuple[Array, Array]:
    """The joint pairs and the pairs that count for the critic loss, from a prior map (R §4.2).

    joint = prior >= `foreground`, and mask = joint or prior <= `background`, both bool maps.
    """
    checks.number("foreground", foreground, 0, 1)
    checks.number("background", background, 0, 1)
    if background >= foreground:
        raise ValueError(
            "background must be below foreground, "
            f"got background={background}, foreground={foreground}"
        )
    p = checks.floating(xp, "prior", prior)
    checks.maps("prior", p)
    p, _ = checks.unit_values(xp, "prior", p, prior)
    joint = p >= foreground
    return joint, joint | (p <= background)


def merge_by_confidence(xp: Ops, prior: Array, refined: Array) -> Array:
    """The more confident of two saliency maps at each pixel (R eq. 10–11).

    `prior` where max(s, 1 − s) is larger for it, else `refined`.
    """
    old, new, bad = checks.two_unit_maps(xp, "prior", prior, "refined", refined)
    # R eq. 10–11
    surer = _confidence(xp, old) > _confidence(xp, new)
    return checks.nan_where_bad(xp, xp.where(surer, old, new), bad)


def _confidence(xp: Ops, s: Array) -> Array:
    return xp.where(s > 0.5, s, 1 - s)
