"""Exact distance transforms of one real mask, enlarged: ours and other libraries', beside SciPy's.

`python -m benchmarks.distance` times them on one thread and writes
`results/benchmarks/distance.csv`.
"""

from __future__ import annotations

import ctypes
import platform
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from benchmarks.options import RESULTS, limit_threads

if TYPE_CHECKING:
    from benchmarks.backends import Backend
    from benchmarks.cases import Array
    from benchmarks.other_libraries import Loss, Peer
    from benchmarks.timing import Row

UNIT = "scipy: distance_transform_edt"
LOSS = "ours: weighted F-beta, exact distance"
PACKAGES = ("opencv-python-headless", "edt", "torch-distmap", "kornia", "monai", "torchmetrics")
PAIRWISE = ("torchmetrics",)  # libraries that compare all pairs of pixels: 17 GB at a side of 256
SLOW = 10  # what takes so many times the seconds of the repeats is left out


@dataclass(frozen=True)
class Options:
    """Time distance transforms in turns with SciPy's, without indices, of the same mask."""

    data: Path = Path("data") / "ecssd.zip"
    """Archive of ECSSD."""
    image: str = "masks/0008.png"
    """The mask in the archive."""
    sides: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    """Sides of the square to which the mask is enlarged."""
    cases: tuple[str, ...] = ()
    """Only transforms whose label contains one of these."""
    seconds: float = 2.0
    """Time for the repeats of each transform."""
    out: Path = RESULTS
    """Folder for distance.csv."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.distance")
    limit_threads(1)  # before the frameworks start their threads
    from benchmarks.timing import Recorder, versions

    made_with = versions(*PACKAGES)
    with Recorder(options.out, "distance", threads=1, seed=0, versions=made_with) as recorder:
        for row in rows(options):
            recorder.add(row)
            print(row.case, row.backend, row.size, row.min_s, row.unit_min_s, row.note, flush=True)


def rows(options: Options) -> Iterator[Row]:
    """A row for each side, transform and backend, the fastest of the repeats in `min_s`."""
    import torch

    from benchmarks.other_libraries import DISTANCES, load
    from benchmarks.timing import Row

    torch.set_num_threads(1)
    loaded, missing = load(())
    chosen = [(p, loss) for p, loss in loaded if p.group == DISTANCES or p.label == LOSS]
    (unit,) = (entry for entry in chosen if entry[0].label == UNIT)
    last: dict[tuple[str, str], float] = {}
    for side in options.sides:
        masks = enlarged(options.data, options.image, side)
        scipy = call(*unit, unit[0].backends[0], masks)
        for peer, loss in chosen:
            if options.cases and not any(part in peer.label for part in options.cases):
                continue
            for backend in peer.backends:
                row = Row(peer.label, backend.name, size=side, batch=1, item=peer.group, unit=UNIT)
                expected = 4 * last.get((row.case, row.backend), 0.0)
                if peer.library in PAIRWISE:
                    row.note = "left out: needs memory for the distances of all pairs of pixels"
                elif expected > SLOW * options.seconds:
                    row.note = f"left out: expected to take more than {SLOW * options.seconds:g} s"
                else:
                    prepare = partial(call, peer, loss, backend, masks)
                    measure(row, prepare, scipy, options.seconds)
                last[row.case, row.backend] = row.min_s or expected
                yield row
    for peer, reason in missing:
        if peer.group == DISTANCES:
            yield Row(peer.label, peer.framework_name, item=peer.group, note=reason)


def enlarged(archive: Path, name: str, side: int) -> Array:
    """The mask ``(1, side, side)``, by nearest neighbour."""
    import numpy as np
    from PIL import Image

    with zipfile.ZipFile(archive) as file:
        image = Image.open(BytesIO(file.read(name))).convert("L")
    return np.asarray(image.resize((side, side), Image.Resampling.NEAREST))[None] >= 128


def call(peer: Peer, loss: Loss, backend: Backend, masks: Array) -> Callable[[], None]:
    step, placed = backend.step(loss, peer.gradients), backend.place(peer.inputs(0, masks))

    def run() -> None:
        step(placed)

    return run


def measure(
    row: Row, prepare: Callable[[], Callable[[], Any]], unit: Callable[[], Any], seconds: float
) -> None:
    """Time the call in turns with `unit`, and measure by how much memory grows during a call."""
    from benchmarks.other_libraries import isolated
    from benchmarks.timing import time_call

    try:
        with isolated():
            run = prepare()
            time_call(row, run, seconds=seconds, repeats=31, unit=unit)
            row.memory_bytes = peak_of(run)
    except Exception as error:
        row.note = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"


def peak_of(run: Callable[[], Any]) -> int | None:
    """The bytes by which memory grows at most during a call; None but on Linux with glibc."""
    status = Path("/proc/self/status")
    if platform.libc_ver()[0] != "glibc":
        return None
    ctypes.CDLL(None).malloc_trim(0)  # memory kept from earlier calls would not count
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before = _kilobytes(status, "VmRSS")
    run()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    (line,) = (x for x in status.read_text(encoding="ascii").splitlines() if x.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
