"""The picture explain.png: what each loss sees of the same rough map of a generated scene.

Run as ``python docs/figures/explain.py``.
"""

from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from reference_models.data.scenes import scenes
from saliency_losses.plotting import explain
from saliency_losses.torch import (
    anchor_softmax_loss,
    cas_loss,
    js_mutual_information_loss,
    metric_loss,
    region_anchors,
    relation_pairs,
    weighted_fbeta_loss,
)

FILE = Path(__file__).with_suffix(".png")


def figures() -> list[Figure]:
    """One of each loss, whose prediction is the scene's rough map."""
    images, masks, priors = (torch.from_numpy(x)[2:3] for x in scenes(3, 96, seed=7))
    labels, image = masks.long(), images.permute(0, 3, 1, 2)
    logits = 4 * (2 * priors - 1)
    # Features as a network's might be: the map in one direction, the colours in three others.
    features = torch.cat([2 * priors[:, None] - 1, image / 255 - 0.5], dim=1)
    anchors = region_anchors(features, torch.stack([1 - priors, priors], dim=1))
    joint, mask = relation_pairs(priors, foreground=0.7, background=0.3)
    shown = partial(explain, image=image, prediction=priors)
    return [
        shown(
            partial(metric_loss, normalize=True),
            features,
            labels,
            channel=0,
            title="metric loss of unit features",
        ),
        shown(
            cas_loss,
            torch.stack([1 - priors, priors], dim=1),
            labels,
            title="class-agnostic segmentation loss",
        ),
        shown(
            partial(weighted_fbeta_loss, normalize_kernel=True),
            priors[:, None],
            labels[:, None],
            title="weighted F-beta loss, kernel of unit sum",
        ),
        shown(
            anchor_softmax_loss,
            features,
            labels,
            anchors=anchors,
            channel=0,
            title="anchor softmax loss, anchors of the map",
        ),
        shown(
            js_mutual_information_loss,
            logits,
            joint,
            mask=mask,
            title="Jensen–Shannon mutual information: no ground truth, pairs of the map alone",
        ),
    ]


def pixels(figure: Figure) -> np.ndarray:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return np.asarray(Image.open(file).convert("RGB"))


if __name__ == "__main__":
    Image.fromarray(np.concatenate([pixels(figure) for figure in figures()])).save(FILE)
