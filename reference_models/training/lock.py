"""The lock of a run folder: one process trains in it at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reference_models.errors import InputError
from reference_models.files import make_folder

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class Busy(InputError):
    """Another process is training in the same run folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder and lock it against other processes. The lock ends with this process,
    however the process ends. On Windows, which has no such lock, the folder is not protected."""
    make_folder(folder, "--out")
    with open(folder / LOCK, "a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"another process is training in {folder}; wait for it, or pass another --out"
                ) from None
        yield
