"""The measures of soft maps against the field's programs, OpenCV and scikit-learn."""

from collections.abc import Callable
from functools import partial
from math import hypot
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import py_sod_metrics
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import saliency_losses.jax.measures as in_jax
import saliency_losses.torch.measures as in_torch
from saliency_losses.core.measures import NAMES
from saliency_losses.jax.metrics import SaliencyMeasures as InFlax
from saliency_losses.torch import weighted_fmeasure
from saliency_losses.torch.metrics import SaliencyMeasures
from tests.losses.test_real_masks import image
from tests.support.paths import DATA

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FUNCTIONS = (
    "mean_absolute_error",
    "fmeasure",
    "fmeasure_curve",
    "precision_recall_curve",
    "emeasure",
    "emeasure_curve",
    "smeasure",
    "iou",
    "dice",
    "boundary_iou",
    "boundary_accuracy",
    "auroc",
)
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def measured(name: str, probs: Floats, truth: NDArray[Any], **options: Any) -> Any:
    """A function in PyTorch on one map and one mask ``(H, W)``."""
    maps = torch.from_numpy(np.array(probs))[None, None], torch.from_numpy(truth.copy())[None, None]
    return getattr(in_torch, name)(*maps, **options)


class Structure(py_sod_metrics.Smeasure):
    """Without the means of empty parts, whose weight is 0, and the rounding of constant ones."""

    def ssim(self, pred: Floats, gt: Bools) -> float:
        if not pred.size:
            return 0.0
        return 1.0 if np.ptp(pred) == np.ptp(gt * 1) == 0 else float(super().ssim(pred, gt))


def programs(values: Floats, mask: Bools) -> dict[str, Any]:
    """What pysodmetrics computes; its curves begin at the highest threshold."""
    f, e = py_sod_metrics.FmeasureV2, py_sod_metrics.Emeasure()
    handlers = {
        name: handler(with_dynamic=True, with_adaptive=True, with_binary=False, **more)
        for name, handler, more in (
            ("f", py_sod_metrics.FmeasureHandler, {"beta": 0.3}),
            ("precision", py_sod_metrics.PrecisionHandler, {}),
            ("recall", py_sod_metrics.RecallHandler, {}),
        )
    }
    several = f(handlers)
    several.step(values, mask, normalize=False)
    e.step(values, mask, normalize=False)
    curves = {name: np.flip(handlers[name].dynamic_results[0]) for name in handlers}
    return {
        "mean_absolute_error": py_sod_metrics.MAE().cal_mae(values, mask),
        "fmeasure": handlers["f"].adaptive_results[0],
        "fmeasure_curve": curves["f"],
        "precision_recall_curve": (curves["precision"], curves["recall"]),
        "emeasure": e.adaptive_ems[0],
        "emeasure_curve": np.flip(e.changeable_ems[0]),
        "smeasure": Structure().cal_sm(values, mask),
    }


@st.composite
def pictures(draw: Any) -> tuple[Floats, Bools]:
    """A map of 8 bits and a mask with both classes: noise, shapes, constant parts."""
    shape = draw(st.tuples(st.integers(2, 12), st.integers(2, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = (
        draw(hnp.arrays(np.uint8, shape)) if draw(st.booleans()) else rng.integers(0, 256, shape)
    )
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), draw(st.sampled_from([0, 1, 3])))
    mask = smooth > np.quantile(smooth, draw(st.sampled_from([0.1, 0.5, 0.9])))
    mask.flat[0], mask.flat[-1] = True, False
    if draw(st.booleans()):
        values = np.where(mask, 255, 0)
    return values.astype(np.uint8) / 255, mask


@given(pictures())
def test_they_are_the_programs(picture: tuple[Floats, Bools]) -> None:
    values, mask = picture
    for name, expected in programs(values, mask).items():
        for got, wanted in zip(
            *(x if isinstance(x, tuple) else (x,) for x in (measured(name, *picture), expected)),
            strict=True,
        ):
            np.testing.assert_allclose(got, wanted, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("filled", [False, True])
def test_they_are_the_programs_for_masks_of_one_class(filled: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 7)) / 255
    mask = np.full((9, 7), filled)
    for name, expected in programs(values, mask).items():
        for got, wanted in zip(
            *(
                x if isinstance(x, tuple) else (x,)
                for x in (measured(name, values, mask), expected)
            ),
            strict=True,
        ):
            np.testing.assert_allclose(got, wanted, atol=1e-12, err_msg=name)


def test_the_centre_of_a_symmetric_object_is_rounded_to_the_even_number() -> None:
    """Its mean index ends in a half; a wrong row changes S in the second digit."""
    values = np.random.default_rng(1).random((40, 60))
    for top, height in ((3, 4), (4, 4), (10, 20), (11, 20)):
        mask = np.zeros((40, 60), bool)
        mask[top : top + height, 8:30] = True
        expected = programs(values, mask)["smeasure"]
        assert float(measured("smeasure", values, mask)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("level", [0, 40, 77, 255])
def test_a_constant_part_counts_as_right_where_the_mask_is_constant(level: int, dtype: str) -> None:
    """Rounding of its mean must not make a variance; in the program it does."""
    values, mask = np.full((33, 47), level / 255).astype(dtype), np.zeros((33, 47), bool)
    mask[7, 9] = True
    # The part that ends at the object's only pixel has no covariance.
    expected = 1 - 8 * 10 / (33 * 47)
    assert float(measured("smeasure", values, mask, alpha=0)) == pytest.approx(expected, abs=1e-6)


def test_an_object_in_the_last_row_leaves_parts_empty() -> None:
    values = np.random.default_rng(2).random((6, 6))
    mask = np.zeros((6, 6), bool)
    mask[5, 5] = True
    assert 0 < float(measured("smeasure", values, mask)) < 1


@pytest.mark.skipif(not (DATA / "ecssd_baselines.zip").exists(), reason="no ecssd_baselines.zip")
@pytest.mark.parametrize("detector", ["DRFI", "HS", "CHS", "RC", "IG", "SR", "MF_supervised"])
def test_they_are_the_programs_on_real_maps(detector: str) -> None:
    for stem in ("0123", "0789"):
        mask = np.asarray(image("ecssd", f"masks/{stem}.png").convert("L")) > 127
        saliency = image("ecssd_baselines", f"{detector}/{stem}.webp").convert("L")
        values = np.asarray(saliency.resize(mask.shape[::-1])) / 255
        for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-6)):
            for name, expected in programs(values, mask).items():
                got = measured(name, values.astype(dtype), mask)
                np.testing.assert_allclose(
                    np.stack(got) if isinstance(got, tuple) else got,
                    np.stack(expected) if isinstance(expected, tuple) else expected,
                    atol=tolerance,
                    err_msg=f"{name} of {stem}",
                )


# Sets and boundaries


@given(pictures(), st.sampled_from([0.2, 0.5, "adaptive"]))
def test_sets_are_counted(picture: tuple[Floats, Bools], threshold: float | str) -> None:
    values, mask = picture
    level = min(2 * values.mean(), 1) if threshold == "adaptive" else threshold
    cut = values >= level
    both, either = (cut & mask).sum(), (cut | mask).sum()
    got = float(measured("iou", values, mask, threshold=threshold))
    assert got == pytest.approx(both / either)
    got = float(measured("dice", values, mask, threshold=threshold))
    assert got == pytest.approx(2 * both / (cut.sum() + mask.sum()))


@given(pictures())
def test_the_area_counts_pairs(picture: tuple[Floats, Bools]) -> None:
    values, mask = picture
    expected = roc_auc_score(mask.ravel(), values.ravel())
    assert float(measured("auroc", values, mask)) == pytest.approx(expected, abs=1e-12)


def test_a_mask_of_one_class_has_no_pairs() -> None:
    assert np.isnan(float(measured("auroc", np.full((4, 4), 0.5), np.zeros((4, 4), bool))))


def inner_band(mask: Bools, reach: int) -> Bools:
    padded = np.pad(mask, 1).astype(np.uint8)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=reach)
    return mask & (eroded[1:-1, 1:-1] == 0)


@given(pictures(), st.sampled_from([0.02, 0.2, 0.4]))
def test_bands_are_opencvs(picture: tuple[Floats, Bools], width: float) -> None:
    values, mask = picture
    reach = max(1, round(width * hypot(*mask.shape)))
    first, second = inner_band(mask, reach), inner_band(values >= 0.5, reach)
    either = (first | second).sum()
    got = float(measured("boundary_iou", values, mask, width=width))
    assert got == pytest.approx((first & second).sum() / either if either else 1)


def boundary_accuracy(cut: Bools, mask: Bools) -> float:
    shares = []
    for step in range(5):
        radius = 1 + int((sum(mask.shape) / 300 - 1) / 5 * step)
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        near = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, disk) > 0
        shares.append((cut == mask)[near].mean())
    return float(np.mean(shares))


@pytest.mark.parametrize("shape", [(12, 9), (700, 900), (1500, 2000)])
def test_disks_are_opencvs(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    mask = ndimage.zoom(rng.normal(size=(6, 9)), (shape[0] / 6, shape[1] / 9), order=1) > 0
    mask[:2], mask[-1] = True, False
    values = rng.random(mask.shape)
    expected = boundary_accuracy(values >= 0.5, mask)
    assert float(measured("boundary_accuracy", values, mask)) == pytest.approx(expected, abs=1e-9)


def test_without_a_boundary_all_pixels_count() -> None:
    values = np.linspace(0, 1, 24).reshape(4, 6)
    empty = np.zeros((4, 6), bool)
    assert float(measured("boundary_accuracy", values, empty)) == pytest.approx(0.5)
    assert float(measured("boundary_iou", np.zeros((4, 6)), empty)) == 1
    assert float(measured("iou", np.zeros((4, 6)), empty)) == 1
    assert float(measured("dice", values, empty)) == 0


# Both frameworks, batches, channels, precision


def batch(dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks ``(3, 9, 11, 2)``, channels last; one mask is empty, one full."""
    rng = np.random.default_rng(4)
    masks = ndimage.gaussian_filter(rng.normal(size=(3, 9, 11, 2)), (0, 1.5, 1.5, 0)) > 0
    masks[1, ..., 0], masks[2, ..., 1] = False, True
    return (rng.integers(20, 120, masks.shape) / 255).astype(dtype), masks


OPTIONS: list[dict[str, Any]] = [
    {"normalize": True, "reduction": "sum"},
    {"ignore_index": 7, "activation": "softmax"},
]


@each_function
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_both_frameworks_agree(name: str, options: dict[str, Any]) -> None:
    probs, masks = batch("float32")
    target = masks.astype(np.int64)
    if "ignore_index" in options:
        target[:, 2:4, 3:8] = 7
    reduction = {"reduction": "none", **options}
    ours = getattr(in_torch, name)(
        torch.from_numpy(probs).movedim(-1, 1), torch.from_numpy(target).movedim(-1, 1), **reduction
    )
    function = jax.jit(lambda p, y: getattr(in_jax, name)(p, y, **reduction))
    theirs = function(jnp.asarray(probs), jnp.asarray(target))
    parts = zip(*(x if isinstance(x, tuple) else (x,) for x in (ours, theirs)), strict=True)
    for first, second in parts:
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


@each_function
def test_batches_and_channels_are_means_of_single_maps(name: str) -> None:
    probs, masks = batch()
    each = [
        np.mean([np.asarray(measured(name, p[..., k], y[..., k])) for k in (0, 1)], axis=0)
        for p, y in zip(probs, masks, strict=True)
    ]
    together = getattr(in_torch, name)(
        torch.from_numpy(probs).movedim(-1, 1),
        torch.from_numpy(masks).movedim(-1, 1),
        reduction="none",
    )
    if isinstance(together, tuple):
        together = torch.stack(together, 1)
    np.testing.assert_allclose(together, each, atol=1e-12)


@each_function
@given(pictures())
@settings(max_examples=15)
def test_ignored_pixels_have_no_influence(name: str, picture: tuple[Floats, Bools]) -> None:
    values, mask = picture
    kept = np.random.default_rng(5).random(mask.shape) < 0.7
    options = {"mask": torch.from_numpy(kept)[None]}
    other = np.where(kept, values, 1 - values)
    first = measured(name, values, mask, **options)
    for changed in (
        measured(name, other, np.where(kept, mask, ~mask), **options),
        measured(name, other, np.where(kept, mask, 9), ignore_index=9),
    ):
        for a, b in zip(
            *(x if isinstance(x, tuple) else (x,) for x in (first, changed)), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-12)


@each_function
def test_ignored_rows_are_rows_that_are_not_there(name: str) -> None:
    """Not for bands and disks, whose size is that of the image."""
    values = np.random.default_rng(6).integers(0, 256, (12, 10)) / 255
    mask = ndimage.gaussian_filter(values, 2) > 0.5
    kept = np.zeros((12, 10), bool)
    kept[:9] = True
    if "boundary" in name:
        return
    whole = measured(name, values, mask, mask=torch.from_numpy(kept)[None])
    part = measured(name, values[:9], mask[:9])
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (whole, part)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@each_function
def test_an_image_of_which_no_pixel_counts_has_no_measure(name: str) -> None:
    """Its MAE would be 0 and its S and IoU 1."""
    probs, masks = batch("float32")
    target = np.where(np.arange(3)[:, None, None, None] == 1, 7, masks)
    both = (
        getattr(in_torch, name)(
            *(torch.from_numpy(x.copy()).movedim(-1, 1) for x in (probs, target)),
            ignore_index=7,
            reduction="none",
        ),
        getattr(in_jax, name)(probs, target, ignore_index=7, reduction="none"),
    )
    for found in both:
        for part in found if isinstance(found, tuple) else (found,):
            lost = np.isnan(np.asarray(part)).reshape(3, -1).all(1)
            # A mask of one class has no area under the curve.
            assert lost.tolist() == [False, True, name == "auroc"]


@pytest.mark.filterwarnings("ignore")  # That tracing is deprecated, and records what it read.
@each_function
def test_torch_traces_masks_of_bools(name: str) -> None:
    first, second = (x[:, :1] for x in torch.rand(2, 3, 2, 9, 7))

    def of(probs: torch.Tensor) -> Any:
        return getattr(in_torch, name)(probs, second > 0.5, reduction="none")

    traced = torch.jit.trace(of, first, check_trace=False)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(traced(second), of(second))


def test_the_default_device_is_not_that_of_the_maps() -> None:
    probs = torch.rand(2, 1, 8, 8)
    with torch.device("meta"):
        assert in_torch.auroc(probs, probs > 0.3).device.type == "cpu"


def test_maps_without_channels_are_told_how_to_get_them() -> None:
    for module, probs, repair in (
        (in_torch, torch.rand(2, 8, 8), r"probs\[:, None\]"),
        (in_jax, jnp.ones((2, 8, 8)), r"probs\[..., None\]"),
    ):
        with pytest.raises(ValueError, match=r"got \(2, 8, 8\); maps without .*: " + repair):
            module.iou(probs, probs > 0.5)


def test_a_tensor_is_no_array_of_jax() -> None:
    with pytest.raises(TypeError, match=r"probs must be a JAX array, got Tensor; convert it by"):
        in_jax.iou(torch.rand(2, 8, 8, 1), np.ones((2, 8, 8, 1), bool))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_levels_survive_float32(dtype: str) -> None:
    """A pixel of k/255 counts at the threshold k/255; half precision holds no such numbers."""
    values = np.arange(256).reshape(16, 16) / 255
    mask = values > 0.3
    maps = torch.from_numpy(values).to(getattr(torch, dtype))[None, None]
    curve = in_torch.fmeasure_curve(maps, torch.from_numpy(mask)[None, None])
    expected = measured("fmeasure_curve", values, mask)
    tolerance = 1e-6 if dtype == "float32" else 0.05
    np.testing.assert_allclose(curve, expected, atol=tolerance)


def test_volumes_have_all_measures_but_those_of_images() -> None:
    probs = torch.rand(1, 1, 4, 5, 6)
    target = probs > 0.4
    for name in FUNCTIONS:
        function = getattr(in_torch, name)
        if name in ("smeasure", "boundary_iou", "boundary_accuracy"):
            with pytest.raises(ValueError, match="two spatial axes, got 3; measure a volume slice"):
                function(probs, target)
        else:
            function(probs, target)


@each_function
def test_a_nan_is_not_lost(name: str) -> None:
    values = np.full((6, 6), 0.4)
    values[2, 3] = np.nan
    mask = np.eye(6, dtype=bool)
    for module, array in ((in_torch, torch.from_numpy), (in_jax, jnp.asarray)):
        result = getattr(module, name)(
            array(values[None, None] if module is in_torch else values[None, ..., None]),
            array(mask[None, None] if module is in_torch else mask[None, ..., None]),
        )
        for part in result if isinstance(result, tuple) else (result,):
            assert np.isnan(np.asarray(part)).all()


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("fmeasure", {"threshold": "otsu"}, 'threshold must be "adaptive" or a number'),
        ("iou", {"threshold": 1.5}, r"threshold must lie in \[0, 1\], got 1.5"),
        ("fmeasure", {"beta": 0}, "beta must lie in"),
        ("smeasure", {"alpha": 2}, "alpha must lie in"),
        ("boundary_iou", {"width": 0}, "width must lie in"),
        ("dice", {"reduction": "max"}, "reduction must be one of"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], text: str) -> None:
    for module in (in_torch, in_jax):
        array: Callable[..., Any] = torch.zeros if module is in_torch else jnp.zeros
        with pytest.raises(ValueError, match=text):
            getattr(module, name)(array((1, 1, 4, 4)), array((1, 1, 4, 4)), **options)


@each_function
def test_a_true_may_be_any_byte(name: str) -> None:
    """NumPy reads files of one bit as bools whose True is the byte 255."""
    values = np.random.default_rng(7).random((9, 8))
    mask = values > 0.6
    from_file = (255 * mask.astype(np.uint8)).view(bool)
    for got, expected in zip(
        *(
            x if isinstance(x, tuple) else (x,)
            for x in (measured(name, values, from_file), measured(name, values, mask))
        ),
        strict=True,
    ):
        assert torch.equal(got, expected)


@each_function
def test_images_without_pixels_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        getattr(in_torch, name)(torch.zeros(1, 1, 0, 4), torch.zeros(1, 1, 0, 4))


@pytest.mark.parametrize("name", ["mean_absolute_error", "smeasure"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    probs, masks = batch()
    p = torch.from_numpy(probs).movedim(-1, 1).clone().requires_grad_()
    y = torch.from_numpy(masks).movedim(-1, 1)
    assert torch.autograd.gradcheck(lambda p: getattr(in_torch, name)(p, y), (p,))
    (gradient,) = torch.autograd.grad(getattr(in_torch, name)(p, y), p)
    with jax.enable_x64(True):
        theirs = jax.grad(getattr(in_jax, name))(jnp.asarray(probs), jnp.asarray(masks))
    np.testing.assert_allclose(gradient.movedim(1, -1), theirs, atol=1e-9)


@each_function
def test_the_compiler_takes_them(name: str) -> None:
    probs, masks = batch("float32")
    p, y = torch.from_numpy(probs).movedim(-1, 1), torch.from_numpy(masks).movedim(-1, 1)
    function = getattr(in_torch, name)
    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda p, y: function(p, y))(p, y)
    ours, traced = (x if isinstance(x, tuple) else (x,) for x in (function(p, y), graph(p, y)))
    for first, second in zip(ours, traced, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_whole() -> None:
    probs, masks = batch("float32")
    p, y = torch.from_numpy(probs).movedim(-1, 1), torch.from_numpy(masks).movedim(-1, 1)
    of = partial(in_torch.saliency_measures, mask=p[:, 0] < 0.9)
    torch._dynamo.reset()
    found = torch.compile(of, fullgraph=True, backend="aot_eager")(p, y)
    torch._dynamo.reset()
    for name, expected in of(p, y).items():
        torch.testing.assert_close(found[name], expected, equal_nan=True)


# Several together

SINGLY: dict[str, Callable[..., Any]] = {
    "mae": in_torch.mean_absolute_error,
    "f": in_torch.fmeasure,
    "weighted_f": weighted_fmeasure,
    "s": in_torch.smeasure,
    "e": in_torch.emeasure,
    "iou": in_torch.iou,
    "dice": in_torch.dice,
    "boundary_iou": in_torch.boundary_iou,
    "boundary_accuracy": in_torch.boundary_accuracy,
    "auroc": in_torch.auroc,
    "f_curve": in_torch.fmeasure_curve,
    "e_curve": in_torch.emeasure_curve,
    "precision_curve": lambda *x, **o: in_torch.precision_recall_curve(*x, **o)[0],
    "recall_curve": lambda *x, **o: in_torch.precision_recall_curve(*x, **o)[1],
}


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_together_they_are_what_they_are_singly(options: dict[str, Any]) -> None:
    probs, masks = batch("float32")
    target = masks.astype(np.int64)
    if "ignore_index" in options:
        target[:, 2:4, 3:8] = 7
    p, y = torch.from_numpy(probs).movedim(-1, 1), torch.from_numpy(target).movedim(-1, 1)
    # Another mask might have a level so near twice the mean that rounding chooses its side.
    mask = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0)) > 0.2
    options = {"mask": mask, "reduction": "none", **options}
    together = in_torch.saliency_measures(p, y, **options)
    assert set(together) == set(SINGLY)
    for name, values in together.items():
        torch.testing.assert_close(values, SINGLY[name](p, y, **options), equal_nan=True)
    in_flax = in_jax.saliency_measures(
        jnp.asarray(probs),
        jnp.asarray(target),
        **{**options, "mask": jnp.asarray(options["mask"].numpy())},
    )
    for name, values in together.items():
        np.testing.assert_allclose(in_flax[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("names", ["mae", (), ("mae", "max_f")])
def test_measures_of_a_set_are_none_of_an_image(names: Any) -> None:
    with pytest.raises(ValueError, match="names must be one or more of mae, f, weighted_f"):
        in_torch.saliency_measures(torch.rand(1, 1, 6, 6), torch.ones(1, 1, 6, 6), names=names)


# Over a data set


def expected_of(p: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    f, e = in_torch.fmeasure_curve(p, y), in_torch.emeasure_curve(p, y)
    return {
        "mae": in_torch.mean_absolute_error(p, y),
        "f": in_torch.fmeasure(p, y),
        "max_f": f.max(),
        "mean_f": f.mean(),
        "weighted_f": weighted_fmeasure(p, y),
        "s": in_torch.smeasure(p, y),
        "e": in_torch.emeasure(p, y),
        "max_e": e.max(),
        "mean_e": e.mean(),
        "iou": in_torch.iou(p, y),
        "dice": in_torch.dice(p, y),
        "boundary_iou": in_torch.boundary_iou(p, y),
        "boundary_accuracy": in_torch.boundary_accuracy(p, y),
    }


def test_a_data_set_is_one_call_whatever_the_batches() -> None:
    probs, masks = batch("float32")
    p, y = torch.from_numpy(probs).movedim(-1, 1), torch.from_numpy(masks).movedim(-1, 1)
    expected = expected_of(p, y)
    assert set(expected) == set(NAMES)
    # Two processes: each has a part, and torchmetrics adds the states.
    parts = SaliencyMeasures(), SaliencyMeasures()
    parts[0].update(p[:2], y[:2])
    parts[1].update(p[2:], y[2:])
    parts[0].merge_state(parts[1])
    flax = InFlax()
    update = nnx.jit(lambda metric, p, y, mask: metric.update(preds=p, target=y, mask=mask))
    kept = jnp.array([True, True, True, False])
    padded = [jnp.concatenate([jnp.asarray(x), jnp.asarray(x[:1])]) for x in (probs, masks)]
    update(flax, *padded, kept)
    for name, value in expected.items():
        assert float(parts[0].compute()[name]) == pytest.approx(float(value), abs=1e-5), name
        assert float(flax.compute()[name]) == pytest.approx(float(value), abs=1e-5), name
    flax.reset()
    parts[0].reset()
    assert np.isnan(float(flax.compute()["mae"]))
    assert parts[0].images == 0


def test_only_what_is_named_is_computed() -> None:
    metric = SaliencyMeasures(names=("max_f", "mae"))
    metric.update(torch.rand(2, 1, 6, 6), torch.ones(2, 1, 6, 6))
    assert list(metric.compute()) == ["max_f", "mae"]
    assert not hasattr(metric, "sum_s")


def test_names_may_come_one_by_one() -> None:
    assert SaliencyMeasures(names=iter(("s", "mae"))).names == ("s", "mae")  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", [SaliencyMeasures, InFlax])
@pytest.mark.parametrize("names", ["mae", (), ("mae", "psnr"), 5, None, (["mae"],)], ids=str)
def test_wrong_names_are_refused(metric: Any, names: Any) -> None:
    with pytest.raises(ValueError, match="names must be one or more of mae, f, weighted_f"):
        metric(names=names)
