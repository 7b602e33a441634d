"""The JAX losses of a batch split over devices: each computes its own images, and one number is
sent."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.host_devices import host_devices
from tests.support.paths import ROOT

DEVICES = 4


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_stay_where_they_are(dtype: str) -> None:
    settings = host_devices(DEVICES) | {"JAX_ENABLE_X64": str(int(dtype == "float64"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.sharded"],
        text=True,
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=os.environ | settings,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert (found["devices"], found["dtype"]) == (DEVICES, dtype)
    cases = found["cases"]
    assert any(size > 1 for _, size in cases.pop("control")["sent"])
    wrong = {
        name: case
        for name, case in cases.items()
        # Scalars alone, for the mean over the images; what has no mean sends nothing.
        if not (case["off"] <= 1e-6 and case["by image"])
        or case["sent"] not in ([["all-reduce", 1]], [])
    }
    assert not wrong
