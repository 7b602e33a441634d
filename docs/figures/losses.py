"""Pictures of the losses on a generated scene: ``python docs/figures/losses.py [FOLDER]``."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter, shift

from reference_models.data.scenes import scenes
from saliency_losses.torch import (
    anchor_probabilities,
    cas_loss,
    distance_weights,
    foreground_vector,
    js_mutual_information,
    metric_loss,
    region_anchors,
    relation_pairs,
    update_prior,
    weighted_fbeta_loss,
    weighted_fbeta_score,
    weighted_fmeasure,
)

SIZE, SEED = 96, 7
# A page is at least 736 pixels wide: there type of 7.5 points is 10 pixels high.
WIDTH, TYPE = 7.5, 7.5
SALIENT, BACKGROUND = "C1", "C0"


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An image, its mask, a rough map of it, and two channels of features `(2, H, W)`.

    The features stand in for a network's: how much the colours vary close by, and how bright it is.
    """
    images, masks, priors = (views[0] for views in scenes(1, SIZE, SEED))
    grey = images.mean(axis=-1) / 255
    spread = np.sqrt(np.clip(gaussian_filter(grey**2, 3) - gaussian_filter(grey, 3) ** 2, 0, None))
    features = np.stack([spread / spread.max(), gaussian_filter(grey, 3)])
    return images, masks, priors, features.astype(np.float32)


def batch(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))[None]


def show(axes: Axes, values: np.ndarray, title: str, cmap: str = "gray", **limits: float) -> None:
    """A picture, or a map with its scale."""
    drawn = axes.imshow(values, cmap=cmap, interpolation="nearest", **limits)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=TYPE)
    if values.ndim == 2 and values.dtype != bool:
        bar = axes.figure.colorbar(drawn, ax=axes, shrink=0.75, pad=0.03)
        bar.ax.tick_params(labelsize=TYPE)


def signed(value: torch.Tensor) -> str:
    return f"{value:.3f}".replace("-", "−")


def panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    height = min(WIDTH / columns, 2.2)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained", dpi=160)
    return figure, figure.subplots(rows, columns, squeeze=False)


def metric() -> Figure:
    image, mask, _, features = scene()
    figure, ((first, second), (third, fourth)) = panels(2, 2)
    means = {region: features[:, mask == region].mean(axis=1) for region in (True, False)}
    to = {
        region: ((features - mean[:, None, None]) ** 2).sum(axis=0)
        for region, mean in means.items()
    }
    show(first, image, "image")
    show(second, mask, "labels: S white, B black")
    for region, name, colour in ((False, "B", BACKGROUND), (True, "S", SALIENT)):
        third.scatter(*features[:, mask == region][:, ::5], s=2, color=colour, alpha=0.3)
        third.plot(
            *means[region],
            "o",
            markersize=8,
            color=colour,
            markeredgecolor="k",
            label=f"mean of {name}",
        )
    third.annotate("", means[True], means[False], arrowprops={"arrowstyle": "<->"})
    loss = metric_loss(batch(features), batch(mask))
    third.set_title(f"features; loss {signed(loss)}, minus the squared gap", fontsize=TYPE)
    third.set_xlabel("feature 1", fontsize=TYPE)
    third.set_ylabel("feature 2", fontsize=TYPE)
    third.tick_params(labelsize=TYPE)
    third.legend(fontsize=TYPE, frameon=False)
    own = np.where(mask, to[True] - to[False], to[False] - to[True])
    largest = np.abs(own).max()
    show(fourth, own, "‖f − μ_own‖² − ‖f − μ_other‖²", "RdBu_r", vmin=-largest, vmax=largest)
    return figure


def cas() -> Figure:
    _, mask, _, features = scene()
    embeddings = 30 * batch(features)
    regions = batch(np.stack([~mask, mask]).astype(np.float32))
    probs = anchor_probabilities(embeddings, region_anchors(embeddings, regions))
    salient = probs[0, 1].numpy()
    figure, axes = panels(2, 4)
    for row, labels in zip(axes, (mask, ~mask), strict=True):
        means = [salient[labels == region].mean() for region in (False, True)]
        own = np.where(labels, means[1], means[0])
        name = "labels" if labels is mask else "labels, exchanged"
        title = f"its means: {means[0]:.2f} in\nregion 0, {means[1]:.2f} in region 1"
        show(row[0], labels, name)
        show(row[1], salient, "channel 1 of\nthe descriptor", vmin=0, vmax=1)
        show(row[2], own, title, vmin=0, vmax=1)
        show(
            row[3],
            2 * (salient - own) ** 2,
            f"‖s − ŝ‖² to the own mean\nloss {signed(cas_loss(probs, batch(labels)))}",
            "magma",
            vmin=0,
        )
    return figure


def prediction(mask: np.ndarray) -> np.ndarray:
    """A map with a clustered and scattered misses, and false alarms near and far."""
    rng = np.random.default_rng(SEED)
    y, x = np.nonzero(mask)
    map_ = mask.astype(np.float32)
    row, column = np.mgrid[:SIZE, :SIZE]
    map_[np.hypot(row - np.median(y), column - np.median(x)) < 9] = 0.15
    few = rng.choice(len(y), 25, replace=False)
    map_[y[few], x[few]] = 0.15
    near = shift(mask, (0, 4), order=0) & ~mask
    map_[near] = 0.7
    corner = min(
        ((6, 6), (6, SIZE - 18), (SIZE - 18, 6), (SIZE - 18, SIZE - 18)),
        key=lambda at: mask[at[0] : at[0] + 12, at[1] : at[1] + 12].sum(),
    )
    map_[corner[0] : corner[0] + 12, corner[1] : corner[1] + 12] = 0.7
    return map_


def spread_errors(errors: np.ndarray, mask: np.ndarray, unit: bool, theta: int = 9) -> np.ndarray:
    """AE of W eq. 3: at foreground the Gaussian sum of the foreground errors around."""
    variance = (theta / 4) ** 2
    offsets = np.arange(-theta, theta + 1)
    one = np.exp(-(offsets**2) / (2 * variance))
    scale = 1 / one.sum() ** 2 if unit else 1 / np.sqrt(2 * np.pi * variance)
    total = np.where(mask, errors, 0)
    for axis in (0, 1):
        total = np.apply_along_axis(np.convolve, axis, total, one, "same")
    return np.where(mask, scale * total, errors)


def weighted_fbeta() -> Figure:
    _, mask, _, _ = scene()
    probs = prediction(mask)
    errors = np.abs(probs - mask)
    target = batch(mask[None])
    figure, axes = panels(2, 4)
    show(axes[0, 0], mask, "mask")
    show(axes[0, 1], probs, "prediction", vmin=0, vmax=1)
    show(axes[0, 2], errors, "E, absolute", "magma", vmin=0, vmax=1)
    show(
        axes[1, 0],
        distance_weights(target)[0, 0].numpy(),
        "B, window of 5",
        "viridis",
        vmin=1,
        vmax=2,
    )
    exact = distance_weights(target, distance="euclidean")[0, 0].numpy()
    show(axes[1, 1], exact, "B, exact distance", "viridis", vmin=1, vmax=2)
    for at, unit, name in ((axes[0, 3], False, "as printed"), (axes[1, 2], True, "unit sum")):
        kept = np.minimum(spread_errors(errors, mask, unit), errors)
        show(at, kept, f"min(AE, E),\nkernel {name}", "magma", vmin=0, vmax=1)
    loss = weighted_fbeta_loss(
        batch(probs[None]), target, error="absolute", distance="euclidean", normalize_kernel=True
    )
    title = f"$E^w$ = min(AE, E) · B\nloss {loss:.3f}"
    show(axes[1, 3], kept * exact, title, "magma", vmin=0, vmax=2)
    return figure


def discs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A disc and two maps of it with as many misses and false alarms, in other places."""
    row, column = np.mgrid[:SIZE, :SIZE]
    from_centre = np.hypot(row - 66, column - 66)
    mask, hole, blob = from_centre < 20, from_centre < 12, np.maximum(row, column) < 26
    fine = mask.copy()
    missed = np.random.default_rng(SEED).choice(np.flatnonzero(mask), hole.sum(), replace=False)
    fine.flat[missed] = False
    outside = np.where(mask, np.inf, from_centre)
    fine.flat[np.argsort(outside, axis=None, kind="stable")[: blob.sum()]] = True
    return mask, fine, (mask & ~hole) | blob


def weighted_fbeta_pair() -> Figure:
    mask, fine, gross = discs()
    target = batch(mask[None].astype(np.float32))
    figure, axes = panels(1, 3)
    show(axes[0, 0], mask, "mask")
    named = {"a fringe, scattered misses": fine, "a blob, a hole": gross}
    for at, (name, drawn) in zip(axes[0, 1:], named.items(), strict=True):
        probs = batch(drawn[None].astype(np.float32))
        iou = (drawn & mask).sum() / (drawn | mask).sum()
        score, published = weighted_fbeta_score(probs, target), weighted_fmeasure(probs, target)
        title = f"{name}: IoU {iou:.2f}\nweighted_fmeasure {published:.2f}, score {score:.2f}"
        show(at, drawn, title)
    return figure


def anchors() -> Figure:
    image, _, prior, features = scene()
    embeddings, y = 20 * batch(features), batch(prior)
    figure, axes = panels(2, 3)
    show(axes[0, 0], image, "image")
    show(axes[0, 1], prior, "rough map, the first prior", vmin=0, vmax=1)
    for step in range(1, 6):
        hard = y >= 2 * y.mean()
        points = region_anchors(embeddings, torch.stack([~hard, hard], dim=1).float())
        if step == 1:
            for at, point, name in (
                (axes[0, 2], points[0, 0], "background"),
                (axes[1, 0], points[0, 1], "salient"),
            ):
                distance = (embeddings[0] - point[:, None, None]).norm(dim=0).numpy()
                show(at, distance, f"distance to the {name} anchor", "viridis", vmin=0)
        z = anchor_probabilities(embeddings, points)[:, 1]
        y = update_prior(y, z, step)
        if step in (1, 5):
            show(
                axes[1, 1 if step == 1 else 2],
                y[0].numpy(),
                f"the map after T = {step}",
                vmin=0,
                vmax=1,
            )
    return figure


def mutual_information() -> Figure:
    _, _, prior, features = scene()
    joint, counted = (pairs[0].numpy() for pairs in relation_pairs(batch(prior)))
    vector = foreground_vector(batch(features), batch(prior))[0].numpy()
    scores = 3 - 20 * np.sqrt(((features - vector[:, None, None]) ** 2).sum(axis=0))
    figure, ((first, second), (third, fourth)) = panels(2, 2)
    show(first, prior, "rough map", vmin=0, vmax=1)
    colours = np.full((*prior.shape, 3), 0.85)
    product = counted & ~joint
    colours[joint], colours[product] = (1, 0.5, 0.05), (0.12, 0.47, 0.7)
    show(second, colours, "pairs with the foreground vector:\njoint, product, neither")
    show(third, scores, "a critic's scores T", "RdBu_r", vmin=-8, vmax=8)
    for kind, name, colour in ((joint, "joint", SALIENT), (product, "product", BACKGROUND)):
        fourth.hist(
            scores[kind], 30, range=(-8, 4), density=True, alpha=0.5, color=colour, label=name
        )
    t, scale = np.linspace(-8, 4, 200), 0.04
    fourth.plot(t, scale * np.logaddexp(0, -t), color=SALIENT, linewidth=1)
    fourth.plot(t, scale * np.logaddexp(0, t), color=BACKGROUND, linewidth=1)
    bound = js_mutual_information(batch(scores), batch(joint), mask=batch(counted))
    fourth.set_title(f"estimate {bound:.3f} of at most 0.693", fontsize=TYPE)
    fourth.set_xlabel("score T", fontsize=TYPE)
    fourth.set_ylabel("cost (curves);\nshare of pairs (bars)", fontsize=TYPE)
    fourth.set_ylim(0, 0.5)
    fourth.tick_params(labelsize=TYPE)
    fourth.set_yticks([])
    fourth.legend(fontsize=TYPE, frameon=False, loc="upper left")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "metric": metric,
    "cas": cas,
    "weighted-fbeta": weighted_fbeta,
    "weighted-fbeta-pair": weighted_fbeta_pair,
    "anchors": anchors,
    "mutual-information": mutual_information,
}


def main(folder: Path) -> None:
    for name, draw in FIGURES.items():
        draw().savefig(folder / f"loss-{name}.png", metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
