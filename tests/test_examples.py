"""Every file of docs/examples runs by itself, is short, and has its line in the table."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "examples"
EXAMPLES = pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
# What the extra `examples` installs; these packages give warnings of their own.
NEEDS = {
    "torch_evaluation": ["torchmetrics"],
    "torch_lightning": ["lightning"],
    "torch_hf_trainer": ["transformers", "accelerate"],
}


@pytest.mark.slow
@EXAMPLES
def test_runs(file: Path) -> None:
    needs = NEEDS.get(file.stem, [])
    for package in needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    # On few threads, as other tests run beside it.
    settings = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "default" if needs else "error", str(file)],
        text=True,
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=os.environ | settings | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout


@EXAMPLES
def test_is_short_and_listed(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
    assert f"[{file.name}]({file.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")
