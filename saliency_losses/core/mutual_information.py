"""The Jensen–Shannon mutual-information estimator (Chen et al., AAAI 2020; "R")."""

from math import log
from typing import Any

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import counts, keep


def check_options(balance: bool, reduction: str) -> None:
    checks.flag("balance", balance)
    checks.reduction(reduction)


def js_mutual_information_loss(
    xp: Ops, scores: Array, joint: Array, *, balance: bool, mask: Array, reduction: str
) -> Array:
    check_options(balance, reduction)
    t, joint, apart = _pairs(xp, scores, joint, mask)

    def surprises(t: Array, joint: Array, apart: Array) -> tuple[Array, Array]:
        surprise = _surprise(xp, t, joint)
        return tuple(xp.sum_pixels(keep(xp, surprise, pairs)) for pairs in (joint, apart))

    def pull(grads: tuple[Array, Array], _: Any, t: Array, joint: Array, apart: Array) -> Array:
        # Scores that do not count are constant, so theirs may be anything.
        of_joint, of_apart = grads
        slope = xp.where(joint, -xp.over_pixels(of_joint), xp.over_pixels(of_apart))
        return slope * xp.sigmoid(xp.where(joint, -t, t))

    of_joint, of_apart = xp.own_gradient(surprises, pull, t, joint, apart)
    num_joint, num_apart = counts(xp, joint, t), counts(xp, apart, t)
    if balance:
        loss = of_joint / xp.maximum(num_joint, 1.0) + of_apart / xp.maximum(num_apart, 1.0)
    else:
        loss = 2 * (of_joint + of_apart) / xp.maximum(num_joint + num_apart, 1.0)
    return checks.reduce(xp, loss, reduction)


def pixel_costs(xp: Ops, scores: Array, joint: Array, *, balance: bool, mask: Array) -> Array:
    """A map ``(N, P)``, whose mean over the counted pairs is the loss."""
    t, joint, apart = _pairs(xp, scores, joint, mask)
    surprise = _surprise(xp, t, joint)
    if not balance:
        return 2 * surprise
    num_joint, num_apart = counts(xp, joint, t), counts(xp, apart, t)
    every = num_joint + num_apart
    return surprise * xp.where(
        joint,
        xp.over_pixels(every / xp.maximum(num_joint, 1.0)),
        xp.over_pixels(every / xp.maximum(num_apart, 1.0)),
    )


def _pairs(xp: Ops, scores: Array, joint: Array, mask: Array) -> tuple[Array, Array, Array]:
    """The scores, and which of them are of joint and of other pairs that count, maps."""
    scores = checks.floating(xp, "scores", scores)
    if scores.ndim < 1:
        raise ValueError("scores must have shape (N, ...), got a scalar")
    joint = checks.boolean(xp, "joint", joint)
    checks.alike("joint", joint, "scores", scores)
    counted = checks.mask(xp, mask, scores.shape, "scores")

    joint = xp.flat(joint)
    if counted is not None:
        counted = xp.flat(counted)
    t = keep(xp, xp.flat(scores), counted)
    apart = ~joint
    if counted is not None:
        joint, apart = joint & counted, apart & counted
    return t, joint, apart


def _surprise(xp: Ops, t: Array, joint: Array) -> Array:
    # R eq. 5: −log σ(T) = softplus(−T) for joint pairs, −log(1 − σ(T)) = softplus(T) for others
    return xp.softplus(xp.where(joint, -t, t))


def js_mutual_information(
    xp: Ops, scores: Array, joint: Array, *, mask: Array, reduction: str
) -> Array:
    checks.reduction(reduction)
    loss = js_mutual_information_loss(xp, scores, joint, balance=True, mask=mask, reduction="none")
    return checks.reduce(xp, log(2) - loss / 2, reduction)


def foreground_vector(xp: Ops, features: Array, prior: Array, *, threshold: float) -> Array:
    checks.number("threshold", threshold, 0, 1)
    x = checks.features(xp, "features", features)
    p = checks.real(xp, "prior", prior)
    checks.beside(xp, "prior", p, "features", x)
    p, bad = checks.unit_values(xp, "prior", p, prior)
    x, p = checks.same_precision(xp, x, p)

    p = xp.flat(p)
    weights = xp.where(p < threshold, 0.0, p)
    # Without a certain pixel, those of highest prior, which weigh alike.
    highest = xp.cast(p == xp.over_pixels(xp.max_pixels(p)), p)
    weights = xp.where(xp.over_pixels(xp.sum_pixels(weights) != 0), weights, highest)
    # R eq. 7
    share = weights / xp.over_pixels(xp.sum_pixels(weights))
    return checks.poison(xp, xp.weighted_sum(xp.features(x), share), bad)


def relation_pairs(
    xp: Ops, prior: Array, *, foreground: float, background: float
) -> tuple[Array, Array]:
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
    old, new, bad = checks.two_unit_maps(xp, "prior", prior, "refined", refined)
    # R eq. 10–11
    surer = _confidence(xp, old) > _confidence(xp, new)
    return checks.poison(xp, xp.where(surer, old, new), bad)


def _confidence(xp: Ops, s: Array) -> Array:
    return xp.where(s > 0.5, s, 1 - s)
