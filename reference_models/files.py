"""Files that are never half written: JSON, arrays with a checksum, and the lock of a folder."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reference_models.errors import InputError, first_few

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

Arrays = dict[str, np.ndarray]
LOCK = ".lock"


def is_partial_file(path: Path) -> bool:
    """What a run leaves that was killed before it had written a file, see `whole` and `alone`."""
    return path.name == LOCK or (path.name.startswith(".") and path.suffix == ".partial")


class Busy(InputError):
    """Another process is at work in the same run folder."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes out of it; the lock ends with this process however
    that dies. Windows has no such lock: there nothing is kept out."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, and a run needs a folder; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"another process is training in {folder}; wait for it, or give another --out"
                ) from None
        yield


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends without an error: `path` is
    the old file or the new one, whole, even after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        to_disk(partial)
        os.replace(partial, path)
        to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders.
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: dict[str, object]) -> None:
    with atomic_path(path) as partial:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def write_arrays(path: Path, arrays: Arrays, about: dict[str, object]) -> None:
    """A safetensors file with a note on the arrays and their fingerprint."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    note = {**about, FINGERPRINT: fingerprint(contiguous)}
    # One entry: the order of several is random, and the same run must give the same bytes. Written
    # by us, as the package would leave the file readable to its owner alone.
    with atomic_path(path) as partial:
        partial.write_bytes(save(contiguous, metadata={"about": json.dumps(note)}))


RETRAIN = "give another, or train it again"


def read_arrays(path: Path, repair: str = RETRAIN) -> Arrays:
    """The arrays of a safetensors file; those that `write_arrays` wrote are checked for damage."""
    with opened(path, repair) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = noted(file)
    wanted = about.get(FINGERPRINT) if isinstance(about, dict) else None
    if wanted is not None and wanted != fingerprint(arrays):
        raise InputError(f"{path} is damaged: its data are not those that were written; {repair}")
    return arrays


def read_about(path: Path, repair: str = RETRAIN) -> dict[str, Any]:
    """What `write_arrays` noted about the arrays."""
    with opened(path, repair) as file:
        about = noted(file)
    if not isinstance(about, dict):
        raise InputError(
            f"{path} does not say what it is, as files that `python -m reference_models.train` "
            f"writes do; {repair}"
        )
    return about


@contextmanager
def opened(path: Path, repair: str) -> Iterator[Any]:
    try:
        with safe_open(path, "np") as file:
            yield file
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged, or no safetensors file ({error}); {repair}") from None


def noted(file: Any) -> Any:
    """The note of `write_arrays`, None without one."""
    return json.loads((file.metadata() or {}).get("about", "null"))


FINGERPRINT = "sha256_of_arrays"


def fingerprint(arrays: Arrays) -> str:
    """Equal for equal weights, bit by bit."""
    digest = sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def describe_mismatch(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How two sets of arrays differ in names and shapes, in words; empty if they do not."""
    faults = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in given and given[name].shape != wanted[name].shape
        ],
    }
    return "; ".join(
        f"{len(names)} {fault}: {first_few(names)}" for fault, names in faults.items() if names
    )
