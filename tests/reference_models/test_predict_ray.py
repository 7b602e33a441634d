"""`predict_ray`: the same images as `predict`, also after a process was killed."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from reference_models import predict
from reference_models.files import write_arrays
from reference_models.options import Options
from reference_models.predict import Predict
from reference_models.training.frameworks import new_trainer

pytest.importorskip("ray")
PHOTOGRAPHS = 240
SECONDS = 300
"""Limit for the run, which takes 20 seconds on two idle cores."""


@pytest.fixture
def place(tmp_path, torch_settings) -> Path:
    """A folder with photographs, one of them damaged, and a finished run."""
    options = Options(recipe="menet-ce", scale="small", size=32, device="cpu")
    (tmp_path / "run").mkdir()
    about = {**options.as_json(), "inverted": False}
    write_arrays(tmp_path / "run/weights.safetensors", new_trainer(options).weights(), about)
    rng = np.random.default_rng(0)
    for i in range(PHOTOGRAPHS):
        folder = tmp_path / "photos" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (45, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "photos/0/0.png").write_bytes(b"no image")
    return tmp_path


def test_a_killed_process_loses_and_doubles_no_photograph(place):
    command = [sys.executable, "-m", "reference_models.predict_ray", "photos", "--model", "run"]
    with subprocess.Popen(
        [*command, "--networks", "2", "--out", "ray"],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        try:
            kill_workers(run, place / "ray")
            printed, _ = run.communicate(timeout=SECONDS)
        finally:
            run.kill()
    assert run.returncode == 1, printed
    assert f"{PHOTOGRAPHS - 1} photographs written" in printed
    assert "1 failed, listed in" in printed
    name, reason = (place / "ray/faults.tsv").read_text().rstrip("\n").split("\t")
    assert (name, "cannot be read" in reason) == (str(place / "photos/0/0.png"), True)
    options = Predict((place / "photos",), model=str(place / "run"), out=place / "one")
    assert len(predict.predict(options)) == 1
    files = {str(file.relative_to(place / "one")) for file in (place / "one").rglob("*.*")}
    assert len(files) == 3 * (PHOTOGRAPHS - 1) + 1
    # Partial files have names of their own, so these are all complete.
    assert files == {str(file.relative_to(place / "ray")) for file in (place / "ray").rglob("*.*")}
    for file in files - {"faults.tsv"}:
        with Image.open(place / "one" / file) as one, Image.open(place / "ray" / file) as other:
            assert one.tobytes() == other.tobytes()


def kill_workers(run: subprocess.Popen[str], out: Path) -> None:
    """Kill a process of Ray that holds the network and one that writes, while they work."""
    until = time.monotonic() + SECONDS
    wanted = {"MapWorker", "Map(Write)"}
    while wanted and time.monotonic() < until and run.poll() is None:
        if next(out.rglob("*-map.png"), None):
            for process in psutil.Process(run.pid).children(recursive=True):
                with suppress(psutil.Error):  # It has just ended.
                    title = " ".join(process.cmdline())
                    if found := {name for name in wanted if name in title}:
                        process.kill()
                        wanted -= found
        time.sleep(0.02)
    if wanted:
        run.kill()
        pytest.fail(f"no {wanted} to kill; the command printed {run.communicate()[0]}")
