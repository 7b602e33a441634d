"""The sweep: order, what is left, what must come first, stopping, failing runs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reference_models import paths
from reference_models.errors import InputError, OutOfTime
from reference_models.files import read_about, read_arrays, write_arrays
from reference_models.options import Options, recipes_at
from reference_models.papers.recipes import RECIPES
from reference_models.reproduction import sweep
from reference_models.reproduction.priorities import blocks
from reference_models.reproduction.sweep import Run, Sweep, go, needs, planned, with_needs
from reference_models.training.lock import Busy, locked
from reference_models.training.run import Shared
from reference_models.training.stopping import Clock
from reference_models.training.trained import RUN_WEIGHTS
from tests.support.paths import ROOT


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A sweep in a folder of its own, and no committed results."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "committed")

    def ask(*only: str, **more: object) -> Sweep:
        return Sweep(only=only, out=tmp_path / "runs", results=tmp_path / "results", **more)

    return ask


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch):
    """Runs are not trained, only written down; those in `broken` fail."""
    done: list[str] = []

    def run(options: Options, shared: Shared, check: Clock, results: Path) -> None:
        if options.recipe in run.broken:
            raise run.broken[options.recipe]
        done.append(f"{options.recipe} {options.seed}")
        options.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(options.folder / RUN_WEIGHTS, {"x": np.zeros(1)}, options.as_json())
        results.mkdir(exist_ok=True)
        (results / f"{options.name}.json").touch()

    run.broken = {}
    run.done = done
    monkeypatch.setattr(sweep, "run_recipe", run)
    return run


def never() -> None:
    pass


def left(asked: Sweep) -> list[Run]:
    return with_needs(asked, [run for run in planned(asked) if not asked.done(run)])


def test_every_recipe_on_real_data_has_its_place_once():
    placed = [name for names in blocks().values() for name in names]
    assert len(placed) == len(set(placed))
    assert set(placed) == {name for name in RECIPES if not name.startswith("scenes-")}


def test_the_most_important_comes_first_and_one_seed_of_all_before_the_next_of_any(asked):
    assert [run.recipe for run in planned(asked())][:9] == [
        "zoomout-ce",
        "zoomout-exact",
        "zoomout-dice",
        "zoomout-af",
        "fcn-ce-clean",
        "fcn-cas-swapped",
        "fcn-ce-swapped",
        "fcn-cace-swapped",
        "fcn-cas-clean",
    ]
    runs = planned(asked("zoomout-ce", "zoomout-af", "fcn-c?-clean", seeds=(0, 1)))
    once = ("zoomout-ce", "zoomout-af", "fcn-ce-clean")
    assert runs == [Run(name, seed) for seed in (0, 1) for name in once]
    assert {run.seed for run in planned(asked("anchors"))} == {0, 1, 2}
    assert {run.seed for run in planned(asked("anchors", scale="small"))} == {0}


def test_a_pattern_that_fits_nothing_is_an_error(asked):
    with pytest.raises(InputError, match="--only fnc-"):
        planned(asked("fnc-*"))


def test_the_paper_scale_runs_the_recipes_that_have_it(asked, ran):
    wanted = asked(scale="paper")
    runs = planned(wanted)
    assert {run.seed for run in runs} == {0}
    assert {run.recipe for run in runs} == set(recipes_at("paper"))
    weights = {"vgg16", "resnet101", "mobilenet_v2"}
    assert {f"{name}.fp16.safetensors" for name in weights} < set(wanted.needed)
    # The maps that a recipe starts from are those of the paper scale, too.
    first, *others = left(asked("relations", scale="paper"))
    assert [first.recipe, *(run.recipe for run in others)] == [
        *needs("relations", "paper"),
        "relations",
    ]
    assert {name for run in runs for name in needs(run.recipe, "paper")} <= set(recipes_at("paper"))
    assert wanted.options(first).plan.backbone.name == "resnet101"
    with pytest.raises(InputError, match=r"zoomout-dice matches no recipe .* at paper scale"):
        planned(asked("zoomout-dice", scale="paper"))


def test_what_another_starts_from_comes_first_and_once(asked, ran):
    for scale in ("small", "paper"):
        assert needs("relations", scale) == ["fcn-ce-clean", "zoomout-exact"]
    assert needs("anchors-ce", "small") == needs("zoomout-ce", "small") == []
    wanted = asked("relations", "anchors", seeds=(1,))
    runs = left(wanted)
    relations = [Run("zoomout-exact", 1), Run("relations", 1)]
    assert runs == [Run("fcn-ce-clean", 1), Run("anchors", 1), *relations]
    assert go(wanted, runs, never) == []
    assert left(wanted) == []
    # Weights of another schedule do not do.
    wanted = asked("anchors-fc", seeds=(1,))
    weights = wanted.options(Run("fcn-ce-clean", 1)).folder / RUN_WEIGHTS
    about = read_about(weights)
    arrays = read_arrays(weights)
    write_arrays(weights, arrays, about | {"schedule": about["schedule"] | {"steps": 3}})
    assert left(wanted) == [Run("fcn-ce-clean", 1), Run("anchors-fc", 1)]
    write_arrays(weights, arrays, about)
    # Its weights are there now, so the next that needs them starts at once.
    assert left(asked("anchors-fc", seeds=(1,))) == [Run("anchors-fc", 1)]


def test_frameworks_are_swept_apart(asked, ran):
    wanted = asked("anchors", seeds=(0,))
    assert go(wanted, left(wanted), never) == []
    assert left(wanted) == []
    in_jax = asked("anchors", seeds=(0,), backend="jax")
    assert left(in_jax) == [Run("fcn-ce-clean", 0), Run("anchors", 0)]
    assert in_jax.options(Run("anchors", 0)).backend == "jax"
    assert go(in_jax, left(in_jax), never) == []
    assert (in_jax.results / "anchors-jax-medium-0.json").is_file()


def test_results_of_old_but_no_weights(asked, ran):
    """The run that others start from is trained again, though its results are there."""
    (paths.RUNS).mkdir()
    (paths.RUNS / "fcn-ce-clean-torch-medium-0.json").touch()
    assert left(asked("fcn-ce-clean", seeds=(0,))) == []
    runs = left(asked("fcn-ce-clean", "relations", seeds=(0,)))
    assert runs == [Run("fcn-ce-clean", 0), Run("zoomout-exact", 0), Run("relations", 0)]


def test_it_goes_on_where_the_minutes_ended(asked, ran, capsys):
    names = ("zoomout-ce", "zoomout-ce-2x*", "zoomout-ce-band")
    wanted, calls = asked(*names, seeds=(0,)), iter([False, False, True])

    def check() -> None:
        if next(calls):
            raise OutOfTime

    runs = left(wanted)
    assert len(runs) == 4
    with pytest.raises(OutOfTime):
        go(wanted, runs, check)
    assert capsys.readouterr().out.endswith(
        "2 done, 0 failed, 2 left\nleft: zoomout-ce-2x-background, seed 0\n"
        "left: zoomout-ce-band, seed 0\n"
    )
    assert left(wanted) == runs[2:]
    go(wanted, left(wanted), never)
    assert ran.done == [f"{run.recipe} 0" for run in runs]


def test_a_run_that_the_minutes_end_is_left(asked, ran, capsys):
    ran.broken["zoomout-ce"] = OutOfTime()
    wanted = asked("zoomout-ce", seeds=(0,))
    with pytest.raises(OutOfTime):
        go(wanted, left(wanted), never)
    assert "0 done, 0 failed, 1 left\nleft: zoomout-ce, seed 0" in capsys.readouterr().out


def test_a_failing_run_does_not_stop_the_others(asked, ran, capsys):
    ran.broken |= {"fcn-ce-clean": InputError("no data"), "zoomout-ce": RuntimeError("memory")}
    wanted = asked("fcn-ce-clean", "anchors", "zoomout-ce", "zoomout-af", seeds=(0,))
    failed = go(wanted, left(wanted), never)
    told = capsys.readouterr()
    assert ran.done == ["zoomout-af 0"]
    assert [run.recipe for run in failed] == ["zoomout-ce", "fcn-ce-clean", "anchors"]
    assert "FAILED fcn-ce-clean, seed 0: no data" in told.out
    assert "FAILED anchors, seed 0: it starts from fcn-ce-clean, which" in told.out
    assert "1 done, 3 failed, 0 left\nfailed: zoomout-ce, seed 0\n" in told.out
    assert "RuntimeError: memory" in told.err


def test_a_run_of_another_sweep_is_passed_over_and_what_needs_it_waits(asked, ran, capsys):
    wanted = asked("fcn-ce-clean", "anchors", "zoomout-ce", seeds=(0,))
    with locked(wanted.options(Run("fcn-ce-clean", 0)).folder):
        ran.broken["fcn-ce-clean"] = Busy("another process is training")
        assert go(wanted, left(wanted), never) == []
    assert ran.done == ["zoomout-ce 0"]
    assert capsys.readouterr().out.endswith(
        "1 done, 0 failed, 0 left, 2 with another sweep\n"
        "with another sweep: fcn-ce-clean, seed 0\nwith another sweep: anchors, seed 0\n"
    )


def test_what_another_sweep_has_ended_meanwhile_is_not_run_again(asked, ran):
    wanted = asked("zoomout-ce", "zoomout-dice", seeds=(0,))
    runs = left(wanted)
    other = asked("zoomout-ce", seeds=(0,))
    go(other, left(other), never)
    go(wanted, runs, never)
    assert ran.done == ["zoomout-ce 0", "zoomout-dice 0"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such lock")
def test_two_processes_never_train_in_one_folder(tmp_path):
    code = (
        "import sys, pathlib, reference_models.training.lock as f\n"
        "with f.locked(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    options = Options(recipe="scenes-cas", out=tmp_path / "run")
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(Busy, match=r"another process is training in .*run; wait for it"):
            sweep.run_recipe(options, Shared(), never)
        other.kill()  # However it dies, the folder is free again.
        other.wait()
        with locked(tmp_path / "run"):
            pass
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match=r"file is a file, but a folder is needed"), locked(file):
        pass


@pytest.mark.skipif(not hasattr(os, "nice"), reason="priorities are set in another way there")
def test_a_sweep_lets_other_work_go_first():
    code = (
        "import os, sys, pathlib, reference_models.reproduction.sweep as sweep\n"
        "sweep.step_aside(); assert 'torch' not in sys.modules\n"
        "group = pathlib.Path('/proc/self/autogroup')\n"
        "print(os.nice(0), os.environ['OMP_WAIT_POLICY'],\n"
        "      group.read_text().split()[-1] if group.exists() else 19)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        check=True,
        text=True,
        capture_output=True,
        start_new_session=True,
    )
    assert done.stdout.split() == ["19", "PASSIVE", "19"]


def test_archives_are_staged_until_all_are_there(asked, ran, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "NEEDED", ("one.zip", "two.zip"))
    monkeypatch.setattr(sweep, "step_aside", never)
    folder, archives = tmp_path / "folder", tmp_path / "archives"
    folder.mkdir()

    def call() -> int:
        wanted = asked("zoomout-ce", seeds=(0,), stage=(folder,), archives=archives)
        monkeypatch.setattr(sweep, "parse", lambda *_, **__: wanted)
        with pytest.raises(SystemExit) as ended:
            sweep.main()
        return ended.value.code

    weights = folder / "mobilenet_v2.fp16.safetensors"
    for file in (folder / "two.zip", weights):
        file.write_text("two")
    (folder / "code.py").write_text("no data")
    assert call() == 0
    assert f"waiting for one.zip in {archives}" in capsys.readouterr().out
    assert ran.done == []
    (folder / "two.zip").unlink()
    (folder / "one.zip").write_text("one")
    assert call() == 0
    assert ran.done == ["zoomout-ce 0"]
    assert {file.name for file in archives.iterdir()} == {"one.zip", "two.zip", weights.name}
    folder = tmp_path / "nowhere"
    assert "--stage" in str(call())


def test_exit_status(asked, ran, monkeypatch):
    monkeypatch.setattr(sweep, "step_aside", never)
    monkeypatch.setattr(sweep, "parse", lambda *_, **__: asked("zoomout-ce", seeds=(0,)))
    ran.broken["zoomout-ce"] = InputError("no data")
    with pytest.raises(SystemExit) as ended:
        sweep.main()
    assert ended.value.code == 1
    ran.broken["zoomout-ce"] = OutOfTime()
    with pytest.raises(SystemExit) as ended:
        sweep.main()
    assert ended.value.code == 75
    ran.broken.clear()
    with pytest.raises(SystemExit) as ended:
        sweep.main()
    assert ended.value.code == 0


def test_the_command_lists(tmp_path):
    command = [
        sys.executable,
        "-m",
        "reference_models.reproduction.sweep",
        "--list",
        "--only",
        "relations",
        "--seeds",
        "0",
        "--out",
        str(tmp_path),
        "--results",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    names = ("fcn-ce-clean", "zoomout-exact", "relations")
    assert lines in ([], [f"{name} --seed 0" for name in names])
