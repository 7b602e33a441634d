"""Copies of the arrays of `python -m benchmarks growth`, at its sizes and in its memory settings.

`python -m benchmarks.copies` writes `results/benchmarks/copies.csv`: how the time of copying alone
grows, in both frameworks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from benchmarks.options import RESULTS, keep_pages, limit_threads

if TYPE_CHECKING:
    from benchmarks.timing import Row

ARRAYS = {"8 maps": (8, 1), "2 × 16 features": (2, 16)}  # images and channels


@dataclass(frozen=True)
class Options:
    """Time copies into fresh and into existing memory."""

    sizes: tuple[int, ...] = (512, 1024, 2048)
    """Side lengths of the square images."""
    seconds: float = 2.0
    """Time for the repeats of each copy."""
    out: Path = RESULTS
    """Folder for copies.csv."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.copies")
    keep_pages("benchmarks.copies")
    limit_threads(1)  # before the frameworks start their threads
    from benchmarks.timing import Recorder

    with Recorder(options.out, "copies", threads=1, seed=0) as recorder:
        for row in rows(options):
            recorder.add(row)
            print(row.case, row.backend, row.size, row.median_s)


def rows(options: Options) -> Iterator[Row]:
    import numpy as np
    import torch

    from benchmarks import backends
    from benchmarks.timing import Row, time_call

    torch.set_num_threads(1)
    memory = {"fresh": backends.copy, "existing": backends.copy_in_place}
    for name, (batch, channels) in ARRAYS.items():
        for backend in (backends.OURS[0], backends.OURS[2]):
            for kind, copy in memory.items():
                for size in options.sizes:
                    array = np.ones((batch, size, size, channels), np.float32)
                    case = f"copy of {name} into {kind} memory"
                    row = Row(case, backend.name, size=size, batch=batch, channels=channels)
                    row.input_bytes = array.nbytes
                    call = copy(backend.framework, array)
                    time_call(row, call, seconds=options.seconds, repeats=31)
                    yield row


if __name__ == "__main__":
    main()
