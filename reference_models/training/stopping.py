"""Time budgets, signals, and the exit status of a stopped command."""

import signal
import sys
import time
from collections.abc import Callable

from reference_models.errors import OutOfTime

Clock = Callable[[], None]
"""Called between units of work; raises `OutOfTime` when the next one must not start."""


def clock(
    minutes: float | None = None, begun: float = 0.0, stop: Callable[[], int | None] = lambda: None
) -> Clock:
    """A check of the time budget and of signals.

    minutes: Time budget, counted from `begun`, a value of `time.monotonic()`. None means no time
        limit. stop: Returns the number of the signal that asked to stop, or None.
    """

    def check() -> None:
        if number := stop():
            raise OutOfTime(128 + number)
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            raise OutOfTime

    return check


def asked_to_stop() -> Callable[[], int | None]:
    """Catch the first Ctrl-C, SIGTERM or SIGHUP, so that work can stop and save after a step.

    Returns a function that returns the number of the caught signal, or None. The second signal of
    the same kind has its usual effect.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(number, usual[number])
        print("\nstopping after this step; press Ctrl-C again to stop now", file=sys.stderr)

    numbers = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]
    usual = {number: signal.signal(number, ask) for number in numbers}
    return lambda: asked[0] if asked else None
