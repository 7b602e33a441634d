"""Atomically written files: JSON, and arrays with a checksum."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reference_models.errors import InputError, first_few

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

Arrays = dict[str, np.ndarray]


@contextmanager
def atomic_path(path: Path, shared: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to `path` when the block ends without an error. Even
    after a power cut `path` is either the complete old file or the complete new one.

    shared: For one of many files that several processes may write at the same time. Each has a
    temporary path of its own, and does not wait until the new name is on the disk too.
    """
    if path.exists() and not path.is_file():  # Renaming would put a file in the place of a device.
        raise InputError(f"{path} is not a regular file; pass another path")
    name = token_hex(8) if shared else path.name
    partial = path.with_name(f".{name}.partial")
    try:
        yield partial
        to_disk(partial)
        os.replace(partial, path)
        if not shared:
            to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


LEFT_SECONDS = 3600


def remove_left(folder: Path) -> None:
    """Remove what killed processes left below the folder, in `atomic_path` with `shared`. A file
    that was changed in the last hour may still be written."""
    for file in folder.rglob(".*.partial"):
        with suppress(FileNotFoundError):  # Another process removes them too.
            is_own = re.fullmatch(r"\.[0-9a-f]{16}\.partial", file.name)
            if is_own and file.stat().st_mtime < time.time() - LEFT_SECONDS:
                file.unlink()


def make_folder(path: Path, option: str) -> None:
    """Create a folder for output, and try whether files can be written there, before the work.

    option: What named it, for the error.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        places = (path, *path.parents)
        file = next(each for each in places if os.path.lexists(each) and not each.is_dir())
        raise InputError(
            f"{option} {path}: {file} is a file, but a folder is needed; pass another path"
        ) from None
    try:
        TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(
            f"{option} {path}: no file can be written there ({error.strerror}); pass another path"
        ) from None


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders.
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hold(file: IO[Any]) -> bool:
    """Lock an open file against other processes until it is closed, however the process ends. False
    if another one holds it. Windows has no such lock, and the file is not protected."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def write_json(path: Path, content: dict[str, object]) -> None:
    """Write indented JSON, with each list of numbers on one line."""
    with atomic_path(path) as partial:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        # Only lists match: within a string, JSON has no line breaks.
        text = re.sub(r"\[\n([-+.\deE,\s]+)\]", lambda at: f"[{' '.join(at[1].split())}]", text)
        # A name of bytes that are no text becomes an escape of JSON.
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def write_arrays(path: Path, arrays: Arrays, about: dict[str, object]) -> None:
    """Write a safetensors file with `about` and a checksum of the arrays in its metadata."""
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    described = {**about, FINGERPRINT: fingerprint(contiguous)}
    # A single metadata entry: safetensors writes several in random order, and equal runs must give
    # equal files. We write the bytes, because the package makes files that only the owner can read.
    with atomic_path(path) as partial:
        partial.write_bytes(save(contiguous, metadata={"about": json.dumps(described)}))


RETRAIN = "give another file, or train the network again"


def read_arrays(path: Path, repair: str = RETRAIN) -> Arrays:
    """The arrays of a safetensors file. If `write_arrays` wrote it, their checksum is compared."""
    with open_arrays(path, repair) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = metadata(file)
    checksum = about.get(FINGERPRINT) if isinstance(about, dict) else None
    if checksum is not None and checksum != fingerprint(arrays):
        raise InputError(f"{path} is damaged: its arrays do not match their checksum; {repair}")
    return arrays


def array_names(path: Path, repair: str = RETRAIN) -> list[str]:
    """The names of the arrays of a safetensors file."""
    with open_arrays(path, repair) as file:
        return list(file.keys())


def read_about(path: Path, repair: str = RETRAIN) -> dict[str, Any]:
    """The `about` that `write_arrays` stored with the arrays."""
    with open_arrays(path, repair) as file:
        about = metadata(file)
    if not isinstance(about, dict):
        raise InputError(
            f"{path} does not say which network it holds, unlike files that "
            f"`python -m reference_models.train` writes; {repair}"
        )
    return about


@contextmanager
def open_arrays(path: Path, repair: str) -> Iterator[Any]:
    """The open safetensors file. repair: what to do if it cannot be read, for the message."""
    try:
        with safe_open(path, "np") as file:
            yield file
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged or not a safetensors file ({error}); {repair}"
        ) from None


def metadata(file: Any) -> Any:
    """The `about` and checksum of an open file, or None if `write_arrays` did not write it."""
    return json.loads((file.metadata() or {}).get("about", "null"))


def sha256_of(path: Path) -> str:
    """The SHA-256 digest of a file."""
    return sha256(path.read_bytes()).hexdigest()


FINGERPRINT = "sha256_of_arrays"


def fingerprint(arrays: Arrays) -> str:
    """SHA-256 of the names, types, shapes and bits of the arrays."""
    digest = sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def describe_mismatch(arrays: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Describe how arrays differ from the expected names and shapes; empty if they agree."""
    faults = {
        "missing": [name for name in expected if name not in arrays],
        "unexpected": [name for name in arrays if name not in expected],
        "of another shape": [
            f"{name} {tuple(arrays[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in expected
            if name in arrays and arrays[name].shape != expected[name].shape
        ],
    }
    return "; ".join(
        f"{len(names)} {fault}: {first_few(names)}" for fault, names in faults.items() if names
    )
