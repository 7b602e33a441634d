"""Timing, and the rows that are kept of it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import saliency_losses
from benchmarks.options import RESULTS


@dataclasses.dataclass
class Row:
    """One measurement. Empty fields were not measured; `note` says why where it matters."""

    case: str
    side: str
    direction: str = ""  # forward, forward + backward
    size: int | None = None  # side of the square image, pixels
    batch: int | None = None
    channels: int | None = None
    item: str = ""  # the image, in the paper's job; the group, of peers
    median_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    repeats: int | None = None
    first_s: float | None = None  # the first call, compilation included
    unit: str = ""  # measured in turns with the case, in the same process
    unit_median_s: float | None = None
    unit_min_s: float | None = None
    unit_max_s: float | None = None
    memory_bytes: int | None = None  # exact: peak; torch eager: kept for backward, inputs included
    input_bytes: int | None = None  # of the inputs that get gradients
    value: float | None = None
    difference: float | None = None  # |ours - exact| / max(1, |exact|); of distances, absolute
    note: str = ""
    threads: int | None = None
    seed: int | None = None
    device: str = ""
    versions: str = ""
    commit: str = ""
    date: str = ""


FIELDS = tuple(f.name for f in dataclasses.fields(Row))
STAMPS = ("threads", "seed", "device", "versions", "commit", "date")  # filled by the recorder


def measure(
    row: Row,
    call: Callable[[], Any],
    *,
    seconds: float,
    repeats: int,
    unit: Callable[[], Any] | None = None,
    warm_up: bool = True,
) -> None:
    """Time `call`, in turns with `unit`, 3 to `repeats` times within `seconds`, into `row`.

    The first call is kept apart: it may compile. Without `warm_up` (NumPy) a first call that alone
    takes longer than `seconds` is the measurement.
    """
    row.first_s, value = _timed(call)
    row.value = None if value is None else float(value)
    times, units = [], []
    if not warm_up and row.first_s > seconds:
        times, repeats = [row.first_s], 1
    else:
        for warm in (unit, call) if unit else (call,):
            warm()
    gc.disable()
    try:
        started = time.perf_counter()
        while len(times) < repeats and (len(times) < 3 or time.perf_counter() - started < seconds):
            if unit:
                unit()  # a large case leaves it cold caches, which would flatter the multiple
                units.append(_timed(unit)[0])
            times.append(_timed(call)[0])
    finally:
        gc.enable()
    row.repeats, row.median_s = len(times), statistics.median(times)
    row.min_s, row.max_s = min(times), max(times)
    if units:
        row.unit_median_s = statistics.median(units)
        row.unit_min_s, row.unit_max_s = min(units), max(units)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


class Recorder:
    """Writes rows as they come to `<name>.partial.csv`, which becomes `<name>.csv` at the end."""

    def __init__(
        self, folder: Path, name: str, fields: Sequence[str] = FIELDS, **common: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.csv"
        self.partial = folder / f"{name}.partial.csv"
        self.fields = fields
        self.common = {"versions": versions(), "commit": commit(), **common}

    def __enter__(self) -> Recorder:
        self.file = self.partial.open("w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.fields, lineterminator="\n")
        self.writer.writeheader()
        return self

    def add(self, row: Any, device: str = "cpu") -> None:
        values = dataclasses.asdict(row) | self.common
        values |= {"device": device_name(device), "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        self.writer.writerow({k: _text(v) for k, v in values.items()})
        self.file.flush()

    def __exit__(self, kind: object, *rest: object) -> None:
        self.file.close()
        if kind is None:
            os.replace(self.partial, self.path)
        else:
            print(f"stopped; the rows measured so far are in {self.partial}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@cache
def device_name(device: str) -> str:
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()} ({os.cpu_count()} logical cores)"


@cache
def versions(*more: str) -> str:
    """Of ours and of what it is measured with, and of those of `more` that are installed."""
    installed = [f"{p} {version(p)}" for p in ("torch", "jax", "jaxlib", "numpy", "scipy")]
    for package in more:
        with contextlib.suppress(PackageNotFoundError):
            installed.append(f"{package} {version(package)}")
    ours = f"saliency-losses {saliency_losses.__version__}"
    return ", ".join([ours, f"python {platform.python_version()}", *installed])


@cache
def commit() -> str:
    """The commit of this tree, with -dirty when a tracked file other than a result differs."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    found = git("rev-parse", "--short=12", "--verify", "--quiet", "HEAD")
    results = f":(exclude){RESULTS}"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", results)
    return found + ("-dirty" if changed else "") if found else "no commit"
