"""Losses, measures and distance transforms of other libraries and of this one, and their calls.

A library is imported when an entry of it is loaded; none of them is required.
"""

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

from benchmarks.backends import Backend
from benchmarks.cases import Array, Inputs, predictions

OURS = "ours"
INSTALL = "pip install -e .[peers]"
PACKAGES = (
    "edt",
    "kornia",
    "monai",
    "opencv-python-headless",
    "optax",
    "pysodmetrics",
    "segmentation-models-pytorch",
    "torch-distmap",
    "torchmetrics",
)
EAGER, COMPILED = Backend("torch", "eager"), Backend("torch", "compile")
JIT = Backend("jax", "jit")
NUMPY = Backend("numpy", "numpy")
Loss = Callable[[Any], Any]  # from placed inputs to the loss

MAPS = "binary maps"
REGIONS = "embeddings and regions"
MEASURES = "the weighted F-measure, one image, forward"
DISTANCES = "distance transform, one image"


def map_logits(rng: np.random.Generator, masks: Array) -> Array:
    """Logits with noise: no two are equal, since losses that sort have no gradient at ties."""
    probs = predictions(rng, masks).clip(0.01, 0.99)
    logits: Array = np.log(probs / (1 - probs)) + 0.1 * rng.standard_normal(masks.shape)
    return logits[..., None].astype(np.float32)


def class_logits(rng: np.random.Generator, masks: Array) -> Array:
    """Logits of two classes whose softmax equals the sigmoid of `map_logits`."""
    half = map_logits(rng, masks) / 2
    return np.concatenate([-half, half], axis=-1)


def embeddings(rng: np.random.Generator, masks: Array) -> Array:
    """Embeddings of 16 channels, scattered around one mean per image and region."""
    means = rng.standard_normal((len(masks), 2, 16))
    features: Array = means[np.arange(len(masks))[:, None, None], masks.astype(int)]
    return (features + rng.standard_normal(features.shape)).astype(np.float32)


def region_means(rng: np.random.Generator, masks: Array) -> Array:
    """Anchors (N, 2, C) near the means of the embeddings; an empty region's anchor is noise."""
    features = embeddings(rng, masks)
    weights = np.stack([~masks, masks], axis=1)[..., None]
    sums = (weights * features[:, None]).sum((2, 3))
    anchors: Array = sums / np.maximum(weights.sum((2, 3)), 1)
    return (anchors + 0.1 * rng.standard_normal(anchors.shape)).astype(np.float32)


# Makers of arguments from a random generator and boolean masks (N, H, W); channels come last.
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
    "background bytes": lambda rng, masks: (~masks).astype(np.uint8),
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

    `arguments` are names in `ARRAYS`. The first `gradient_count` of them get gradients; if it is 0,
    the function runs forward only. `activation` is applied to the first argument as part of the
    call, since networks end in logits.
    """

    group: str
    framework: str  # torch, jax, numpy
    library: str
    name: str
    path: str
    arguments: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    activation: str = ""
    gradient_count: int = 1
    method: str = "__call__"  # the method to call, if `path` is a class
    per_image: bool = False  # True if the function takes one image without a batch axis

    @property
    def label(self) -> str:
        return f"{self.library}: {self.name}"

    @property
    def framework_name(self) -> str:
        return {"torch": "PyTorch", "jax": "JAX", "numpy": "NumPy"}[self.framework]

    @property
    def gradients(self) -> tuple[str, ...]:
        return self.arguments[: self.gradient_count]

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Backends to time: that of the library's users, and for our losses also torch.compile."""
        if self.framework == "numpy":
            return (NUMPY,)
        if self.framework == "jax":
            return (JIT,)
        return (EAGER, COMPILED) if self.library == OURS else (EAGER,)

    def inputs(self, seed: int, masks: Array, predicted: Array | None = None) -> Inputs:
        """The arguments; the first one, the prediction, shows `predicted` (default: `masks`)."""
        sources = [masks if predicted is None else predicted]
        sources += [masks] * (len(self.arguments) - 1)
        return {
            name: ARRAYS[name](np.random.default_rng(seed), source)
            for name, source in zip(self.arguments, sources, strict=True)
        }

    def load(self) -> Loss:
        """Import the loss; ImportError or AttributeError if it does not exist."""
        module, _, name = self.path.rpartition(".")
        imported = getattr(importlib.import_module(module), name)
        if inspect.isclass(imported):
            call = getattr(imported(**self.options), self.method)
        else:
            call = partial(imported, **self.options)
        activation = ACTIVATIONS.get((self.framework, self.activation))

        def loss(placed: Any) -> Any:
            arrays = [placed[name] for name in self.arguments]
            if self.per_image:
                arrays = [a[0] for a in arrays]
            if activation:
                arrays[0] = activation(arrays[0])
            value = call(*arrays)
            return value.mean() if self.gradient_count and value.ndim else value

        return loss

    def why_missing(self, error: Exception) -> str:
        """Description of the error that `load` raised."""
        package = self.path.partition(".")[0]
        if isinstance(error, AttributeError):
            return f"not found: {error}"
        if getattr(error, "name", None) != package:
            return f"does not import: {error}"
        if package == "segmentation_models_pytorch":  # in no extra: it depends on torchvision
            return "not installed: pip install segmentation-models-pytorch"
        return f"not installed: {INSTALL}"


def _torch(library: str, name: str, path: str, *arguments: str, **more: Any) -> Peer:
    return Peer(MAPS, "torch", library, name, path, arguments, **more)


def _ours(group: str, name: str, function: str, *arguments: str, **more: Any) -> tuple[Peer, ...]:
    return tuple(
        Peer(
            group,
            framework,
            OURS,
            name,
            f"saliency_losses.{framework}.{function}",
            arguments,
            **more,
        )
        for framework in ("torch", "jax")
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
    # None of the libraries has a loss for maps of embeddings or for regions without class labels.
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
        gradient_count=2,
    ),
    *_ours(REGIONS, "JS mutual information", "js_mutual_information_loss", "scores", "foreground"),
    *_ours(
        MEASURES,
        "weighted_fmeasure",
        "weighted_fmeasure",
        "probability maps",
        "target",
        gradient_count=0,
    ),
    Peer(
        MEASURES,
        "numpy",
        "pysodmetrics",
        "WeightedFmeasure.cal_wfm",
        "py_sod_metrics.WeightedFmeasure",
        ("probabilities", "foreground"),
        gradient_count=0,
        method="cal_wfm",
        per_image=True,
    ),
    *_ours(
        DISTANCES,
        "distance_transform",
        "distance_transform",
        "foreground",
        gradient_count=0,
    ),
    *_ours(
        DISTANCES,
        "distance_transform, indices",
        "distance_transform",
        "foreground",
        gradient_count=0,
        options={"return_indices": True},
    ),
    Peer(
        DISTANCES,
        "numpy",
        "scipy",
        "distance_transform_edt",
        "scipy.ndimage.distance_transform_edt",
        ("background",),
        gradient_count=0,
        per_image=True,
    ),
    Peer(
        DISTANCES,
        "numpy",
        "scipy",
        "distance_transform_edt, indices",
        "scipy.ndimage.distance_transform_edt",
        ("background",),
        gradient_count=0,
        options={"return_indices": True},
        per_image=True,
    ),
    Peer(
        DISTANCES,
        "numpy",
        "OpenCV",
        "distanceTransform, precise",
        "cv2.distanceTransform",
        ("background bytes",),
        gradient_count=0,
        options={"distanceType": 2, "maskSize": 0},  # cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        per_image=True,
    ),
    Peer(
        DISTANCES,
        "numpy",
        "edt",
        "edt",
        "edt.edt",
        ("background",),
        gradient_count=0,
        per_image=True,
    ),
    Peer(
        DISTANCES,
        "torch",
        "torch-distmap",
        "euclidean_distance_transform",
        "distmap.euclidean_distance_transform",
        ("background",),
        gradient_count=0,
        per_image=True,
    ),
    Peer(
        DISTANCES,
        "torch",
        "MONAI",
        "distance_transform_edt, indices",
        "monai.transforms.utils.distance_transform_edt",
        ("background",),
        gradient_count=0,
        options={"return_indices": True},
    ),
    Peer(
        DISTANCES,
        "torch",
        "kornia",
        "distance_transform",
        "kornia.contrib.distance_transform",
        ("target",),
        gradient_count=0,
    ),
    Peer(
        DISTANCES,
        "torch",
        "torchmetrics",
        "distance_transform",
        "torchmetrics.functional.segmentation.utils.distance_transform",
        ("background",),
        gradient_count=0,
        per_image=True,
    ),
)


def load(parts: Sequence[str]) -> tuple[list[tuple[Peer, Loss]], list[tuple[Peer, str]]]:
    """The peers whose label contains one of `parts` (all if empty): loaded ones, missing ones.

    Each loaded peer comes with its loss, each missing one with the reason.
    """
    loaded: list[tuple[Peer, Loss]] = []
    missing: list[tuple[Peer, str]] = []
    for peer in PEERS:
        if parts and not any(part in peer.label for part in parts):
            continue
        try:
            with isolated():
                loaded.append((peer, peer.load()))
        except (ImportError, AttributeError) as error:
            missing.append((peer, peer.why_missing(error)))
    if all(peer.library == OURS for peer, _ in loaded):
        libraries = dict.fromkeys(p.library for p, _ in missing if p.library != OURS)
        if libraries:
            raise SystemExit(
                f"peers: expected at least one other library, but {', '.join(libraries)} cannot be "
                f"imported; {INSTALL}"
            )
    return loaded, missing


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Context for other libraries' code: no warnings, and global settings restored at its end."""
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
