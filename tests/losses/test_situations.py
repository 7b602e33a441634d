"""Situations in which training programs call the losses, beside a plain call with plain arrays."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.backends import BACKENDS, Backend, close, torch
from tests.support.cases import BY_NAME, CASES, Case, bind

# torch 2.13's compiler still uses what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]

WITH_GRADIENT = [case for case in CASES if case.wrt]
each_case = pytest.mark.parametrize("case", WITH_GRADIENT, ids=lambda case: case.name)


# Lists of outputs


@pytest.mark.parametrize("name", sorted({case.function: case.name for case in CASES}.values()))
@pytest.mark.parametrize(
    "kind", [list, tuple, lambda xs: dict(enumerate(xs))], ids=["list", "tuple", "dict"]
)
def test_several_outputs_are_an_error_that_names_the_way_out(
    backend: Backend, name: str, kind: Any
) -> None:
    case = BY_NAME[name]
    args, options = backend.prepared(case.function, case.args, case.options)
    args[0] = kind([args[0], args[0]])
    with pytest.raises(TypeError, match=r"must be one array, got \w+; .*deep_supervision"):
        getattr(backend.functions, case.function)(*args, **options)


def test_numbers_in_lists_are_no_arrays(backend: Backend) -> None:
    with pytest.raises(TypeError, match="probs must be one array, got list"):
        backend.functions.cas_loss([[[0.5], [0.5]]], [[0]])


# The other framework's layout


@pytest.mark.parametrize(
    "function",
    ["weighted_fbeta_loss", "weighted_fbeta_score", "weighted_fmeasure", "distance_weights"],
)
@pytest.mark.parametrize("spatial", [(8, 9), (3, 4, 5)])
@pytest.mark.parametrize("flat", [False, True])
def test_the_other_layout_is_named(
    backend: Backend, function: str, spatial: tuple[int, ...], flat: bool
) -> None:
    public = getattr(backend.functions, function)
    shape = (2, *spatial, 1) if backend.name == "torch" else (2, 1, *spatial)
    probs = backend.array(np.full(shape, 0.5), False)
    target = backend.array(np.zeros((2, *spatial) if flat else shape), False)
    words = {
        "torch": r"channels last: \w+\.movedim\(-1, 1\)",
        "jax": r"channels first: jax\.numpy\.moveaxis\(\w+, 1, -1\)",
    }[backend.name]
    args = [probs] if function == "distance_weights" else [probs, target]
    with pytest.raises(ValueError, match=words):
        public(*args)


def test_features_in_the_other_layout_are_named(backend: Backend) -> None:
    case = BY_NAME["metric"]
    features, labels = (backend.array(x, False) for x in case.args)  # (N, H, W, C) and labels
    if backend.name == "jax":
        features = jnp.moveaxis(features, -1, 1)
    with pytest.raises(ValueError, match="features seems to have its channels"):
        backend.functions.metric_loss(features, labels)


# Options that a schedule moves


@pytest.mark.parametrize(
    ("name", "option", "number"),
    [
        ("cas", "alpha", 0.25),
        ("weighted_f", "beta", 0.5),
        ("weighted_f_score", "beta", 2.0),
        ("weighted_f_measure", "beta", 1.5),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_scalar_arrays_as_options(
    backend: Backend, name: str, option: str, number: float, dtype: str
) -> None:
    number = max(round(number), 1) if dtype == "int32" else number
    case = BY_NAME[name].astype(np.float32)
    expected = backend.call(case.function, *case.args, **case.options | {option: number})
    scalar = (
        torch.tensor(number, dtype=getattr(torch, dtype))
        if backend.name == "torch"
        else (jnp.asarray(number, dtype))
    )
    got = backend.call(case.function, *case.args, **case.options | {option: scalar})
    assert got.dtype == np.float32
    close(got, expected, "float32")
    with pytest.raises(ValueError, match=f"{option} must lie in"):
        backend.call(case.function, *case.args, **case.options | {option: -scalar})
    with pytest.raises(TypeError, match=f"{option} must be a number or a scalar array"):
        backend.call(case.function, *case.args, **case.options | {option: scalar[None]})


def test_a_schedule_in_jit() -> None:
    cas, fbeta = (BY_NAME[name] for name in ("cas", "weighted_f"))
    functions = BACKENDS["jax"].functions
    for case, option in ((cas, "alpha"), (fbeta, "beta")):
        function, (x, y) = getattr(functions, case.function), case.args
        rest = {k: v for k, v in case.options.items() if k != option}

        def of(
            step: Any,
            function: Any = function,
            x: Any = x,
            y: Any = y,
            rest: Any = rest,
            option: str = option,
        ) -> Any:
            return function(x, y, **rest, **{option: 0.5 + 0.1 * step / 10})

        close(jax.jit(of)(3), of(3))
        assert np.isfinite(jax.jit(jax.grad(of))(3.0))


def test_traced_static_options_name_the_repair() -> None:
    functions = BACKENDS["jax"].functions
    x, y = BY_NAME["cas_average"].args
    with pytest.raises(TypeError, match=r'num_regions must be .*static_argnames="num_regions"'):
        jax.jit(functions.cas_loss)(x, y, num_regions=2)
    with pytest.raises(TypeError, match=r'average_regions must be .*static_argnames="average_reg'):
        jax.jit(functions.cas_loss)(x, y, average_regions=True)
    with pytest.raises(TypeError, match=r'ignore_index must be .*static_argnames="ignore_index"'):
        jax.jit(functions.cas_loss)(x, y, ignore_index=255)
    with pytest.raises(TypeError, match=r'step must be .*static_argnames="step"'):
        jax.jit(functions.update_prior)(x, x, 3)
    with pytest.raises(TypeError, match=r'threshold must be .*static_argnames="threshold"'):
        jax.jit(functions.foreground_vector)(x, x[..., 0], threshold=0.5)


def test_a_module_with_a_tensor_for_an_option() -> None:
    beta = torch.tensor(1.0)
    criterion = BACKENDS["torch"].functions.WeightedFBetaLoss(beta=beta)
    args = BACKENDS["torch"].prepared("weighted_fbeta_loss", BY_NAME["weighted_f"].args, {})[0]
    before = criterion(*args)
    beta.fill_(0.1)
    assert criterion(*args) != before
    with pytest.raises(ValueError, match="beta"):
        BACKENDS["torch"].functions.WeightedFBetaLoss(beta=torch.tensor(0.0))


# Constants of a program


@pytest.mark.parametrize("name", ["weighted_f_euclidean", "weighted_f_measure", "cas", "metric"])
def test_xla_does_not_compute_with_a_target_that_is_closed_over(name: str) -> None:
    case = BY_NAME[name]
    of, inputs = bind(BACKENDS["jax"], case)
    staged = str(jax.make_jaxpr(of)(*inputs))
    arrays = sum(isinstance(x, np.ndarray) for x in (*case.args, *case.options.values()))
    assert staged.count("optimization_barrier") >= arrays - len(inputs)
    np.testing.assert_allclose(jax.jit(of)(*inputs), of(*inputs), rtol=1e-9)


# Hooks on saved tensors


def hooks() -> dict[str, Callable[[], Any]]:
    graph = torch.autograd.graph
    return {
        "save_on_cpu": graph.save_on_cpu,
        "mutation": graph.allow_mutation_on_saved_tensors,
        "own": lambda: graph.saved_tensors_hooks(lambda x: x.numpy(), torch.from_numpy),
    }


@each_case
@pytest.mark.parametrize("hook", ["save_on_cpu", "mutation", "own"])
def test_backward_within_hooks_on_saved_tensors(case: Case, hook: str) -> None:
    of, inputs = bind(BACKENDS["torch"], case)
    inputs = [x.requires_grad_() for x in inputs]
    expected = torch.autograd.grad(of(*inputs).sum(), inputs)
    with hooks()[hook]():
        got = torch.autograd.grad(of(*inputs).sum(), inputs)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["weighted_f", "anchor", "cas"])
def test_second_gradients_within_hooks_on_saved_tensors(name: str) -> None:
    of, inputs = bind(BACKENDS["torch"], BY_NAME[name])
    inputs = [x.requires_grad_() for x in inputs]

    def second() -> Any:
        first = torch.autograd.grad(of(*inputs).sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), inputs)

    expected = second()
    with torch.autograd.graph.save_on_cpu():
        got = second()
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


# Subclasses of tensors


def narrow() -> Any:
    class Narrow(torch.Tensor):
        """Knows less than a tensor: as in MONAI, some of its functions take fewer arguments."""

        @classmethod
        def __torch_function__(
            cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if function in (
                torch.Tensor.cummax,
                torch.Tensor.new_zeros,
                torch.Tensor.sum,
                torch.Tensor.flatten,
                torch.Tensor.float,
                torch.Tensor.aminmax,
            ):
                raise TypeError(f"{function} takes other arguments")
            return super().__torch_function__(function, types, args, kwargs or {})

    return Narrow


@each_case
def test_a_subclass_that_knows_less_than_a_tensor(case: Case) -> None:
    plain = BACKENDS["torch"]
    args, options = plain.prepared(case.function, case.args, case.options)
    function = getattr(plain.functions, case.function)
    kind = narrow()

    def wrapped(x: Any) -> Any:
        return x.as_subclass(kind) if isinstance(x, torch.Tensor) else x

    x = args[0].requires_grad_()
    expected = function(*args, **options)
    got = function(*map(wrapped, args), **{k: wrapped(v) for k, v in options.items()})
    assert type(got) is torch.Tensor
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (got, expected)))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from torch.distributed.tensor import init_device_mesh

    file = tmp_path_factory.mktemp("mesh") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "name",
    [
        "metric",
        "metric_hard",
        "cas",
        "cace",
        "weighted_f",
        "weighted_f_euclidean",
        "weighted_f_measure",
        "anchor",
        "js",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_batch_that_is_sharded_as_dtensors(mesh: Any, name: str) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    case = BY_NAME[name]
    args, options = BACKENDS["torch"].prepared(case.function, case.args, case.options)
    function = getattr(BACKENDS["torch"].functions, case.function)

    def shared(x: Any) -> Any:
        return distribute_tensor(x, mesh, [Shard(0)]) if isinstance(x, torch.Tensor) else x

    x, y = args[0].clone().requires_grad_(), shared(args[0]).requires_grad_()
    expected = function(x, *args[1:], **options)
    got = function(y, *map(shared, args[1:]), **{k: shared(v) for k, v in options.items()})
    torch.testing.assert_close(got.full_tensor(), expected)
    expected.sum().backward()
    got.sum().backward()
    torch.testing.assert_close(y.grad.full_tensor(), x.grad)


# Compiled with open sizes


@pytest.mark.parametrize("function", ["weighted_fmeasure", "weighted_fbeta_score"])
def test_open_sizes_and_a_gradient(function: str) -> None:
    public = getattr(BACKENDS["torch"].functions, function)
    rng = torch.Generator().manual_seed(0)
    probs, target = torch.rand(2, 1, 12, 9, generator=rng), torch.rand(2, 1, 12, 9) > 0.5
    torch._dynamo.reset()
    compiled = torch.compile(public, dynamic=True, fullgraph=True, backend="aot_eager")
    values = []
    for call in (compiled, public):
        x = probs.clone().requires_grad_()
        value = call(x, target)
        value.backward()
        values.append((value.detach(), x.grad))
    torch._dynamo.reset()
    torch.testing.assert_close(*values)
