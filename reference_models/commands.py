"""The frame of every command: how errors and stops end it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from reference_models.errors import InputError
from reference_models.training.stopping import OutOfTime


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
