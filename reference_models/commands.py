"""The frame of every command: its command line, and its exit on errors and stops."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tyro

from reference_models.errors import InputError
from reference_models.training.stopping import OutOfTime

T = TypeVar("T")


def parse(target: Callable[..., T], module: str) -> T:
    """The options of a command from the command line, or the result of its function.

    module: The name behind `python -m reference_models.`.
    """
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)
    return tyro.cli(target, prog=f"python -m reference_models.{module}", config=config)


@contextmanager
def command() -> Iterator[None]:
    """End with one line and an exit status where the user can mend the fault or asked to stop."""
    try:
        yield
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    except OutOfTime as stopped:
        sys.exit(stopped.status)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
