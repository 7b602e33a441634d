"""The lock of a run folder: one process trains in it at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reference_models.errors import InputError
from reference_models.files import hold, make_folder

LOCK = ".lock"


class Busy(InputError):
    """Another process is training in the same run folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder and lock it against other processes, see `hold`."""
    make_folder(folder, "--out")
    with open(folder / LOCK, "a") as file:
        if not hold(file):
            raise Busy(
                f"another process is training in {folder}; wait for it, or pass another --out"
            )
        yield
