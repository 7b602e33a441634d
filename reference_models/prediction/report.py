"""What became of the photographs: progress, the file of faults, the last line."""

import errno
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from reference_models.errors import InputError, count, escaped
from reference_models.files import make_folder
from reference_models.machine import progress
from reference_models.prediction.jobs import Job
from reference_models.shards import Shard

DONE, FINISHED = "", "finished"
"""Outcomes of a photograph: written now, or by an earlier call. Any other text is a fault."""
MOST_SHOWN = 10


def fault_of(work: Callable[[Job], str], job: Job) -> str:
    """What `work` returns, or the fault of this photograph alone, which may be known before. Other
    errors, such as a full disk, concern all photographs and are raised."""
    if job.fault:
        return job.fault
    try:
        return work(job)
    except InputError as error:
        return " ".join(error.lines)
    except MemoryError:
        return f"{escaped(str(job.file))} does not fit in memory; pass a smaller copy of it"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return f"{escaped(str(job.file))}: {error.strerror}; rename the photograph"


class Report:
    """Counts the outcomes, shows them, and writes faults to a file as they occur.

    The file, FOLDER/faults.tsv (in shards faults-I-of-N.tsv), has a line for each photograph that
    failed: its name, a tab, the reason. Without faults there is no file.
    """

    def __init__(self, folder: Path, shard: Shard, photographs: int, model: str) -> None:
        part = f"-{shard.index + 1}-of-{shard.count}" if shard.count > 1 else ""
        self.folder, self.path = folder, folder / f"faults{part}.tsv"
        self.photographs, self.model = photographs, Path(model).name
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        make_folder(self.folder, "--out")
        self.path.unlink(missing_ok=True)
        self.bar = progress(total=self.photographs, desc=self.model, unit=" photographs")
        self.began = time.perf_counter()
        return self

    def add(self, job: Job, outcome: str) -> None:
        self.bar.update()
        if outcome in (DONE, FINISHED):
            self.counts[outcome] += 1
            return
        outcome = escaped(outcome)
        self.faults.append(outcome)
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{escaped(str(job.file))}\t{outcome}\n")

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if kind is not None:
            return
        for fault in self.faults[:MOST_SHOWN]:
            print(f"error: {fault}", file=sys.stderr)
        if len(self.faults) > MOST_SHOWN:
            print(f"and {len(self.faults) - MOST_SHOWN} more", file=sys.stderr)
        print(self.last_line(time.perf_counter() - self.began))

    def last_line(self, seconds: float) -> str:
        done, finished = self.counts[DONE], self.counts[FINISHED]
        parts = [f"images for {count(done, 'photograph')} written to {self.folder}/"]
        if done:
            parts.append(f"{done / seconds:.3g} photographs/s")
        if finished:
            parts.append(f"{finished} finished before")
        if self.faults:
            parts.append(f"{len(self.faults)} failed, listed in {self.path}")
        return "; ".join(parts)
