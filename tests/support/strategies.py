"""What the value and property tests draw: NumPy arrays, channels last, two images to a batch.

Hypothesis draws the shape from a fixed short list (JAX compiles anew for each), the kind of every
image by itself, and a seed; NumPy draws the values. Pixels that the mask ignores hold values that
would be refused or overflow if they counted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from saliency_losses import reference

Array = np.ndarray
Options = dict[str, Any]
N = 2
# Each spatial shape has its own number of channels, so that no further shape is compiled.
CHANNELS_OF = {(7,): 1, (5, 4): 3, (1, 6): 2, (2, 3, 4): 3}
# PyTorch filters blocks of 64 pixels: 70 is more than one.
MAPS_OF = {(5, 4): 2, (6, 1): 1, (2, 70): 1, (2, 3, 4): 2}
DTYPES = ("float64", "float32")
HUGE = 1e30

seeds = st.integers(0, 2**32 - 1)
rngs = seeds.map(np.random.default_rng)
dtypes = st.sampled_from(DTYPES)


class Problem(NamedTuple):
    """One call: the function's arguments and options, and the dtype that it should return."""

    args: tuple[Any, ...]
    options: Options
    dtype: str = "float64"


# One image of a kind


def _features(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    return {
        "normal": lambda: rng.normal(size=shape) * 3,
        "offset": lambda: rng.normal(size=shape) + 1e4,
        "extreme": lambda: rng.normal(size=shape) * 1e4,
        "narrow": lambda: 1 + 1e-3 * rng.normal(size=shape),
        "grid": lambda: rng.integers(-2, 3, shape).astype(float),
        "constant": lambda: np.broadcast_to(rng.normal(size=shape[-1]), shape),
        "below 1e-12": lambda: rng.uniform(-1, 1, shape) * 1e-13,
        "zero": lambda: np.zeros(shape),
    }[kind]()


def _probs(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    return {
        "softmax": lambda: softmax(rng.normal(size=shape) * 2),
        "uniform": lambda: rng.random(shape),
        "narrow": lambda: 0.3 + 1e-3 * rng.random(shape),
        "one-hot": lambda: np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])],
        "half": lambda: np.full(shape, 0.5),
        "zero": lambda: np.zeros(shape),
    }[kind]()


def _labels(rng: np.random.Generator, kind: str, shape: tuple[int, ...], regions: int) -> Array:
    labels = {
        "random": lambda: rng.integers(0, regions, shape),
        "few regions": lambda: rng.choice(rng.integers(0, regions, 2), shape),
        "first": lambda: np.zeros(shape, int),
        "last": lambda: np.full(shape, regions - 1),
        "one pixel": lambda: np.zeros(shape, int),
    }[kind]()
    if kind == "one pixel":
        labels[tuple(rng.integers(0, shape))] = regions - 1
    return labels


def _mask(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    return {
        "random": lambda: rng.random(shape) < 0.6,
        "all": lambda: np.ones(shape, bool),
        "none": lambda: np.zeros(shape, bool),
        "one": lambda: np.arange(np.prod(shape)).reshape(shape) == rng.integers(np.prod(shape)),
    }[kind]()


SCORE_KINDS = ("normal", "offset", "extreme", "grid", "zero")
FEATURE_KINDS = ("normal", "offset", "narrow", "grid", "constant", "below 1e-12", "zero")
PROB_KINDS = ("softmax", "uniform", "narrow", "one-hot", "half", "zero")
LABEL_KINDS = ("random", "random", "few regions", "first", "last", "one pixel")
MASK_KINDS = ("random", "random", "all", "none", "one")


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def over(
    draw: Any,
    make: Callable[..., Array],
    rng: np.random.Generator,
    kinds: tuple[str, ...],
    shape: tuple[int, ...],
    *rest: Any,
) -> Array:
    """A batch, each image of its own kind."""
    return np.stack([make(rng, draw(st.sampled_from(kinds)), shape, *rest) for _ in range(N)])


def spoil(x: Array, mask: Array | None, value: float) -> Array:
    """`x` with `value` wherever the mask does not count; bools can hold nothing wrong."""
    if mask is None or x.dtype == bool:
        return x
    ignored = ~mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return np.where(ignored, np.asarray(value).astype(x.dtype), x)


def _mask_or_none(draw: Any, rng: np.random.Generator, spatial: tuple[int, ...]) -> Array | None:
    return over(draw, _mask, rng, MASK_KINDS, spatial) if draw(st.booleans()) else None


def _labels_and_mask(
    draw: Any, rng: np.random.Generator, spatial: tuple[int, ...], regions: int
) -> tuple[Array, Array | None]:
    dtype = draw(st.sampled_from(("uint8", "int32", "int64") + ("bool",) * (regions <= 2)))
    labels = over(draw, _labels, rng, LABEL_KINDS, spatial, regions).astype(dtype)
    mask = _mask_or_none(draw, rng, spatial)
    return spoil(labels, mask, 255), mask


# Calls of the losses


@st.composite
def metric(draw: Any) -> Problem:
    rng, dtype, spatial = draw(rngs), draw(dtypes), draw(st.sampled_from(list(CHANNELS_OF)))
    labels, mask = _labels_and_mask(draw, rng, spatial, 2)
    x = over(draw, _features, rng, FEATURE_KINDS, (*spatial, CHANNELS_OF[spatial])).astype(dtype)
    options = draw(
        st.sampled_from(
            (
                {},
                {"form": "pairwise"},
                {"hard_negatives": True},
                {"stop_gradient": True},
                {"hard_negatives": True, "stop_gradient": True},
            )
        )
    )
    return Problem(
        (spoil(x, mask, HUGE), labels),
        options | {"normalize": draw(st.booleans()), "mask": mask},
        dtype,
    )


@st.composite
def background(draw: Any) -> Problem:
    rng, dtype, spatial = draw(rngs), draw(dtypes), draw(st.sampled_from(list(CHANNELS_OF)))
    x = over(draw, _features, rng, FEATURE_KINDS, (*spatial, CHANNELS_OF[spatial])).astype(dtype)
    weights = over(draw, _probs, rng, ("uniform", "one-hot", "half", "zero"), (*spatial, 1))[..., 0]
    if draw(st.booleans()):
        weights = (weights > 0.5).astype(draw(st.sampled_from(("bool", "uint8", "int64"))))
    else:
        weights = 9 * weights.astype(dtype)
    return Problem((x, weights), {}, dtype)


@st.composite
def cas(draw: Any) -> Problem:
    rng, dtype = draw(rngs), draw(dtypes)
    spatial, regions = draw(
        st.sampled_from((((7,), 2), ((5, 4), 7), ((1, 6), 1), ((1, 6), 3), ((2, 3, 4), 5)))
    )
    labels, mask = _labels_and_mask(draw, rng, spatial, regions)
    s = over(draw, _probs, rng, PROB_KINDS, (*spatial, CHANNELS_OF[spatial])).astype(dtype)
    return Problem(
        (spoil(s, mask, 7.0), labels),
        {
            "num_regions": regions,
            "alpha": draw(st.floats(0, 1)),
            "average_regions": draw(st.booleans()),
            "mask": mask,
        },
        dtype,
    )


@st.composite
def cross_entropy(draw: Any) -> Problem:
    rng, dtype, spatial = draw(rngs), draw(dtypes), draw(st.sampled_from(list(CHANNELS_OF)))
    labels, mask = _labels_and_mask(draw, rng, spatial, 2)
    # Not farther from 0: log Σ exp z − z, as the reference has it, would lose digits of float64.
    z = over(draw, _features, rng, SCORE_KINDS, (*spatial, 2)) * draw(st.sampled_from((1, -1)))
    return Problem(
        (spoil(z.astype(dtype), mask, -HUGE), labels),
        {"per": draw(st.sampled_from(("image", "pixel"))), "mask": mask},
        dtype,
    )


def _target(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    y = np.zeros(shape, bool)
    if kind == "random":
        y = rng.random(shape) < rng.uniform(0.05, 0.9)
    elif kind == "all":
        y[...] = True
    elif kind == "box":
        y[tuple(slice(n // 3, n // 3 + 1 + n // 3) for n in shape[:-1])] = True
    elif kind == "pixel":
        y[tuple(rng.integers(0, shape))] = True  # of several maps, all but one are empty
    return y


def _softened(rng: np.random.Generator, kind: str, y: Array) -> Array:
    """Targets between 0 and 1 instead of the boolean `y`; a map of 0 alone stays one."""
    return {
        "edges": lambda: np.where(rng.random(y.shape) < 0.3, rng.random(y.shape), y) * y.any(),
        "matte": lambda: rng.random(y.shape) ** 2 * y.any(),
        "faint": lambda: y * rng.uniform(0.01, 0.5, y.shape),  # no pixel above ½
        "eighths": lambda: np.where(y, rng.integers(0, 9, y.shape) / 8, 0.0),  # ½ among them
        "none": lambda: y.astype(float),
    }[kind]()


def _prediction(rng: np.random.Generator, kind: str, y: Array) -> Array:
    return {
        "uniform": lambda: rng.random(y.shape),
        "nearly": lambda: np.where(y > 0.5, 0.9, 0.1) + rng.uniform(-0.1, 0.1, y.shape),
        "perfect": lambda: y.astype(float),
        "inverse": lambda: 1.0 - y,
        "binary": lambda: (rng.random(y.shape) < 0.5).astype(float),
        "half": lambda: np.full(y.shape, 0.5),
    }[kind]()


SOFT_KINDS = ("edges", "matte", "faint", "eighths", "none")
TARGET_KINDS = ("random", "random", "none", "all", "box", "pixel")
PREDICTION_KINDS = ("uniform", "uniform", "nearly", "perfect", "inverse", "binary", "half")


@st.composite
def maps(draw: Any, shapes: tuple[tuple[int, ...], ...] = tuple(MAPS_OF)) -> Problem:
    """For the weighted F loss and score."""
    rng, dtype, spatial = draw(rngs), draw(dtypes), draw(st.sampled_from(shapes))
    y = over(draw, _target, rng, TARGET_KINDS, (*spatial, MAPS_OF[spatial]))
    kinds = ("bool", "uint8", "int32", "int64", dtype)
    if draw(st.booleans()):
        kinds = (dtype,)
        y = np.stack([_softened(rng, draw(st.sampled_from(SOFT_KINDS)), own) for own in y])
        y = y.astype(dtype)
    p = (
        np.stack(
            [_prediction(rng, draw(st.sampled_from(PREDICTION_KINDS)), y[i]) for i in range(N)]
        )
        .clip(0, 1)
        .astype(dtype)
    )
    mask = _mask_or_none(draw, rng, spatial)
    options: Options = {
        "beta": draw(st.floats(0.1, 4)),
        "theta": draw(st.sampled_from((1, 3, 9))),
        "phi": draw(st.sampled_from((0, 1, 3, 5))),
        "distance": draw(st.sampled_from(("window", "euclidean"))),
        "error": draw(st.sampled_from(("squared", "absolute"))),
        "normalize_kernel": draw(st.booleans()),
        "mask": mask,
    }
    given = draw(st.sampled_from(("none", "none", "own", "other")))
    if given == "own":
        options["distance_weights"] = exact(
            "distance_weights", y, distance="euclidean", mask=mask
        ).astype(dtype)
    elif given == "other":
        options["distance_weights"] = rng.uniform(0, 3, y.shape).astype(dtype)
    target = y.astype(draw(st.sampled_from(kinds)))
    return Problem((spoil(p, mask, 7.0), spoil(target, mask, 7)), options, dtype)


@st.composite
def evaluated(draw: Any) -> Problem:
    """For the measure, which has no mask."""
    rng, dtype, spatial = draw(rngs), draw(dtypes), draw(st.sampled_from(list(MAPS_OF)))
    y = over(draw, _target, rng, TARGET_KINDS, (*spatial, MAPS_OF[spatial]))
    p = (
        np.stack(
            [_prediction(rng, draw(st.sampled_from(PREDICTION_KINDS)), y[i]) for i in range(N)]
        )
        .clip(0, 1)
        .astype(dtype)
    )
    target = y.astype(draw(st.sampled_from(("bool", "uint8", "int64", dtype))))
    return Problem((p, target), {"beta": draw(st.sampled_from((0.5, 1.0, 2.0)))}, dtype)


@st.composite
def targets(draw: Any) -> Problem:
    rng, spatial = draw(rngs), draw(st.sampled_from(list(MAPS_OF)))
    y = over(draw, _target, rng, TARGET_KINDS, (*spatial, MAPS_OF[spatial]))
    mask = _mask_or_none(draw, rng, spatial)
    dtype = draw(st.sampled_from(("bool", "uint8", "int64", "float32", "float64")))
    if dtype.startswith("float"):
        y = np.stack([_softened(rng, draw(st.sampled_from(SOFT_KINDS)), own) for own in y])
    return Problem(
        (spoil(y.astype(dtype), mask, 7),),
        {
            "phi": draw(st.sampled_from((0, 1, 3, 5, 80))),
            "distance": draw(st.sampled_from(("window", "euclidean"))),
            "mask": mask,
        },
        "float64" if dtype == "float64" else "float32",
    )


@st.composite
def foregrounds(draw: Any) -> np.ndarray:
    """Images of any rank and of any share of foreground, none and all among them."""
    # Few shapes: JAX compiles for each.
    spatial = draw(st.sampled_from(((7,), (5, 4), (1, 6), (9, 2), (2, 3, 4))))
    share = draw(st.sampled_from((0.0, 0.05, 0.3, 1.0)))
    return draw(rngs).random((N, *spatial)) < share


@st.composite
def anchored(draw: Any, masked: bool = True) -> Problem:
    """Features, anchors (some of them equal to features) and labels."""
    rng, dtype = draw(rngs), draw(dtypes)
    spatial, regions = draw(st.sampled_from((((7,), 1), ((5, 4), 2), ((1, 6), 4), ((2, 3, 4), 3))))
    channels = CHANNELS_OF[spatial]
    x = over(draw, _features, rng, FEATURE_KINDS, (*spatial, channels)).astype(dtype)
    anchors = np.stack([image.reshape(-1, channels)[rng.integers(0, 6, regions)] for image in x])
    if draw(st.booleans()):
        anchors = anchors + rng.integers(-1, 2, anchors.shape).astype(dtype)
    labels, mask = _labels_and_mask(draw, rng, spatial, regions)
    mask = mask if masked else None
    return Problem((spoil(x, mask, HUGE), anchors, labels), {"mask": mask}, dtype)


@st.composite
def weighted(draw: Any) -> Problem:
    """Features and the weights of 2 regions."""
    rng, dtype, spatial = draw(rngs), draw(dtypes), draw(st.sampled_from(list(CHANNELS_OF)))
    x = over(draw, _features, rng, FEATURE_KINDS, (*spatial, CHANNELS_OF[spatial])).astype(dtype)
    w = over(draw, _probs, rng, ("softmax", "uniform", "one-hot", "half", "zero"), (*spatial, 2))
    if draw(st.booleans()):
        w[..., 0] = 0
    kind = draw(st.sampled_from(("bool", "int64", "heavy", "light")))
    scale = {"heavy": 5.0, "light": 1e-3}.get(kind)
    return Problem((x, (scale * w).astype(dtype) if scale else (w > 0.5).astype(kind)), {}, dtype)


@st.composite
def pairs(draw: Any) -> Problem:
    """Scores of a critic and which of them are joint."""
    rng, dtype, shape = draw(rngs), draw(dtypes), draw(st.sampled_from(((9,), (4, 4), (2, 3, 4))))
    t = over(draw, _features, rng, SCORE_KINDS, shape) * draw(st.sampled_from((1, -1)))
    joint = over(draw, _labels, rng, LABEL_KINDS, shape, 2).astype(bool)
    if shape == (4, 4) and draw(st.booleans()):
        joint[:] = np.eye(4, dtype=bool)
    mask = _mask_or_none(draw, rng, shape)
    return Problem((spoil(t.astype(dtype), mask, HUGE), joint), {"mask": mask}, dtype)


@st.composite
def priors(draw: Any, count: int = 1) -> Problem:
    """Maps in [0, 1], often in 16ths: float32 compares them with each other and with thresholds in
    16ths as float64 does, and they often are equal.
    """
    rng, dtype, spatial = draw(rngs), draw(dtypes), draw(st.sampled_from(list(CHANNELS_OF)))
    made = []
    for _ in range(count):
        fine = dtype == "float64" and draw(st.booleans())
        prior = rng.random((N, *spatial)) if fine else rng.integers(0, 17, (N, *spatial)) / 16
        ends = draw(st.sampled_from(("full", "full", "low", "zero")))
        prior = prior * {"full": 1, "low": 0.5, "zero": 0}[ends]
        made.append(prior.astype(dtype))
    return Problem(tuple(made), {}, dtype)


# The oracle on batches


def exact(function: str, *args: Any, **options: Any) -> Any:
    """The reference image by image; the weighted F functions map by map, averaged."""
    options.pop("stop_gradient", None)
    of_one = getattr(reference, function)

    def of_image(i: int) -> Any:
        own = [x[i] if isinstance(x, np.ndarray) else x for x in args]
        rest = {k: x[i] if isinstance(x, np.ndarray) else x for k, x in options.items()}
        if function == "distance_weights":
            return np.stack(
                [of_one(own[0][..., k], **rest) for k in range(own[0].shape[-1])], axis=-1
            )
        if not function.startswith("weighted_f"):
            return of_one(*own, **rest)
        weights = rest.pop("distance_weights", None)
        given = [
            {} if weights is None else {"distance_weights": weights[..., k]}
            for k in range(own[0].shape[-1])
        ]
        return np.mean(
            [
                of_one(own[0][..., k], own[1][..., k], **rest, **given[k])
                for k in range(own[0].shape[-1])
            ]
        )

    results = [of_image(i) for i in range(len(args[0]))]
    if isinstance(results[0], tuple):
        return tuple(np.stack(parts) for parts in zip(*results, strict=True))
    return np.stack(results)


# Any loss, for the properties that all of them share


class Variant(NamedTuple):
    function: str
    options: Options

    def __repr__(self) -> str:
        return f"{self.function}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


METRIC = tuple(
    Variant("metric_loss", options)
    for options in (
        {},
        {"form": "pairwise"},
        {"stop_gradient": True},
        {"hard_negatives": True},
        {"normalize": True},
        {"normalize": True, "form": "pairwise"},
        {"normalize": True, "stop_gradient": True, "hard_negatives": True},
    )
)
CAS = (
    Variant("cas_loss", {}),
    Variant("cas_loss", {"num_regions": 3, "alpha": 0.9}),
    Variant("cas_loss", {"num_regions": 5, "average_regions": True}),
)
CROSS_ENTROPY = (
    Variant("class_agnostic_cross_entropy", {}),
    Variant("class_agnostic_cross_entropy", {"per": "pixel"}),
)
FBETA = (
    Variant("weighted_fbeta_loss", {}),
    Variant("weighted_fbeta_loss", {"error": "absolute", "distance": "euclidean", "beta": 0.5}),
    Variant("weighted_fbeta_loss", {"normalize_kernel": True, "theta": 3, "phi": 2}),
    Variant("weighted_fbeta_loss", {"normalize_kernel": True, "error": "absolute", "beta": 2.0}),
    Variant("weighted_fbeta_score", {}),
)
ANCHOR = (Variant("anchor_softmax_loss", {}),)
PAIRS = (
    Variant("js_mutual_information_loss", {}),
    Variant("js_mutual_information_loss", {"balance": False}),
    Variant("js_mutual_information", {}),
)
POINTWISE = METRIC + CAS + CROSS_ENTROPY + ANCHOR + PAIRS
VARIANTS = POINTWISE + FBETA
KINDS = ("random", "constant", "perfect", "zero")


def arguments(
    variant: Variant,
    rng: np.random.Generator,
    spatial: tuple[int, ...] = (5, 4),
    *,
    kind: str = "random",
    labelling: str = "random",
    dtype: str = "float64",
    n: int = N,
) -> tuple[Array, ...]:
    """Arguments of `variant` for `n` images, of a kind of prediction and a kind of labels."""
    function, regions = variant.function, variant.options.get("num_regions", 2)
    labels = np.stack([_labels(rng, labelling, spatial, regions) for _ in range(n)])
    if labelling == "random":
        labels.reshape(n, -1)[:, :regions] = np.arange(regions)
    one_hot = np.eye(regions)[labels]
    sign = 2.0 * labels - 1
    flat = np.full((n, *spatial, 2), 0.5)
    x = {"constant": np.full((n, *spatial, 3), 0.3), "zero": np.zeros((n, *spatial, 3))}
    if function == "metric_loss":
        x |= {"random": rng.normal(size=(n, *spatial, 3)), "perfect": sign[..., None] * [0, 1, 0]}
    elif function == "cas_loss":
        x |= {"random": softmax(rng.normal(size=(n, *spatial, 3))), "perfect": one_hot}
    elif function == "class_agnostic_cross_entropy":
        x = {
            "random": 3 * rng.normal(size=flat.shape),
            "constant": flat,
            "zero": 0 * flat,
            "perfect": 200.0 * one_hot,
        }
    elif function.startswith("weighted_fbeta"):
        target = np.stack(
            [labels == 1, rng.permuted(labels.reshape(n, -1), axis=1).reshape(labels.shape) == 1],
            axis=-1,
        )
        x = {
            "random": rng.random(flat.shape),
            "constant": flat,
            "zero": 0 * flat,
            "perfect": target.astype(float),
        }
        return x[kind].astype(dtype), target
    elif function.startswith("js_"):
        maps = {
            "random": 3 * rng.normal(size=labels.shape),
            "constant": flat[..., 0],
            "zero": 0 * flat[..., 0],
            "perfect": 200.0 * sign,
        }
        return maps[kind].astype(dtype), labels == 1
    elif function == "anchor_softmax_loss":
        anchors = 20 * rng.normal(size=(n, 2, 3))
        if kind != "perfect":
            anchors = 0 * anchors + {"random": rng.normal(size=anchors.shape)}.get(
                kind, x["constant"][0].flat[0] if kind == "constant" else 0.0
            )
        x |= {
            "random": rng.normal(size=(n, *spatial, 3)),
            "perfect": np.stack([a[own] for a, own in zip(anchors, labels, strict=True)]),
        }
        return x[kind].astype(dtype), anchors.astype(dtype), labels
    return x[kind].astype(dtype), labels
