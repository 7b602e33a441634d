"""`python -m tests.reliability --hours H`: damaged files and stopped runs, with their counts."""

import argparse
import itertools
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.reliability.fuzz import fuzz
from tests.reliability.stops import stopped_runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    options = parser.parse_args()
    end = time.monotonic() + 3600 * options.hours
    files: Counter[str] = Counter()
    stops: Counter[str] = Counter()
    for seed in itertools.count(options.seed):
        with tempfile.TemporaryDirectory() as name:
            files.update(fuzz(Path(name), seed, 1000))
            for backend in ("torch", "jax"):
                (Path(name) / backend).mkdir()
                stops.update(stopped_runs(Path(name) / backend, backend, seed, stops=8))
        print(f"seed {seed}: files {dict(files)}, stops survived {dict(stops)}", flush=True)
        if time.monotonic() > end:
            break


if __name__ == "__main__":
    main()
