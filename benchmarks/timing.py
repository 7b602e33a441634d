"""Timing of calls, and the CSV rows in which the times are recorded."""

import contextlib
import csv
import dataclasses
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import saliency_losses
from reference_models import provenance
from reference_models.provenance import processor


@dataclasses.dataclass
class Row:
    """One measurement. Fields that were not measured are empty; `note` may say why."""

    case: str
    backend: str
    direction: str = ""  # forward, forward + backward
    size: int | None = None  # side length of the square image in pixels
    batch: int | None = None
    channels: int | None = None
    item: str = ""  # the image in the paper's benchmark, the group among other libraries
    median_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    repeats: int | None = None
    first_s: float | None = None  # the first call, including compilation
    unit: str = ""  # timed in turns with the case, in the same process
    unit_median_s: float | None = None
    unit_min_s: float | None = None
    unit_max_s: float | None = None
    floor_median_s: float | None = None  # (x * x).sum() with its gradient, timed in turns too
    floor_min_s: float | None = None
    memory_bytes: int | None = None  # exact: peak; torch eager: kept for backward, with inputs
    input_bytes: int | None = None  # of the inputs that get gradients
    value: float | None = None
    difference: float | None = None  # |ours - exact| / max(1, |exact|); absolute for distances
    note: str = ""


STAMPS = ("threads", "seed", "device", "versions", "commit", "date")  # filled in by the recorder


def time_call(
    row: Row,
    call: Callable[[], Any],
    *,
    seconds: float,
    repeats: int,
    unit: Callable[[], Any] | None = None,
    floor: Callable[[], Any] | None = None,
    warm_up: bool = True,
) -> None:
    """Time `call` in turns with `unit` and `floor` and write the statistics to `row`.

    There are at least 3 timings, and at most `repeats` within `seconds`. The first call is
    recorded apart, since it may compile. Without `warm_up` (NumPy) a first call that alone takes
    longer than `seconds` is the only timing.
    """
    row.first_s, value = _timed(call)
    row.value = None if value is None else float(value)
    times: list[float] = []
    others: dict[Callable[[], Any], list[float]] = {u: [] for u in (floor, unit) if u}
    if not warm_up and row.first_s > seconds:
        times, repeats = [row.first_s], 1
    else:
        for warm in (*others, call):
            warm()
    gc.disable()
    try:
        started = time.perf_counter()
        while len(times) < repeats and (len(times) < 3 or time.perf_counter() - started < seconds):
            for other, measured in others.items():
                # An untimed call first: a large case leaves cold caches, which would slow the
                # unit down and so make the multiple look small.
                other()
                measured.append(_timed(other)[0])
            times.append(_timed(call)[0])
    finally:
        gc.enable()
    row.repeats, row.median_s = len(times), statistics.median(times)
    row.min_s, row.max_s = min(times), max(times)
    if unit:
        row.unit_median_s = statistics.median(others[unit])
        row.unit_min_s, row.unit_max_s = min(others[unit]), max(others[unit])
    if floor:
        row.floor_median_s, row.floor_min_s = statistics.median(others[floor]), min(others[floor])


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value


class Recorder:
    """Writer of a CSV file: each row goes to `NAME.partial.csv`, renamed to `NAME.csv` at the end.

    `kind` is the dataclass of its rows; `common` are values that all rows share.
    """

    def __init__(self, folder: Path, name: str, kind: type[Any] = Row, **common: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.csv"
        self.partial = folder / f"{name}.partial.csv"
        self.fields = (*(field.name for field in dataclasses.fields(kind)), *STAMPS)
        self.common = {"versions": versions(), "commit": commit(), **common}

    def __enter__(self) -> Self:
        self.file = self.partial.open("w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.fields, lineterminator="\n")
        self.writer.writeheader()
        return self

    def add(self, row: Any, device: str = "cpu") -> None:
        values = dataclasses.asdict(row) | self.common
        values |= {"device": device_name(device), "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        self.writer.writerow({k: _cell(v) for k, v in values.items()})
        self.file.flush()

    def __exit__(self, kind: object, *rest: object) -> None:
        self.file.close()
        if kind is None:
            os.replace(self.partial, self.path)
        else:
            print(f"Stopped. The rows measured so far are in {self.partial}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@cache
def device_name(device: str) -> str:
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name()
    return f"{processor()} ({os.cpu_count()} logical cores)"


@cache
def versions(*optional: str) -> str:
    """Versions of the library, Python and the frameworks, and of installed `optional` packages."""
    installed = [f"{p} {version(p)}" for p in ("torch", "jax", "jaxlib", "numpy", "scipy")]
    for package in optional:
        with contextlib.suppress(PackageNotFoundError):
            installed.append(f"{package} {version(package)}")
    ours = f"saliency-losses {saliency_losses.__version__}"
    return ", ".join([ours, f"python {platform.python_version()}", *installed])


@cache
def commit() -> str:
    """The commit of this checkout in 12 digits, see `reference_models.provenance.commit`."""
    found = provenance.commit()
    if found is None:
        return "no commit"
    digits, dirty, _ = found.partition("-dirty")
    return digits[:12] + dirty
