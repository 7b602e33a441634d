"""`predict_ray`: the same images as `predict`, also where processes are killed."""

import errno
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from reference_models import predict
from reference_models.errors import InputError
from reference_models.files import write_arrays
from reference_models.options import Options
from reference_models.predict import Predict
from reference_models.prediction.jobs import Job
from reference_models.prediction.outputs import Outputs
from reference_models.training.frameworks import new_trainer
from reference_models.training.photographs import choose_source
from tests.support.paths import ROOT

pytest.importorskip("ray")
from reference_models import predict_ray
from reference_models.predict_ray import PredictRay

PHOTOGRAPHS = 48
NUMBERS = re.compile(r"images for (\d+) photographs written .* (\d+) finished before; (\d+) failed")
SECONDS = 300
"""Limit for the run, which takes 40 seconds on two idle cores."""


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
    written_now, before, failed = map(int, NUMBERS.search(run.stdout).groups())
    assert written_now + before == PHOTOGRAPHS - 2
    assert failed == 2
    faults = dict(line.split("\t") for line in (place / "ray/faults.tsv").read_text().splitlines())
    damaged, deadly = faults
    assert damaged == str(place / "photos/0/0.png")
    assert "cannot be read" in faults[damaged]
    assert deadly == str(place / "photos/0/21.png")
    assert "ended the process that read it, each time" in faults[deadly]
    Path(deadly).unlink()
    same = Predict((place / "photos",), model=str(place / "run"), out=place / "one")
    assert len(predict.predict(same)) == 1
    files = written(place / "one")
    assert len(files) == 3 * (PHOTOGRAPHS - 2) + 1
    kept = written(place / "ray")
    assert sum(file.endswith(".partial") for file in kept) == 1  # Of the process that was killed.
    assert files == {file for file in kept if not file.endswith(".partial")}
    for file in files - {"faults.tsv"}:
        with Image.open(place / "one" / file) as one, Image.open(place / "ray" / file) as other:
            assert one.tobytes() == other.tobytes()


def test_errors_that_concern_all_photographs_end_the_command(place, monkeypatch):
    """Raised in a process of Ray, they would be taken for its end."""
    job = Job(place / "photos/1/1.png", Path("1/1"))
    source = choose_source(str(place / "run"), False)
    outputs = Outputs(place / "out", ("map",), "png", source.settings)
    read = predict_ray.Read(source.sizes, outputs, None)({"job": job})
    assert read["state"].inputs is not None

    broken = predict_ray.Network(replace(source, device="cuda"))
    gpu = broken({"state": [read["state"]]})["state"][0]
    if not torch.cuda.is_available():
        assert gpu.error.startswith("--device cuda: PyTorch finds no GPU")

    mapped = predict_ray.Network(source)({"state": [read["state"]]})["state"][0]
    assert mapped.error == ""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Outputs, "write", full)
    row = predict_ray.Write(outputs)({"state": mapped})
    assert (
        row["error"] == "[Errno 28] No space left on device; free some space, and run the same "
        "command again"
    )
    monkeypatch.setattr(Outputs, "tag", lambda *_: 1 / 0)
    defect = predict_ray.Read(source.sizes, outputs, None)({"job": job})["state"]
    assert "ZeroDivisionError" in predict_ray.Write(outputs)({"state": defect})["error"]

    monkeypatch.setattr(predict_ray, "cluster", lambda _: nullcontext())
    monkeypatch.setattr(
        predict_ray, "dataset", lambda *_: SimpleNamespace(iter_rows=lambda: iter([row]))
    )
    options = PredictRay((place / "photos",), model=str(place / "run"), out=place / "out")
    with pytest.raises(InputError, match="No space left on device; free some space"):
        predict_ray.predict_ray(options)
    assert not (place / "out/faults.tsv").exists()


def test_photographs_are_not_blamed_where_none_is_done(place, monkeypatch):
    passes = []

    def nothing(jobs: list[Job], *_: object) -> SimpleNamespace:
        passes.append(len(jobs))
        return SimpleNamespace(iter_rows=lambda: iter(()))

    monkeypatch.setattr(predict_ray, "cluster", lambda _: nullcontext())
    monkeypatch.setattr(predict_ray, "dataset", nothing)
    options = PredictRay((place / "photos",), model=str(place / "run"), out=place / "out")
    with pytest.raises(InputError, match="every process of Ray ended before"):
        predict_ray.predict_ray(options)
    assert passes == [PHOTOGRAPHS, PHOTOGRAPHS]
    monkeypatch.setattr(predict_ray, "BLOCK", 4)  # Not of so many in a row.
    with pytest.raises(InputError, match="every process of Ray ended before"):
        predict_ray.predict_ray(options)
    assert len(passes) == 3
    alone = replace(options, images=(place / "photos/1/1.png",))
    assert "ended the process that read it" in predict_ray.predict_ray(alone)[0]


def test_what_was_lost_is_done_again_one_by_one(place, monkeypatch):
    """The first pass loses all but one photograph, and the second one but one."""
    passes = []

    def dataset(jobs: list[Job], block: int, *_: object) -> SimpleNamespace:
        passes.append((len(jobs), block, _[-1].batch))
        done = jobs[:1] if len(passes) == 1 else jobs[:-1]
        rows = [{"stem": str(job.stem), "outcome": "", "error": ""} for job in done]
        return SimpleNamespace(iter_rows=lambda: iter(rows))

    monkeypatch.setattr(predict_ray, "cluster", lambda _: nullcontext())
    monkeypatch.setattr(predict_ray, "dataset", dataset)
    (place / "photos/2/47.png").rename(place / "photos/2/z\n.png")
    options = PredictRay((place / "photos",), model=str(place / "run"), out=place / "out", batch=4)
    (fault,) = predict_ray.predict_ray(options)
    assert passes == [(PHOTOGRAPHS, predict_ray.BLOCK, 4), (PHOTOGRAPHS - 1, 1, 1)]
    assert r"z\n.png ended the process that read it, each time" in fault


def written(folder: Path) -> set[str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix() for file in files}
