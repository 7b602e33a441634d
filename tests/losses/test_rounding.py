"""Values that rounding takes out of their range count as its end, eager and in transforms."""

from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from tests.support.backends import BACKENDS, Backend, torch
from tests.support.cases import BY_NAME, Case

# torch 2.13's compiler still uses what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]

# A case, the place of an argument that has a range, and the range's ends.
RANGED = [
    ("cas", 0, (0, 1)),
    ("weighted_f", 0, (0, 1)),
    ("weighted_f", 1, (0, 1)),
    ("weighted_f_euclidean", 0, (0, 1)),
    ("weighted_f_euclidean", 1, (0, 1)),
    ("weighted_f_score", 0, (0, 1)),
    ("weighted_f_measure", 0, (0, 1)),
    ("weighted_f_measure", 1, (0, 1)),
    ("distance_weights", 0, (0, 1)),
    ("semantic_distance", 1, (0,)),
    ("region_anchors", 1, (0,)),
    ("update_prior", 0, (0, 1)),
    ("update_prior", 1, (0, 1)),
    ("merge_by_confidence", 0, (0, 1)),
    ("merge_by_confidence", 1, (0, 1)),
    ("foreground_vector", 1, (0, 1)),
]
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
each = pytest.mark.parametrize(
    ("name", "place", "end", "dtype"),
    [
        (name, place, end, dtype)
        for k, (name, place, ends) in enumerate(RANGED)
        for end in ends
        # Every argument in one dtype, in turn, and one argument in all.
        for j, dtype in enumerate(EPSILON)
        if name == "weighted_f" or j == k % 4
    ],
)


def holding(case: Case, place: int, value: float, dtype: str) -> Case:
    """The case with `value` in every image, and that argument alone in `dtype`."""
    for image in range(2):
        case = case.holding(place, value, image)
    changed = case.args[place].astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return case._replace(args=(*case.args[:place], changed, *case.args[place + 1 :]))


def steps(end: int, dtype: str, count: int) -> float:
    return end + (2 * end - 1) * count * EPSILON[dtype]


def prepared(backend: Backend, case: Case) -> tuple[list[Any], dict[str, Any]]:
    """As `Backend.prepared`, with bfloat16, which PyTorch does not take from NumPy."""
    narrow = [getattr(x, "dtype", None) == ml_dtypes.bfloat16 for x in case.args]
    wide = tuple(
        x.astype(np.float32) if bf16 else x for x, bf16 in zip(case.args, narrow, strict=True)
    )
    args, options = backend.prepared(case.function, wide, case.options)
    bfloat16 = (
        torch.Tensor.bfloat16
        if backend.name == "torch"
        else (lambda x: x.astype(jax.numpy.bfloat16))
    )
    return [bfloat16(x) if bf16 else x for x, bf16 in zip(args, narrow, strict=True)], options


def value(backend: Backend, case: Case, how: str = "eager") -> np.ndarray:
    function = getattr(backend.functions, case.function)
    args, options = prepared(backend, case)
    arrays = [x for x in args if not isinstance(x, int)]
    rest = args[len(arrays) :]

    def call(*xs: Any) -> Any:
        return function(*xs, *rest, **options)

    if how == "eager":
        got = call(*arrays)
    elif backend.name == "jax":
        got = jax.jit(call)(*arrays)
    else:
        got = torch.vmap(call)(*(x[None] for x in arrays))[0]  # where values cannot be read
    return np.asarray(got, np.float64)


@each
def test_a_value_out_of_range_by_rounding_is_the_end(
    backend: Backend, name: str, place: int, end: int, dtype: str
) -> None:
    case = BY_NAME[name].per_image()
    at_end = value(backend, holding(case, place, end, dtype))
    beyond = holding(case, place, steps(end, dtype, 4), dtype)
    np.testing.assert_array_equal(value(backend, beyond), at_end)
    np.testing.assert_allclose(value(backend, beyond, "hidden"), at_end, rtol=1e-5, atol=1e-6)


@each
def test_a_value_farther_out_is_an_error_that_shows_the_difference(
    backend: Backend, name: str, place: int, end: int, dtype: str
) -> None:
    wrong = holding(BY_NAME[name], place, steps(end, dtype, 8), dtype)
    with pytest.raises(ValueError, match="got") as caught:
        value(backend, wrong)
    shown = str(caught.value).split("got ")[1].split(";")[0]
    assert float(shown) != end
    hidden = value(backend, wrong.per_image(), "hidden")
    assert np.isnan(hidden).reshape(2, -1).any(1).all()


@pytest.mark.parametrize("name", ["cas", "weighted_f", "weighted_f_score", "weighted_f_measure"])
@pytest.mark.parametrize("end", [0, 1])
def test_the_gradient_is_passed_on(backend: Backend, name: str, end: int) -> None:
    case = BY_NAME[name]
    at_end, beyond = (holding(case, 0, x, "float64") for x in (end, steps(end, "float64", 4)))
    got = backend.gradient(beyond.function, *beyond.args, **beyond.options)
    exact = backend.gradient(at_end.function, *at_end.args, **at_end.options)
    assert end == 0 or (got[:, 0, 0] != 0).all()  # an error of 0 has no slope
    np.testing.assert_array_equal(got, exact)


def test_relation_pairs_take_a_rounded_prior(backend: Backend) -> None:
    prior = np.array([[np.nextafter(np.float32(1), np.float32(2)), -1e-7]], np.float32)
    joint, mask = backend.call("relation_pairs", prior)
    assert joint.tolist() == [[True, False]]
    assert mask.tolist() == [[True, True]]


@pytest.mark.usefixtures("torch_settings")
def test_compiled_is_as_eager() -> None:
    functions, args = BACKENDS["torch"].functions, BY_NAME["weighted_f"].args
    probs, target = BACKENDS["torch"].prepared("weighted_fbeta_loss", args, {})[0]
    probs = probs.clone()  # It shares its memory with the case.
    probs[0, 0, 0, 0] = 1 + 2**-50
    compiled = torch.compile(functions.weighted_fbeta_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(probs, target), functions.weighted_fbeta_loss(probs, target)
    )
