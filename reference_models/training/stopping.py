"""Time budgets, signals, and the exit status of a stopped command."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from reference_models.errors import OutOfTime

Clock = Callable[[], None]
"""Called between units of work; raises `OutOfTime` when the next one must not start."""


def clock(minutes: float | None = None, begun: float = 0.0) -> Clock:
    """A check of the time budget.

    minutes: Time budget, counted from `begun`, a value of `time.monotonic()`. None means no time
        limit.
    """

    def check() -> None:
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            raise OutOfTime

    return check


@contextmanager
def signals_after_steps() -> Iterator[Clock]:
    """Within the block, Ctrl-C, SIGTERM and SIGHUP only make the yielded check raise `OutOfTime`,
    and so does the end of the block. So work can stop and save after a step.

    A second Ctrl-C or SIGTERM has its usual effect. A signal that is ignored stays ignored: nohup
    and shells set that for work that shall go on.
    """
    asked: list[int] = []
    usual = usual_handlers()
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def ask(number: int, _: object) -> None:
        asked.append(number)
        # A closing terminal sends SIGHUP twice: by its shell, and when the shell has ended.
        hung_up = number == getattr(signal, "SIGHUP", None)
        signal.signal(number, signal.SIG_IGN if hung_up else usual[number])
        for stream in terminals:
            if not os.isatty(stream):  # The terminal was closed, and any output would be an error.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        with suppress(OSError):
            os.write(2, b"\nstopping after this step; press Ctrl-C again to stop now\n")

    def check() -> None:
        if asked:
            raise OutOfTime(128 + asked[0])

    for number in usual:
        signal.signal(number, ask)
    try:
        yield check
    finally:
        for number, handler in usual.items():
            if number not in asked:
                signal.signal(number, handler)
    check()


def usual_handlers() -> dict[int, Any]:
    """The handlers of the signals that stop a command; none of those that are ignored, and none
    outside of the main thread, which alone may change them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]
    # Python does not know a handler that a library has installed.
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    return {number: now for number, now in handlers.items() if now != signal.SIG_IGN}
