"""What PyTorch may do with a loss: differentiate, map, compile, cast, and lay out in memory."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.support.backends import BACKENDS, CHANNELS
from tests.support.cases import BAD_VALUES, BY_NAME, CASES, Case, bind

# torch 2.13's own forward mode and compiler still use what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]

TORCH = BACKENDS["torch"]
# With stop_gradient the gradient is meant to be another than the function's own.
OWN_GRADIENT = [case for case in CASES if not case.options.get("stop_gradient")]


def ids(case: Any) -> str | None:
    return case.name if isinstance(case, Case) else None


every = pytest.mark.parametrize("case", CASES, ids=ids)
own_gradient = pytest.mark.parametrize("case", OWN_GRADIENT, ids=ids)
bad_value = pytest.mark.parametrize(("name", "place", "value"), BAD_VALUES)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def bound(case: Case) -> tuple[Callable[..., Tensor], list[Tensor]]:
    of, inputs = bind(TORCH, case)
    return of, [x.clone().requires_grad_() for x in inputs]


def detached(inputs: list[Tensor]) -> list[Tensor]:
    return [x.detach() for x in inputs]


def weighted(of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A scalar that no symmetry makes constant, from results of any shape."""

    def scalar(*inputs: Tensor) -> Tensor:
        result = of(*inputs)
        place = torch.arange(result.numel(), dtype=result.dtype)
        return (result.flatten() * torch.cos(place)).sum()

    return scalar


def same(got: Any, expected: Any, rtol: float = 1e-10, atol: float = 1e-11) -> None:
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


def gradients(of: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(weighted(of)(*inputs), inputs)


# Derivatives


@own_gradient
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    of, inputs = bound(case)
    assert gradcheck(
        of, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )


@pytest.mark.usefixtures("torch_settings")  # with one thread large images go one by one
@pytest.mark.parametrize("function", ["metric_loss", "anchor_softmax_loss", "weighted_fbeta_loss"])
def test_large_images_give_together_what_they_give_alone(function: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(3, 256, 257, generator=generator) < 0.5).long()
    maps = torch.rand(3, 1, 256, 257, generator=generator)
    features = torch.randn(3, 2, 256, 257, generator=generator)
    anchors = torch.randn(3, 2, 2, generator=generator)
    args = {
        "metric_loss": [features, labels],
        "weighted_fbeta_loss": [maps, labels[:, None]],
        "anchor_softmax_loss": [features, anchors, labels],
    }[function]

    def of(args: list[Tensor]) -> tuple[Tensor, Tensor]:
        leaf = args[0].clone().requires_grad_()
        losses = getattr(TORCH.functions, function)(leaf, *args[1:], reduction="none")
        return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]

    together = of(args)
    alone = [of([x[n : n + 1] for x in args]) for n in range(3)]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-6, atol=1e-9)


@own_gradient
def test_second_gradients_are_those_of_finite_differences(case: Case) -> None:
    of, inputs = bound(case)
    assert gradgradcheck(of, inputs, check_batched_grad=True, check_fwd_over_rev=True)


def test_stop_gradient_pulls_each_pixel_by_the_gap_of_the_means() -> None:
    case = BY_NAME["metric_stop_gradient"]
    of, (features,) = bound(case)
    (got,) = torch.autograd.grad(of(features) * len(features), features)
    x, (labels, mask) = case.args[0], (case.args[1], case.options["mask"])
    expected = np.zeros_like(x)
    for n in range(len(x)):
        salient, background = mask[n] & (labels[n] == 1), mask[n] & (labels[n] == 0)
        gap = x[n][background].mean(0) - x[n][salient].mean(0)
        expected[n][salient] = 2 * gap / mask[n].sum()
        expected[n][background] = -2 * gap / mask[n].sum()
    same(got.movedim(1, -1), torch.from_numpy(expected))


@every
def test_func_grad_equals_autograd(case: Case) -> None:
    of, inputs = bound(case)
    places = tuple(range(len(inputs)))
    same(torch.func.grad(weighted(of), argnums=places)(*detached(inputs)), gradients(of, inputs))


@every
def test_forward_mode_equals_reverse_mode(case: Case) -> None:
    of, inputs = bound(case)
    places = tuple(range(len(inputs)))
    same(
        torch.func.jacfwd(of, argnums=places)(*detached(inputs)),
        torch.func.jacrev(of, argnums=places)(*detached(inputs)),
    )


@every
def test_vmap_equals_a_loop(case: Case) -> None:
    of, inputs = bound(case)
    runs = [detached(inputs), [0.5 * x + 0.1 for x in detached(inputs)]]
    stacked = [torch.stack(xs) for xs in zip(*runs, strict=True)]
    same(torch.func.vmap(of)(*stacked), torch.stack([of(*xs) for xs in runs]))
    slope = torch.func.grad(weighted(of), argnums=tuple(range(len(inputs))))
    per_run = [slope(*xs) for xs in runs]
    same(
        torch.func.vmap(slope)(*stacked),
        tuple(torch.stack(xs) for xs in zip(*per_run, strict=True)),
    )


@every
def test_hessian_equals_two_reverse_passes(case: Case) -> None:
    of, inputs = bound(case)
    places = tuple(range(len(inputs)))
    forward_over_reverse = torch.func.hessian(weighted(of), argnums=places)(*detached(inputs))
    reverse = torch.func.jacrev(torch.func.jacrev(weighted(of), argnums=places), argnums=places)
    same(forward_over_reverse, reverse(*detached(inputs)))
    assert all(h.isfinite().all() for row in forward_over_reverse for h in row)


@every
def test_a_gradient_penalty_can_be_trained(case: Case) -> None:
    of, inputs = bound(case)
    grads = torch.autograd.grad(weighted(of)(*inputs), inputs, create_graph=True)
    penalty = sum(g.square().sum() for g in grads)
    # Linear functions have a constant gradient, which needs no graph.
    if penalty.requires_grad:
        second = torch.autograd.grad(penalty, inputs, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in second)
        assert any(g is not None for g in second)
    else:
        assert case.name in ("update_prior", "merge_by_confidence", "metric_stop_gradient")


# Values that cannot be read


@bad_value
def test_vmap_over_a_bad_value_spoils_that_image_only(name: str, place: int, value: float) -> None:
    case = BY_NAME[name].per_image()
    bad = case.holding(place, value)
    # Both runs with the mask of the bad case, which counts the pixel.
    good = bad._replace(
        args=(
            *case.args[:place],
            case.args[place].astype(bad.args[place].dtype),
            *case.args[place + 1 :],
        )
    )
    (good_args, options), (bad_args, _) = (
        TORCH.prepared(c.function, c.args, c.options) for c in (good, bad)
    )
    public = getattr(TORCH.functions, case.function)
    tensors = [k for k, x in enumerate(good_args) if isinstance(x, Tensor)]

    def of(*chosen: Tensor) -> Tensor:
        args = list(good_args)
        for k, x in zip(tensors, chosen, strict=True):
            args[k] = x
        return public(*args, **options)

    result = torch.func.vmap(of)(*[torch.stack([good_args[k], bad_args[k]]) for k in tensors])
    expected = public(*good_args, **options)
    same(result[0], expected)
    same(result[1, 1:], expected[1:])
    assert result[1, 0].isnan().all()


def test_vmap_of_a_gradient_over_a_bad_label_leaves_the_other_images() -> None:
    case = BY_NAME["metric"]
    bad = case.holding(1, 7)
    good = bad._replace(args=case.args)
    of_good, (features,) = bind(TORCH, good)
    labels, mask = torch.from_numpy(bad.args[1]), torch.from_numpy(bad.options["mask"])

    def loss(x: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        return TORCH.functions.metric_loss(x[None], labels[None], mask=mask[None])

    got = torch.func.vmap(torch.func.grad(loss))(features, labels, mask)
    features.requires_grad_()
    (expected,) = torch.autograd.grad(of_good(features) * len(features), features)
    same(got[1:], expected[1:])


# The compiler


def check_compiled(case: Case, tolerance: float, **options: Any) -> None:
    """tolerance: relative to the largest value."""
    of, inputs = bound(case)
    compiled = torch.compile(of, fullgraph=True, **options)
    for got, expected in (
        ((compiled(*inputs),), (of(*inputs),)),
        (gradients(compiled, inputs), gradients(of, inputs)),
    ):
        for ours, theirs in zip(got, expected, strict=True):
            same(ours, theirs, 0, tolerance * theirs.detach().abs().max().item())


IN_FLOAT32 = (
    "metric_pairwise",
    "metric_hard",
    "cas",
    "cace",
    "weighted_f_euclidean",
    "anchor",
    "region_anchors",
    "js",
)
FOR_DAILY_WORK = ("metric_hard", "cas", "anchor", "js")
# Cases that Inductor, which takes seconds for each, need not compile here: it compiles them in
# float32 below, or weighted_f and its complement, the score, within weighted_f_several, or the
# measure and the volume apart.
TRACED = (*IN_FLOAT32, "weighted_f", "weighted_f_score", "weighted_f_measure_volume")


@pytest.mark.slow
@every
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_equals_eager(case: Case) -> None:
    check_compiled(case, 1e-9, backend="aot_eager" if case.name in TRACED else "inductor")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in FOR_DAILY_WORK else pytest.mark.slow)
        for name in IN_FLOAT32
    ],
)
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_equals_eager_in_float32(name: str) -> None:
    check_compiled(BY_NAME[name].astype(np.float32), 2e-5, dynamic=False)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_sums_by_region_hold_where_the_last_run_is_shorter() -> None:
    labels = torch.arange(2 * 10_000).reshape(2, 100, 100) // 7 % 2
    probs = torch.rand(
        2,
        2,
        100,
        100,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
        requires_grad=True,
    )
    of = lambda x: TORCH.functions.cas_loss(x, labels, reduction="none")  # noqa: E731
    compiled = torch.compile(of, fullgraph=True, dynamic=False)
    same(compiled(probs), of(probs))
    same(gradients(compiled, [probs]), gradients(of, [probs]))


def larger(case: Case) -> Case:
    """The case at other sizes: three images, and the last spatial axis doubled."""

    def grow(x: Any, channels: bool, spatial: bool) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        x = np.concatenate([x, x[:1]])
        return np.concatenate([x, x[::-1]], x.ndim - 1 - channels) if spatial else x

    channels = CHANNELS[case.function][0] + (False,) * len(case.args)
    return case._replace(
        args=tuple(
            grow(x, c, not (case.name.startswith("anchor") and k == 1))
            for k, (x, c) in enumerate(zip(case.args, channels, strict=False))
        ),
        options={k: grow(x, k == "distance_weights", True) for k, x in case.options.items()},
    )


def check_other_sizes(case: Case, compiler: str) -> None:
    public = getattr(TORCH.functions, case.function)
    compiled = torch.compile(public, fullgraph=True, backend=compiler)
    for c in (case, larger(case), case):
        args, options = TORCH.prepared(c.function, c.args, c.options)
        same(compiled(*args, **options), public(*args, **options), 1e-9, 1e-9)


# Tracing alone, which "aot_eager" does without a C++ compiler, takes a tenth of the time.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case.name.startswith("weighted_f_") else [])
        for case in CASES
    ],
    ids=ids,
)
@pytest.mark.usefixtures("fresh_compiler")
def test_traced_once_serves_other_sizes(case: Case) -> None:
    check_other_sizes(case, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metric_hard", "cas", "weighted_f_euclidean", "anchor"])
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_once_serves_other_sizes(name: str) -> None:
    check_other_sizes(BY_NAME[name], "inductor")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "compiler"),
    [
        ("metric_hard", "inductor"),
        ("semantic_distance", "aot_eager"),
        ("cas", "aot_eager"),
        ("weighted_f_euclidean", "aot_eager"),
        ("anchor", "inductor"),
        ("region_anchors", "aot_eager"),
        ("js", "aot_eager"),
    ],
)
@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_func_gradient_equals_eager(name: str, compiler: str) -> None:
    of, inputs = bound(BY_NAME[name])
    slope = torch.func.grad(weighted(of))
    same(
        torch.compile(slope, fullgraph=True, backend=compiler)(*detached(inputs)),
        slope(*detached(inputs)),
        1e-9,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "value", "compiler"),
    [
        ("metric", 1, 255, "inductor"),
        ("metric_hard", 1, -1, "aot_eager"),
        ("cas", 0, 1.5, "inductor"),
        ("cas", 1, 255, "aot_eager"),
        ("cace", 1, 2, "aot_eager"),
        ("weighted_f_given", 0, -0.5, "inductor"),
        ("weighted_f_euclidean", 1, 1.5, "aot_eager"),
        ("anchor", 2, 3, "inductor"),
        ("region_anchors", 1, -1, "aot_eager"),
        ("update_prior", 0, 2, "aot_eager"),
        ("foreground_vector", 1, 2, "aot_eager"),
        ("semantic_distance", 1, -1, "aot_eager"),
        ("merge_by_confidence", 0, 2, "aot_eager"),
    ],
)
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_over_a_bad_value_spoils_that_image_only(
    name: str, place: int, value: float, compiler: str
) -> None:
    bad = BY_NAME[name].per_image().holding(place, value)
    good = bad._replace(args=BY_NAME[name].args)
    (of_bad, inputs), (of_good, good_inputs) = bound(bad), bound(good)
    got = torch.compile(of_bad, fullgraph=True, backend=compiler)(*inputs)
    expected = of_good(*good_inputs)
    assert got[0].isnan().all()
    same(got[1:], expected[1:], 1e-9, 1e-9)
    for ours, theirs in zip(
        torch.autograd.grad(got[1:].sum(), inputs),
        torch.autograd.grad(expected[1:].sum(), good_inputs),
        strict=True,
    ):
        same(ours, theirs, 1e-9, 1e-9)


# Memory layout


def relaid(case: Case, layout: Callable[[Tensor], Tensor]) -> tuple[Any, Any]:
    """Results and gradients on tensors with another memory layout."""
    of, inputs = bound(case)
    others = [layout(x.detach()).requires_grad_() for x in inputs]
    assert all(torch.equal(a, b) for a, b in zip(inputs, others, strict=True))
    same(of(*others), of(*inputs))
    return gradients(of, others), gradients(of, inputs)


def channels_last(x: Tensor) -> Tensor:
    if x.ndim not in (4, 5):
        return x.clone()
    form = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.clone(memory_format=form)


def every_other(x: Tensor) -> Tensor:
    """The same values as a view of a tensor twice as long in every axis."""
    long = x.new_full([2 * n for n in x.shape], 17.0)
    view = long[tuple(slice(None, None, 2) for _ in x.shape)]
    view.copy_(x)
    assert not view.is_contiguous()
    return view


@every
@pytest.mark.parametrize("layout", [channels_last, every_other])
def test_memory_layout_changes_nothing(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    same(*relaid(case, layout))


@every
def test_labels_and_masks_may_be_views(case: Case) -> None:
    args, options = TORCH.prepared(case.function, case.args, case.options)
    public = getattr(TORCH.functions, case.function)
    expected = public(*args, **options)
    views = [every_other(x) if isinstance(x, Tensor) else x for x in args]
    same(
        public(
            *views,
            **{k: every_other(x) if isinstance(x, Tensor) else x for k, x in options.items()},
        ),
        expected,
    )


def test_an_expanded_prediction_has_one_gradient() -> None:
    probs = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64, requires_grad=True)
    target = torch.from_numpy(BY_NAME["weighted_f"].args[1]).movedim(-1, 1)
    loss = TORCH.functions.weighted_fbeta_loss(probs.expand(target.shape), target)
    (slope,) = torch.autograd.grad(loss, probs)
    assert slope.isfinite().all()
    assert slope.abs() > 0


# Autocast


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(case: Case, dtype: torch.dtype) -> None:
    of, inputs = bound(case.astype(np.float32))
    expected, slopes = of(*inputs), gradients(of, inputs)
    with torch.autocast("cpu", dtype=dtype):
        got = of(*inputs)
        scalar = weighted(of)(*inputs)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)
    assert all(
        torch.equal(a, b) for a, b in zip(torch.autograd.grad(scalar, inputs), slopes, strict=True)
    )


@every
def test_a_gradient_taken_under_autocast_is_no_coarser(case: Case) -> None:
    of, inputs = bound(case.astype(np.float32))
    slope = torch.func.grad(weighted(of), argnums=tuple(range(len(inputs))))
    expected = slope(*detached(inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = slope(*detached(inputs))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@every
def test_half_precision_under_autocast_gives_float32(case: Case) -> None:
    of, inputs = bind(TORCH, case.astype(np.float32))
    halves = [x.bfloat16() for x in inputs]
    expected = of(*[x.float() for x in halves])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = of(*halves)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_a_model_under_autocast_trains() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 2, 3, padding=1)
    image, labels = torch.randn(2, 3, 8, 8), (torch.rand(2, 8, 8) > 0.5).long()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = conv(image)
        assert output.dtype == torch.bfloat16
        loss = TORCH.functions.cas_loss(output.softmax(1), labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert conv.weight.grad is not None
    assert conv.weight.grad.isfinite().all()
    assert conv.weight.grad.abs().max() > 0


# What a training loop relies on


@every
def test_inputs_are_left_as_they_were(case: Case) -> None:
    args, options = TORCH.prepared(case.function, case.args, case.options)
    before = [x.clone() if isinstance(x, Tensor) else x for x in args]
    versions = [x._version for x in args if isinstance(x, Tensor)]
    of, inputs = bound(case)
    gradients(of, inputs)
    getattr(TORCH.functions, case.function)(*args, **options)
    assert versions == [x._version for x in args if isinstance(x, Tensor)]
    assert all(
        torch.equal(a, b) for a, b in zip(before, args, strict=True) if isinstance(a, Tensor)
    )


@every
def test_no_grad_and_inference_mode_give_the_value(case: Case) -> None:
    of, inputs = bound(case)
    expected = of(*inputs).detach()
    with torch.no_grad():
        got = of(*inputs)
    assert not got.requires_grad
    assert torch.equal(got, expected)
    with torch.inference_mode():
        assert torch.equal(of(*inputs), expected)


@every
def test_activation_checkpointing_gives_the_same_gradient(case: Case) -> None:
    of, inputs = bound(case)
    again = torch.utils.checkpoint.checkpoint(of, *inputs, use_reentrant=False)
    assert isinstance(again, Tensor)
    same(
        gradients(
            lambda *xs: torch.utils.checkpoint.checkpoint(of, *xs, use_reentrant=False), inputs
        ),
        gradients(of, inputs),
    )
