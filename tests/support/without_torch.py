"""The JAX half in short, for an environment without PyTorch: python -m tests.support.without_torch

Docstring examples, then each case under `jax.jit`: values and slopes against the references.
"""

import doctest
import platform

import jax
import numpy as np

from saliency_losses.jax import functional
from tests.support.backends import BACKENDS, close
from tests.support.cases import CASES, Case, bind
from tests.support.strategies import exact

STEP = 1e-6


def check(case: Case) -> None:
    case = case.per_image()
    options = {name: x for name, x in case.options.items() if name != "reduction"}
    of, inputs = bind(BACKENDS["jax"], case)
    close(jax.jit(of)(*inputs), exact(case.function, *case.args, **options))
    if case.options.get("stop_gradient"):
        return
    places = tuple(range(len(inputs)))
    slopes = jax.jit(jax.grad(lambda *xs: of(*xs).sum(), places))(*inputs)
    for place, slope in zip(case.wrt, slopes, strict=True):
        before, x, after = case.args[:place], case.args[place], case.args[place + 1 :]
        direction = np.random.default_rng(0).normal(size=x.shape)
        high, low = (
            exact(case.function, *before, x + sign * STEP * direction, *after, **options).sum()
            for sign in (1, -1)
        )
        np.testing.assert_allclose(
            (np.asarray(slope) * direction).sum(),
            (high - low) / (2 * STEP),
            rtol=1e-5,
            atol=1e-7,
            err_msg=case.name,
        )


def main() -> None:
    examples = doctest.testmod(functional)
    if examples.failed:
        raise SystemExit(1)
    jax.config.update("jax_enable_x64", True)
    for case in CASES:
        check(case)
    print(
        f"Python {platform.python_version()}, JAX {jax.__version__}, NumPy {np.__version__}: "
        f"{examples.attempted} lines of examples, {len(CASES)} cases agree"
    )


if __name__ == "__main__":
    main()
