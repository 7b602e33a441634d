"""Benchmark cases: losses with their options, seeded inputs, exact definitions and speed goals.

Inputs are NumPy arrays with a leading batch axis and channels last. Their names are those of the
loss's arguments; `benchmarks.backends` converts them for each backend.
"""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Array = NDArray[Any]
Inputs = dict[str, Array]
DIRECTIONS = ("forward", "forward + backward")
Maker = Callable[[np.random.Generator, int, int, int], Inputs]  # rng, batch, size, channels


@dataclass(frozen=True)
class Case:
    """One loss with one set of options.

    `make` creates the inputs, and `gradients` names those that get gradients; a measure, which
    runs forward only, names none. `exact` is the name of a definition in
    `saliency_losses.reference` (None: no comparison), and `make_exact` creates its inputs if they
    differ from the loss's. `goals` are multiples of the floor, (x * x).sum() with its gradient, for
    torch eager, torch.compile and jax.jit (None: no goals).
    """

    name: str
    loss: str
    make: Maker
    gradients: tuple[str, ...]
    channels: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    exact: str | None = None
    make_exact: Maker | None = None
    goals: tuple[float, float, float] | None = None
    note: str = ""

    @property
    def direction(self) -> str:
        return DIRECTIONS[1] if self.gradients else DIRECTIONS[0]

    def inputs(self, seed: int, batch: int, size: int, exact: bool = False) -> Inputs:
        make = self.make_exact if exact and self.make_exact else self.make
        return make(np.random.default_rng(seed), batch, size, self.channels)


def generated_masks(rng: np.random.Generator, batch: int, size: int) -> Array:
    """Boolean masks (N, size, size), each the union of three ellipses near the centre."""
    axis = (np.arange(size) + 0.5) / size
    centre = rng.uniform(0.25, 0.75, (2, batch, 3, 1, 1))
    radius = rng.uniform(0.08, 0.25, (2, batch, 3, 1, 1))
    rows = (axis[:, None] - centre[0]) / radius[0]
    columns = (axis - centre[1]) / radius[1]
    masks: Array = (rows**2 + columns**2 < 1).any(axis=1)
    return masks


def predictions(rng: np.random.Generator, masks: Array) -> Array:
    """Soft maps in [0, 1]: blurred masks (σ = size / 40) scaled to 0.1 to 0.9, plus noise."""
    blur = masks.shape[-1] / 40
    soft = ndimage.gaussian_filter(masks.astype(np.float64), (0, blur, blur))
    noisy: Array = 0.1 + 0.8 * soft + 0.1 * rng.standard_normal(masks.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


def features_and_labels(rng: np.random.Generator, batch: int, size: int, channels: int) -> Inputs:
    labels = generated_masks(rng, batch, size).astype(np.int64)
    means = rng.standard_normal((batch, 2, channels))
    features = means[np.arange(batch)[:, None, None], labels]
    features = features + rng.standard_normal(features.shape)
    return {"features": features.astype(np.float32), "labels": labels}


def descriptors(rng: np.random.Generator, batch: int, size: int, channels: int) -> Inputs:
    """Softmax outputs over the channels, as the CAS loss takes them, and labels."""
    made = features_and_labels(rng, batch, size, channels)
    exponentials = np.exp(made["features"])
    return {
        "probs": exponentials / exponentials.sum(-1, keepdims=True),
        "labels": made["labels"],
    }


def anchored(rng: np.random.Generator, batch: int, size: int, channels: int) -> Inputs:
    """Features, labels, and two anchors per image near the means of the regions."""
    made = features_and_labels(rng, batch, size, channels)
    foreground = made["labels"][..., None].astype(np.float64)
    weights = np.stack([1 - foreground, foreground], 1)
    sums = (weights * made["features"][:, None]).sum((2, 3))
    anchors = sums / np.maximum(weights.sum((2, 3)), 1)
    anchors += 0.1 * rng.standard_normal(anchors.shape)
    return {
        "features": made["features"],
        "anchors": anchors.astype(np.float32),
        "labels": made["labels"],
    }


def maps(rng: np.random.Generator, batch: int, size: int, channels: int) -> Inputs:
    masks = generated_masks(rng, batch, size)
    probs = predictions(rng, masks)
    return {"probs": probs[..., None], "target": masks[..., None].astype(np.float32)}


def weighted_maps(rng: np.random.Generator, batch: int, size: int, channels: int) -> Inputs:
    """`maps` with the weights B (W eq. 4, φ = 5), computed by SciPy as in a data pipeline."""
    made = maps(rng, batch, size, channels)
    weights = []
    for target in made["target"][..., 0]:
        distance = np.asarray(ndimage.distance_transform_edt(target == 0))
        delta = np.where(distance <= 5, distance**2, np.inf)
        weights.append(np.where(target == 1, 1.0, 2 - np.exp(np.log(0.5) / 5 * delta)))
    return made | {"distance_weights": np.stack(weights)[..., None].astype(np.float32)}


def _critic_vectors(
    rng: np.random.Generator, batch: int, size: int, channels: int
) -> tuple[Array, Array]:
    """Vectors a, b (N, size², channels); the critic's score of the pair (i, j) is a_i · b_j."""
    a = rng.standard_normal((batch, size * size, channels)).astype(np.float32)
    b = a + rng.standard_normal(a.shape).astype(np.float32)
    return a, b


def rolled_pairs(rng: np.random.Generator, batch: int, size: int, channels: int) -> Inputs:
    """Scores of n joint pairs and of n rolled pairs, which estimate the loss in linear time."""
    a, b = _critic_vectors(rng, batch, size, channels)
    rolled = np.roll(b, rng.integers(1, size * size), axis=1)
    scores = np.stack([(a * b).sum(-1), (a * rolled).sum(-1)], axis=1)
    joint = np.broadcast_to(np.array([[True], [False]]), scores.shape)
    return {"scores": scores, "joint": joint.copy()}


def all_pairs(rng: np.random.Generator, batch: int, size: int, channels: int) -> Inputs:
    """Scores of all n² pairs of the same vectors."""
    a, b = _critic_vectors(rng, batch, size, channels)
    scores = np.einsum("nic,njc->nij", a, b)
    return {
        "scores": scores,
        "joint": np.broadcast_to(np.eye(size * size, dtype=bool), scores.shape),
    }


LINEAR = "the definition itself is linear in the number of pixels"

METRIC = Case("metric, 16 channels", "metric_loss", features_and_labels, ("features",), 16)
FBETA = Case("weighted F-beta, window", "weighted_fbeta_loss", maps, ("probs",))
CASES: tuple[Case, ...] = (
    replace(METRIC, goals=(1, 2, 1.5)),
    replace(
        METRIC, name="metric, normalize=True", options={"normalize": True}, goals=(2.5, 2.5, 2)
    ),
    replace(
        METRIC,
        name="metric, pairwise, 16 channels",
        options={"form": "pairwise"},
        exact="metric_loss",
    ),
    Case(
        "CAS, 2 channels, 2 regions",
        "cas_loss",
        descriptors,
        ("probs",),
        channels=2,
        exact="cas_loss",
        goals=(7, 7, 6),
        note=LINEAR,
    ),
    Case(
        "anchor softmax, 16 channels, 2 anchors",
        "anchor_softmax_loss",
        anchored,
        ("features", "anchors"),
        channels=16,
        exact="anchor_softmax_loss",
        goals=(2.5, 2, 2),
        note=LINEAR,
    ),
    replace(FBETA, exact="weighted_fbeta_loss", goals=(25, 7, 6)),
    replace(
        FBETA,
        name="weighted F-beta, distance_weights given",
        make=weighted_maps,
    ),
    replace(
        FBETA,
        name="weighted F-beta, exact distance",
        options={"distance": "euclidean"},
        goals=(45, 15, 15),
    ),
    replace(
        FBETA,
        name="weighted F-beta, exact measure",
        loss="weighted_fbeta_score",
        exact="exact_weighted_fbeta_score",
    ),
    Case(
        "JS mutual information",
        "js_mutual_information_loss",
        rolled_pairs,
        ("scores",),
        channels=4,
        exact="js_mutual_information_loss",
        make_exact=all_pairs,
        goals=(5, 5, 5),
        note="two estimates of one value: all n² pairs (exact), n joint and n rolled pairs (ours)",
    ),
    Case("published measure, forward", "weighted_fmeasure", maps, (), goals=(20, 20, 60)),
)


def paper_images(data: Path | None, seed: int, count: int, size: int) -> dict[str, Inputs]:
    """`count` masks with synthetic predictions, by name, for the paper's benchmark.

    Masks are drawn at random from ECSSD's archive `data` and resized to `size`² by nearest
    neighbour; without an archive they are generated.
    """
    rng = np.random.default_rng(seed)
    if data is None:
        masks = generated_masks(rng, count, size)
        names = [f"generated {k + 1}" for k in range(count)]
    else:
        with zipfile.ZipFile(data) as archive:
            members = sorted(
                n for n in archive.namelist() if n.startswith("masks/") and n.endswith(".png")
            )
            if len(members) < count:
                raise SystemExit(
                    f"--data: expected at least {count} masks/*.png in {data}, found "
                    f"{len(members)}; pass ECSSD's archive, or omit --data for generated masks"
                )
            names = sorted(str(n) for n in rng.choice(members, count, replace=False))
            images = [Image.open(BytesIO(archive.read(n))).convert("L") for n in names]
        resized = [i.resize((size, size), Image.Resampling.NEAREST) for i in images]
        masks = np.stack([np.asarray(i) >= 128 for i in resized])
    probs = predictions(rng, masks)
    target = masks.astype(np.float32)
    return {
        name: {"probs": probs[k : k + 1, ..., None], "target": target[k : k + 1, ..., None]}
        for k, name in enumerate(names)
    }
