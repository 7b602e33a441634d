"""The command line's options, and the thread limit that must come before any framework."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


@dataclass(frozen=True)
class Options:
    """Exact definitions against saliency_losses.

    `compare`: time against size, and the paper's job; `speed`: multiples of BCE beside their goals;
    `growth`: from large images to larger ones; `bandwidth`: shares of a GPU's copy bandwidth;
    `peers`: other libraries' losses beside ours, their speed and what breaks them; `report`: tables
    and plots again from the CSV files.
    """

    command: Positional[Literal["compare", "speed", "growth", "bandwidth", "peers", "report"]] = (
        "compare"
    )
    quick: bool = False
    """Small sizes and few repeats, under a minute on two cores; writes to a temporary folder."""
    out: Path | None = None
    """Where CSV, Markdown and plot go; results/benchmarks unless --quick."""
    data: Path | None = None
    """ECSSD's archive for the paper's job (masks/*.png inside); generated masks without it."""
    sizes: tuple[int, ...] = ()
    """Sides of the square images; by default 16 to 1024 (compare), 256 and 512 (speed, peers), 512
    to 2048 (growth), 512 (bandwidth)."""
    cases: tuple[str, ...] = ()
    """Only cases whose name contains one of these; "paper" is the paper's job."""
    seed: int = 0
    threads: int = 1
    """CPU cores that the process is pinned to, NumPy, torch and XLA alike."""
    repeats: int = 31
    """At most so many timings of one thing."""
    seconds: float = 2.0
    """At most so long for the timings of one thing, beyond the first three."""
    exact_seconds: float = 300.0
    """The exact side is left out where one call would take longer, judged from smaller sizes."""
    exact_memory: float = 4.0
    """Likewise, GiB at the peak."""
    peer_seconds: float = 2.0
    """A peer is left out where one image would take longer, judged from smaller sizes."""
    paper_seconds: float = 900.0
    """Time for the exact side in the paper's job; images beyond it are left out, and said so."""


def limit_threads(threads: int) -> None:
    """Pin this process to `threads` cores; call before NumPy, torch and JAX start their threads.

    XLA sizes its pool by the cores that the process may use, so one core is one thread. Where the
    system has no such call (macOS), only torch and NumPy are limited.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
