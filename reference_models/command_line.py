"""Command-line parsing and exit statuses, shared by all commands."""

import errno
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tyro

from reference_models.errors import InputError, OutOfTime

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
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {with_repair(error)}")
    except OutOfTime as stopped:
        sys.exit(stopped.status)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


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


def with_repair(error: OSError) -> str:
    """What the system refused, and what to do."""
    return f"{error}; {REPAIRS.get(error.errno or 0, 'pass another path')}"
