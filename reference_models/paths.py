"""Folders and files of the repository, and the folder of the data sets."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "reference_models" / "weights"
RESULTS = ROOT / "results"
RUNS = RESULTS / "runs"
"""One JSON file per finished run, with the measures of its test images in a file beside it."""
AGREEMENT = RESULTS / "agreement"
"""One JSON file per network: its first training steps in both frameworks."""
DATA = Path("data")
"""Default folder of data sets and backbones, relative to the working directory."""
