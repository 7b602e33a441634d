"""Provenance of a run: package versions, hardware and commit."""

import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from reference_models.machine import cores
from reference_models.paths import ROOT


def versions(backend: str) -> dict[str, str]:
    frameworks = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}[backend]
    measures = ("pysodmetrics", "scikit-image", "scikit-learn")
    packages = (*frameworks, "numpy", "scipy", "pillow", *measures)
    return {"python": python_version()} | {name: version(name) for name in packages}


def hardware(device: str) -> str:
    """The name of the processor that computed."""
    if device != "cpu":
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return done.stdout.splitlines()[0].strip()
        except (OSError, subprocess.CalledProcessError, IndexError):
            return "unknown GPU"
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line[:10] == "model name"), "CPU")
    return f"{model}, {cores()} core{'s' * (cores() != 1)}"


def commit() -> str | None:
    """The commit this file belongs to, with "-dirty" after local changes; outside git what the
    environment variable COMMIT says, or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT")
    return done.stdout.strip()
