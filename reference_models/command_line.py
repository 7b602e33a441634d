"""Command-line parsing and exit statuses, shared by all commands."""

import errno
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tyro

from reference_models.errors import InputError, OutOfTime, lacks_memory

T = TypeVar("T")


def parse(target: Callable[..., T], module: str) -> T:
    """Parse the command line into a dataclass, or call a function with it and return the result.

    module: Name of the command after `python -m reference_models.`.
    """
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)
    return tyro.cli(target, prog=f"python -m reference_models.{module}", config=config)


@contextmanager
def command() -> Iterator[None]:
    """Exit with a status, and with one line for an input error, instead of a traceback."""
    warnings.filterwarnings("ignore", module="PIL")  # Of damaged metadata, without a file's name.
    for stream in (sys.stdout, sys.stderr):  # A name may hold what the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except OutOfTime as stopped:
        sys.exit(stopped.status)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if (text := expected(error)) is None:
            raise
        sys.exit(f"error: {text}")


REPAIRS = {
    errno.ENOSPC: "free some space, and run the same command again",
    errno.EDQUOT: "free some space, and run the same command again",
    errno.EACCES: "change its permissions, or pass another path",
    errno.EPERM: "change its permissions, or pass another path",
    errno.EROFS: "pass a path on another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.EMFILE: "raise the limit with ulimit -n, and run the same command again",
}


def expected(error: BaseException) -> str | None:
    """What is wrong and what to do, if the error comes from the input or from the machine; None
    for a defect of the program."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error}; {REPAIRS.get(error.errno or 0, 'pass another path')}"
    if lacks_memory(error):
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return (
            f"the memory does not suffice ({reason}); pass smaller values of --size, --batch or "
            "--workers, where the command has them, or use a device with more memory"
        )
    return None
