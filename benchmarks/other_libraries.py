"""What a user would take instead: losses, measures and distance transforms of other libraries,
and ours, one table of how each is called.

A library is imported when its entry is first used; none need be there.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.backends import Side
from benchmarks.cases import Array, Inputs, predictions

OURS = "ours"
INSTALL = "pip install -e .[peers]"
PACKAGES = (
    "kornia",
    "monai",
    "optax",
    "pysodmetrics",
    "segmentation-models-pytorch",
    "torchmetrics",
)
EAGER, COMPILED = Side("torch", "eager"), Side("torch", "compile")
JIT = Side("jax", "jit")
NUMPY = Side("numpy", "numpy")
Loss = Callable[[Any], Any]  # from placed inputs

MAPS = "binary maps"
REGIONS = "embeddings and regions"
MEASURES = "the weighted F-measure, one image, forward"
DISTANCES = "distance transform, one image"


def map_logits(rng: np.random.Generator, masks: Array) -> Array:
    """Noisy, so that no two are equal: a loss that sorts has no gradient there."""
    probs = predictions(rng, masks).clip(0.01, 0.99)
    logits = np.log(probs / (1 - probs)) + 0.1 * rng.standard_normal(masks.shape)
    return logits[..., None].astype(np.float32)


def class_logits(rng: np.random.Generator, masks: Array) -> Array:
    """Two classes whose softmax is the sigmoid of the map."""
    half = map_logits(rng, masks) / 2
    return np.concatenate([-half, half], axis=-1)


def embeddings(rng: np.random.Generator, masks: Array) -> Array:
    """16 channels about a mean for each image and region."""
    means = rng.standard_normal((len(masks), 2, 16))
    features = means[np.arange(len(masks))[:, None, None], masks.astype(int)]
    return (features + rng.standard_normal(features.shape)).astype(np.float32)


def region_means(rng: np.random.Generator, masks: Array) -> Array:
    """Anchors (N, 2, C) near the means of the embeddings; noise alone for an empty region."""
    features = embeddings(rng, masks)
    weights = np.stack([~masks, masks], axis=1)[..., None]
    sums = (weights * features[:, None]).sum((2, 3))
    anchors = sums / np.maximum(weights.sum((2, 3)), 1)
    return (anchors + 0.1 * rng.standard_normal(anchors.shape)).astype(np.float32)


# from a generator and boolean masks (N, H, W); channels last, as `benchmarks.backends` has them
ARRAYS: dict[str, Callable[[np.random.Generator, Array], Array]] = {
    "logits": map_logits,
    "class logits": class_logits,
    "embeddings": embeddings,
    "scores": lambda rng, masks: map_logits(rng, masks)[..., 0],
    "probabilities": lambda rng, masks: predictions(rng, masks).astype(np.float64),
    "probability maps": lambda rng, masks: predictions(rng, masks)[..., None],
    "anchors": region_means,
    "target": lambda rng, masks: masks[..., None].astype(np.float32),
    "labels": lambda rng, masks: masks.astype(np.int64),
    "label maps": lambda rng, masks: masks[..., None].astype(np.int64),
    "foreground": lambda rng, masks: masks,
    "background": lambda rng, masks: ~masks,
}
ACTIVATIONS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("torch", "sigmoid"): torch.sigmoid,
    ("torch", "softmax"): partial(torch.softmax, dim=1),
    ("jax", "sigmoid"): jax.nn.sigmoid,
    ("jax", "softmax"): partial(jax.nn.softmax, axis=-1),
}


@dataclass(frozen=True)
class Peer:
    """One function or class of a library, and how it is called.

    `wants` names its arguments in `ARRAYS`; the first `leaves` of them get gradients, and none
    makes a case of forward alone. `activation` is part of the call: the network ends in logits.
    """

    group: str
    backend: str  # torch, jax, numpy
    library: str
    name: str
    path: str
    wants: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    activation: str = ""
    leaves: int = 1
    method: str = "__call__"  # of an instance, where `path` is a class
    per_image: bool = False  # without a batch axis

    @property
    def label(self) -> str:
        return f"{self.library}: {self.name}"

    @property
    def framework(self) -> str:
        return {"torch": "PyTorch", "jax": "JAX", "numpy": "NumPy"}[self.backend]

    @property
    def gradients(self) -> tuple[str, ...]:
        return self.wants[: self.leaves]

    @property
    def sides(self) -> tuple[Side, ...]:
        """A peer as its users call it; ours also compiled."""
        if self.backend == "numpy":
            return (NUMPY,)
        if self.backend == "jax":
            return (JIT,)
        return (EAGER, COMPILED) if self.library == OURS else (EAGER,)

    def inputs(self, seed: int, masks: Array, predicted: Array | None = None) -> Inputs:
        """The arguments, the first of them made as if `predicted` were the masks."""
        shown = [masks if predicted is None else predicted, *[masks] * (len(self.wants) - 1)]
        return {
            name: ARRAYS[name](np.random.default_rng(seed), mask)
            for name, mask in zip(self.wants, shown, strict=True)
        }

    def load(self) -> Loss:
        """From placed inputs to the loss; ImportError or AttributeError where there is none."""
        module, _, name = self.path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        if inspect.isclass(found):
            call = getattr(found(**self.options), self.method)
        else:
            call = partial(found, **self.options)
        activation = ACTIVATIONS.get((self.backend, self.activation))

        def loss(placed: Any) -> Any:
            arrays = [placed[name] for name in self.wants]
            if self.per_image:
                arrays = [a[0] for a in arrays]
            if activation:
                arrays[0] = activation(arrays[0])
            value = call(*arrays)
            return value.mean() if self.leaves and value.ndim else value

        return loss

    def missing(self, error: Exception) -> str:
        """Why it cannot be loaded."""
        package = self.path.partition(".")[0]
        if isinstance(error, AttributeError):
            return f"not there: {error}"
        if getattr(error, "name", None) != package:
            return f"does not import: {error}"
        if package == "segmentation_models_pytorch":  # drags torchvision, so in no extra
            return "not installed: pip install segmentation-models-pytorch"
        return f"not installed: {INSTALL}"


def _torch(library: str, name: str, path: str, *wants: str, **more: Any) -> Peer:
    return Peer(MAPS, "torch", library, name, path, wants, **more)


def _ours(group: str, name: str, function: str, *wants: str, **more: Any) -> tuple[Peer, ...]:
    return tuple(
        Peer(group, backend, OURS, name, f"saliency_losses.{backend}.{function}", wants, **more)
        for backend in ("torch", "jax")
    )


SMP = "segmentation_models_pytorch.losses"
PEERS: tuple[Peer, ...] = (
    *_ours(
        MAPS,
        "weighted F-beta, window",
        "weighted_fbeta_loss",
        "logits",
        "target",
        activation="sigmoid",
    ),
    *_ours(
        MAPS,
        "weighted F-beta, exact distance",
        "weighted_fbeta_loss",
        "logits",
        "target",
        activation="sigmoid",
        options={"distance": "euclidean"},
    ),
    _torch("kornia", "dice", "kornia.losses.dice_loss", "class logits", "labels"),
    _torch("kornia", "focal", "kornia.losses.binary_focal_loss_with_logits", "logits", "target"),
    _torch("kornia", "Lovász hinge", "kornia.losses.lovasz_hinge_loss", "logits", "labels"),
    _torch(
        "kornia",
        "HausdorffER",
        "kornia.losses.HausdorffERLoss",
        "class logits",
        "label maps",
        activation="softmax",
    ),
    _torch("MONAI", "Dice", "monai.losses.DiceLoss", "logits", "target", options={"sigmoid": True}),
    _torch("MONAI", "focal", "monai.losses.FocalLoss", "logits", "target"),
    _torch(
        "MONAI",
        "HausdorffDT",
        "monai.losses.HausdorffDTLoss",
        "logits",
        "target",
        options={"sigmoid": True, "include_background": True},
    ),
    _torch("smp", "Dice", f"{SMP}.DiceLoss", "logits", "target", options={"mode": "binary"}),
    _torch("smp", "focal", f"{SMP}.FocalLoss", "logits", "target", options={"mode": "binary"}),
    _torch("smp", "Lovász", f"{SMP}.LovaszLoss", "logits", "target", options={"mode": "binary"}),
    Peer(MAPS, "jax", "optax", "dice", "optax.losses.binary_dice_loss", ("logits", "target")),
    Peer(MAPS, "jax", "optax", "focal", "optax.losses.sigmoid_focal_loss", ("logits", "target")),
    # none of the libraries has a loss on maps of embeddings or on unlabelled regions
    *_ours(REGIONS, "metric, 16 channels", "metric_loss", "embeddings", "labels"),
    *_ours(REGIONS, "CAS, 2 channels", "cas_loss", "class logits", "labels", activation="softmax"),
    *_ours(
        REGIONS,
        "class-agnostic cross-entropy",
        "class_agnostic_cross_entropy",
        "class logits",
        "labels",
    ),
    *_ours(
        REGIONS,
        "anchor softmax, 16 channels",
        "anchor_softmax_loss",
        "embeddings",
        "anchors",
        "labels",
        leaves=2,
    ),
    *_ours(REGIONS, "JS mutual information", "js_mutual_information_loss", "scores", "foreground"),
    *_ours(
        MEASURES, "weighted_fmeasure", "weighted_fmeasure", "probability maps", "target", leaves=0
    ),
    Peer(
        MEASURES,
        "numpy",
        "pysodmetrics",
        "WeightedFmeasure.cal_wfm",
        "py_sod_metrics.WeightedFmeasure",
        ("probabilities", "foreground"),
        leaves=0,
        method="cal_wfm",
        per_image=True,
    ),
    *_ours(
        DISTANCES,
        "distance_transform, indices",
        "distance_transform",
        "foreground",
        leaves=0,
        options={"return_indices": True},
    ),
    Peer(
        DISTANCES,
        "numpy",
        "scipy",
        "distance_transform_edt, indices",
        "scipy.ndimage.distance_transform_edt",
        ("background",),
        leaves=0,
        options={"return_indices": True},
        per_image=True,
    ),
    Peer(
        DISTANCES,
        "torch",
        "MONAI",
        "distance_transform_edt, indices",
        "monai.transforms.utils.distance_transform_edt",
        ("background",),
        leaves=0,
        options={"return_indices": True},
    ),
    Peer(
        DISTANCES,
        "torch",
        "kornia",
        "distance_transform",
        "kornia.contrib.distance_transform",
        ("target",),
        leaves=0,
    ),
    Peer(
        DISTANCES,
        "torch",
        "torchmetrics",
        "distance_transform",
        "torchmetrics.functional.segmentation.utils.distance_transform",
        ("background",),
        leaves=0,
        per_image=True,
    ),
)


def load(parts: Sequence[str]) -> tuple[list[tuple[Peer, Loss]], list[tuple[Peer, str]]]:
    """The peers whose label contains one of `parts`, or all; and those not there, with why."""
    there: list[tuple[Peer, Loss]] = []
    absent: list[tuple[Peer, str]] = []
    for peer in PEERS:
        if parts and not any(part in peer.label for part in parts):
            continue
        try:
            with contained():
                there.append((peer, peer.load()))
        except (ImportError, AttributeError) as error:
            absent.append((peer, peer.missing(error)))
    if all(peer.library == OURS for peer, _ in there):
        missing = ", ".join(dict.fromkeys(p.library for p, _ in absent if p.library != OURS))
        if missing:
            raise SystemExit(f"Nothing to compare with: {missing} not installed: {INSTALL}")
    return there, absent


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Other people's code, which warns and may leave global settings changed."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    grad = torch.is_grad_enabled()
    with warnings.catch_warnings(), np.errstate(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
