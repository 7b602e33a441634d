"""The command `python -m reference_models.reproduction.sweep`: all runs without results."""

import atexit
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from reference_models import paths
from reference_models.command_line import command, expected, parse
from reference_models.data.named_sets import ARCHIVES, DETECTORS
from reference_models.errors import InputError, OutOfTime
from reference_models.files import atomic_path
from reference_models.options import Backend, Device, Options, bundled_backbone
from reference_models.papers.recipes import RECIPES, has_prior
from reference_models.papers.schema import ScaleName
from reference_models.reproduction.priorities import blocks
from reference_models.training.lock import Busy
from reference_models.training.run import Shared
from reference_models.training.run import run as run_recipe
from reference_models.training.stopping import Clock, clock, usual_handlers
from reference_models.training.trained import RUN_WEIGHTS, weights_match

SEEDS = (0, 1, 2)
# Files that the runs on real data read, besides the weights of the backbones.
NEEDED = (*(file for archive in ARCHIVES.values() for file in archive.files), DETECTORS)


@dataclass(frozen=True)
class Run:
    recipe: str
    seed: int


@dataclass(frozen=True)
class Sweep:
    """Run all recipes on real data that have no results yet, in the order of RUNS.md.

    If a run starts from the maps of another, the other is trained first. Rerunning a stopped sweep
    resumes it. The sweep has the lowest scheduling priority, so other work on the machine goes
    first, and a second sweep started beside it takes other runs.
    """

    only: tuple[str, ...] = ()
    """Recipes by name or pattern, such as "fcn-*". Default: all."""
    backend: Backend = "torch"
    """Framework to train in: PyTorch or JAX (Flax)."""
    scale: ScaleName = "medium"
    """Size of the runs. On two CPU cores, a small run takes about three minutes and a medium one
    one to two hours (MEnet longer). paper runs the recipes that have this scale, on a GPU, with the
    backbones' weights in --archives (RUNS.md)."""
    seeds: tuple[int, ...] = ()
    """Seeds; the first seed of all recipes runs before the second of any. Default: 0, 1 and 2 at
    medium scale, 0 at the others."""
    minutes: float | None = None
    """Time budget: after this many minutes, finish the current step (or the current few hundred
    images when measuring), save, and exit with status 75. Rerun the command to resume. Ctrl-C
    (status 130), SIGTERM (143) and SIGHUP (129) do the same while a network trains, and end the
    sweep at once while data are read or measured."""
    archives: Path | None = None
    """Folder of the data set archives and ImageNet weights. Default: data/."""
    stage: tuple[Path, ...] = ()
    """Folders to copy archives from into --archives first, on a machine without the data sets,
    which arrive in several folders. If archives are still missing, list them and exit."""
    device: Device = "auto"
    """Device to compute on. cuda fails without a GPU; auto falls back to the CPU."""
    checkpoint_seconds: float = 120.0
    """Seconds between checkpoints."""
    out: Path = Path("runs")
    """Folder of the run folders."""
    results: Path = paths.RUNS
    """Folder for the results. Runs with results there or in results/runs are skipped."""
    list: bool = False
    """Print the runs that would start, and exit."""

    def options(self, run: Run) -> Options:
        options = Options(
            recipe=run.recipe,
            backend=self.backend,
            scale=self.scale,
            seed=run.seed,
            archives=self.archives,
            device=self.device,
            checkpoint_seconds=self.checkpoint_seconds,
        )
        return replace(options, out=self.out / options.name)

    @property
    def archive_folder(self) -> Path:
        return self.archives or paths.DATA

    @property
    def recipes(self) -> tuple[str, ...]:
        """All recipes on real data that have this scale, in order."""
        names = (name for block in blocks().values() for name in block)
        return tuple(name for name in names if self.scale in RECIPES[name].scales)

    @property
    def needed(self) -> tuple[str, ...]:
        """The files that these recipes read."""
        scales = (RECIPES[name].at(self.scale) for name in self.recipes)
        backbones = (scale.backbone.name for scale in scales if scale.backbone is not None)
        return (*NEEDED, *(bundled_backbone(name).name for name in dict.fromkeys(backbones)))

    def done(self, run: Run) -> bool:
        file = f"{self.options(run).name}.json"
        return any((folder / file).is_file() for folder in (self.results, paths.RUNS))

    def trained(self, run: Run) -> bool:
        options = self.options(run)
        return weights_match(options.folder / RUN_WEIGHTS, options)


def planned(sweep: Sweep) -> list[Run]:
    """All runs of the sweep, in order, whether done or not."""
    for pattern in sweep.only:
        if not any(fnmatch(name, pattern) for name in sweep.recipes):
            raise InputError(
                f"--only {pattern} matches no recipe on real data at {sweep.scale} scale; "
                "`python -m reference_models.train --recipes` lists all recipes"
            )
    return [
        Run(name, seed)
        for seed in sweep.seeds or (SEEDS if sweep.scale == "medium" else SEEDS[:1])
        for name in sweep.recipes
        if not sweep.only or any(fnmatch(name, pattern) for pattern in sweep.only)
    ]


def needs(recipe: str, scale: ScaleName) -> list[str]:
    """The recipes whose maps or weights a recipe starts from at a scale."""
    train_prior, by_test = RECIPES[recipe].train_prior, RECIPES[recipe].test_priors
    start = RECIPES[recipe].start
    priors = [train_prior, *(prior for names in by_test.values() for prior in names)]
    named = [
        prior.removeprefix("run:")
        for prior in priors
        if prior and prior[:4] == "run:" and has_prior(prior, scale)
    ]
    return list(dict.fromkeys([*named, *([start] if start else [])]))


def with_needs(sweep: Sweep, wanted: Sequence[Run]) -> list[Run]:
    """The runs, each after those that it starts from, if their weights do not exist yet."""
    ordered: dict[Run, None] = {}

    def add(run: Run) -> None:
        for other in needs(run.recipe, sweep.scale):
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
            print(f"waiting for {', '.join(missing)} in {sweep.archive_folder}")
            sys.exit(0)
        left = with_needs(sweep, [run for run in planned(sweep) if not sweep.done(run)])
        if sweep.list:
            for run in left:
                print(f"{run.recipe} --seed {run.seed}")
            return
        failed = go(sweep, left, clock(sweep.minutes, begun))
    sys.exit(1 if failed else 0)


def step_aside() -> None:
    """Let all other work on the machine go first.

    Sets the lowest priority, and makes threads sleep while they wait for each other. Must be called
    before PyTorch loads OpenMP.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if hasattr(os, "nice"):  # Not on Windows.
        os.nice(19)
    # If Linux schedules by terminal session (autogroup), a priority counts within its session
    # only, so the priority of the session is lowered too, and restored at exit.
    group = Path("/proc/self/autogroup")
    try:
        before = group.read_text().rpartition(" ")[2]
        group.write_text("19")
    except OSError:  # Not Linux, or no autogroups.
        return
    atexit.register(group.write_text, before)
    for number, usual in usual_handlers().items():
        if usual == signal.SIG_DFL:  # It would end the process without what is due at its exit.
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def stage(sweep: Sweep) -> list[str]:
    """Copy archives from the --stage folders; returns the names of those still missing."""
    sweep.archive_folder.mkdir(parents=True, exist_ok=True)
    for folder in sweep.stage:
        if not folder.is_dir():
            raise InputError(f"--stage {folder} is not a folder; pass folders that hold archives")
        for file in sorted(folder.iterdir()):
            if file.name in sweep.needed:
                with atomic_path(sweep.archive_folder / file.name) as partial:
                    shutil.copyfile(file, partial)
    return [name for name in sweep.needed if not (sweep.archive_folder / name).is_file()]


def go(sweep: Sweep, left: list[Run], check: Clock) -> list[Run]:
    """Run what is left in one process, which reads data and features once; returns failed runs.

    Runs that another sweep is working on, or has finished meanwhile, are skipped. Raises
    `OutOfTime` if the time budget, or a signal in training, stops the sweep.
    """
    shared, done, waiting = Shared(), 0, list(left)
    failed: list[Run] = []
    elsewhere: list[Run] = []
    stopped: OutOfTime | KeyboardInterrupt | None = None
    try:
        for run in left:
            check()
            begun = time.monotonic()
            needed = [Run(name, run.seed) for name in needs(run.recipe, sweep.scale)]
            try:
                if sweep.done(run) and sweep.trained(run):
                    pass
                elif any(other in elsewhere for other in needed):
                    elsewhere.append(run)
                elif failures := [other.recipe for other in needed if other in failed]:
                    raise InputError(f"it starts from {failures[0]}, which failed")
                else:
                    run_recipe(sweep.options(run), shared, check, sweep.results)
                    done += 1
                    seconds = time.monotonic() - begun
                    print(f"DONE {run.recipe}, seed {run.seed}: {seconds:.0f} s", flush=True)
            except OutOfTime:
                raise
            except Busy:
                elsewhere.append(run)
            except Exception as error:  # One failed run must not stop the others.
                failed.append(run)
                if (text := expected(error)) is None:
                    traceback.print_exc()
                print(f"FAILED {run.recipe}, seed {run.seed}: {text or error}", flush=True)
            waiting.remove(run)
    except (OutOfTime, KeyboardInterrupt) as error:
        print("Stopped. Run the same command again to resume.")
        stopped = error
    counts = [f"{done} done", f"{len(failed)} failed", f"{len(waiting)} left"]
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
