"""`python -m reference_models.reproduction.sweep`: every run that has no results yet, in turn."""

import atexit
import os
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from reference_models import paths
from reference_models.commands import command, parse
from reference_models.data.archives import ARCHIVES, DETECTORS
from reference_models.errors import InputError
from reference_models.files import Busy, atomic_path
from reference_models.options import Options
from reference_models.papers.recipes import RECIPES
from reference_models.papers.schema import ScaleName
from reference_models.reproduction.priorities import blocks
from reference_models.training.run import Shared
from reference_models.training.run import run as run_recipe
from reference_models.training.stopping import Clock, OutOfTime, asked_to_stop, clock
from reference_models.training.trained import RUN_WEIGHTS, weights_match

SEEDS = (0, 1, 2)
# What all runs on real data read.
NEEDED = (
    *(file for archive in ARCHIVES.values() for file in archive.files),
    DETECTORS,
    "mobilenet_v2.fp16.safetensors",
)


@dataclass(frozen=True)
class Run:
    recipe: str
    seed: int


@dataclass(frozen=True)
class Sweep:
    """Run all recipes on real data that have no results yet, in the order of RUNS.md.

    A run that starts from another's maps gets that one first. Stopped, by the minutes or
    otherwise, the same command goes on where it was. It takes the lowest scheduling priority, so
    other work on the machine goes first, and a second sweep beside it takes other runs.
    """

    only: tuple[str, ...] = ()
    """Recipes by name or pattern, such as "fcn-*"; none given: all."""
    backend: Literal["torch", "jax"] = "torch"
    """The framework to train in."""
    scale: ScaleName = "medium"
    """On two cores a small run takes three minutes, a medium one up to an hour (MEnet 90)."""
    seeds: tuple[int, ...] = ()
    """Seed 0 of every recipe comes before seed 1 of any. Default: 0, 1 and 2 at medium scale, 0 at
    small."""
    minutes: float | None = None
    """Stop cleanly once so many minutes are over, after the step in hand or a few hundred measured
    images, with exit status 75. Ctrl-C stops as cleanly (130), as do SIGTERM (143) and SIGHUP
    (129)."""
    archives: Path | None = None
    """The folder of the data sets and backbones; by default data/."""
    stage: tuple[Path, ...] = ()
    """First copy the files of these folders into --archives: for a machine that gets its data in
    parcels. While some are still missing, say which, and stop."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; cuda is an error where there is no GPU, auto then takes the processor."""
    checkpoint_seconds: float = 120.0
    """Seconds between checkpoints."""
    out: Path = Path("runs")
    """Where the run folders lie."""
    results: Path = paths.RUNS
    """Where results are written. What has results there or in results/runs is done."""
    list: bool = False
    """Print what would run, and stop."""

    def options(self, run: Run) -> Options:
        chosen = Options(
            recipe=run.recipe,
            backend=self.backend,
            scale=self.scale,
            seed=run.seed,
            archives=self.archives,
            device=self.device,
            checkpoint_seconds=self.checkpoint_seconds,
        )
        return replace(chosen, out=self.out / chosen.name)

    @property
    def staged(self) -> Path:
        return self.archives or paths.DATA

    def done(self, run: Run) -> bool:
        file = f"{self.options(run).name}.json"
        return any((folder / file).is_file() for folder in (self.results, paths.RUNS))

    def trained(self, run: Run) -> bool:
        options = self.options(run)
        return weights_match(options.folder / RUN_WEIGHTS, options)


def planned(sweep: Sweep) -> list[Run]:
    """Every run that was asked for, done or not."""
    for pattern in sweep.only:
        if not any(fnmatch(name, pattern) for names in blocks().values() for name in names):
            raise InputError(
                f"--only {pattern} fits no recipe on real data; "
                "`python -m reference_models.train --recipes` lists them"
            )
    return [
        Run(name, seed)
        for seed in sweep.seeds or (SEEDS if sweep.scale == "medium" else SEEDS[:1])
        for names in blocks().values()
        for name in names
        if not sweep.only or any(fnmatch(name, pattern) for pattern in sweep.only)
    ]


def needs(recipe: str) -> list[str]:
    """The recipes whose maps this one starts from."""
    chosen = RECIPES[recipe]
    priors = [chosen.train_prior, *(p for named in chosen.test_priors.values() for p in named)]
    return list(dict.fromkeys(p.removeprefix("run:") for p in priors if p and p[:4] == "run:"))


def with_needs(sweep: Sweep, wanted: Sequence[Run]) -> list[Run]:
    """The runs, each after those whose weights it needs and that are not there."""
    ordered: dict[Run, None] = {}

    def add(run: Run) -> None:
        for other in needs(run.recipe):
            if not sweep.trained(Run(other, run.seed)):
                add(Run(other, run.seed))
        ordered[run] = None

    for run in wanted:
        add(run)
    return list(ordered)


def main() -> None:
    begun = time.monotonic()
    with command():
        sweep = parse(Sweep, "reproduction.sweep")
        step_aside()
        if sweep.stage and (missing := stage(sweep)):
            print(f"waiting for {', '.join(missing)} in {sweep.staged}")
            sys.exit(0)
        left = with_needs(sweep, [run for run in planned(sweep) if not sweep.done(run)])
        if sweep.list:
            for run in left:
                print(f"{run.recipe} --seed {run.seed}")
            return
        failed = go(sweep, left, clock(sweep.minutes, begun, asked_to_stop()))
    sys.exit(1 if failed else 0)


def step_aside() -> None:
    """Let all other work on the machine go first: the lowest priority, and threads that sleep
    while they wait for each other. Has to come before PyTorch and its OpenMP are loaded."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if hasattr(os, "nice"):  # Not on Windows.
        os.nice(19)
    # Where Linux shares out time by terminal session, a priority counts inside of the session
    # alone, so that of the session is lowered as well, and restored in the end.
    group = Path("/proc/self/autogroup")
    try:
        before = group.read_text().rpartition(" ")[2]
        group.write_text("19")
    except OSError:  # Another kernel.
        return
    atexit.register(group.write_text, before)


def stage(sweep: Sweep) -> list[str]:
    """Copy what the parcels hold, whole or not at all; returns what the runs still lack."""
    sweep.staged.mkdir(parents=True, exist_ok=True)
    for parcel in sweep.stage:
        if not parcel.is_dir():
            raise InputError(f"--stage {parcel} is no folder; give those that hold the archives")
        for file in sorted(parcel.iterdir()):
            if file.name in NEEDED:
                with atomic_path(sweep.staged / file.name) as partial:
                    shutil.copyfile(file, partial)
    return [name for name in NEEDED if not (sweep.staged / name).is_file()]


def go(sweep: Sweep, left: list[Run], check: Clock) -> list[Run]:
    """Run what is left, in one process, so that data and features are read once; returns the runs
    that failed. What another sweep is at work on, or has ended meanwhile, is its own. Raises
    `OutOfTime` where time ended it."""
    shared, ended, waiting = Shared(), 0, list(left)
    failed: list[Run] = []
    elsewhere: list[Run] = []
    stopped: OutOfTime | None = None
    try:
        for run in left:
            check()
            begun = time.monotonic()
            needed = [Run(name, run.seed) for name in needs(run.recipe)]
            try:
                if sweep.done(run) and sweep.trained(run):
                    pass
                elif any(other in elsewhere for other in needed):
                    elsewhere.append(run)
                elif lacking := [other.recipe for other in needed if other in failed]:
                    raise InputError(f"it starts from the maps of {lacking[0]}, which failed")
                else:
                    run_recipe(sweep.options(run), shared, check, sweep.results)
                    ended += 1
                    seconds = time.monotonic() - begun
                    print(f"DONE {run.recipe}, seed {run.seed}: {seconds:.0f} s", flush=True)
            except OutOfTime:
                raise
            except Busy:
                elsewhere.append(run)
            except Exception as error:  # The others run whatever is wrong with this one.
                failed.append(run)
                if not isinstance(error, (InputError, OSError)):
                    traceback.print_exc()
                print(f"FAILED {run.recipe}, seed {run.seed}: {error}", flush=True)
            waiting.remove(run)
    except OutOfTime as error:
        print("stopped; the same command goes on from the last step")
        stopped = error
    counts = [f"{ended} done", f"{len(failed)} failed", f"{len(waiting)} left"]
    if elsewhere:
        counts.append(f"{len(elsewhere)} with another sweep")
    print(", ".join(counts))
    for word, runs in (("failed", failed), ("left", waiting), ("with another sweep", elsewhere)):
        for run in runs:
            print(f"{word}: {run.recipe}, seed {run.seed}")
    if stopped is not None:
        raise stopped
    return failed


if __name__ == "__main__":
    main()
