"""The Modules: stored options and one call of the function."""

import copy
import inspect
import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import saliency_losses.torch
from tests.support.backends import BACKENDS
from tests.support.cases import BY_NAME, Case

# torch 2.13's compiler still uses what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

TORCH = BACKENDS["torch"]
FUNCTIONS = {
    "MetricLoss": "metric_loss",
    "CASLoss": "cas_loss",
    "ClassAgnosticCrossEntropy": "class_agnostic_cross_entropy",
    "WeightedFBetaLoss": "weighted_fbeta_loss",
    "AnchorSoftmaxLoss": "anchor_softmax_loss",
    "JSMutualInformationLoss": "js_mutual_information_loss",
}
# For each Module: a case, and every option at another value than its default.
SETTINGS = [
    (
        "MetricLoss",
        "metric",
        {"normalize": True, "stop_gradient": True, "hard_negatives": True, "reduction": "none"},
    ),
    ("MetricLoss", "metric", {"form": "pairwise", "normalize": True, "reduction": "sum"}),
    (
        "CASLoss",
        "cas",
        {"num_regions": 3, "alpha": 0.25, "average_regions": True, "reduction": "none"},
    ),
    ("ClassAgnosticCrossEntropy", "cace", {"per": "pixel", "reduction": "none"}),
    (
        "WeightedFBetaLoss",
        "weighted_f",
        {
            "beta": 0.5,
            "theta": 3,
            "phi": 2,
            "distance": "euclidean",
            "error": "absolute",
            "normalize_kernel": True,
            "reduction": "none",
        },
    ),
    ("WeightedFBetaLoss", "weighted_f", {"phi": 1, "reduction": "none"}),
    ("MetricLoss", "metric", {"ignore_index": 1, "reduction": "none"}),
    ("CASLoss", "cas_average", {"activation": "softmax", "ignore_index": 1, "reduction": "none"}),
    ("ClassAgnosticCrossEntropy", "cace", {"ignore_index": 1, "reduction": "none"}),
    (
        "WeightedFBetaLoss",
        "weighted_f",
        {"activation": "sigmoid", "ignore_index": 0, "reduction": "none"},
    ),
    ("AnchorSoftmaxLoss", "anchor", {"ignore_index": 1, "reduction": "none"}),
    ("JSMutualInformationLoss", "js", {"balance": False, "reduction": "none"}),
]
FOR_EACH = [next(s for s in SETTINGS if s[0] == name) for name in FUNCTIONS]
# A wrong value of each option.
WRONG = [
    ("MetricLoss", "form", "pair", ValueError),
    ("MetricLoss", "normalize", 1, TypeError),
    ("MetricLoss", "stop_gradient", "yes", TypeError),
    ("MetricLoss", "hard_negatives", None, TypeError),
    ("CASLoss", "num_regions", 0, ValueError),
    ("CASLoss", "num_regions", 2.0, TypeError),
    ("CASLoss", "alpha", 1.5, ValueError),
    ("CASLoss", "alpha", "half", TypeError),
    ("CASLoss", "alpha", float("nan"), ValueError),
    ("CASLoss", "average_regions", 0, TypeError),
    ("ClassAgnosticCrossEntropy", "per", "batch", ValueError),
    ("WeightedFBetaLoss", "beta", 0, ValueError),
    ("WeightedFBetaLoss", "beta", -1.0, ValueError),
    ("WeightedFBetaLoss", "theta", 0, ValueError),
    ("WeightedFBetaLoss", "theta", 2.5, TypeError),
    ("WeightedFBetaLoss", "phi", -1, ValueError),
    ("WeightedFBetaLoss", "phi", True, TypeError),
    ("WeightedFBetaLoss", "distance", "manhattan", ValueError),
    ("WeightedFBetaLoss", "spacing", 2.0, TypeError),
    ("WeightedFBetaLoss", "error", "l2", ValueError),
    ("WeightedFBetaLoss", "normalize_kernel", 1.0, TypeError),
    ("JSMutualInformationLoss", "balance", 1, TypeError),
    *((name, "reduction", "avg", ValueError) for name in FUNCTIONS),
    *((name, "reduction", None, ValueError) for name in FUNCTIONS),
    *((name, "check", "once", ValueError) for name in FUNCTIONS),
    *((name, "ignore_index", 1.5, TypeError) for name in FUNCTIONS if name[0] != "J"),
    *((name, "activation", "relu", ValueError) for name in ("CASLoss", "WeightedFBetaLoss")),
]


def make(name: str, options: dict[str, Any]) -> nn.Module:
    return getattr(saliency_losses.torch, name)(**options)


def stored(name: str) -> list[str]:
    """The options that a Module stores: the keyword-only ones that are no tensors, and its own."""
    function = getattr(saliency_losses.torch, FUNCTIONS[name])
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in ("mask", "distance_weights")
    ] + ["check"]


def inputs(case: Case) -> tuple[list[Any], Tensor]:
    args, options = TORCH.prepared(case.function, case.args, {"mask": case.options["mask"]})
    return args, options["mask"]


def inputs_of(case: str) -> tuple[list[Any], Tensor]:
    found = BY_NAME[case]
    return inputs(
        found
        if "mask" in found.options
        else found._replace(options={"mask": BY_NAME["cas"].options["mask"]})
    )


def test_each_module_is_listed_here() -> None:
    modules = {
        name
        for name in saliency_losses.torch.__all__
        if isinstance(getattr(saliency_losses.torch, name), type)
    }
    assert modules == {*FUNCTIONS, "DeepSupervision"}  # for that, test_supervision.py


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_and_defaults_are_those_of_the_function(name: str) -> None:
    module = getattr(saliency_losses.torch, name)
    function = inspect.signature(getattr(saliency_losses.torch, FUNCTIONS[name])).parameters
    options = inspect.signature(module).parameters
    assert list(options) == stored(name)
    assert all(p.kind is p.KEYWORD_ONLY for p in options.values())
    assert {k: p.default for k, p in options.items()} == {"check": "first"} | {
        k: function[k].default for k in options if k != "check"
    }
    call = list(inspect.signature(module.forward).parameters.values())[1:]
    assert [p.name for p in call] == [p for p in function if p not in options]
    assert [p.kind for p in call] == [function[p.name].kind for p in call]
    assert [p.default for p in call] == [function[p.name].default for p in call]


@pytest.mark.parametrize(("name", "case", "options"), SETTINGS)
def test_gives_what_the_function_gives(name: str, case: str, options: dict[str, Any]) -> None:
    args, mask = inputs_of(case)
    function = getattr(saliency_losses.torch, FUNCTIONS[name])
    got = make(name, options)(*args, mask=mask)
    assert torch.equal(got, function(*args, mask=mask, **options))
    assert got.shape == ((2,) if options["reduction"] == "none" else ())
    if case == "cas":
        args[1] = args[1].clamp(max=1)
    default = make(name, {})(*args)
    assert torch.equal(default, function(*args))
    assert default.shape == ()


@pytest.mark.parametrize(("name", "case", "options"), SETTINGS)
def test_every_option_reaches_the_function(name: str, case: str, options: dict[str, Any]) -> None:
    """Each option alone, left at its default, gives another result or another shape."""
    args, mask = inputs_of(case)
    full = make(name, options)(*args, mask=mask)
    for left_out in options:
        if (name, left_out) in {
            ("CASLoss", "num_regions"),
            ("WeightedFBetaLoss", "phi"),
            ("MetricLoss", "stop_gradient"),
        }:
            continue  # an error, of no effect beside "euclidean", seen in the gradient only
        other = make(name, {k: v for k, v in options.items() if k != left_out})(*args, mask=mask)
        assert other.shape != full.shape or not torch.allclose(other, full), left_out


def test_stop_gradient_reaches_the_function() -> None:
    args, mask = inputs(BY_NAME["metric"])
    grads = []
    for stop in (False, True):
        features = args[0].clone().requires_grad_()
        make("MetricLoss", {"stop_gradient": stop})(features, args[1], mask=mask).backward()
        grads.append(features.grad)
    assert not torch.allclose(*grads)


def test_given_distance_weights_replace_the_distance_step() -> None:
    case = BY_NAME["weighted_f_given"]
    args, options = TORCH.prepared(case.function, case.args, case.options)
    given = options["distance_weights"]
    criterion = make("WeightedFBetaLoss", {})
    got = criterion(*args, distance_weights=given)
    function = saliency_losses.torch.weighted_fbeta_loss
    assert torch.equal(got, function(*args, distance_weights=given))
    assert not torch.equal(got, criterion(*args))


def test_the_mask_is_keyword_only() -> None:
    for name, case, _ in FOR_EACH:
        args, mask = inputs(BY_NAME[case])
        with pytest.raises(TypeError, match="positional"):
            make(name, {})(*args, mask)


@pytest.mark.parametrize(("name", "option", "value", "error"), WRONG)
def test_a_wrong_option_is_an_error_at_construction(
    name: str, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=option):
        make(name, {option: value})


@pytest.mark.parametrize("option", ["stop_gradient", "hard_negatives"])
def test_options_that_exclude_each_other_are_an_error_at_construction(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        make("MetricLoss", {"form": "pairwise", option: True})


def test_every_option_has_a_wrong_value_here() -> None:
    assert {(name, option) for name in FUNCTIONS for option in stored(name)} == {
        (name, option) for name, option, _, _ in WRONG
    }


@pytest.mark.parametrize(("name", "case", "options"), SETTINGS)
def test_repr_shows_the_options(name: str, case: str, options: dict[str, Any]) -> None:
    criterion = make(name, options)
    shown = repr(criterion)
    assert shown.startswith(f"{name}(")
    assert eval(shown, vars(saliency_losses.torch)).__dict__.keys() == criterion.__dict__.keys()
    for option in stored(name):
        assert f"{option}={getattr(criterion, option)!r}" in shown
    for option, value in options.items():
        assert getattr(criterion, option) == value
    assert "training" not in shown
    # A Module of a model, shown within it, and in another mode of training.
    assert shown in repr(nn.Sequential(criterion.eval()))


@pytest.mark.parametrize(("name", "case", "options"), FOR_EACH)
def test_holds_no_state(name: str, case: str, options: dict[str, Any]) -> None:
    criterion = make(name, options)
    assert not criterion.state_dict()
    assert not list(criterion.parameters())
    assert not list(criterion.buffers())
    criterion.load_state_dict({})


@pytest.mark.parametrize(("name", "case", "options"), FOR_EACH)
def test_copies_give_the_same(name: str, case: str, options: dict[str, Any]) -> None:
    args, mask = inputs(BY_NAME[case])
    criterion = make(name, options)
    expected = criterion(*args, mask=mask)
    saved = io.BytesIO()
    torch.save(criterion, saved)
    saved.seek(0)
    copies = [
        copy.copy(criterion),
        copy.deepcopy(criterion),
        pickle.loads(pickle.dumps(criterion)),
        torch.load(saved, weights_only=False),
        criterion.to("cpu"),
        criterion.double(),
        criterion.half(),
        criterion.eval(),
    ]
    for other in copies:
        assert repr(other) == repr(criterion)
        assert torch.equal(other(*args, mask=mask), expected)


@pytest.mark.parametrize(("name", "case", "options"), FOR_EACH)
def test_moves_with_its_model(name: str, case: str, options: dict[str, Any]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))
            self.criterion = make(name, options)

        def forward(self, first: Tensor, *rest: Any, mask: Tensor) -> Tensor:
            return self.criterion(self.scale * first, *rest, mask=mask)

    args, mask = inputs(BY_NAME[case])
    model = Model().to("cpu").double()
    assert list(model.state_dict()) == ["scale"]
    model(*args, mask=mask).sum().backward()
    assert model.scale.grad is not None
    assert model.scale.grad.isfinite()
    assert model.scale.grad != 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_may_be_changed_afterwards(name: str) -> None:
    case = next(case for module, case, _ in SETTINGS if module == name)
    args, mask = inputs(BY_NAME[case])
    if case == "cas":
        args[1] = args[1].clamp(max=1)
    criterion = make(name, {})
    criterion.reduction = "sum"
    assert torch.equal(
        criterion(*args, mask=mask), make(name, {"reduction": "sum"})(*args, mask=mask)
    )
    criterion.reduction = "average"
    with pytest.raises(ValueError, match="reduction"):
        criterion(*args, mask=mask)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "case", "options"), FOR_EACH)
@pytest.mark.usefixtures("fresh_compiler")
# torch 2.13's own compiler instantiates functions with their own backward.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_can_be_compiled(name: str, case: str, options: dict[str, Any]) -> None:
    args, mask = inputs(BY_NAME[case])
    criterion = make(name, options)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    expected = criterion(*args, mask=mask)
    np.testing.assert_allclose(compiled(*args, mask=mask).numpy(), expected.numpy(), rtol=1e-9)
