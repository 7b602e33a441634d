"""Several processes of one run: one that never joins, is killed, fails or stands still."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reference_models.errors import InputError
from reference_models.options import Options
from reference_models.training.processes import Watch, waiting, with_others
from reference_models.training.run import Shared, run
from reference_models.training.stopping import clock
from reference_models.training.torch_trainer import check_group
from tests.reliability.stops import environment, train_command
from tests.support.paths import ROOT


def test_only_the_loss_of_another_process_is_translated():
    match = r"another of the 2 processes .* \(closed by peer\); see"
    with pytest.raises(InputError, match=match), with_others(2):
        raise RuntimeError("closed by peer\nand a stack")
    with pytest.raises(RuntimeError, match="closed by peer"), with_others(1):
        raise RuntimeError("closed by peer")
    with waiting(2, "host:1"):
        pass


PROCESS = """
import json, os, sys, time
from pathlib import Path
from reference_models.errors import InputError
from reference_models.training.processes import Watch, together

rank, file, ends = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def share(numbers):
    if rank == 0:
        file.with_suffix(".part").write_text(json.dumps(numbers))
        os.replace(file.with_suffix(".part"), file)
    while not file.exists():
        time.sleep(0.01)
    return json.loads(file.read_text())

if ends != "fails at once":
    Watch.begin(rank, 3, "127.0.0.1", share, 4)
with together():
    if ends == "fails at once":
        Watch.begin(rank, 3, "127.0.0.1", share, 4)
        print("joined", flush=True)
        raise InputError("--device cuda")
    print("joined", flush=True)
    if ends == "fails":
        time.sleep(1)
        raise InputError("the disk is full")
    elif ends == "has a bug":
        time.sleep(1)
        raise ZeroDivisionError
    elif ends == "is done":
        time.sleep(1)
    elif ends == "works long":
        end = time.monotonic() + 7
        while time.monotonic() < end:
            pass
    else:
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot freeze a process")
@pytest.mark.parametrize(
    ("rank", "ends", "line"),
    [
        (0, "SIGKILL", "process 0 of 3 (counted from 0) stopped"),
        (2, "SIGKILL", "process 2 of 3 (counted from 0) stopped"),
        (0, "SIGSTOP", "process 0 of 3 (counted from 0) has not answered for 4 seconds"),
        (2, "SIGSTOP", "process 2 of 3 (counted from 0) has not answered for 4 seconds"),
        (0, "fails", "process 0 of 3 (counted from 0) stopped"),
        (2, "fails", "process 2 of 3 (counted from 0) stopped"),
        (0, "fails at once", "process 0 of 3 (counted from 0) stopped"),
        (2, "fails at once", "process 2 of 3 (counted from 0) stopped"),
        (0, "has a bug", "process 0 of 3 (counted from 0) stopped"),
    ],
)
def test_all_processes_end_with_one_line_that_names_the_lost_one(rank, ends, line, tmp_path: Path):
    children = [watched(each, tmp_path, ends if each == rank else "waits") for each in range(3)]
    lost = children.pop(rank)
    for child in (lost, *children):
        assert child.stdout is not None
        assert child.stdout.readline() == "joined\n"
    time.sleep(0.5)
    begun = time.monotonic()
    if ends.startswith("SIG"):
        lost.send_signal(getattr(signal, ends))
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 1
        assert len(errors.splitlines()) == 1
        assert errors.startswith(f"error: {line}")
        assert "run the same command" in errors
    assert time.monotonic() - begun < 30
    if ends.startswith("SIG"):
        lost.kill()
    _, errors = lost.communicate(timeout=60)
    reasons = {
        "fails": "error: the disk is full",
        "fails at once": "error: --device cuda",
        "has a bug": "ZeroDivisionError",
    }
    assert reasons.get(ends, "") in errors


def test_a_first_process_that_is_gone_before_the_others_connect(tmp_path: Path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (tmp_path / "shared.json").write_text(f"[{port}, 1, 2, 3, 4]")
    _, errors = watched(1, tmp_path, "waits").communicate(timeout=60)
    assert len(errors.splitlines()) == 1
    assert f"no connection to process 0 of 3 at 127.0.0.1:{port}" in errors


def test_a_first_process_that_never_connects(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (tmp_path / "shared.json").write_text(f"[{port}, 1, 2, 3, 4]")
        _, errors = watched(1, tmp_path, "waits").communicate(timeout=60)
    assert errors.startswith("error: another of the 3 processes has not answered for 4 seconds")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("ends", ["fails", "waits"])
def test_processes_end_although_nobody_reads_their_errors(ends: str, tmp_path: Path):
    children = [watched(rank, tmp_path, ends if rank else "waits") for rank in range(3)]
    for child in children:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "joined\n"
        child.stdout.close()
        child.stderr.close()
    if ends == "waits":
        children[0].kill()
    for child in children[1:]:
        assert child.wait(timeout=60) == 1
    children[0].wait(timeout=60)


def test_a_process_that_works_long_or_is_done_alarms_nobody(tmp_path: Path):
    ends = ("works long", "is done", "works long")
    children = [watched(rank, tmp_path, each) for rank, each in enumerate(ends)]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert (child.returncode, errors) == (0, "")


def watched(rank: int, folder: Path, ends: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", PROCESS, str(rank), str(folder / "shared.json"), ends]
    return subprocess.Popen(
        words, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def trained(backend: str, rank: int, port: int, folder: Path) -> "subprocess.Popen[str]":
    """One of two processes that train together."""
    group = {
        "torch": {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "jax": {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(rank),
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"},
    }  # fmt: skip
    words = train_command(
        folder / "run", "--backend", backend, "--steps", "100000", "--answer-seconds", "5",
        "--checkpoint-seconds", "0",
    )  # fmt: skip
    return subprocess.Popen(
        words, cwd=ROOT, env=environment() | group[backend], text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_trainer_that_cannot_be_made_ends_its_process(monkeypatch, tmp_path: Path):
    """Otherwise JAX would wait at its exit for the others, and they for it."""

    def joined(*_: object) -> None:
        Watch.current = Watch(1, 2, 60)
        Watch.current.connected.set()
        raise InputError("--device cuda")

    monkeypatch.setattr(Watch, "current", None)
    monkeypatch.setattr("reference_models.training.run.new_trainer", joined)
    monkeypatch.setattr("reference_models.training.processes.end_process", sys.exit)
    with pytest.raises(SystemExit, match="error: --device cuda"):
        run(Options(out=tmp_path / "run"), Shared(), clock())


def test_a_process_that_does_not_know_its_place_is_an_error(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="WORLD_SIZE is 2, but RANK must be set too"):
        check_group(2, "cpu")
    with pytest.raises(InputError, match="but RANK and LOCAL_RANK must be set too"):
        check_group(2, "cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("RANK", "1")
    check_group(2, "cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="LOCAL_RANK is 1, but PyTorch finds 1 GPU here"):
        check_group(2, "cuda")
    monkeypatch.setenv("LOCAL_RANK", "0")
    check_group(2, "cuda")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot freeze a process")
@pytest.mark.parametrize(
    ("backend", "rank", "name"),
    [("torch", 1, "SIGSTOP"), ("jax", 1, "SIGKILL"), ("jax", 0, "SIGSTOP")],
)
def test_the_others_end_with_the_reason(backend: str, rank: int, name: str, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = trained(backend, 0, port, tmp_path)
    if (backend, rank) == ("torch", 1):
        # The other is late: the first one says for whom it waits.
        assert first.stderr is not None
        line = first.stderr.readline()
        assert line == f"waiting for 2 processes at 127.0.0.1:{port}\n"
    second = trained(backend, 1, port, tmp_path)
    lost, other = (second, first) if rank else (first, second)
    checkpoint = tmp_path / "run/checkpoint.safetensors"
    deadline = time.monotonic() + 300
    try:
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert checkpoint.exists()
        begun = time.monotonic()
        lost.send_signal(getattr(signal, name))
        _, errors = other.communicate(timeout=60)
    finally:
        for child in (first, second):
            child.kill()
        lost.communicate()
    assert other.returncode == 1, errors
    reason = "stopped" if name == "SIGKILL" else "has not answered for 5 seconds"
    last = errors.splitlines()[-1]
    assert f"error: process {rank} of 2 (counted from 0) {reason}" in last
    assert errors.count("rror") == 1
    assert "    @ " not in errors
    assert time.monotonic() - begun < 20
