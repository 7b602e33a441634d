"""The short forms: damaged files, and runs stopped at random moments."""

import sys
from pathlib import Path

import pytest

from tests.reliability.fuzz import fuzz
from tests.reliability.stops import stopped_runs


@pytest.mark.filterwarnings("default")  # As a user's Python has it.
def test_damaged_pictures_are_read_or_refused_by_name(tmp_path: Path):
    outcomes = fuzz(tmp_path, seed=0, count=800)
    assert min(outcomes.values()) > 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_run_stopped_at_random_moments_ends_with_the_same_bits(backend: str, tmp_path: Path):
    counts = stopped_runs(tmp_path, backend, seed=1, stops=3)
    assert counts.total() == 3
