"""Rows of test images: what is kept is close to what was measured, small, and always the same."""

import bz2
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reference_models import files
from reference_models.data.scenes import scenes
from reference_models.errors import InputError
from reference_models.measures import per_image
from reference_models.measures.per_image import Each
from reference_models.measures.saliency import EXACT, NAMES, means, measure_each
from reference_models.options import Options
from reference_models.training import run as run_module
from reference_models.training.stopping import clock

ALL = NAMES + EXACT
IMAGES, MASKS, PRIORS = scenes(40, 48, seed=3)
# Of all kinds: soft, sharp, hardly anything but 0 and 1, all within a few levels, dark.
MAPS = {
    "soft": PRIORS,
    "sharp": PRIORS**0.2,
    "binary": PRIORS > 0.4,
    "collapsed": 0.49 + 0.02 * PRIORS,
    "dark": 0.05 * PRIORS,
}
STEMS = tuple(f"scene-{i}" for i in range(len(MASKS)))


def measured(names: tuple[str, ...] = ALL) -> Each:
    rows = {name: measure_each(m, MASKS, names) for name, m in MAPS.items()}
    return Each(STEMS, names, rows, tuple(MASKS.mean(axis=(1, 2))))


@pytest.fixture(scope="module")
def every() -> Each:
    return measured()


@pytest.fixture(scope="module")
def file(every: Each, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "a.images.json.bz2"
    per_image.write(path, {"scenes": every, "scenes, noise 0.1": every})
    return path


def test_what_is_read_is_what_was_measured_to_half_a_thousandth(every: Each, file: Path):
    read = per_image.read(file)
    assert list(read) == ["scenes", "scenes, noise 0.1"]
    assert list(read["scenes"]) == list(MAPS)
    for name, rows in every.maps.items():
        one = read["scenes, noise 0.1"][name]
        assert one.stems == STEMS
        np.testing.assert_allclose(one.object_share, MASKS.mean(axis=(1, 2)), atol=0.000051)
        assert set(one.values) == set(ALL)
        for measure in set(ALL) - {"max_f", "e"}:
            values = [row[measure] for row in rows]
            np.testing.assert_allclose(one.values[measure][:, 0], values, atol=0.00051)
        for measure, mean in means(rows, ALL).items():
            assert one.mean(measure) == pytest.approx(mean, abs=0.0005), measure


@pytest.mark.parametrize("name", MAPS)
def test_max_f_of_any_half_of_the_images(every: Each, file: Path, name: str):
    """Its best threshold may be another than that of all images."""
    one, rng = per_image.read(file)["scenes"][name], np.random.default_rng(0)
    for _ in range(50):
        some = rng.permutation(len(STEMS))[:20]
        best = means([every.maps[name][i] for i in some], ["max_f"])["max_f"]
        assert one.mean("max_f", some) == pytest.approx(best, abs=0.002)


def test_equal_rows_are_equal_bytes(file: Path, tmp_path: Path):
    again = tmp_path / "b.images.json.bz2"
    every = measured()
    per_image.write(again, {"scenes": every, "scenes, noise 0.1": every})
    assert again.read_bytes() == file.read_bytes()


def test_a_measure_that_is_not_defined_is_no_number(tmp_path: Path):
    masks = MASKS[:4].copy()
    masks[1], masks[2] = False, True
    each = Each(STEMS[:4], ALL, {"map": measure_each(PRIORS[:4], masks, ALL)})
    per_image.write(tmp_path / "a", {"scenes": each})
    one = per_image.read(tmp_path / "a")["scenes"]["map"]
    assert np.isnan(one.values["max_f"]).all(axis=1).tolist() == [False, True, False, False]
    assert np.isnan(one.values["auroc"][:, 0]).tolist() == [False, True, True, False]
    assert not np.isnan(one.values["mae"]).any()
    assert one.mean("f") == pytest.approx(means(each.maps["map"], ["f"])["f"], abs=0.0005)


def test_tests_that_start_from_priors_keep_what_the_claims_need(every: Each, tmp_path: Path):
    per_image.write(tmp_path / "a", {"scenes": every}, started=True)
    maps = per_image.read(tmp_path / "a")["scenes"]
    assert list(maps) == list(MAPS)
    for place, one in enumerate(maps.values()):
        assert list(one.values) == ["mae", "f", *["max_f"] * (place < 3)]


def test_files_without_shares_of_object_pixels_are_read(every: Each, tmp_path: Path):
    per_image.write(tmp_path / "a", {"scenes": every._replace(object_share=None)})
    assert per_image.read(tmp_path / "a")["scenes"]["soft"].object_share is None


def thousand_times(rows: list, rng: np.random.Generator, count: int) -> list:
    """Rows that are no copies of each other, which would compress too well."""
    chosen = [
        (rows[i], rows[j], w)
        for i, j, w in zip(
            *rng.integers(len(rows), size=(2, count)), rng.uniform(0, 0.5, count), strict=True
        )
    ]
    return [{k: (1 - w) * one[k] + w * two[k] for k in one} for one, two, w in chosen]


@pytest.mark.parametrize("kind", ["saliency", "distorted", "from priors"])
def test_the_largest_runs_stay_below_450_kilobytes(every: Each, tmp_path: Path, kind: str):
    """All of ECSSD, PASCAL-S and DUTS-TE; eight versions of ECSSD with two maps; promoted maps of
    ECSSD from six priors and of PASCAL-S from one."""
    rng = np.random.default_rng(0)

    def test(count: int, *maps: str) -> Each:
        same = np.random.default_rng(count)  # All versions of a test set have the same images.
        digits = same.choice(10**8, count, replace=False)
        stems = tuple(f"ILSVRC2012_test_{digit:08}" for digit in digits)
        rows = {name: thousand_times(every.maps[name], rng, count) for name in maps}
        shares = tuple(same.uniform(0.02, 0.6, count))
        return Each(stems, ALL if kind == "saliency" else NAMES, rows, shares)

    promoted = ("soft", "binary", "sharp", "dark")
    tests = {
        "saliency": lambda: {str(n): test(n, "soft") for n in (1000, 845, 5019)},
        "distorted": lambda: {str(i): test(1000, "soft", "sharp") for i in range(8)},
        "from priors": lambda: {str(i): test(1000, *promoted) for i in range(7)},
    }[kind]()
    per_image.write(tmp_path / "a", tests, started=kind == "from priors")
    assert (tmp_path / "a").stat().st_size < 450_000
    read = per_image.read(tmp_path / "a")
    assert [len(one["soft"].stems) for one in read.values()] == [
        len(t.stems) for t in tests.values()
    ]


def test_a_file_that_is_none(file: Path, tmp_path: Path):
    def spoilt(change: Callable[[dict], object]) -> bytes:
        content = json.loads(bz2.decompress(file.read_bytes()))
        change(content)
        return bz2.compress(json.dumps(content).encode())

    broken = tmp_path / "broken"
    for content in (
        None,
        b"no archive",
        file.read_bytes()[:-100],
        bz2.compress(b"{}"),
        spoilt(lambda c: c["tests"]["scenes"]["stems"].pop()),
        spoilt(lambda c: c["tests"]["scenes"]["object_share"].pop()),
        spoilt(lambda c: c["tests"]["scenes"]["maps"]["soft"]["max_f"].pop("thresholds")),
    ):
        if content is not None:
            broken.write_bytes(content)
        with pytest.raises(
            InputError, match=r"broken does not hold the measures .* train it again"
        ):
            per_image.read(broken)


def test_a_run_leaves_its_rows_before_its_results(tmp_path: Path, monkeypatch):
    """A run counts as done once its JSON is there."""
    monkeypatch.setattr(Options, "is_unmodified", True)
    there = {}

    def write_json(path: Path, content: dict) -> None:
        there[path] = per_image.beside(path).is_file()
        files.write_json(path, content)

    monkeypatch.setattr(run_module, "write_json", write_json)
    options = Options(
        recipe="menet-metric",
        scale="small",
        data="scenes",
        size=32,
        train_images=8,
        test_images=4,
        steps=2,
        batch=4,
        out=tmp_path / "run",
    )
    run_module.run(options, run_module.Shared(), clock(), tmp_path / "results")
    results = tmp_path / "results" / f"{options.name}.json"
    assert there[results]
    report = json.loads(results.read_text())
    read = per_image.read(per_image.beside(results))
    assert list(read) == list(report["measures"])
    for test, maps in report["measures"].items():
        assert list(read[test]) == list(maps)
        for name, row in maps.items():
            assert set(read[test][name].values) == set(row)
            for measure, mean in row.items():
                assert read[test][name].mean(measure) == pytest.approx(mean, abs=0.001)
            if name == "features":  # Distances of features have no curves.
                continue
            curves = report["curves"][test][name]
            assert [len(curves[kind]) for kind in ("precision", "recall")] == [52, 52]
            assert curves["recall"] == sorted(curves["recall"])
            assert curves["recall"][-1] == 1
            assert len(read[test][name].object_share) == 4
