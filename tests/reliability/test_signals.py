"""Signals: ignored ones, a closed terminal, and Ctrl-C outside of the training steps."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from reference_models import train
from reference_models.reproduction import sweep
from tests.reliability.stops import environment, signalled, train_command

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals are sent in another way there"
)

PROGRAM = """
import sys, time
from pathlib import Path
from reference_models.command_line import command
from reference_models.errors import OutOfTime
from reference_models.training.stopping import signals_after_steps

place = Path(sys.argv[1])
with command(), signals_after_steps() as check:
    (place / "begun").touch()
    try:
        while True:
            time.sleep(0.01)
            check()
    except OutOfTime:
        time.sleep(0.5)  # For another signal.
        print("Stopped.")
        (place / "saved").touch()
        raise
"""


def begun(place: Path, **options):
    child = signalled([sys.executable, "-c", PROGRAM, str(place)], env=environment(), **options)
    wait_for(place / "begun")
    return child


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_signals_that_are_ignored_stay_ignored(tmp_path: Path):
    child = begun(tmp_path, ignored=("SIGHUP", "SIGINT"))  # As by nohup and a shell's &.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
    assert child.wait(60) == 128 + signal.SIGTERM


def test_a_closed_terminal_loses_nothing(tmp_path: Path):
    terminal, shown = os.openpty()
    child = begun(tmp_path, stdin=shown, stdout=shown, stderr=shown, start_new_session=True)
    os.close(shown)
    os.close(terminal)
    for _ in range(2):  # Of the shell, and of the system when the shell has ended.
        child.send_signal(signal.SIGHUP)
        time.sleep(0.2)
    assert child.wait(60) == 128 + signal.SIGHUP
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(number: int, tmp_path: Path):
    child = begun(tmp_path)
    for _ in range(2):
        child.send_signal(number)
        time.sleep(0.2)
    assert child.wait(60) in (130, -number)
    assert not (tmp_path / "saved").exists()


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal, whatever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("torch_settings", "ctrl_c")
@pytest.mark.parametrize("work", ["load_data", "score"])
def test_ctrl_c_ends_what_is_no_training_step(work: str, tmp_path: Path, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still at work after Ctrl-C")

    monkeypatch.setattr(f"reference_models.training.run.{work}", interrupted)
    monkeypatch.setattr(sys, "argv", train_command(tmp_path / "run", "--steps", "2")[2:])
    with pytest.raises(SystemExit, match="130"):
        train.main()
    assert capsys.readouterr().err.endswith("stopped\n")


@pytest.mark.usefixtures("torch_settings", "ctrl_c")
def test_a_signal_in_the_last_step_ends_the_run_too(tmp_path: Path, monkeypatch):
    write = train.run.__globals__["train"].__globals__["write_arrays"]

    def signalled_in_saving(*args: object, **options: object) -> None:
        signal.raise_signal(signal.SIGINT)
        write(*args, **options)

    monkeypatch.setattr("reference_models.training.loop.write_arrays", signalled_in_saving)
    monkeypatch.setattr(sys, "argv", train_command(tmp_path / "run", "--steps", "2")[2:])
    with pytest.raises(SystemExit, match="130"):
        train.main()
    assert (tmp_path / "run/checkpoint.safetensors").exists()
    assert not (tmp_path / "run/run.json").exists()


@pytest.mark.usefixtures("ctrl_c")
def test_a_sweep_that_is_interrupted_says_what_is_left(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "run_recipe", lambda *_: signal.raise_signal(signal.SIGINT))
    asked = sweep.Sweep(only=("zoomout-ce",), out=tmp_path, results=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep.go(asked, [sweep.Run("zoomout-ce", 0)], lambda: None)
    assert "0 done, 0 failed, 1 left" in capsys.readouterr().out
