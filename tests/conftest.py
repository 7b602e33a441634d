"""The `backend` fixture and the settings of the whole suite."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from mmap import PAGESIZE
from pathlib import Path

# XLA spends most of the suite's time on optimising programs that run once, so it is told not to.
# Before the imports: XLA reads this once. `XLA_FLAGS=""` tests programs as users have them.
QUICK = """--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"""
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK.split()))

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from tests.support.backends import BACKENDS, Backend, torch  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# JAX compiles anew for each shape, so the first example of a shape is slow and says nothing.
hypothesis.settings.register_profile(
    "dev", max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.register_profile(
    "full", parent=hypothesis.settings.get_profile("dev"), max_examples=500
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True, scope="module")
def _forget_what_was_compiled() -> Iterator[None]:
    """JAX keeps a program for each shape and option: gigabytes over the whole suite. Modules share
    many of them, so they are kept while they are few."""
    yield
    if resident() > 2 * 2**30:
        jax.clear_caches()
        gc.collect()
        # The C library keeps what is freed: without this, each later module would forget again.
        if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
            trim(0)


def resident() -> float:
    """Bytes of memory that this process holds; infinite where the system does not tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * PAGESIZE if pages.exists() else float("inf")


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """One thread, enough for small networks, deterministic algorithms, a seed; as training asks
    for such settings itself, they are taken back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
