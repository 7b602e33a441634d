"""The machine: its cores, its memory allocator, and progress bars."""

import ctypes
import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar; where it is not looked at but kept in a log, a line now and then."""
    return tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 20, **options)


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
