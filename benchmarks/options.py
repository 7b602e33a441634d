"""Command-line options, and the thread limit, which must be set before any framework starts."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

# Committed results: the CSV files behind the tables of README.md and docs, and their plots.
RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


@dataclass(frozen=True)
class Options:
    """Time saliency_losses against its exact definitions and against other libraries.

    `compare`: time by image size, and the benchmark of the weighted F-beta paper; `speed`:
    multiples of the floor and of BCE beside their goals; `growth`: scaling beyond the CPU's caches;
    `bandwidth`: shares of a GPU's copy bandwidth; `peers`: speed and robustness of other libraries'
    losses; `report`: print the tables and redraw the plots of existing CSV files.
    """

    command: Positional[Literal["compare", "speed", "growth", "bandwidth", "peers", "report"]] = (
        "compare"
    )
    quick: bool = False
    """Use small sizes and few repeats (under a minute on two cores) and write to a temporary
    folder."""
    out: Path | None = None
    """Folder for CSV files and plots. Default: results/benchmarks, or a temporary folder with
    --quick."""
    data: Path | None = None
    """Archive of ECSSD (a zip with masks/*.png) for the paper's benchmark. Default: generated
    masks."""
    sizes: tuple[int, ...] = ()
    """Side lengths of the square images. Default: 16 to 1024 (compare), 256 and 512 (speed, peers),
    512 to 2048 (growth), 512 (bandwidth)."""
    cases: tuple[str, ...] = ()
    """Run only cases whose name contains one of these; "paper" selects the paper's benchmark."""
    threads: int = 1
    """Number of CPU cores to which the process (NumPy, PyTorch and XLA) is pinned."""


def keep_pages(module: str) -> None:
    """Restart the process so that memory is kept between calls.

    By default glibc maps every buffer of 32 MiB or more anew, so times would jump at that size.
    """
    if "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = (
            "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=1099511627776"
        )
        os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])


def limit_threads(threads: int) -> None:
    """Pin this process to `threads` cores; must run before NumPy, torch and JAX start threads.

    XLA sizes its thread pool by the cores that the process may use, so one core means one thread.
    Where the system cannot pin a process (macOS), only torch and NumPy are limited.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
