"""Several processes that train one network: waiting for each other, and losing one."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reference_models.errors import InputError, count

JOIN_MINUTES = 10
"""Time for all processes to join, and for the slowest of them to reach the next step."""


@contextmanager
def waiting(processes: int, address: str) -> Iterator[None]:
    """Say for whom this process waits if joining the others takes longer than a few seconds."""
    text = f"waiting for {count(processes, 'process', 'processes')} at {address}"
    timer = threading.Timer(5.0, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def with_others(processes: int) -> Iterator[None]:
    """Turn the loss of another process within the block into one line."""
    try:
        yield
    except RuntimeError as error:
        if processes == 1:
            raise
        reason = next(iter(str(error).splitlines()), "no reason")
        raise InputError(
            f"another of the {processes} processes stopped or did not answer ({reason}); see its "
            "own message, then run the same command again to resume"
        ) from None
