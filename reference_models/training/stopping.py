"""Time budgets and signals: when a command stops, and its exit status."""

import signal
import sys
import time
from collections.abc import Callable

MINUTES_OVER = 75
"""The exit status of a command whose --minutes are over before its work is done: EX_TEMPFAIL."""


class OutOfTime(Exception):
    """The minutes given are over, or someone asked to stop; everything is saved."""

    def __init__(self, status: int = MINUTES_OVER) -> None:
        self.status = status
        """What the command is to exit with."""


Clock = Callable[[], None]
"""Called between pieces of work; raises `OutOfTime` when there shall be no other."""


def clock(
    minutes: float | None = None, begun: float = 0.0, stop: Callable[[], int | None] = lambda: None
) -> Clock:
    """`begun` is the `time.monotonic()` from which the minutes count; None of them: for ever, or
    until `stop()` gives the number of a signal."""

    def check() -> None:
        if number := stop():
            raise OutOfTime(128 + number)
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            raise OutOfTime

    return check


def asked_to_stop() -> Callable[[], int | None]:
    """From now on the first Ctrl-C, SIGTERM or SIGHUP only makes its number the result: work ends
    at a step, where it can be saved. The second one ends it at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(number, usual[number])
        print("\nstopping after this step; once more stops at once", file=sys.stderr)

    numbers = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]
    usual = {number: signal.signal(number, ask) for number in numbers}
    return lambda: asked[0] if asked else None
