"""What JAX may do with a loss: trace, differentiate, map, rematerialise, scan and shard."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, monitoring

from tests.support.backends import BACKENDS, close
from tests.support.cases import BAD_VALUES, BY_NAME, CASES, Case, bind
from tests.support.host_devices import host_devices
from tests.support.paths import ROOT

JAX = BACKENDS["jax"]


def ids(case: Any) -> str | None:
    return case.name if isinstance(case, Case) else None


every = pytest.mark.parametrize("case", CASES, ids=ids)
# XLA takes seconds for each of these, and they differ little from weighted_f_given.
SLOW = ("weighted_f_euclidean", "weighted_f_several", "weighted_f_volume", "weighted_f_score")
every_soon = pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case.name in SLOW else []) for case in CASES],
    ids=ids,
)


def bound(case: Case) -> tuple[Callable[..., jax.Array], list[jax.Array], tuple[int, ...]]:
    of, inputs = bind(JAX, case)
    return of, inputs, tuple(range(len(inputs)))


def weighted(of: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A scalar that no symmetry makes constant, from results of any shape."""

    def scalar(*inputs: jax.Array) -> jax.Array:
        result = of(*inputs).ravel()
        return (result * jnp.cos(jnp.arange(result.size, dtype=result.dtype))).sum()

    return scalar


def same(got: Any, expected: Any, dtype: str = "float64") -> None:
    got, expected = jax.tree.leaves(got), jax.tree.leaves(expected)
    for ours, theirs in zip(got, expected, strict=True):
        close(ours, theirs, dtype)


@every_soon
def test_jit_of_the_public_function_with_static_options(case: Case) -> None:
    args, options = JAX.prepared(case.function, case.args, case.options)
    public = getattr(JAX.functions, case.function)
    static = [k for k, x in options.items() if not isinstance(x, jax.Array)]
    numbers = [k for k, x in enumerate(args) if not isinstance(x, jax.Array)]
    compiled = jax.jit(public, static_argnames=static, static_argnums=numbers)
    same(compiled(*args, **options), public(*args, **options))


@every_soon
def test_jit_of_value_and_gradient_equals_eager(case: Case) -> None:
    of, inputs, places = bound(case)
    slope = jax.value_and_grad(weighted(of), argnums=places)
    same(jax.jit(slope)(*inputs), slope(*inputs))


@every_soon
def test_jacfwd_equals_jacrev(case: Case) -> None:
    of, inputs, places = bound(case)
    same(jax.jit(jax.jacfwd(of, places))(*inputs), jax.jit(jax.jacrev(of, places))(*inputs))


@every_soon
def test_gradient_equals_that_of_torch(case: Case) -> None:
    # Which is checked against finite differences.
    of, inputs, places = bound(case)
    grads = jax.jit(jax.grad(lambda *xs: of(*xs).sum(), places))(*inputs)
    for place, grad in zip(case.wrt, grads, strict=True):
        expected = BACKENDS["torch"].gradient(case.function, *case.args, wrt=place, **case.options)
        close(JAX.numpy(grad, False), expected)


@every_soon
def test_hessian_equals_two_reverse_passes(case: Case) -> None:
    of, inputs, places = bound(case)
    got = jax.jit(jax.hessian(weighted(of), places))(*inputs)
    same(got, jax.jit(jax.jacrev(jax.jacrev(weighted(of), places), places))(*inputs))
    assert all(np.isfinite(h).all() for h in jax.tree.leaves(got))


@every_soon
def test_vmap_equals_a_loop(case: Case) -> None:
    of, inputs, places = bound(case)
    runs = [inputs, [0.5 * x + 0.1 for x in inputs]]
    stacked = [jnp.stack(xs) for xs in zip(*runs, strict=True)]
    both = jax.jit(lambda *xs: (of(*xs), jax.grad(weighted(of), places)(*xs)))
    loop = [both(*xs) for xs in runs]
    same(jax.jit(jax.vmap(both))(*stacked), jax.tree.map(lambda *xs: jnp.stack(xs), *loop))


@pytest.mark.slow
@every
def test_rematerialised_equals_stored(case: Case) -> None:
    of, inputs, places = bound(case)
    same(
        jax.jit(jax.grad(weighted(jax.checkpoint(of)), places))(*inputs),
        jax.jit(jax.grad(weighted(of), places))(*inputs),
    )


@pytest.mark.slow
@every
def test_scan_over_steps_equals_a_loop(case: Case) -> None:
    of, inputs, places = bound(case)
    slope = jax.value_and_grad(weighted(of), places)

    def step(xs: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], jax.Array]:
        value, grads = slope(*xs)
        return tuple(x - 1e-3 * g for x, g in zip(xs, grads, strict=True)), value

    last, values = jax.jit(lambda xs: lax.scan(step, xs, length=3))(tuple(inputs))
    state, loop, one = tuple(inputs), [], jax.jit(lambda xs: step(xs, None))
    for _ in range(3):
        state, value = one(state)
        loop.append(value)
    same((last, values), (state, jnp.stack(loop)))


@every_soon
def test_numpy_arrays_are_accepted(case: Case) -> None:
    args, options = JAX.prepared(case.function, case.args, case.options)
    public = getattr(JAX.functions, case.function)
    got = public(*case.args, **case.options)
    assert isinstance(got, jax.Array)
    same(got, public(*args, **options))


@every
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_strict_dtype_promotion_raises_nothing(case: Case, dtype: str) -> None:
    of, inputs, places = bound(case.astype(jnp.dtype(dtype)))
    with jax.numpy_dtype_promotion("strict"):
        result = jax.eval_shape(of, *inputs)
        grads = jax.eval_shape(jax.grad(lambda *xs: of(*xs).sum(), places), *inputs)
    assert result.dtype == (dtype if dtype == "float64" else "float32")
    assert all(g.dtype == x.dtype for g, x in zip(grads, inputs, strict=True))


@every_soon
def test_strict_dtype_promotion_raises_nothing_on_concrete_values(case: Case) -> None:
    of, inputs, _ = bound(case.astype(np.float32))
    with jax.numpy_dtype_promotion("strict"):
        got = of(*inputs)
    same(got, of(*inputs))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("name", ["metric", "cas", "cace", "anchor"])
def test_strict_dtype_promotion_with_any_labels(name: str, dtype: str) -> None:
    case = BY_NAME[name]
    place = len(case.args) - 1
    other = case._replace(args=(*case.args[:place], case.args[place].astype(dtype)))
    with jax.numpy_dtype_promotion("strict"):
        same(
            JAX.call(other.function, *other.args, **other.options),
            JAX.call(case.function, *case.args, **case.options),
        )


# Values that cannot be read


bad_value = pytest.mark.parametrize(("name", "place", "value"), BAD_VALUES)


def good_and_bad(name: str, place: int, value: float) -> tuple[Case, Case]:
    """Both with the mask that counts the bad place."""
    case = BY_NAME[name].per_image()
    bad = case.holding(place, value)
    return bad._replace(args=case.args), bad


@bad_value
def test_jit_over_a_bad_value_spoils_that_image_only(name: str, place: int, value: float) -> None:
    good, bad = good_and_bad(name, place, value)
    args, options = JAX.prepared(bad.function, bad.args, bad.options)
    public = getattr(JAX.functions, bad.function)
    numbers = [k for k, x in enumerate(args) if not isinstance(x, jax.Array)]
    static = [k for k, x in options.items() if not isinstance(x, jax.Array)]
    got = np.asarray(
        jax.jit(public, static_argnames=static, static_argnums=numbers)(*args, **options)
    )
    expected = JAX.call(good.function, *good.args, **good.options)
    assert np.isnan(got[0]).all()
    close(got[1:], expected[1:])


@bad_value
def test_a_concrete_bad_value_is_an_error(name: str, place: int, value: float) -> None:
    _, bad = good_and_bad(name, place, value)
    with pytest.raises(ValueError, match=f"got {value}"):
        JAX.call(bad.function, *bad.args, **bad.options)


@pytest.mark.slow
@bad_value
def test_a_gradient_over_a_bad_value_leaves_the_other_images(
    name: str, place: int, value: float
) -> None:
    good, bad = good_and_bad(name, place, value)
    if not bad.wrt:
        pytest.skip("has no gradient")
    (of_good, inputs, places), (of_bad, bad_inputs, _) = bound(good), bound(bad)
    slope = [
        jax.jit(jax.grad(lambda *xs, of=of: of(*xs)[1:].sum(), places)) for of in (of_good, of_bad)
    ]
    for ours, theirs in zip(slope[1](*bad_inputs), slope[0](*inputs), strict=True):
        close(ours, theirs)


def test_vmap_over_a_bad_label_spoils_that_image_only() -> None:
    good, bad = good_and_bad("metric", 1, 7)
    features, labels = map(jnp.asarray, bad.args)
    mask = jnp.asarray(bad.options["mask"])

    def loss(x: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
        return JAX.functions.metric_loss(x[None], labels[None], mask=mask[None])

    got = np.asarray(jax.vmap(loss)(features, labels, mask))
    assert np.isnan(got[0])
    close(got[1:], JAX.call(good.function, *good.args, **good.options)[1:])


# Other set-ups, each in a process of its own


def run(program: str, **environment: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        text=True,
        capture_output=True,
        cwd=ROOT,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.slow
def test_sharded_batches_equal_unsharded() -> None:
    run(
        """
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from tests.support.backends import BACKENDS, close
        from tests.support.cases import bind, make

        jax.config.update("jax_enable_x64", True)
        assert len(jax.devices()) == 4
        by_image = NamedSharding(Mesh(np.array(jax.devices()), ("images",)),
                                 PartitionSpec("images"))
        for case in make(images=4):
            backend = BACKENDS["jax"]
            public = getattr(backend.functions, case.function)
            leaves, tree = jax.tree.flatten(
                backend.prepared(case.function, case.args, case.options))

            def slope(arrays):
                filled = iter(arrays)
                args, options = jax.tree.unflatten(
                    tree, [next(filled) if isinstance(x, jax.Array) else x for x in leaves])

                def scalar(*inputs):
                    for place, x in zip(case.wrt, inputs):
                        args[place] = x
                    result = public(*args, **options)
                    return (result * jnp.arange(1.0, result.size + 1).reshape(result.shape)).sum()

                return jax.value_and_grad(scalar, tuple(range(len(case.wrt))))(
                    *[args[place] for place in case.wrt])

            arrays = [x for x in leaves if isinstance(x, jax.Array)]
            spread = [jax.device_put(x, by_image) for x in arrays]
            assert all(len(x.sharding.device_set) == 4 for x in spread)
            expected = jax.jit(slope)(arrays)
            eager = case.name in ("metric_hard", "cas", "anchor", "js")
            for run in (jax.jit(slope), slope)[:1 + eager]:
                for ours, theirs in zip(jax.tree.leaves(run(spread)), jax.tree.leaves(expected)):
                    close(ours, theirs)

        # Values of a sharded batch can be read, and are.
        labels = jax.device_put(np.full((4, 5), 255), by_image)
        features = jax.device_put(np.zeros((4, 5, 2)), by_image)
        try:
            BACKENDS["jax"].functions.metric_loss(features, labels)
        except ValueError as error:
            assert "got 255" in str(error)
        else:
            raise AssertionError("no error")
        """,
        **host_devices(4),
    )


@pytest.mark.slow
def test_works_without_x64() -> None:
    run("""
        import jax, numpy as np
        from tests.support.backends import BACKENDS, close
        from tests.support.cases import CASES, bind

        assert not jax.config.jax_enable_x64
        jax.config.update("jax_numpy_rank_promotion", "raise")
        for case in CASES:
            case = case.astype(np.float32)
            of, inputs = bind(BACKENDS["jax"], case)
            places = tuple(range(len(inputs)))
            result = jax.jit(of)(*inputs)
            slopes = jax.jit(jax.grad(lambda *xs: of(*xs).sum(), places))(*inputs)
            assert result.dtype == "float32", case.name
            assert all(g.dtype == "float32" for g in slopes), case.name
            close(result, BACKENDS["torch"].call(case.function, *case.args, **case.options),
                  "float32")
            for place, slope in zip(case.wrt, slopes):
                close(slope, BACKENDS["torch"].gradient(
                    case.function, *case.args, wrt=place, **case.options), "float32")
        """)


@every
def test_called_again_without_jit_nothing_is_compiled_again(case: Case) -> None:
    of, inputs = bind(JAX, case)
    of(*inputs)
    compiled: list[str] = []
    monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        of(*inputs)
    finally:
        monitoring.clear_event_listeners()
    assert not compiled
