"""`predict_ray`: the same images as `predict`, also where processes are killed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference_models import predict
from reference_models.files import write_arrays
from reference_models.options import Options
from reference_models.predict import Predict
from reference_models.training.frameworks import new_trainer
from tests.support.paths import ROOT

pytest.importorskip("ray")
PHOTOGRAPHS = 48
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


def test_killed_processes_lose_and_double_no_photograph(place):
    killed = place / "killed"
    killed.mkdir()
    options = ["photos", "--model", "run", "--networks", "2", "--out", "ray"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_workers", *options],
        cwd=place,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        | {"KILLED": str(killed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert {mark.name for mark in killed.iterdir()} == {"network", "write"}, run.stdout
    assert run.returncode == 1, run.stdout
    assert f"images for {PHOTOGRAPHS - 1} photographs written" in run.stdout
    assert "1 failed, listed in" in run.stdout
    name, reason = (place / "ray/faults.tsv").read_text().rstrip("\n").split("\t")
    assert (name, "cannot be read" in reason) == (str(place / "photos/0/0.png"), True)
    same = Predict((place / "photos",), model=str(place / "run"), out=place / "one")
    assert len(predict.predict(same)) == 1
    files = written(place / "one")
    assert len(files) == 3 * (PHOTOGRAPHS - 1) + 1
    kept = written(place / "ray")
    assert sum(file.endswith(".partial") for file in kept) == 1  # Of the process that was killed.
    assert files == {file for file in kept if not file.endswith(".partial")}
    for file in files - {"faults.tsv"}:
        with Image.open(place / "one" / file) as one, Image.open(place / "ray" / file) as other:
            assert one.tobytes() == other.tobytes()


def written(folder: Path) -> set[str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix() for file in files}
