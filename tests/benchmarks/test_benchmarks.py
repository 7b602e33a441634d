"""Benchmark commands end to end at tiny sizes; arithmetic and tables from stored rows."""

import csv
import subprocess
import sys
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from PIL import Image

from benchmarks import copies, distance, equal_iou, measures_speed, tables, training_steps
from benchmarks.backends import OURS, Backend, floor
from benchmarks.cases import CASES, paper_images
from benchmarks.tables import NBSP
from benchmarks.timing import STAMPS, Recorder, Row, time_call
from tests.support.paths import DATA, ROOT


def rows_of(*rows: Row) -> tables.Rows:
    """The rows as `read_rows` returns them from a CSV file."""
    stamps = dict.fromkeys(STAMPS, "") | {"threads": "1"}
    fields = ({k: "" if v is None else str(v) for k, v in vars(row).items()} for row in rows)
    return [{**values, **stamps} for values in fields]


def run_benchmark(out: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments, "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_growth_exponent_of_a_power_law(power: float) -> None:
    pixels = [256.0, 1024.0, 4096.0]
    seconds = [3e-9 * p**power for p in pixels]
    assert tables.growth_exponent(pixels, seconds) == pytest.approx(power, abs=1e-12)


def test_exponent_is_fitted_to_the_largest_sizes_and_names_them() -> None:
    # overhead at 16², linear from 32² on
    assert tables._exponent({16: 1.0, 32: 1.0, 64: 4.0, 128: 16.0}) == "1.00 (32²–128²)"
    assert tables._exponent({16: 1.0, 32: 4.0}) == "–"


def test_time_call_counts_calls_and_records_the_first_apart() -> None:
    row, calls = Row("case", "backend"), []
    units, floors = [], []
    time_call(
        row,
        lambda: calls.append(0) or 7.0,
        seconds=0.0,
        repeats=31,
        unit=lambda: units.append(0),
        floor=lambda: floors.append(0),
    )
    assert (row.repeats, len(calls), row.value) == (3, 5, 7.0)
    assert row.min_s is not None
    assert row.median_s is not None
    assert row.min_s <= row.median_s
    assert len(units) == len(floors) == 7  # in turns: a warm-up, then an untimed and a timed call
    assert row.unit_median_s is not None
    assert row.floor_median_s is not None


@pytest.mark.parametrize("backend", [b for b in OURS if b.mode != "compile"])
def test_the_floor_is_the_sum_of_squares_of_what_gets_gradients(backend: Backend) -> None:
    case = next(c for c in CASES if c.name.startswith("anchor"))
    inputs = case.inputs(0, 2, 8)
    expected = np.square(inputs["features"]).sum() + np.square(inputs["anchors"]).sum()
    assert float(floor(backend, case, inputs)()) == pytest.approx(float(expected), rel=1e-5)


def test_pairs_of_equal_iou_are_found_and_the_furthest_apart_is_named() -> None:
    mask = np.zeros((40, 40), bool)
    mask[20:32, 20:32] = True
    near, far, other = mask.copy(), mask.copy(), mask.copy()
    near[18:20, 20:32] = True  # 24 false alarms at the border, or in the corner
    far[:2, :12] = True
    other[20:30, 20:32] = False  # below the least IoU
    maps = [each.astype(float) for each in (near, far, other)]
    (pair,) = equal_iou.pairs_of(maps, mask)
    assert list(pair) == list(equal_iou.DETECTORS[:2])
    first, second = pair.values()
    assert first["iou"] == second["iou"] == pytest.approx(144 / 168)
    assert first["weighted_fmeasure"] > second["weighted_fmeasure"] + 0.03
    alike = {name: values | {"iou": 0.9} for name, values in pair.items()}
    closer = {name: dict.fromkeys(first, 0.9) for name in pair}
    summary = equal_iou.summary({"a": [closer], "b": [alike], "c": []})
    assert (summary["images"], summary["pairs_of_equal_iou"]) == (3, 2)
    for measure in equal_iou.MEASURES:
        assert summary["found"][measure]["image"] == "b"
        assert summary["found"][measure]["apart"] == 0
    halved = closer | {
        name: dict.fromkeys(first, 0.9) | {"weighted_fmeasure": 0.5} for name in [*pair][:1]
    }
    assert equal_iou.summary({"a": [halved]})["found"]["weighted_fmeasure"]["apart"] == 1


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_training_steps_are_timed_with_both_losses_on_the_same_images(backend: str) -> None:
    tiny = training_steps.Options(batch=2, size=32)
    losses: dict[str, list[float]] = {}
    steps = {}
    for name in (training_steps.CROSS_ENTROPY, training_steps.LOSSES[0]):
        step, side = training_steps.stepper(name, "medium", backend, tiny)
        assert side == 32
        losses[name] = []
        steps[name] = lambda step=step, name=name: losses[name].append(step())
    times = training_steps.in_turns(steps, repeats=1)
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys(steps, 1)
    assert all(0 < seconds < 60 for found in times.values() for seconds in found)
    first, second = losses.values()
    assert len({*first, *second}) == 6


def test_a_stopped_run_keeps_its_rows_and_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "compare.csv").write_text("old\n")
    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path, "compare", seed=3) as recorder:  # noqa: PT012
        recorder.add(Row("CAS", "exact", "forward", 16))
        raise KeyboardInterrupt
    assert (tmp_path / "compare.csv").read_text() == "old\n"
    (kept,) = tables.read_rows(tmp_path / "compare.partial.csv")
    assert tuple(kept) == (*(field.name for field in fields(Row)), *STAMPS)
    assert (kept["case"], kept["size"], kept["seed"]) == ("CAS", "16", "3")


def test_compare_table_from_rows() -> None:
    rows = []
    for size in (16, 32, 64, 128):
        exact = Row("metric", "exact", "forward", size, median_s=1e-6 * size**4)
        if size == 128:
            exact.median_s, exact.note = None, "skipped: too long"
        ours = Row("metric", "jax.jit", "forward", size, median_s=1e-6 * size**2)
        rows += [exact, ours]
    table = tables.compare_table(rows_of(*rows))
    assert f"| metric | 64² | 16.8{NBSP}s | 2.00 (16²–64²) | 4,096×, 1.00 (32²–128²) |" in table
    assert tables.notes(rows_of(*rows)) == "- metric, exact, 128²: skipped: too long.\n"


def test_paper_table_marks_what_was_extrapolated() -> None:
    names = ["a", "b", "c"]
    exact = [Row("F", "exact", "forward", 224, item=n, note="skipped") for n in names]
    exact[0].median_s = 10.0
    ours = [Row("F", "jax.jit", "forward", 224, item=n, median_s=0.01) for n in names]
    ours[1].median_s = 0.04  # an image that the exact measure did not reach counts in no speed-up
    table = tables.paper_table(rows_of(*exact, *ours))
    plain = table.replace(NBSP, " ")
    assert "| F | exact | 1 | 10.0 s (10.0 s–10.0 s) | 30.0 s, extrapolated from 1 |" in plain
    assert "| F | jax.jit | 3 | 20.0 ms (10.0 ms–40.0 ms) | 60.0 ms | 1,000× |" in plain


def test_speed_table_sets_multiples_beside_goals() -> None:
    case = next(c for c in CASES if c.name.startswith("CAS"))
    eager, compiled, jitted = case.goals or (0, 0, 0)
    times = {"torch eager": eager, "torch.compile": compiled, "jax.jit": 1.5 * jitted}
    rows = [
        Row(
            case.name,
            backend,
            "forward + backward",
            size,
            8,
            median_s=seconds,
            unit="BCE",
            unit_median_s=0.5,
            floor_median_s=1.0,
        )
        for size in (256, 512)
        for backend, seconds in times.items()
    ]
    goals, without = tables.speed_table(rows_of(*rows)).split("| 8 × C × 512² |")
    assert f"| {eager:.2f} ({2 * eager:.1f}; {eager},000) | {eager} |" in goals
    assert f", **1.50×** | {jitted} |" in goals
    assert "goal" not in without


def test_speed_table_reads_files_from_before_the_floor() -> None:
    row = Row("CAS", "torch eager", "forward + backward", 256, 8, median_s=0.01)
    (old,) = rows_of(replace(row, unit="BCE", unit_median_s=0.005))
    del old["floor_median_s"]
    assert "| – (2.00; 10.0) |" in tables.speed_table([old])


def test_growth_and_bandwidth_tables() -> None:
    rows = [
        Row("F", backend, "forward + backward", size, median_s=1e-9 * size ** (2 * power))
        for backend, power in (("torch eager", 1.0), ("torch.compile", 1.5))
        for size in (512, 1024, 2048)
    ]
    line = tables.growth_table(rows_of(*rows)).splitlines()[-1]
    assert line.startswith("| F | 1.1 | 1.00 (")
    assert "| **1.50** (" in line
    # 100 bytes copied are 200 moved in a second; 300 moved in three seconds are half of that
    row = Row(
        "F",
        "torch.compile, cuda",
        median_s=3.0,
        unit="copy of 100 bytes",
        unit_median_s=1.0,
        memory_bytes=300,
    )
    assert f"| F | 50% (3,000{NBSP}ms) |" in tables.bandwidth_table(rows_of(row))


def test_inputs_are_seeded_and_in_their_domain() -> None:
    for case in CASES:
        first, again = case.inputs(0, 2, 16), case.inputs(0, 2, 16)
        assert all(np.array_equal(first[k], again[k]) for k in first)
        assert set(case.gradients) <= set(first)
        for name in ("probs", "target"):
            if name in first:
                assert 0 <= first[name].min() <= first[name].max() <= 1
    assert len(paper_images(None, 0, 15, 24)) == 15


@pytest.mark.slow
def test_quick_compare_writes_rows_and_a_plot_and_prints_tables(tmp_path: Path) -> None:
    chosen = ("CAS", "window", "exact measure", "paper")
    printed = run_benchmark(tmp_path, "--sizes", "8", "12", "16", "--cases", *chosen)
    assert "## compare\n" in printed
    assert "## paper\n" in printed
    with (tmp_path / "compare.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[-len(STAMPS) :] == STAMPS
    assert {r["case"] for r in rows} == {c.name for c in CASES if c.exact} & {
        c.name for c in CASES if any(part in c.name for part in chosen)
    }
    assert {r["backend"] for r in rows} >= {"exact", "torch eager", "torch.compile", "jax.jit"}
    assert all(r["median_s"] and r["versions"] and r["commit"] and r["device"] for r in rows)
    assert {r["direction"] for r in rows if r["backend"] == "exact"} == {"forward"}
    assert all(float(r["difference"]) < 1e-5 for r in rows if r["difference"])
    assert any(r["difference"] for r in rows)
    paper = tables.read_rows(tmp_path / "paper.csv")
    assert len([r for r in paper if r["backend"] == "jax.jit" and r["median_s"]]) == 30
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_quick_speed_then_report_again(tmp_path: Path) -> None:
    printed = run_benchmark(tmp_path, "speed", "--sizes", "16", "--cases", "CAS", "window")
    rows = tables.read_rows(tmp_path / "speed.csv")
    assert not [r["note"] for r in rows if r["note"]]
    assert all(r["unit_median_s"] and r["threads"] == "1" for r in rows)
    assert all(r["floor_median_s"] for r in rows if r["direction"])
    assert not list(tmp_path.glob("*.partial.*"))
    assert tables.text("speed", rows) in printed
    assert run_benchmark(tmp_path, "report") == printed


def test_distances_beside_scipy(tmp_path: Path) -> None:
    """Each transform is timed in turns with SciPy's."""
    mask = np.zeros((9, 7), np.uint8)
    mask[3:5, 2:4] = 255
    with (
        zipfile.ZipFile(tmp_path / "ecssd.zip", "w") as archive,
        archive.open("m.png", "w") as file,
    ):
        Image.fromarray(mask).save(file, "PNG")
    options = distance.Options(
        tmp_path / "ecssd.zip", "m.png", sides=(16, 32), cases=("scipy",), seconds=0.01
    )
    timed = [row for row in distance.rows(options) if row.min_s]
    assert [(row.case, row.size) for row in timed] == [
        (f"scipy: distance_transform_edt{more}", side)
        for side in (16, 32)
        for more in ("", ", indices")
    ]
    assert all(row.unit_min_s for row in timed)


def test_copies_of_both_frameworks() -> None:
    rows = [*copies.rows(copies.Options(sizes=(8,), seconds=0.0))]
    assert len(rows) == 8
    assert {row.backend for row in rows} == {"torch eager", "jax.jit"}
    assert all(row.median_s for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "ecssd_baselines.zip").exists(), reason="needs the maps of ECSSD")
def test_the_measures_are_timed_beside_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("py_sod_metrics")
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    monkeypatch.setattr(measures_speed, "BATCHES", (8,))
    monkeypatch.setattr(measures_speed, "IMAGES", 8)
    rows = list(measures_speed.rows(measures_speed.Options(data=DATA, seconds=0)))
    assert [(row.backend, row.item) for row in rows] == [
        ("torch eager", "float64"),
        ("torch eager", "float32"),
        ("torch.compile", "float32"),
        ("jax.jit", "float32"),
    ]
    assert all(0 < row.min_s < 8 and row.min_s < 10 * row.unit_min_s for row in rows)
