"""Several outputs under one loss: the weighted sum of separate calls, and B of the target once."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saliency_losses.torch
from saliency_losses.core import fbeta
from saliency_losses.jax import _ops as jax_ops
from saliency_losses.torch import _ops as torch_ops
from tests.support.backends import BACKENDS, Backend, close

TORCH, JAX = BACKENDS["torch"], BACKENDS["jax"]
EXACT = {"distance": "euclidean", "error": "absolute"}
SIZES = {(8, 6): [(8, 6), (4, 3), (9, 13)], (4, 5, 3): [(2, 5, 4), (4, 5, 3)]}
# Few, as JAX compiles anew for each.
CHANNELS_OF = {(8, 6): 2, (4, 5, 3): 1}


def interpolated(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear between the centres of pixels, edges repeated: ``(N, *size, C)``."""
    for axis, (old, new) in enumerate(zip(x.shape[1:-1], size, strict=True), start=1):
        places = (np.arange(new) + 0.5) * old / new - 0.5
        x = np.apply_along_axis(
            lambda line, at, n: np.interp(at, np.arange(n), line), axis, x, places, old
        )
    return x


def outputs_and_target(
    seed: int, spatial: tuple[int, ...], channels: int, number: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Probabilities of several sizes, a target of full channels, and a mask."""
    rng = np.random.default_rng(seed)
    sizes = SIZES[spatial]
    outputs = [rng.random((2, *sizes[k % len(sizes)], channels)) for k in range(number)]
    return outputs, rng.random((2, *spatial, channels)) < 0.3, rng.random((2, *spatial)) < 0.8


def arrays(backend: Backend, xs: list[np.ndarray]) -> list[Any]:
    return [backend.array(x, True) for x in xs]


# The sum


@given(
    seed=st.integers(0, 2**32 - 1),
    spatial=st.sampled_from(list(SIZES)),
    number=st.integers(1, 3),
    masked=st.booleans(),
    options=st.sampled_from([{"phi": 2, "reduction": "none"}, EXACT]),
    weights=st.sampled_from([None, "numbers", "array"]),
)
def test_it_is_the_weighted_sum_of_separate_calls(
    backend: Backend,
    seed: int,
    spatial: tuple[int, ...],
    number: int,
    masked: bool,
    options: dict[str, Any],
    weights: str | None,
) -> None:
    outputs, target, mask = outputs_and_target(seed, spatial, CHANNELS_OF[spatial], number)
    each = [1.0] * number if weights is None else [0.5 * k for k in range(number)]
    given = {None: None, "numbers": each, "array": backend.array(np.array(each), False)}[weights]
    options = options | ({"mask": mask} if masked else {})
    expected = sum(
        w
        * backend.call(
            "weighted_fbeta_loss", interpolated(x, spatial).clip(0, 1), target, **options
        )
        for w, x in zip(each, outputs, strict=True)
    )
    (truth,), prepared = backend.prepared("distance_weights", (target,), options)
    functions = backend.functions
    got = functions.deep_supervision(
        functions.weighted_fbeta_loss, arrays(backend, outputs), truth, weights=given, **prepared
    )
    close(backend.numpy(got, False), expected)


LOSSES = {
    "weighted_fbeta_score": True,
    "weighted_fmeasure": True,
    "cas_loss": False,
    "metric_loss": False,
    "class_agnostic_cross_entropy": False,
}


@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_of_an_output_and_a_target(backend: Backend, name: str) -> None:
    outputs, target, _ = outputs_and_target(0, (8, 6), 2, 4)
    truth = target if LOSSES[name] else target[..., 0]
    expected = sum(backend.call(name, interpolated(x, (8, 6)).clip(0, 1), truth) for x in outputs)
    functions = backend.functions
    got = functions.deep_supervision(
        getattr(functions, name), arrays(backend, outputs), backend.array(truth, LOSSES[name])
    )
    close(backend.numpy(got, False), expected)


def test_what_has_no_pixels_is_not_resized(backend: Backend) -> None:
    scores = [np.random.default_rng(k).normal(size=(2, 5)) for k in range(3)]
    joint = np.eye(2, 5, dtype=bool)
    functions = backend.functions
    got = functions.deep_supervision(
        functions.js_mutual_information_loss,
        [backend.array(x, False) for x in scores],
        backend.array(joint, False),
    )
    close(
        backend.numpy(got, False),
        sum(backend.call("js_mutual_information_loss", x, joint) for x in scores),
    )


def test_both_backends_have_the_same_gradients() -> None:
    outputs, target, _ = outputs_and_target(3, (8, 6), 1, 4)
    options = {"weights": [1, 0.5, 0.5, 2], **EXACT}
    theirs = [x.requires_grad_() for x in arrays(TORCH, outputs)]
    saliency_losses.torch.deep_supervision(
        saliency_losses.torch.weighted_fbeta_loss, theirs, TORCH.array(target, True), **options
    ).backward()

    def of(outputs: list[jax.Array]) -> jax.Array:
        return JAX.functions.deep_supervision(
            JAX.functions.weighted_fbeta_loss, outputs, jnp.asarray(target), **options
        )

    for ours, x in zip(jax.grad(of)(arrays(JAX, outputs)), theirs, strict=True):
        assert x.grad is not None
        assert x.grad.any()
        close(ours, x.grad.movedim(1, -1).numpy())


# What depends on the target alone


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry each time that B is computed."""
    calls: list[int] = []
    compute = fbeta._distance_weights

    def counting(*args: Any) -> Any:
        calls.append(1)
        return compute(*args)

    monkeypatch.setattr(fbeta, "_distance_weights", counting)
    return calls


def forms(functions: Any) -> dict[str, Callable[..., Any]]:
    loss = functions.weighted_fbeta_loss
    return {
        "function": loss,
        "score": functions.weighted_fbeta_score,
        "partial": partial(loss, **EXACT),
        "of a partial": partial(partial(loss, phi=2), theta=3),
        **(
            {
                "criterion": functions.WeightedFBetaLoss(phi=2),
                "of a criterion": partial(functions.WeightedFBetaLoss(), mask=None),
            }
            if functions is TORCH.functions
            else {}
        ),
    }


@pytest.mark.parametrize(
    "form", ["function", "score", "partial", "of a partial", "criterion", "of a criterion"]
)
def test_distances_are_computed_once(backend: Backend, form: str, counted: list[int]) -> None:
    if form not in forms(backend.functions):
        pytest.skip("JAX has functions only")
    loss = forms(backend.functions)[form]
    outputs, target, _ = outputs_and_target(1, (8, 6), 1, 4)
    prepared, truth = arrays(backend, [outputs[0], 1 - outputs[0]]), backend.array(target, True)
    got = backend.functions.deep_supervision(loss, prepared, truth)
    assert len(counted) == 1
    close(backend.numpy(got, False), sum(backend.numpy(loss(x, truth), False) for x in prepared))


def test_in_the_precision_of_each_output(backend: Backend, counted: list[int]) -> None:
    outputs, target, _ = outputs_and_target(1, (8, 6), 1, 1)
    single, double = (backend.array(outputs[0].astype(t), True) for t in ("float32", "float64"))
    loss, truth = backend.functions.weighted_fbeta_loss, backend.array(target, True)
    got = backend.functions.deep_supervision(loss, [single, double], truth, **EXACT)
    assert len(counted) == 2
    assert backend.numpy(got - loss(single, truth, **EXACT), False) == pytest.approx(
        backend.numpy(loss(double, truth, **EXACT), False), abs=1e-12
    )


def test_given_distance_weights_and_other_losses_are_left_alone(
    backend: Backend, counted: list[int]
) -> None:
    functions = backend.functions
    outputs, target, _ = outputs_and_target(1, (8, 6), 1, 1)
    prepared, truth = arrays(backend, outputs), backend.array(target, True)
    ones = backend.array(np.ones(target.shape), True)
    expected = functions.weighted_fbeta_loss(*prepared, truth, distance_weights=ones)
    for loss, arguments in (
        (functions.weighted_fbeta_loss, {"distance_weights": ones}),
        (partial(functions.weighted_fbeta_loss, distance_weights=ones), {}),
    ):
        assert functions.deep_supervision(loss, prepared, truth, **arguments) == expected
    assert not counted

    # A loss of the user's own is called with nothing that was not asked for.
    def plain(output: Any, target: Any) -> Any:
        return functions.weighted_fbeta_loss(output, target)

    functions.deep_supervision(plain, prepared * 3, truth)
    assert len(counted) == 3


# Sizes


@pytest.mark.parametrize(
    "shape",
    [((3,), (7,)), ((5, 4), (9, 3)), ((2, 6), (2, 6)), ((3, 2, 4), (5, 4, 2)), ((1, 7), (13, 13))],
)
def test_resizing_is_linear_between_the_centres_of_pixels(
    shape: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    small, size = shape
    x = np.random.default_rng(0).normal(size=(2, *small, 3)) * 9
    expected = interpolated(x, size)
    ours = torch_ops.resize(TORCH.array(x, True), size)
    close(TORCH.numpy(ours, True), expected)
    close(jax_ops.resize(jnp.asarray(x), size), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_takes_no_probability_out_of_its_range(dtype: torch.dtype) -> None:
    """Plain interpolation of ones gives 1 + 2e-16 and the like."""
    beyond = 0
    for old in range(1, 8):
        for new in range(1, 14):
            x = torch.ones(1, 1, old, 7, dtype=dtype, requires_grad=True)
            plain = torch.nn.functional.interpolate(x, (new, 13), mode="bilinear")
            beyond += int((plain > 1).any())
            resized = torch_ops.resize(x, (new, 13))
            assert (resized == 1).all()
            (slope,) = torch.autograd.grad(resized.sum(), x)
            assert slope.sum().item() == pytest.approx(13 * new)  # also of the pixels brought back
    assert beyond > 0


@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float32", "float64"]))
def test_no_value_leaves_the_range_of_its_map(backend: Backend, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.random((2, 3, 7, 2)) ** rng.choice([0, 0.01, 1])).astype(dtype)
    ops = torch_ops if backend is TORCH else jax_ops
    resized = backend.numpy(ops.resize(backend.array(x, True), (5, 13)), True)
    assert (resized <= x.max((1, 2), keepdims=True)).all()
    assert (resized >= x.min((1, 2), keepdims=True)).all()


def test_halves_are_interpolated_in_single_precision(backend: Backend) -> None:
    x = np.random.default_rng(0).random((1, 3, 4, 1)).astype(np.float16)
    target = np.random.default_rng(1).random((1, 8, 6, 1)) < 0.5
    functions = backend.functions
    got = functions.deep_supervision(
        functions.weighted_fbeta_loss, arrays(backend, [x]), backend.array(target, True)
    )
    wide = interpolated(x.astype(np.float64), (8, 6))
    close(backend.numpy(got, False), backend.call("weighted_fbeta_loss", wide, target), "float32")


# Faults


def test_faults_say_what_to_do(backend: Backend) -> None:
    outputs, target, _ = outputs_and_target(0, (8, 6), 1, 2)
    prepared, truth = arrays(backend, outputs), backend.array(target, True)
    functions = backend.functions
    loss = functions.weighted_fbeta_loss

    def call(outputs: Any = prepared, target: Any = truth, **options: Any) -> None:
        functions.deep_supervision(options.pop("loss", loss), outputs, target, **options)

    for kind, message, options in [
        (TypeError, r"call the loss itself, or pass \[outputs\]", {"outputs": prepared[0]}),
        (TypeError, r"got dict; pass list\(outputs.values\(\)\)", {"outputs": {"a": prepared[0]}}),
        (TypeError, "must be a sequence of predictions, got NoneType", {"outputs": None}),
        (TypeError, "must be a sequence of predictions, got str", {"outputs": "abc"}),
        (TypeError, r"outputs\[1\] must be a", {"outputs": [prepared[0], "abc"]}),
        (ValueError, "at least one prediction, got none", {"outputs": []}),
        (ValueError, "one number per output, 2 in all, got 3", {"weights": [1, 1, 1]}),
        (ValueError, "one number per output, 2 in all, got 0", {"weights": []}),
        (TypeError, "weights must be a sequence of numbers", {"weights": 0.5}),
        (TypeError, r"weights\[1\] must be a number", {"weights": [1, "2"]}),
        (ValueError, r"weights\[0\] must lie in \[0, inf\]", {"weights": [-1, 2]}),
        (
            ValueError,
            r"spatial size \(8, 6\) of target, got \(4, 3\); pass resize=",
            {"resize": None},
        ),
        (ValueError, "resize must be one of 'bilinear', None", {"resize": "nearest"}),
        (ValueError, r"outputs\[0\] must have as many axes", {"target": truth[0, ..., 0]}),
        (TypeError, "loss must be a function or a criterion", {"loss": "dice"}),
        (TypeError, "unexpected keyword argument 'thetta'", {"thetta": 3}),
    ]:
        with pytest.raises(kind, match=message):
            call(**options)


def test_a_dicts_values_may_be_given(backend: Backend) -> None:
    outputs, target, _ = outputs_and_target(0, (8, 6), 1, 2)
    named = dict(enumerate(arrays(backend, outputs)))
    functions, truth = backend.functions, backend.array(target, True)
    of = partial(functions.deep_supervision, functions.weighted_fbeta_loss, target=truth)
    assert of(outputs=named.values()) == of(outputs=tuple(named.values()))


# What the frameworks may do with it


def example() -> tuple[list[torch.Tensor], torch.Tensor]:
    outputs, target, _ = outputs_and_target(5, (8, 6), 1, 3)
    return arrays(TORCH, outputs), TORCH.array(target, True)


def test_the_criterion_is_the_function() -> None:
    outputs, target = example()
    loss = saliency_losses.torch.WeightedFBetaLoss(theta=3, error="absolute")
    criterion = saliency_losses.torch.DeepSupervision(loss, weights=[1, 0.5, 0.25])
    expected = saliency_losses.torch.deep_supervision(loss, outputs, target, weights=[1, 0.5, 0.25])
    for module in (criterion, copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert module(outputs, target) == expected
    mask = target[:, 0]
    assert criterion(outputs, target, mask=mask) == saliency_losses.torch.deep_supervision(
        loss, outputs, target, weights=[1, 0.5, 0.25], mask=mask
    )
    assert list(criterion.children()) == [loss]
    assert "weights=[1, 0.5, 0.25], resize='bilinear'" in repr(criterion)
    for wrong in ({"weights": 2}, {"resize": "nearest"}):
        with pytest.raises((TypeError, ValueError)):
            saliency_losses.torch.DeepSupervision(loss, **wrong)
    with pytest.raises(TypeError, match="loss must be a function"):
        saliency_losses.torch.DeepSupervision(None)  # type: ignore[arg-type]


def test_a_criterion_with_a_forward_of_its_own() -> None:
    class OfLogits(saliency_losses.torch.WeightedFBetaLoss):
        def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return super().forward(logits.sigmoid(), target)

    outputs, target = example()
    got = saliency_losses.torch.deep_supervision(OfLogits(), [outputs[0].logit()], target)
    torch.testing.assert_close(got, saliency_losses.torch.WeightedFBetaLoss()(outputs[0], target))


# Inductor takes 40 seconds for the exact F-beta loss; tracing shows that all of it is one graph.
@pytest.mark.parametrize(
    ("loss", "compiler"),
    [
        (saliency_losses.torch.WeightedFBetaLoss(**EXACT), "aot_eager"),
        (saliency_losses.torch.MetricLoss(), "inductor"),
    ],
    ids=["fbeta", "metric"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_whole_in_torch(loss: torch.nn.Module, compiler: str) -> None:
    outputs, target = example()
    target = target if compiler == "aot_eager" else target[:, 0]
    torch._dynamo.reset()
    criterion = saliency_losses.torch.DeepSupervision(loss, weights=[1, 0.5, 0.25])
    values, slopes = [], []
    for of in (criterion, torch.compile(criterion, fullgraph=True, backend=compiler)):
        inputs = [x.clone().requires_grad_() for x in outputs]
        values.append(of(inputs, target))
        slopes.append(torch.autograd.grad(values[-1], inputs))
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-11)
    torch._dynamo.reset()


def test_under_autocast_and_torch_func() -> None:
    outputs, target = example()
    loss = partial(saliency_losses.torch.weighted_fbeta_loss, **EXACT)

    def of(outputs: list[torch.Tensor]) -> torch.Tensor:
        return saliency_losses.torch.deep_supervision(loss, outputs, target)

    inputs = [x.clone().requires_grad_() for x in outputs]
    slopes = torch.autograd.grad(of(inputs), inputs)
    for ours, theirs in zip(torch.func.grad(of)(outputs), slopes, strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.autocast("cpu", torch.bfloat16):
        halves = of([x.bfloat16() for x in outputs])
    assert halves.dtype == torch.float32
    torch.testing.assert_close(halves, of([x.bfloat16().float() for x in outputs]))


def test_compiled_in_jax_with_weights_that_a_schedule_moves() -> None:
    outputs, target, _ = outputs_and_target(5, (8, 6), 1, 3)
    functions = JAX.functions

    def of(outputs: list[jax.Array], weights: jax.Array) -> jax.Array:
        return functions.deep_supervision(
            functions.weighted_fbeta_loss, outputs, jnp.asarray(target), weights=weights, **EXACT
        )

    args = arrays(JAX, outputs), jnp.array([1, 0.5, 0.25])
    for ours, theirs in zip(
        jax.tree.leaves(jax.jit(jax.value_and_grad(of))(*args)),
        jax.tree.leaves(jax.value_and_grad(of)(*args)),
        strict=True,
    ):
        close(ours, theirs)
