"""Several processes of one run: one that never joins, and one that is killed."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reference_models.errors import InputError
from reference_models.training.processes import waiting, with_others
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


def torch_process(rank: int, port: int, folder: Path) -> "subprocess.Popen[str]":
    group = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    words = train_command(folder / "run", "--steps", "100000")
    return subprocess.Popen(
        words, cwd=ROOT, env=environment() | group, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_others_end_with_the_reason_when_one_is_killed(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = torch_process(0, port, tmp_path)
    # The other is late: the first one says for whom it waits.
    assert first.stderr is not None
    line = first.stderr.readline()
    assert line == f"waiting for 2 processes at 127.0.0.1:{port}\n"
    second = torch_process(1, port, tmp_path)
    options = tmp_path / "run/options.json"
    deadline = time.monotonic() + 120
    while not options.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    second.kill()
    second.communicate()
    begun = time.monotonic()
    _, errors = first.communicate(timeout=90)
    assert first.returncode == 1, errors
    assert "error: another of the 2 processes stopped" in errors.splitlines()[-1]
    assert time.monotonic() - begun < 60
    assert options.exists()
