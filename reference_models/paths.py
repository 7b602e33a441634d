"""Folders and files of the repository, and the folder of the data sets."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "reference_models" / "weights"
RESULTS = ROOT / "results"
RUNS = RESULTS / "runs"
"""A JSON file per finished run, and the measures of its test images."""
AGREEMENT = RESULTS / "agreement"
"""A JSON file per network: its first steps in both frameworks."""
DATA = Path("data")
"""The default folder of the data sets and backbones, in the working directory."""
