"""What computes: its packages, its processor, the commit of the code; and how far it has come."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from tqdm import tqdm


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar; where it is not looked at but kept in a log, a line now and then."""
    return tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 20, **options)


def versions(backend: str) -> dict[str, str]:
    frameworks = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}[backend]
    measures = ("pysodmetrics", "scikit-image", "scikit-learn")
    packages = (*frameworks, "numpy", "scipy", "pillow", *measures)
    return {"python": python_version()} | {name: version(name) for name in packages}


def hardware(device: str) -> str:
    """The name of the processor that computed."""
    if device != "cpu":
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return done.stdout.splitlines()[0].strip()
        except (OSError, subprocess.CalledProcessError, IndexError):
            return "unknown GPU"
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line[:10] == "model name"), "CPU")
    return f"{model}, {cores()} core{'s' * (cores() != 1)}"


def commit() -> str | None:
    """The commit this file belongs to, with "-dirty" after local changes; outside git what the
    environment variable COMMIT says, or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT")
    return done.stdout.strip()


def keep_memory() -> None:
    """Tell the C library to keep freed memory for this process, where that is glibc.

    It would hand every buffer beyond 32 MB back to the system, and the next one of the same size
    is then filled in page by page again: with steps of such buffers a third of the time.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # Another system or C library.
        return
    mmap_max, trim_threshold = -4, -1  # As malloc.h numbers them.
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)


def cores() -> int:
    """Cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Not on every system.
    return len(allowed(0)) if allowed else os.cpu_count() or 1
