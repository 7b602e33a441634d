"""Provenance of a run: package versions, hardware and commit."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from reference_models.errors import count
from reference_models.machine import cores
from reference_models.paths import ROOT


def made_with(backend: str, device: str, precision: str) -> dict[str, object]:
    """Device, precision, package versions and commit, for results files."""
    return {
        "device": f"{device}: {hardware(device)}",
        "precision": precision,
        "versions": versions(backend),
        "commit": commit(),
    }


def versions(backend: str) -> dict[str, str]:
    """Versions of Python and of the packages that a run with this backend uses."""
    frameworks = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}[backend]
    measures = ("scikit-image", "scikit-learn")
    packages = (*frameworks, "numpy", "scipy", "pillow", *measures)
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def hardware(device: str) -> str:
    """Name of the GPU, or of the processor with the number of cores that this process may use."""
    if device != "cpu":
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return done.stdout.splitlines()[0].strip()
        except (OSError, subprocess.CalledProcessError, IndexError):
            return "unknown GPU"
    return f"{processor()}, {count(cores(), 'core')}"


def processor() -> str:
    """Model name of the processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or "CPU")


def commit() -> str | None:
    """The commit of this checkout, with "-dirty" if a tracked file outside results/ was changed.
    Outside git: the environment variable COMMIT, or None if it is not set."""
    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", EXCEPT_RESULTS)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT")
    return head + "-dirty" * bool(changed)


EXCEPT_RESULTS = ":(exclude,top)results"


def git(*arguments: str) -> str:
    """The output of a git command in this repository."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
