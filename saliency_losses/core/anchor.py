"""The anchor softmax loss and the iterative test (Zeng et al., CVPR 2018; "L")."""

from saliency_losses.core import checks
from saliency_losses.core.ops import Array, Ops
from saliency_losses.core.regions import mean, root, zero_ignored


def check_options(ignore_index: int | None, reduction: str) -> None:
    checks.ignore_index(ignore_index)
    checks.reduction(reduction)


def anchor_softmax_loss(
    xp: Ops,
    features: Array,
    anchors: Array,
    labels: Array,
    *,
    ignore_index: int | None,
    mask: Array,
    reduction: str,
) -> Array:
    """Mean cross-entropy of the softmax over negative distances to the anchors (L eq. 3–4).

    −mean_i log softmax_r(−‖φ_i − μ_r‖)[label_i], reduced over the images.
    """
    check_options(ignore_index, reduction)
    loss, counted, bad = _surprises(xp, features, anchors, labels, ignore_index, mask)
    return checks.reduce(xp, checks.nan_where_bad(xp, mean(xp, loss, counted), bad), reduction)


def pixel_costs(
    xp: Ops,
    features: Array,
    anchors: Array,
    labels: Array,
    *,
    ignore_index: int | None,
    mask: Array,
) -> Array:
    """The cost of each pixel, a map ``(N, P)`` whose mean over the counted pixels is the loss."""
    return _surprises(xp, features, anchors, labels, ignore_index, mask)[0]


def _surprises(
    xp: Ops, features: Array, anchors: Array, labels: Array, ignore_index: int | None, mask: Array
) -> tuple[Array, Array | None, Array]:
    """L eq. 3–4 at each pixel; the counted pixels or None for all; the images with a bad label."""
    features, anchors = _checked(xp, features, anchors)
    num_regions = anchors.shape[1]
    labels, counted, bad = checks.labels(
        xp, labels, mask, ignore_index, num_regions, "features", features, more="pass more anchors"
    )

    labels = xp.clip(xp.flat(labels), 0, num_regions - 1)
    if counted is not None:
        counted = xp.flat(counted)
    x = zero_ignored(xp, xp.features(features), counted)

    def surprise(x: Array, anchors: Array, labels: Array) -> Array:
        # L eq. 3–4: −log softmax(−d)[label] = d_label + log Σ_r exp(−d_r)
        squared = xp.squared_distances(x, xp.regions(anchors))
        if num_regions == 2:
            # softplus of the distance to the label's anchor minus that to the other
            first, second = (root(xp, distance) for distance in xp.unstack(squared))
            return xp.softplus(xp.where(labels == 1, second - first, first - second))
        distances = _excess(xp, root(xp, squared))
        return xp.take_stack(distances, labels) + xp.logsumexp_stack(-distances)

    return xp.recomputed(surprise, x, anchors, labels), counted, bad


def anchor_probabilities(xp: Ops, features: Array, anchors: Array) -> Array:
    """The softmax over negative distances to the anchors (L eq. 3), in the public layout.

    softmax_r(−‖φ_i − μ_r‖) for every pixel i and region r.
    """
    features, anchors = _checked(xp, features, anchors)
    squared = xp.squared_distances(xp.features(features), xp.regions(anchors))
    scores = -_excess(xp, root(xp, squared))
    probabilities = xp.exp(scores - xp.over_stack(xp.logsumexp_stack(scores)))
    return xp.public_stack(
        checks.clip_straight_through(xp, probabilities, 1), xp.map_shape(features.shape)
    )


def _excess(xp: Ops, distances: Array) -> Array:
    """A stack of distances minus the smallest at each pixel.

    A constant does not change the softmax, and without it far pixels keep their digits.
    """
    return distances - xp.over_stack(xp.stop_gradient(xp.min_stack(distances)))


def _checked(xp: Ops, features: Array, anchors: Array) -> tuple[Array, Array]:
    x = checks.features(xp, "features", features)
    a = checks.floating(xp, "anchors", anchors)
    channels = xp.channels(x.shape)
    if a.ndim != 3 or a.shape[0] != x.shape[0] or a.shape[1] < 1 or a.shape[2] != channels:
        raise ValueError(
            f"anchors must have shape (N, R, C) = ({x.shape[0]}, R, {channels}) to "
            f"match features of shape {tuple(x.shape)}, got {tuple(a.shape)}"
        )
    x, a = xp.promote(x, a)
    return x, a


def region_anchors(xp: Ops, features: Array, weights: Array) -> Array:
    """The weighted mean features of each region (L eq. 2), in the public layout ``(N, R, C)``.

    μ_r = Σ_i w_ir φ_i / Σ_i w_ir, the zero vector for a region without weight.
    """
    x = checks.features(xp, "features", features)
    w = checks.real(xp, "weights", weights)
    regions = xp.channels(w.shape) if w.ndim == x.ndim else -1
    expected = xp.stack_shape(xp.map_shape(x.shape), regions)
    if regions < 1 or tuple(w.shape) != expected:
        layout = checks.public_layout(xp, "R")
        raise ValueError(
            f"weights must have shape {layout} to match features of shape "
            f"{tuple(x.shape)}, got {tuple(w.shape)}"
        )
    w, bad = checks.weight_values(xp, "weights", w, weights)
    x, w = checks.same_precision(xp, x, w)

    w = xp.stack(w)
    total = xp.sum_stack(w)
    total = xp.over_channels(xp.where(total != 0, total, 1.0))
    anchors = xp.weighted_sums(xp.features(x), w) / total
    return checks.nan_where_bad(xp, xp.public_regions(anchors), bad)


def update_prior(xp: Ops, prior: Array, probabilities: Array, step: int) -> Array:
    """The running mean of the results of promoting a saliency map (L eq. 5).

    ((t − 1) Y + Z) / t with t = `step`, in the shape of `prior`.
    """
    checks.integer("step", step, 1)
    y, z, bad = checks.two_unit_maps(xp, "prior", prior, "probabilities", probabilities)
    # L eq. 5 with t = step − 1: the first result replaces the prior entirely.
    return checks.nan_where_bad(
        xp, checks.clip_straight_through(xp, ((step - 1) * y + z) / step, 1), bad
    )
