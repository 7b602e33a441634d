"""`python -m tests.reliability --hours H`: damaged files and stopped runs, with their counts."""

import argparse
import itertools
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.reliability.fuzz import fuzz
from tests.reliability.stops import LEFT, SIGNALS, stopped_measuring, stopped_runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")  # As in every command.
    end = time.monotonic() + 3600 * options.hours
    files: Counter[str] = Counter()
    stops: Counter[str] = Counter()
    for seed in itertools.count(options.seed):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files.update(fuzz(folder, seed, 1000))
            for backend in ("torch", "jax"):
                (folder / backend).mkdir()
                stops.update(stopped_runs(folder / backend, backend, seed, stops=8))
            stops.update(stopped_measuring(folder, seed, stops=4))
        print(f"seed {seed}: {report(files, stops)}", flush=True)
        if time.monotonic() > end:
            break


def report(files: Counter[str], stops: Counter[str]) -> str:
    """The counts so far, on one line."""
    survived = {name: number for name, number in stops.items() if name in SIGNALS}
    return (
        f"{files.total()} files tried ({files['read']} read, {files['refused']} refused by name), "
        f"{sum(survived.values())} kills survived ({shown(survived)}), "
        f"{stops[LEFT]} processes left"
    )


def shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


if __name__ == "__main__":
    main()
