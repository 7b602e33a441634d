"""Digits: half precision, long sums, large offsets, extreme values, and the dtypes of results."""

from collections.abc import Callable
from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import saliency_losses.jax
import saliency_losses.torch
from tests.support.backends import BACKENDS, CHANNELS, Backend, close
from tests.support.cases import CASES, Case, bind

SIDE = 1024
HALVES = ["float16", "bfloat16"]
each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)


def ids(case: Any) -> str | None:
    return case.name if isinstance(case, Case) else None


every = pytest.mark.parametrize("case", CASES, ids=ids)


def cast(x: Any, dtype: str) -> Any:
    """A backend's array in another dtype, among them bfloat16, which NumPy lacks."""
    return x.to(getattr(torch, dtype)) if isinstance(x, torch.Tensor) else x.astype(dtype)


def dtype_of(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


def float64(x: Any) -> np.ndarray:
    return np.asarray(x.detach().double() if isinstance(x, torch.Tensor) else x, np.float64)


def result_dtype(*dtypes: str) -> str:
    return "float64" if "float64" in dtypes else "float32"


# Large images. Constant maps are the worst case of a running sum in float32: with 0.1 it is off by
# 1 % after a million terms, always in the same direction.


def large(side: int = SIDE) -> dict[str, Case]:
    rng = np.random.default_rng(7)
    labels = (rng.random((1, side, side)) > 0.3).astype(np.int64)
    mask = rng.random((1, side, side)) > 0.1
    signal = np.where(labels[..., None] == 1, [0.1, 0.9], [0.7, 0.3])
    textured = signal + np.where(rng.random((1, side, side, 1)) > 0.7, 0.05, 0.0)
    tenth = np.full((1, side, side), 0.1)
    target = (np.hypot(*np.mgrid[:side, :side] - side / 2) < side / 4).astype(np.int64)
    target = target[None, ..., None]
    # Not constant in the foreground, where a Gaussian of unit sum would tie with the error itself.
    probs = np.where(target == 1, np.where(rng.random(target.shape) > 0.3, 0.8, 0.6), 0.1)
    anchors = np.array([[[0.1, 0.8], [0.6, 0.3]]])
    return {
        case.name: case
        for case in [
            Case("metric", "metric_loss", (signal, labels), {"mask": mask}, (0,)),
            Case("metric_pairwise", "metric_loss", (textured, labels), {"form": "pairwise"}, (0,)),
            Case("metric_normalize", "metric_loss", (signal, labels), {"normalize": True}, (0,)),
            Case("metric_hard", "metric_loss", (signal, labels), {"hard_negatives": True}, (0,)),
            Case("cas", "cas_loss", (signal, labels), {"mask": mask}, (0,)),
            Case("cas_uniformer", "cas_loss", (textured, labels), {"alpha": 1.0}, (0,)),
            Case("cace", "class_agnostic_cross_entropy", (signal, labels), {}, (0,)),
            Case(
                "cace_pixel",
                "class_agnostic_cross_entropy",
                (signal, labels),
                {"per": "pixel", "mask": mask},
                (0,),
            ),
            Case("weighted_f", "weighted_fbeta_loss", (probs, target), {"mask": mask}, (0,)),
            Case(
                "weighted_f_empty", "weighted_fbeta_loss", (tenth[..., None], 0 * target), {}, (0,)
            ),
            Case(
                "weighted_f_normalize",
                "weighted_fbeta_loss",
                (probs, target),
                {"normalize_kernel": True, "error": "absolute"},
                (0,),
            ),
            Case(
                "anchor", "anchor_softmax_loss", (signal, anchors, labels), {"mask": mask}, (0, 1)
            ),
            Case(
                "region_anchors",
                "region_anchors",
                (signal, np.stack([tenth, np.where(labels == 1, 0.9, 0.1)], -1)),
                {},
                (0, 1),
            ),
            Case("semantic_distance", "semantic_distance", (signal, tenth), {}, (0,)),
            Case(
                "foreground_vector", "foreground_vector", (signal, tenth), {"threshold": 0.05}, (0,)
            ),
            Case("js", "js_mutual_information_loss", (tenth, labels == 1), {"mask": mask}, (0,)),
            Case(
                "js_pooled",
                "js_mutual_information_loss",
                (tenth, labels == 1),
                {"balance": False},
                (0,),
            ),
            Case("js_estimate", "js_mutual_information", (tenth, labels == 1), {}, (0,)),
        ]
    }


LARGE = large(8)  # names only; the arrays are made where they are used
large_case = pytest.mark.parametrize("name", LARGE)


@pytest.fixture(scope="module")
def images() -> dict[str, Case]:
    return large()


@pytest.fixture(scope="module")
def smaller() -> dict[str, Case]:
    """65,536 pixels: far more than half precision can sum."""
    return large(256)


def compiled(backend: Backend, case: Case) -> tuple[Callable[..., Any], list[Any]]:
    """As `bind`, as the backend is used: eager PyTorch, jitted JAX."""
    of, inputs = bind(backend, case)
    if backend.name == "torch":
        return of, inputs
    args, options = backend.prepared(case.function, case.args, case.options)
    public = getattr(backend.functions, case.function)
    # Labels and masks are arguments too: as constants XLA would compute on them at compile time.
    places = [k for k, x in enumerate(args) if isinstance(x, jax.Array) and k not in case.wrt]
    names = [k for k, x in options.items() if isinstance(x, jax.Array)]

    @jax.jit
    def full(inputs: Any, others: Any, named: Any) -> jax.Array:
        every = list(args)
        for k, x in zip((*case.wrt, *places), (*inputs, *others), strict=True):
            every[k] = x
        return public(*every, **options | named)

    others, named = [args[k] for k in places], {k: options[k] for k in names}
    return lambda *inputs: full(inputs, others, named), inputs


def in_dtype(backend: Backend, case: Case, dtype: str) -> tuple[Callable[..., Any], list[Any]]:
    of, inputs = compiled(backend, case)
    return of, [cast(x, dtype) for x in inputs]


def gradients(backend: Backend, of: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    """Of the sum of the result, in each input."""
    if backend.name == "jax":
        places = tuple(range(len(inputs)))
        return list(jax.grad(lambda *xs: of(*xs).sum(), places)(*inputs))
    inputs = [x.detach().requires_grad_() for x in inputs]
    return list(torch.autograd.grad(of(*inputs).sum(), inputs))


def scaled(*gradients: Any) -> list[np.ndarray]:
    """Gradients in pixels, which are about 1/P, as numbers about 1."""
    return [g * (SIDE**2 if g.size >= SIDE**2 else 1) for g in map(float64, gradients)]


@pytest.mark.slow
@large_case
def test_float32_sums_over_a_million_pixels(
    backend: Backend, name: str, images: dict[str, Case]
) -> None:
    of, inputs = compiled(backend, images[name].astype(np.float32))
    widened, _ = compiled(backend, images[name])
    # The same inputs, so that the sums alone make a difference.
    wide = [cast(x, "float64") for x in inputs]
    got, expected = of(*inputs), widened(*wide)
    assert dtype_of(got) == "float32"
    close(float64(got), float64(expected), "float32")
    for ours, theirs in zip(
        gradients(backend, of, inputs), gradients(backend, widened, wide), strict=True
    ):
        close(*scaled(ours, theirs), "float32")


def test_float32_sums_give_the_known_values(backend: Backend) -> None:
    """The same without a second program to compare with, on maps whose sums are known."""
    side = 512
    labels = np.zeros((1, side, side), np.int64)
    labels[:, : side // 4] = 1
    tenth = np.full((1, side, side, 1), 0.1, np.float32)
    two = np.where(labels[..., None] == 1, np.float32(0.1), np.float32(0.7))
    step = float(np.float32(0.7)) - float(np.float32(0.1))
    close(backend.call("metric_loss", two, labels), -(step**2), "float32")
    close(backend.call("cas_loss", two, labels), -(step**2), "float32")
    # The uniformer of a constant region is 0 to the square of the mean's rounding.
    assert 0 <= backend.call("cas_loss", two, labels, alpha=1.0) < 1e-10
    close(backend.call("region_anchors", tenth, tenth), [[[0.1]]], "float32")
    close(
        backend.call("region_anchors", tenth, np.concatenate([tenth, two], -1)),
        [[[0.1], [0.1]]],
        "float32",
    )
    close(backend.call("foreground_vector", tenth, tenth[..., 0]), [[0.1]], "float32")
    close(
        backend.call("js_mutual_information_loss", tenth[..., 0], labels == 1),
        np.logaddexp(0, -0.1) + np.logaddexp(0, 0.1),
        "float32",
    )
    close(
        backend.call(
            "anchor_softmax_loss", tenth, np.array([[[0.1], [0.2]]], np.float32), 0 * labels
        ),
        np.logaddexp(0, -0.1),
        "float32",
    )
    close(backend.call("weighted_fbeta_loss", tenth, np.zeros_like(tenth)), 0.1**2, "float32")
    close(
        backend.call(
            "class_agnostic_cross_entropy", np.concatenate([tenth, 0 * tenth], -1), 0 * labels
        ),
        np.logaddexp(0, -0.1),
        "float32",
    )


@pytest.mark.slow
@large_case
def test_channels_last_sums_are_as_exact(name: str, images: dict[str, Case]) -> None:
    backend = BACKENDS["torch"]
    case = images[name].astype(np.float32)
    of, inputs = bind(backend, case)
    widened, _ = bind(backend, images[name])
    last = [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    expected = float64(widened(*[x.double() for x in inputs]))
    close(float64(of(*last)), expected, "float32")
    for ours, theirs in zip(
        gradients(backend, of, last),
        gradients(backend, widened, [x.double() for x in inputs]),
        strict=True,
    ):
        close(*scaled(ours, theirs), "float32")


@pytest.mark.slow
@large_case
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_computed_in_float32(
    backend: Backend, name: str, dtype: str, smaller: dict[str, Case]
) -> None:
    of, inputs = in_dtype(backend, smaller[name].astype(np.float32), dtype)
    widened = [cast(x, "float32") for x in inputs]
    got, expected = of(*inputs), of(*widened)
    assert dtype_of(got) == "float32"
    assert np.isfinite(float64(got)).all()
    np.testing.assert_array_equal(float64(got), float64(expected))
    for ours, theirs in zip(
        gradients(backend, of, inputs), gradients(backend, of, widened), strict=True
    ):
        assert dtype_of(ours) == dtype
        # Rounded once, at the end.
        if backend.name == "torch":
            np.testing.assert_array_equal(float64(ours), float64(cast(theirs, dtype)))
            continue
        # XLA compiles the two inputs to different programs. If their float32 values differ in the
        # last bits, one may round up and the other down.
        ends = [float64(cast(theirs * factor, dtype)) for factor in (1 - 1e-6, 1 + 1e-6)]
        assert (np.minimum(*ends) <= float64(ours)).all()
        assert (float64(ours) <= np.maximum(*ends)).all()


# Dtypes


def gradient_dtypes(backend: Backend, of: Callable[..., Any], inputs: list[Any]) -> list[str]:
    if backend.name == "torch":
        return [dtype_of(g) for g in gradients(backend, of, inputs)]
    places = tuple(range(len(inputs)))
    # Traced only, which is enough for dtypes.
    return [
        dtype_of(g) for g in jax.eval_shape(jax.grad(lambda *xs: of(*xs).sum(), places), *inputs)
    ]


@every
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_dtypes_of_result_and_gradient(backend: Backend, case: Case, dtype: str) -> None:
    of, inputs = in_dtype(backend, case.astype(np.float32), dtype)
    result = of(*inputs)
    assert dtype_of(result) == result_dtype(dtype)
    assert gradient_dtypes(backend, of, inputs) == [dtype] * len(inputs)
    if dtype in HALVES:
        widened = [cast(x, "float32") for x in inputs]
        # To rounding: XLA compiles another program, which may fuse other products with sums.
        np.testing.assert_allclose(float64(result), float64(of(*widened)), rtol=3e-7, atol=1e-7)


PAIRS = [case for case in CASES if len(case.wrt) == 2]


@pytest.mark.parametrize("case", PAIRS, ids=ids)
@pytest.mark.parametrize(
    "dtypes",
    [
        ("float16", "float64"),
        ("float64", "bfloat16"),
        ("float32", "float64"),
        ("float16", "bfloat16"),
        ("bfloat16", "float16"),
        ("float16", "float32"),
        ("float32", "bfloat16"),
    ],
    ids="-".join,
)
def test_mixed_dtypes_promote(backend: Backend, case: Case, dtypes: tuple[str, str]) -> None:
    of, inputs = compiled(backend, case)
    mixed = [cast(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
    wide = [cast(x, result_dtype(*dtypes)) for x in mixed]
    got = of(*mixed)
    assert dtype_of(got) == result_dtype(*dtypes)
    np.testing.assert_array_equal(float64(got), float64(of(*wide)))
    assert tuple(gradient_dtypes(backend, of, mixed)) == dtypes


@pytest.mark.parametrize("function", ["weighted_fbeta_loss", "weighted_fbeta_score"])
@pytest.mark.parametrize(
    "dtypes",
    [
        ("float32", "float64", None),
        ("float64", "float32", None),
        ("float16", "float64", None),
        ("float16", "bfloat16", None),
        ("float32", "float32", "float64"),
        ("float16", "float16", "float64"),
        ("float64", "float32", "float32"),
        ("float32", "int64", "float16"),
    ],
)
def test_probs_target_and_distance_weights_promote(
    backend: Backend, function: str, dtypes: tuple[str, str, str | None]
) -> None:
    rng = np.random.default_rng(3)
    probs = backend.array(rng.random((2, 7, 6, 1)), True)
    target = backend.array((rng.random((2, 7, 6, 1)) > 0.5) * 1.0, True)
    given = backend.array(rng.uniform(1, 2, (2, 7, 6, 1)), True)
    call = getattr(backend.functions, function)
    expected = result_dtype(*filter(None, dtypes))
    probs, target = cast(probs, dtypes[0]), cast(target, dtypes[1])
    options, wide = {}, {}
    if dtypes[2]:
        options = {"distance_weights": cast(given, dtypes[2])}
        wide = {"distance_weights": cast(options["distance_weights"], expected)}
    got = call(probs, target, **options)
    assert dtype_of(got) == expected
    np.testing.assert_array_equal(
        float64(got), float64(call(cast(probs, expected), cast(target, expected), **wide))
    )


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bool", "float32"),
        ("uint8", "float32"),
        ("int32", "float32"),
        ("int64", "float32"),
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_the_dtype_of_distance_weights(backend: Backend, dtype: str, expected: str) -> None:
    target = np.zeros((1, 6, 7, 1))
    target[:, 2, 3] = 1
    call = backend.functions.distance_weights
    got = call(cast(backend.array(target, True), dtype))
    assert dtype_of(got) == expected
    close(float64(got), float64(call(backend.array(target, True))), expected)
    if expected == "float32":
        # Twice the float32 rounding, not that of a half precision.
        assert np.abs(float64(got) - float64(call(backend.array(target, True)))).max() < 3e-7


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
@pytest.mark.parametrize(
    ("function", "features"),
    [
        ("semantic_distance", "float64"),
        ("semantic_distance", "float16"),
        ("foreground_vector", "float64"),
        ("foreground_vector", "bfloat16"),
        ("region_anchors", "float64"),
        ("region_anchors", "float32"),
    ],
)
def test_whole_number_weights_take_the_dtype_of_the_features(
    backend: Backend, function: str, features: str, dtype: str
) -> None:
    rng = np.random.default_rng(4)
    x = cast(backend.array(rng.standard_normal((2, 5, 6, 3)), True), features)
    channels = CHANNELS[function][0][1]
    hard = backend.array(
        (rng.random((2, 5, 6, 2) if channels else (2, 5, 6)) > 0.5) * 1.0, channels
    )
    call = getattr(backend.functions, function)
    got = call(x, cast(hard, dtype))
    assert dtype_of(got) == result_dtype(features)
    np.testing.assert_array_equal(float64(got), float64(call(x, cast(hard, dtype_of(got)))))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int32"])
@pytest.mark.parametrize(
    "case",
    [
        c
        for c in CASES
        if c.name
        in (
            "metric",
            "metric_hard",
            "cas_average",
            "cace",
            "anchor",
            "weighted_f",
            "weighted_f_several",
        )
    ],
    ids=ids,
)
def test_labels_of_any_whole_dtype_are_the_same(backend: Backend, case: Case, dtype: str) -> None:
    place = len(case.args) - 1
    labels = np.minimum(case.args[place], 1) if dtype == "bool" else case.args[place]
    others = [case._replace(args=(*case.args[:place], labels.astype(d))) for d in (dtype, "int64")]
    close(*[backend.call(c.function, *c.args, **c.options) for c in others])


# Offsets and extreme values


@pytest.mark.parametrize("offset", [1e4, -1e6])
@pytest.mark.parametrize(
    "options",
    [{}, {"form": "pairwise"}, {"hard_negatives": True}, {"stop_gradient": True}],
    ids=str,
)
def test_the_metric_loss_keeps_its_digits_at_any_offset(
    backend: Backend, offset: float, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(5)
    features = (offset + rng.standard_normal((2, 16, 16, 4))).astype(np.float32)
    labels = rng.integers(0, 2, (2, 16, 16))
    wide = features.astype(np.float64)
    close(
        backend.call("metric_loss", features, labels, **options),
        backend.call("metric_loss", wide, labels, **options),
        "float32",
    )
    close(
        backend.gradient("metric_loss", features, labels, **options) * labels.size,
        backend.gradient("metric_loss", wide, labels, **options) * labels.size,
        "float32",
    )


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_distances_keep_their_digits_at_any_offset(backend: Backend, offset: float) -> None:
    rng = np.random.default_rng(6)
    features = (offset + rng.standard_normal((2, 16, 16, 4))).astype(np.float32)
    anchors = (offset + rng.standard_normal((2, 3, 4))).astype(np.float32)
    weights = rng.random((2, 16, 16)).astype(np.float32)
    labels = rng.integers(0, 3, (2, 16, 16))
    wide = [x.astype(np.float64) for x in (features, anchors, weights)]
    close(
        backend.call("semantic_distance", features, weights),
        backend.call("semantic_distance", wide[0], wide[2]),
        "float32",
    )
    close(
        backend.call("anchor_softmax_loss", features, anchors, labels),
        backend.call("anchor_softmax_loss", *wide[:2], labels),
        "float32",
    )
    close(
        backend.call("anchor_probabilities", features, anchors),
        backend.call("anchor_probabilities", *wide[:2]),
        "float32",
    )
    close(
        *(
            backend.gradient("anchor_softmax_loss", *xs, labels, wrt=1)
            for xs in ((features, anchors), wide[:2])
        ),
        "float32",
    )
    # A mean is as exact as its own size allows.
    close(
        backend.call("foreground_vector", features, weights),
        backend.call("foreground_vector", wide[0], wide[2]),
        "float32",
    )
    close(
        backend.call("region_anchors", features, weights[..., None]),
        backend.call("region_anchors", wide[0], wide[2][..., None]),
        "float32",
    )


def test_cas_keeps_its_digits_where_regions_nearly_agree(backend: Backend) -> None:
    rng = np.random.default_rng(8)
    probs = (0.5 + 1e-3 * rng.standard_normal((2, 32, 32, 3))).astype(np.float32)
    labels = rng.integers(0, 3, (2, 32, 32))
    for alpha in (0.0, 1.0):
        got, expected = (
            backend.call("cas_loss", x, labels, num_regions=3, alpha=alpha)
            for x in (probs, probs.astype(np.float64))
        )
        # Relative to the loss itself, which is of the order of 1e-6.
        assert abs(got - expected) < 1e-3 * abs(expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e4, 88.0, 745.0])
def test_extreme_logits(backend: Backend, dtype: str, size: float) -> None:
    labels = np.array([[0, 1, 1, 0]])
    right = size * np.array([[[1.0, -1], [-1, 1], [-1, 1], [1, -1]]]).astype(dtype)
    mixed = right * np.array([1, 1, 1, -1.0])[:, None].astype(dtype)
    call, gradient = backend.call, backend.gradient
    for per in ("image", "pixel"):
        options = {"per": per}
        for logits in (right, -right):  # the exchange of labels changes nothing
            close(call("class_agnostic_cross_entropy", logits, labels, **options), 0, dtype)
        expected = 2 * size / 4 if per == "image" else 0
        close(call("class_agnostic_cross_entropy", mixed, labels, **options), expected, dtype)
        assert np.isfinite(gradient("class_agnostic_cross_entropy", mixed, labels, **options)).all()
    joint = np.array([[True, False]])
    scores = np.array([[size, -size]], dtype)
    close(call("js_mutual_information_loss", scores, joint), 0, dtype)
    close(call("js_mutual_information_loss", -scores, joint), 2 * size, dtype)
    close(call("js_mutual_information_loss", -scores, joint, balance=False), 2 * size, dtype)
    close(call("js_mutual_information", scores, joint), log(2), dtype)
    close(call("js_mutual_information", -scores, joint), log(2) - size, dtype)
    close(gradient("js_mutual_information_loss", -scores, joint), [[-1, 1]], dtype)
    close(gradient("js_mutual_information_loss", scores, joint), [[0, 0]], dtype)
    features, anchors = np.array([[[0.0], [0.0]]], dtype), np.array([[[size], [0.0]]], dtype)
    close(call("anchor_softmax_loss", features, anchors, np.array([[0, 0]])), size, dtype)
    close(call("anchor_softmax_loss", features, anchors, np.array([[1, 1]])), 0, dtype)
    close(call("anchor_probabilities", features, anchors), [[[0, 1], [0, 1]]], dtype)


def test_small_losses_are_not_rounded_to_nothing(backend: Backend) -> None:
    """softplus of −30 is 1e-13, well within float64 and float32."""
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        scores = np.array([[30.0, -30.0]], dtype)
        got = backend.call("js_mutual_information_loss", scores, np.array([[True, False]]))
        assert abs(got / (2 * np.log1p(np.exp(-30.0))) - 1) < tolerance
        logits = np.array([[[15.0, -15.0]]], dtype)
        got = backend.call("class_agnostic_cross_entropy", logits, np.array([[0]]))
        assert abs(got / np.log1p(np.exp(-30.0)) - 1) < tolerance


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "options",
    [{}, {"normalize_kernel": True}, {"distance": "euclidean", "error": "absolute"}],
    ids=str,
)
def test_perfect_and_worst_maps(backend: Backend, dtype: str, options: dict[str, Any]) -> None:
    target = np.zeros((2, 12, 12, 1), dtype)
    target[:, 3:9, 4:10] = 1
    worst = 1 - target
    for probs, low, high in ((target, 0, 0), (worst, 1 if not options else 0.7, 1)):
        of, inputs = compiled(
            backend, Case("", "weighted_fbeta_loss", (probs, target), options, (0,))
        )
        assert low <= of(*inputs) <= high
        assert np.isfinite(float64(gradients(backend, of, inputs)[0])).all()
    of, inputs = compiled(
        backend, Case("", "weighted_fbeta_score", (target, target), options, (0,))
    )
    assert of(*inputs) == 1
    labels = target[..., 0] == 1
    one_hot = np.concatenate([target, 1 - target], -1)
    assert backend.call("cas_loss", one_hot, labels) == -2
    close(backend.call("metric_loss", one_hot, labels), -2, "float32")
    close(backend.call("metric_loss", one_hot, labels, form="pairwise"), -2, "float32")
    for function in ("cas_loss", "metric_loss"):
        assert np.isfinite(backend.gradient(function, one_hot, labels)).all()


def test_float16_features_whose_square_overflows(backend: Backend) -> None:
    features = np.full((1, 8, 8, 2), 60000.0, np.float16)
    labels = np.zeros((1, 8, 8), np.int64)
    labels[:, :4] = 1
    features[:, :4] *= -1
    close(backend.call("metric_loss", features, labels) / 60000.0**2, -8, "float32")
    distance = backend.call("semantic_distance", features, 1 - labels)
    close(distance[:, :4] / 60000.0, np.full((1, 4, 8), np.sqrt(8)), "float32")


def test_tiny_vectors_are_normalised(backend: Backend) -> None:
    """Lengths down to 1e-12 have a direction; below they count as 0."""
    direction = np.array([[[1.0, 0], [0, 1], [0, 1], [1, 0]]])
    labels = np.array([[1, 0, 0, 1]])
    for size in (1.0, 1e-6, 1e-11):
        close(backend.call("metric_loss", size * direction, labels, normalize=True), -2)
    close(backend.call("metric_loss", 1e-13 * direction, labels, normalize=True), 0)
    assert not backend.gradient("metric_loss", 0 * direction, labels, normalize=True).any()


@pytest.mark.parametrize("weights", [1e-30, 1e30])
def test_the_scale_of_weights_changes_nothing(backend: Backend, weights: float) -> None:
    rng = np.random.default_rng(9)
    features = rng.standard_normal((1, 6, 5, 2)).astype(np.float32)
    hard = (rng.random((1, 6, 5)) > 0.5).astype(np.float32)
    scaled = hard * np.float32(weights)
    close(
        backend.call("region_anchors", features, scaled[..., None]),
        backend.call("region_anchors", features, hard[..., None]),
        "float32",
    )
    close(
        backend.call("semantic_distance", features, scaled),
        backend.call("semantic_distance", features, hard),
        "float32",
    )


def test_bfloat16_of_jax_is_a_float(backend: Backend) -> None:
    if backend.name != "jax":
        pytest.skip("JAX")
    features = jnp.ones((1, 4, 2), jnp.bfloat16)
    assert backend.functions.metric_loss(features, np.array([[0, 1, 1, 0]])).dtype == "float32"


# torch 2.13's own compiler still uses what it deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(3))
def test_rounding_of_a_whole_promotion_stays_in_the_unit_interval(seed: int):
    """Compiled as one, a probability of 1 came out above it, and the next step made it NaN."""
    rng = np.random.default_rng(seed)
    salient = rng.random((2, 16, 16)) < 0.4
    features = (rng.normal(size=(2, 16, 16, 4)) + 30 * salient[..., None]).astype(np.float32)

    @jax.jit
    def in_jax(features: jax.Array, prior: jax.Array) -> jax.Array:
        for step in range(1, 6):
            weights = jnp.stack([1 - prior, prior], axis=-1)
            anchors = saliency_losses.jax.region_anchors(features, weights)
            probabilities = saliency_losses.jax.anchor_probabilities(features, anchors)
            prior = saliency_losses.jax.update_prior(prior, probabilities[..., 1], step)
        return prior

    def in_torch(features: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        for step in range(1, 6):
            weights = torch.stack([1 - prior, prior], dim=1)
            anchors = saliency_losses.torch.region_anchors(features, weights)
            probabilities = saliency_losses.torch.anchor_probabilities(features, anchors)
            prior = saliency_losses.torch.update_prior(prior, probabilities[:, 1], step)
        return prior

    given = torch.from_numpy(features).movedim(-1, 1), torch.from_numpy(salient).float()
    for promoted in (
        np.asarray(in_jax(features, salient.astype(np.float32))),
        in_torch(*given).numpy(),
        torch.compile(in_torch, fullgraph=True)(*given).numpy(),
    ):
        assert ((promoted >= 0) & (promoted <= 1)).all()
        np.testing.assert_allclose(promoted, salient, atol=1e-5)
