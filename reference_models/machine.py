"""Processor cores, the memory allocator, and progress bars."""

import ctypes
import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar; in a log file it prints a line every 20 seconds."""
    return tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 20, **options)


def keep_memory() -> None:
    """Make glibc keep freed memory for this process. Other C libraries are left unchanged.

    By default glibc returns every buffer beyond 32 MB to the system, which then maps the next
    buffer page by page again. That takes a third of the time of training steps with such buffers.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # Another operating system or C library.
        return
    mmap_max, trim_threshold = -4, -1  # Constants of malloc.h.
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)


def cores() -> int:
    """Number of cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Not on every system.
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def processes_here() -> int:
    """Number of processes that torchrun started on this machine for the same work."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def leave_group() -> None:
    """Make this process compute by itself, on its own GPU, though torchrun started others with it.

    Of fewer visible GPUs than processes, each serves several.
    Must be called before a framework is used.
    """
    rank = os.environ.get("LOCAL_RANK")
    if rank is not None:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", rank).split(",")  # "" hides all of them.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(rank) % len(gpus)]
    for name in ("WORLD_SIZE", "JAX_NUM_PROCESSES"):
        os.environ.pop(name, None)
