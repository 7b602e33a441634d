"""The short forms: damaged files, and runs stopped at random moments."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability.__main__ import report
from tests.reliability.fuzz import fuzz
from tests.reliability.stops import LEFT, stopped_runs


@pytest.mark.filterwarnings("default")  # As a user's Python has it.
def test_damaged_pictures_are_read_or_refused_by_name(tmp_path: Path):
    outcomes = fuzz(tmp_path, seed=0, count=800)
    assert min(outcomes.values()) > 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_run_stopped_at_random_moments_ends_with_the_same_bits(backend: str, tmp_path: Path):
    counts = stopped_runs(tmp_path, backend, seed=1, stops=3)
    assert counts.pop(LEFT) == 0
    assert counts.total() == 3


def test_the_report_of_the_long_form_counts_files_kills_and_processes():
    files = Counter({"read": 3, "refused": 2})
    stops = Counter({"SIGTERM": 2, "SIGKILL": 1, "ended before": 5, LEFT: 0})
    assert report(files, stops) == (
        "5 files tried (3 read, 2 refused by name), 3 kills survived (1 SIGKILL, 2 SIGTERM), "
        "0 processes left"
    )
