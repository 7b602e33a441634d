"""What a user writes, every public name with every option, for type checkers: never run.

`mypy --strict` passes it in `test_package.py`, pyright by hand, see docs/releasing.md.
"""

from typing import assert_type

import jax
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import saliency_losses
import saliency_losses.jax as sj
import saliency_losses.jax.measures as sju
import saliency_losses.jax.metrics as sjm
import saliency_losses.reference as sr
import saliency_losses.torch as st
import saliency_losses.torch.measures as stu
import saliency_losses.torch.metrics as stm

assert_type(saliency_losses.__version__, str)


def pytorch(x: Tensor, y: Tensor, mask: Tensor | None, rng: torch.Generator) -> None:
    for loss in (
        st.metric_loss(
            x,
            y,
            form="pairwise",
            normalize=True,
            stop_gradient=True,
            hard_negatives=True,
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        st.cas_loss(
            x,
            y,
            num_regions=3,
            alpha=0.3,
            average_regions=True,
            activation="softmax",
            ignore_index=255,
            mask=mask,
            reduction="sum",
        ),
        st.class_agnostic_cross_entropy(
            x, y, per="pixel", ignore_index=255, mask=mask, reduction="mean"
        ),
        st.weighted_fbeta_loss(
            x,
            y,
            beta=0.6,
            theta=3,
            phi=2,
            distance="euclidean",
            error="absolute",
            normalize_kernel=True,
            activation="sigmoid",
            ignore_index=255,
            distance_weights=mask,
            mask=mask,
            reduction="none",
        ),
        st.anchor_softmax_loss(x, x, y, ignore_index=255, mask=mask, reduction="sum"),
        st.js_mutual_information_loss(x, y, balance=False, mask=mask, reduction="mean"),
        st.cas_loss(x, y, alpha=x),
        st.weighted_fbeta_loss(x, y, beta=x),
    ):
        assert_type(loss, Tensor)
    for result in (
        st.semantic_distance(x, y),
        st.flip_labels(y, 0.5, rng, per="image", ignore_index=255),
        st.weighted_fbeta_score(
            x,
            y,
            beta=0.6,
            theta=3,
            phi=2,
            distance="window",
            error="squared",
            normalize_kernel=True,
            activation="sigmoid",
            ignore_index=255,
            distance_weights=mask,
            mask=mask,
            reduction="none",
        ),
        st.weighted_fmeasure(
            x,
            y,
            beta=0.6,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="sum",
        ),
        st.deep_supervision(st.cas_loss, [x, x], y, weights=[1, 0.5], resize=None, mask=mask),
        st.distance_weights(y, phi=2, distance="euclidean", ignore_index=255, mask=mask),
        st.distance_transform(y),
        st.anchor_probabilities(x, x),
        st.region_anchors(x, y),
        st.update_prior(x, x, 3),
        st.js_mutual_information(x, y, mask=mask, reduction="none"),
        st.foreground_vector(x, x, threshold=0.5),
        st.merge_by_confidence(x, x),
    ):
        assert_type(result, Tensor)
    assert_type(st.distance_transform(y, return_indices=True), tuple[Tensor, Tensor])
    assert_type(st.relation_pairs(x, foreground=0.7, background=0.2), tuple[Tensor, Tensor])


def modules(x: Tensor, y: Tensor, mask: Tensor | None) -> None:
    metric = st.MetricLoss(
        form="pairwise",
        normalize=True,
        stop_gradient=True,
        hard_negatives=True,
        ignore_index=255,
        reduction="none",
        check="always",
    )
    cas = st.CASLoss(
        num_regions=3,
        alpha=0.3,
        average_regions=True,
        activation="softmax",
        ignore_index=255,
        reduction="sum",
        check="never",
    )
    entropy = st.ClassAgnosticCrossEntropy(
        per="pixel", ignore_index=255, reduction="mean", check="first"
    )
    fbeta = st.WeightedFBetaLoss(
        beta=0.6,
        theta=3,
        phi=2,
        distance="euclidean",
        error="absolute",
        normalize_kernel=True,
        activation="sigmoid",
        ignore_index=255,
        reduction="none",
        check="always",
    )
    anchors = st.AnchorSoftmaxLoss(ignore_index=255, reduction="sum", check="always")
    information = st.JSMutualInformationLoss(balance=False, reduction="mean", check="never")
    several = st.DeepSupervision(fbeta, weights=[1, 0.5], resize=None)
    for criterion in (metric, cas, entropy, information):
        loss: Tensor = criterion(x, y, mask=mask)
        assert_type(loss.mean(), Tensor)
    # PyTorch types the call of any Module as Any; its `forward` is typed.
    assert_type(metric.forward(x, y, mask=mask), Tensor)
    assert_type(cas.forward(x, y, mask=mask), Tensor)
    assert_type(entropy.forward(x, y, mask=mask), Tensor)
    assert_type(fbeta.forward(x, y, distance_weights=mask, mask=mask), Tensor)
    assert_type(anchors.forward(x, x, y, mask=mask), Tensor)
    assert_type(information.forward(x, y, mask=mask), Tensor)
    assert_type(several.forward([x, x], y, mask=mask), Tensor)


def metrics(x: Tensor, y: Tensor, p: jax.Array, t: jax.Array, mask: jax.Array) -> None:
    in_torch = stm.WeightedFMeasure(beta=0.6, normalize=True, reduction="none")
    in_torch.update(x, y)
    assert_type(in_torch.compute(), Tensor)
    in_jax = sjm.WeightedFMeasure(beta=0.6, normalize=True)
    in_jax.update(preds=p, target=t, mask=mask)
    assert_type(in_jax.compute(), jax.Array)
    all_torch = stm.SaliencyMeasures(names=("mae", "s"), normalize=True, activation="sigmoid")
    all_torch.update(x, y)
    assert_type(all_torch.compute(), dict[str, Tensor])
    all_jax = sjm.SaliencyMeasures(names=("mae", "s"), normalize=True, ignore_index=255)
    all_jax.update(preds=p, target=t, mask=mask)
    assert_type(all_jax.compute(), dict[str, jax.Array])
    all_jax.reset()


def measures(x: Tensor, p: jax.Array, mask: Tensor | None, kept: jax.Array | None) -> None:
    for in_torch in (
        stu.mean_absolute_error(
            x,
            x,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.fmeasure(
            x,
            x,
            beta=1.0,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.fmeasure_curve(
            x,
            x,
            beta=1.0,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.emeasure(
            x,
            x,
            threshold="adaptive",
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.emeasure_curve(
            x,
            x,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.smeasure(
            x,
            x,
            alpha=0.3,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.iou(
            x,
            x,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.dice(
            x,
            x,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.boundary_iou(
            x,
            x,
            width=0.01,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.boundary_accuracy(
            x,
            x,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        stu.auroc(
            x,
            x,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
    ):
        assert_type(in_torch, Tensor)
    for in_jax in (
        sju.mean_absolute_error(
            p,
            p,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.fmeasure(
            p,
            p,
            beta=1.0,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.fmeasure_curve(
            p,
            p,
            beta=1.0,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.emeasure(
            p,
            p,
            threshold="adaptive",
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.emeasure_curve(
            p,
            p,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.smeasure(
            p,
            p,
            alpha=0.3,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.iou(
            p,
            p,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.dice(
            p,
            p,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.boundary_iou(
            p,
            p,
            width=0.01,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.boundary_accuracy(
            p,
            p,
            threshold=0.5,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
        sju.auroc(
            p,
            p,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=kept,
            reduction="none",
        ),
    ):
        assert_type(in_jax, jax.Array)
    several = stu.precision_recall_curve(
        x, x, normalize=True, activation="sigmoid", ignore_index=255, mask=mask, reduction="none"
    )
    assert_type(several, tuple[Tensor, Tensor])
    pair = sju.precision_recall_curve(
        p, p, normalize=True, activation="sigmoid", ignore_index=255, mask=kept, reduction="none"
    )
    assert_type(pair, tuple[jax.Array, jax.Array])
    together = stu.saliency_measures(
        x,
        x,
        names=("mae", "f_curve"),
        normalize=True,
        activation="sigmoid",
        ignore_index=255,
        mask=mask,
        reduction="none",
    )
    assert_type(together, dict[str, Tensor])
    together_jax = sju.saliency_measures(
        p,
        p,
        names=("mae", "f_curve"),
        normalize=True,
        activation="sigmoid",
        ignore_index=255,
        mask=kept,
        reduction="none",
    )
    assert_type(together_jax, dict[str, jax.Array])


def in_jax(x: jax.Array, y: jax.Array, mask: jax.Array | None, rng: jax.Array) -> None:
    for result in (
        sj.metric_loss(
            x,
            y,
            form="pairwise",
            normalize=True,
            stop_gradient=True,
            hard_negatives=True,
            ignore_index=255,
            mask=mask,
            reduction="none",
        ),
        sj.cas_loss(
            x,
            y,
            num_regions=3,
            alpha=0.3,
            average_regions=True,
            activation="softmax",
            ignore_index=255,
            mask=mask,
            reduction="sum",
        ),
        sj.class_agnostic_cross_entropy(
            x, y, per="pixel", ignore_index=255, mask=mask, reduction="mean"
        ),
        sj.weighted_fbeta_loss(
            x,
            y,
            beta=0.6,
            theta=3,
            phi=2,
            distance="euclidean",
            error="absolute",
            normalize_kernel=True,
            activation="sigmoid",
            ignore_index=255,
            distance_weights=mask,
            mask=mask,
            reduction="none",
        ),
        sj.anchor_softmax_loss(x, x, y, ignore_index=255, mask=mask, reduction="sum"),
        sj.js_mutual_information_loss(x, y, balance=False, mask=mask, reduction="mean"),
        sj.cas_loss(x, y, alpha=x),
        sj.weighted_fbeta_loss(x, y, beta=x),
        sj.semantic_distance(x, y),
        sj.flip_labels(y, 0.5, rng, per="image", ignore_index=255),
        sj.weighted_fbeta_score(
            x,
            y,
            beta=0.6,
            theta=3,
            phi=2,
            distance="window",
            error="squared",
            normalize_kernel=True,
            activation="sigmoid",
            ignore_index=255,
            distance_weights=mask,
            mask=mask,
            reduction="none",
        ),
        sj.weighted_fmeasure(
            x,
            y,
            beta=0.6,
            normalize=True,
            activation="sigmoid",
            ignore_index=255,
            mask=mask,
            reduction="sum",
        ),
        sj.deep_supervision(sj.cas_loss, (x, x), y, weights=[1, 0.5], resize=None, mask=mask),
        sj.distance_weights(y, phi=2, distance="euclidean", ignore_index=255, mask=mask),
        sj.distance_transform(y),
        sj.anchor_probabilities(x, x),
        sj.region_anchors(x, y),
        sj.update_prior(x, x, 3),
        sj.js_mutual_information(x, y, mask=mask, reduction="none"),
        sj.foreground_vector(x, x, threshold=0.5),
        sj.merge_by_confidence(x, x),
    ):
        assert_type(result, jax.Array)
    assert_type(sj.distance_transform(y, return_indices=True), tuple[jax.Array, jax.Array])
    assert_type(sj.relation_pairs(x, foreground=0.7, background=0.2), tuple[jax.Array, jax.Array])


Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def exact(x: Floats, y: Bools, mask: Bools | None) -> None:
    for loss in (
        sr.metric_loss(x, y, form="pairwise", normalize=True, hard_negatives=True, mask=mask),
        sr.cas_loss(x, y, num_regions=3, alpha=0.3, average_regions=True, mask=mask),
        sr.class_agnostic_cross_entropy(x, y, per="pixel", mask=mask),
        sr.weighted_fbeta_loss(
            x,
            y,
            beta=0.6,
            theta=3,
            phi=2,
            distance="euclidean",
            error="absolute",
            normalize_kernel=True,
            distance_weights=x,
            mask=mask,
        ),
        sr.anchor_softmax_loss(x, x, y, mask=mask),
        sr.js_mutual_information_loss(x, y, balance=False, mask=mask),
        sr.weighted_fbeta_score(
            x,
            y,
            beta=0.6,
            theta=3,
            phi=2,
            distance="window",
            error="squared",
            normalize_kernel=True,
            distance_weights=x,
            mask=mask,
        ),
        sr.exact_weighted_fbeta_score(x, y, beta=0.6, theta=3, mask=mask),
        sr.weighted_fmeasure(x, y, beta=0.6, normalize=True),
        sr.js_mutual_information(x, y, mask=mask),
    ):
        assert_type(loss, float)
    for result in (
        sr.semantic_distance(x, y),
        sr.distance_weights(y, phi=2, distance="euclidean", mask=mask),
        sr.distance_transform(y),
        sr.anchor_probabilities(x, x),
        sr.region_anchors(x, y),
        sr.update_prior(x, x, 3),
        sr.foreground_vector(x, x, threshold=0.5),
        sr.merge_by_confidence(x, x),
    ):
        assert_type(result, Floats)
    assert_type(sr.distance_transform(y, return_indices=True), tuple[Floats, NDArray[np.int64]])
    assert_type(sr.relation_pairs(x, foreground=0.7, background=0.2), tuple[Bools, Bools])
