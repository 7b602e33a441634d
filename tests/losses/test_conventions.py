"""Labels, targets, logits and ignored pixels in every form in which training programs have them."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support.backends import BACKENDS, Backend, close
from tests.support.cases import BY_NAME, Case

LABELLED = {"metric": 1, "metric_hard": 1, "cas": 1, "cace": 1, "anchor": 2}
TARGETED = {
    "weighted_f": 1,
    "weighted_f_euclidean": 1,
    "weighted_f_score": 1,
    "weighted_f_measure": 1,
    "distance_weights": 0,
}
each_labelled = pytest.mark.parametrize("name", LABELLED)


def value(backend: Backend, case: Case) -> np.ndarray:
    return backend.call(case.function, *case.args, **case.options)


def with_argument(case: Case, place: int, x: np.ndarray, **options: Any) -> Case:
    args = (*case.args[:place], x, *case.args[place + 1 :])
    return case._replace(args=args, options=case.options | options)


# Labels


@each_labelled
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int32"])
def test_labels_may_be_floats_with_whole_values(backend: Backend, name: str, dtype: str) -> None:
    case, place = BY_NAME[name].per_image(), LABELLED[name]
    other = with_argument(case, place, case.args[place].astype(dtype))
    np.testing.assert_array_equal(value(backend, other), value(backend, case))


def test_labels_in_bfloat16() -> None:
    backend = BACKENDS["jax"]
    case = BY_NAME["cas"]
    other = with_argument(case, 1, case.args[1].astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(value(backend, other), value(backend, case))


@each_labelled
def test_fractional_labels_are_an_error(backend: Backend, name: str) -> None:
    case, place = BY_NAME[name], LABELLED[name]
    half = with_argument(case, place, case.args[place] * 0.5)
    with pytest.raises(ValueError, match=r"labels must be whole numbers in 0.*got 0\.5; a soft"):
        value(backend, half)


@each_labelled
def test_a_nan_label_makes_its_image_nan(backend: Backend, name: str) -> None:
    case, place = BY_NAME[name].per_image(), LABELLED[name]
    floats = with_argument(case, place, case.args[place].astype(float))
    spoilt = floats.holding(place, np.nan)
    got = value(backend, spoilt)
    assert np.isnan(got).tolist() == [True, False]
    assert np.isfinite(got[1])


def test_flipped_float_labels_stay_floats(backend: Backend) -> None:
    labels = np.array([[0.0, 1.0, 255.0, -100.0]], np.float32)
    prepared = backend.array(labels[:, :2], False)
    rng = source(backend)
    flipped = backend.numpy(backend.functions.flip_labels(prepared, 1.0, rng), False)
    assert flipped.dtype == np.float32
    assert flipped.tolist() == [[1, 0]]


def source(backend: Backend) -> Any:
    if backend.name == "jax":
        import jax

        return jax.random.key(0)
    import torch

    return torch.Generator().manual_seed(0)


# Pixels to ignore


@pytest.mark.parametrize("name", [*LABELLED, *TARGETED])
@pytest.mark.parametrize("kind", ["int64 255", "int32 -100", "uint8 255", "float32 255"])
@pytest.mark.parametrize("masked", [False, True])
def test_an_ignored_label_is_a_mask(backend: Backend, name: str, kind: str, masked: bool) -> None:
    case, place = BY_NAME[name], (LABELLED | TARGETED)[name]
    if case.function != "distance_weights":
        case = case.per_image()
    dtype, ignored = kind.split()
    x = case.args[place]
    rng = np.random.default_rng(0)
    spatial = x.shape if name in LABELLED else x.shape[:-1]
    out, mask = rng.random(spatial) < 0.3, rng.random(spatial) < 0.8 if masked else None
    counted = ~out if mask is None else ~out & mask
    spread = out.reshape(out.shape + (1,) * (x.ndim - out.ndim))
    holes = np.where(spread, int(ignored), x).astype(dtype)
    got = value(backend, with_argument(case, place, holes, ignore_index=int(ignored), mask=mask))
    expected = value(backend, with_argument(case, place, x, mask=counted))
    close(got, expected, "float32")


def test_an_ignored_value_of_one_map_ignores_it_in_that_map_alone(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 6, 5, 2)), (rng.random((2, 6, 5, 2)) < 0.5).astype(np.int64)
    y[:, :2, :, 1] = 255
    got = backend.call("weighted_fbeta_loss", p, y, ignore_index=255, reduction="none")
    each = [
        backend.call(
            "weighted_fbeta_loss",
            p[..., k : k + 1],
            y[..., k : k + 1] % 255,
            mask=y[..., k] < 255,
            reduction="none",
        )
        for k in (0, 1)
    ]
    close(got, np.mean(each, 0))


@pytest.mark.parametrize("index", [-1, 2**31, 2**40, -(2**40), 300])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint32", "int32", "int64"])
def test_an_index_that_no_label_can_have_ignores_nothing(
    backend: Backend, index: int, dtype: str
) -> None:
    case = BY_NAME["metric"]
    case = with_argument(case, 1, case.args[1].astype(dtype))
    ignoring = case._replace(options=case.options | {"ignore_index": index})
    np.testing.assert_array_equal(value(backend, ignoring), value(backend, case))


def test_other_wrong_labels_still_raise_beside_ignored_ones(backend: Backend) -> None:
    case = BY_NAME["cas"]
    wrong = case.args[1].copy()
    wrong[:, 0, :2] = 255, 254
    with pytest.raises(ValueError, match=r"got 254; .*ignore_index=255"):
        value(backend, with_argument(case, 1, wrong, ignore_index=255, mask=None))


def test_flip_labels_leaves_ignored_ones(backend: Backend) -> None:
    labels = backend.array(np.array([[0, 1, 255, 0]], np.uint8), False)
    flipped = backend.functions.flip_labels(labels, 1.0, source(backend), ignore_index=255)
    assert backend.numpy(flipped, False).tolist() == [[1, 0, 255, 1]]


@pytest.mark.parametrize("index", [2.0, "255", True])
def test_a_wrong_ignore_index_is_an_error(backend: Backend, index: Any) -> None:
    for name in (*LABELLED, *TARGETED):
        case = BY_NAME[name]
        with pytest.raises(TypeError, match="ignore_index must be an integer or None"):
            value(backend, case._replace(options=case.options | {"ignore_index": index}))


# Targets


@pytest.mark.parametrize("name", [name for name in TARGETED if name != "distance_weights"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
def test_the_target_of_one_map_needs_no_channel_axis(
    backend: Backend, name: str, dtype: str
) -> None:
    case = BY_NAME[name].per_image()
    target = case.args[1].astype(dtype)
    prepared, options = backend.prepared(case.function, (case.args[0], target), case.options)
    flat = backend.array(target[..., 0], False)
    function = getattr(backend.functions, case.function)
    np.testing.assert_array_equal(
        function(prepared[0], flat, **options), function(prepared[0], prepared[1], **options)
    )


@pytest.mark.parametrize(
    "function", ["weighted_fbeta_loss", "weighted_fbeta_score", "weighted_fmeasure"]
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
@pytest.mark.parametrize("spatial", [(6, 5), (3, 4, 2)])
def test_class_numbers_are_one_hot_maps(
    backend: Backend, function: str, dtype: str, spatial: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    p, number = rng.random((2, *spatial, 3)), rng.integers(0, 3, (2, *spatial))
    one_hot = np.eye(3)[number]
    number[:, 0], out = 255, np.zeros(number.shape, bool)
    out[:, 0] = True
    public = getattr(backend.functions, function)
    got = public(
        backend.array(p, True),
        backend.array(number.astype(dtype), False),
        ignore_index=255,
        reduction="none",
    )
    expected = public(
        backend.array(p, True),
        backend.array(one_hot, True),
        mask=backend.array(~out, False),
        reduction="none",
    )
    close(got, expected)


def test_a_class_number_out_of_range_is_an_error(backend: Backend) -> None:
    p, number = np.full((1, 4, 3, 2), 0.5), np.full((1, 4, 3), 2)
    with pytest.raises(ValueError, match=r"target must be in 0\.\.1, got 2; classes are numbered"):
        backend.functions.weighted_fbeta_loss(backend.array(p, True), backend.array(number, False))


# Logits


def logits_of(x: np.ndarray) -> np.ndarray:
    return np.log(x) - np.log1p(-x)


@pytest.mark.parametrize(
    "name",
    [
        "weighted_f",
        "weighted_f_soft",
        "weighted_f_score",
        "weighted_f_several",
        "weighted_f_measure",
        "cas",
    ],
)
def test_sigmoid(backend: Backend, name: str) -> None:
    case = BY_NAME[name].per_image()
    logits = with_argument(case, 0, logits_of(case.args[0]), activation="sigmoid")
    close(value(backend, logits), value(backend, case))
    slope = backend.gradient(case.function, *case.args, **case.options)
    chain = slope * case.args[0] * (1 - case.args[0])
    close(backend.gradient(case.function, *logits.args, **logits.options), chain)


@pytest.mark.parametrize("name", ["cas", "cas_average", "weighted_f_several"])
def test_softmax(backend: Backend, name: str) -> None:
    case = BY_NAME[name].per_image()
    logits = np.random.default_rng(0).normal(size=case.args[0].shape) * 3
    e = np.exp(logits)
    close(
        value(backend, with_argument(case, 0, logits, activation="softmax")),
        value(backend, with_argument(case, 0, e / e.sum(-1, keepdims=True))),
    )


def test_logits_of_half_precision_are_widened_first(backend: Backend) -> None:
    case = BY_NAME["weighted_f"]
    half = (20 * case.args[0] - 10).astype(np.float16)
    got = value(backend, with_argument(case, 0, half, activation="sigmoid"))
    assert got.dtype == np.float64  # the target's
    close(
        got,
        value(backend, with_argument(case, 0, half.astype(float), activation="sigmoid")),
        "float32",
    )


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits_and_ignored_ones(backend: Backend, size: float) -> None:
    case = BY_NAME["cas"]
    logits = np.where(case.options["mask"][..., None], case.args[0], size).astype(np.float32)
    logits[:, 0, 0] = (size, 0, -size, 0)
    huge = with_argument(case, 0, logits, activation="softmax")
    assert np.isfinite(value(backend, huge))
    assert np.isfinite(backend.gradient(huge.function, *huge.args, **huge.options)).all()


def test_a_nan_logit_makes_its_image_nan(backend: Backend) -> None:
    case = BY_NAME["weighted_f"].per_image()
    spoilt = case._replace(options=case.options | {"activation": "sigmoid"}).holding(0, np.nan)
    assert np.isnan(value(backend, spoilt)).tolist() == [True, False]


def test_softmax_of_one_channel_is_an_error(backend: Backend) -> None:
    case = BY_NAME["weighted_f"]
    with pytest.raises(ValueError, match='must be "sigmoid" for probs with one channel'):
        value(backend, case._replace(options=case.options | {"activation": "softmax"}))
    with pytest.raises(ValueError, match="activation must be one of None, 'sigmoid', 'softmax'"):
        value(backend, case._replace(options=case.options | {"activation": "relu"}))


def test_logits_without_activation_name_it(backend: Backend) -> None:
    for name in ("cas", "weighted_f", "weighted_f_score", "weighted_f_measure"):
        case = BY_NAME[name]
        with pytest.raises(ValueError, match='activation="sigmoid" or "softmax"'):
            value(backend, with_argument(case, 0, case.args[0] * 9))
