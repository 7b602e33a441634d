"""The report: what stands in its tables comes from the results, and what it judges is right."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from reference_models import paths
from reference_models.errors import InputError
from reference_models.measures import per_image
from reference_models.measures.features import NAMES as DISTANCES
from reference_models.measures.per_image import Each
from reference_models.measures.saliency import BINARY
from reference_models.papers.recipes import RECIPES, claims
from reference_models.papers.relations import PAIRS
from reference_models.papers.schema import (
    CONTOURS,
    Bound,
    Claim,
    Effects,
    EqualWeights,
    Table,
    at_least,
    at_most,
    number,
    row,
    within,
)
from reference_models.papers.zoomout import af_against_ce
from reference_models.reproduction import claims as claim_texts
from reference_models.reproduction import plots, report, results, runs, verdicts
from reference_models.reproduction.both_frameworks import frameworks_text
from reference_models.reproduction.seconds import seconds_text
from reference_models.training import figures

MAIN = {"menet": "saliency head", "metric-head": "saliency head", "relations": "merged"}


def made(recipe: str, scale: str = "small", seed: int = 0, device: str = "cpu: X", **values: float):
    """A results file of the shape that `train.run` writes; all measures are .5 if not given."""
    chosen = RECIPES[recipe]
    if chosen.regions > 2:
        names: tuple[str, ...] = ("covering", "rand", "variation_of_information", "regions")
        maps = ("regions",)
    else:
        names = (
            *BINARY * ("features" in chosen.further),
            "mae",
            "f",
            "max_f",
            "weighted_f",
            "s",
            "e",
            "auroc",
            "miou",
            "weighted_f_exact",
            "weighted_f_loss",
        )
        main = MAIN.get(chosen.system, "map")
        maps = {
            "menet": (main, "semantic distance"),
            "metric-head": (main, "semantic distance"),
            "relations": ("prior", "prior, cut at 1/2", "merged", "refined", "dense CRF"),
            "anchors": ("prior", "prior, cut at 1/2", "T = 5", "T = 1"),
        }.get(chosen.system, (main,))
        if chosen.loss == "ce" and chosen.system == "anchors":
            maps = ("map",)
        elif recipe == "anchors-rounds":
            maps = (*maps[:2], "T = 10", *(f"T = {t}" for t in range(1, 10)))
    names += ("sparse",) * ("sparse" in chosen.further)
    names += CONTOURS * ("contours" in chosen.further)
    tests = [
        f"{test}{end}"
        for test in chosen.tests
        for end in (
            [f", {p}" for p in chosen.test_priors.get(test, ())]
            or ["", *(f", {c}" for c in chosen.corruptions)]
        )
    ]
    given = {name: values.get(name, 0.5) for name in names}
    measures = {test: {name: dict(given) for name in maps} for test in tests}
    if "features" in chosen.further:
        distances = dict.fromkeys(DISTANCES, 0.5)
        measures |= {f"{test}, features": {"features": distances} for test in chosen.tests}
    if chosen.system == "relations":
        pairs = {name: values.get(name, 0.5) for name in ("true_foreground", "mutual_information")}
        rows = ("certain foreground", "approximate foreground", "first tenth", "last tenth")
        measures[PAIRS] = dict.fromkeys(rows, pairs)
    return {
        "recipe": recipe,
        "backend": "torch",
        "scale": scale,
        "seed": seed,
        "device": device,
        "schedule": {"steps": 30, "size": 224},
        "images": {"train": 9, "ecssd": 3},
        "notes": ["a note"],
        "versions": {"torch": "2"},
        "commit": "0123456789abcdef-dirty",
        "weights_sha256": "aa",
        "date": "2026-11-20",
        "seconds": {"data": 1.0, "training": 50.0, "evaluation": 9.0},
        "loss_curve": [2.0, 1.0],
        "measures": measures,
    }


def write(folder: Path, *results: dict) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for one in results:
        name = "{recipe}-{backend}-{scale}-{seed}.json".format(**one)
        (folder / name).write_text(json.dumps(one), encoding="utf-8")
    return folder


def everything() -> list[dict]:
    names = [name for name in RECIPES if not name.startswith("scenes-")]
    return [made(name, "small") for name in names] + [
        made(name, "medium", seed, "cuda: H100", f=0.5 + seed / 100)
        for name in names
        for seed in range(3)
    ]


def grouped(*made: dict) -> results.Results:
    found: results.Results = {}
    for one in made:
        found.setdefault((one["recipe"], one["scale"]), {})[one["seed"]] = one
    return found


def leave_rows(folder: Path, result: dict, images: int = 60, noise: float = 0.02) -> None:
    """The rows of a run whose means are those of the result; all runs find the same images hard."""
    rng = np.random.default_rng((result["seed"], *result["recipe"].encode()))
    hard = np.random.default_rng(7).normal(0, 0.1, images)
    stems = tuple(map(str, range(images)))

    def rows(means: dict[str, float]) -> list[dict]:
        every = {name: hard + noise * rng.normal(size=images) for name in means}
        centred = {name: means[name] + value - value.mean() for name, value in every.items()}
        return [
            {
                name: np.full(256, values[i]) if name in ("max_f", "e") else values[i]
                for name, values in centred.items()
            }
            for i in range(images)
        ]

    each = {
        test: Each(
            stems,
            tuple(next(iter(maps.values()))),
            {m: rows(v) for m, v in maps.items()},
            tuple(np.random.default_rng(8).permutation(images) / images),
        )
        for test, maps in result["measures"].items()
    }
    name = "{recipe}-{backend}-{scale}-{seed}.json".format(**result)
    per_image.write(per_image.beside(folder / name), each)


def test_without_results_only_the_papers_figures_stand_there(tmp_path):
    report.report(tmp_path / "none", tmp_path)
    text = (tmp_path / "docs/results.md").read_text(encoding="utf-8")
    assert "| fcn-ce-clean | MAE .068, F .905 |" in text
    assert "pending" not in text
    assert not re.findall(r"(?:medium|small): [MFR]|verdict \||Bounds \((?!not run)", text)
    assert not list(tmp_path.rglob("*.png"))


def test_the_committed_report_is_that_of_the_committed_results():
    if not (paths.ROOT / "reference_models/weights").is_dir():
        pytest.skip("a source distribution has no rows of test images")
    stale = report.report(paths.ROOT / "results/runs", check=True)
    assert stale == [], "python -m reference_models.reproduction.report"


def test_a_second_time_gives_the_same_files_and_check_sees_any_change(tmp_path):
    folder = write(tmp_path / "results", *everything())
    assert report.report(folder, tmp_path, check=True)
    assert not (tmp_path / "docs").exists()
    report.report(folder, tmp_path)
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.suffix in (".md", ".png")}
    assert {p.name for p in files} == {
        "results.md",
        "RUNS.md",
        *(f"results-effects-{letter}.png" for letter in "mcwlr"),
        "results-noise.png",
        "results-information.png",
        "results-rounds.png",
        "results-swapped.png",
        "results-textures.png",
        "results-losses.png",
    }
    assert report.report(folder, tmp_path) == []
    assert {p: p.read_bytes() for p in files} == files
    # What is drawn tells a picture of old results, though its bytes are not compared.
    write(folder, made("metric-head-ce", f=0.25))
    write(folder, made("metric-head-ce", "medium", device="cuda: H100", f=0.25))
    stale = report.report(folder, tmp_path, check=True)
    assert "docs/results.md" in stale
    assert "docs/figures/results-noise.png" in stale
    assert "docs/figures/results-losses.png" not in stale
    (tmp_path / "docs/figures/results-old.png").touch()
    assert "docs/figures/results-old.png" in report.report(folder, tmp_path)
    assert not (tmp_path / "docs/figures/results-old.png").exists()


def test_every_row_finds_its_value_once_all_has_run(tmp_path):
    """No recipe, test set or map is misnamed in the claims."""
    every = everything()
    folder = write(tmp_path, *every)
    for one in every:
        if one["recipe"] in ("fcn-ce-clean", "fcn-cas-clean"):
            leave_rows(folder, one)
    found = results.read(folder)
    results.add_thirds(found, results.per_image_files(folder, found))
    for claim in claims():
        for part in claim.tables:
            for one, measure, scale in product(part.rows, part.measures, ("medium", "small")):
                assert results.values(found, scale, one, measure), one
    text = report.results_text(found, {}, {}, (), ()).partition("\n## ")[2]
    assert "pending" not in text
    assert " |  |" not in re.sub(r"(?m)^(\| [^|]* \|) [^|]* \|", r"\1", text), "an empty cell"


def test_thirds_of_the_images_by_the_size_of_the_object(tmp_path):
    shares = (0.3, 0.1, 0.5, 0.2, 0.6, 0.4)
    rows = [{"f": 0.1 * place, "mae": share} for place, share in enumerate(shares)]
    each = Each(tuple("abcdef"), ("f", "mae"), {"map": rows}, shares)
    result = made("fcn-cas-clean")
    folder = write(tmp_path, result)
    per_image.write(per_image.beside(folder / "fcn-cas-clean-torch-small-0.json"), {"ecssd": each})
    found = results.read(folder)
    readers = results.per_image_files(folder, found)
    results.add_thirds(found, readers)
    smallest = row("fcn-cas-clean", "ecssd, smallest third")
    assert results.values(found, "small", smallest, "f") == {0: pytest.approx(0.2)}
    assert results.values(found, "small", smallest, "mae") == {0: pytest.approx(0.15)}
    largest = row("fcn-cas-clean", "ecssd, largest third")
    (measured,) = results.rows_of(readers, "small", largest, [0])
    assert measured.stems == ("c", "e")
    assert measured.object_share == pytest.approx([0.5, 0.6])


def test_no_two_bounds_of_a_claim_look_alike():
    """A label must name all that tells its rows from others, such as the test set."""
    for claim in claims():
        shown = [(test.label, test.bounds) for test in verdicts.tested({}, {}, claim, "small")]
        assert len(set(shown)) == len(shown), claim.title


def test_every_recipe_on_real_data_stands_in_a_table():
    shown = {line.recipe for c in claims() for part in c.tables for line in part.rows}
    assert shown == {name for name in RECIPES if not name.startswith("scenes-")}


def test_differences_are_paired_by_seed_and_paper_stands_beside():
    found = grouped(
        made("zoomout-af", "medium", 0, f=0.8),
        made("zoomout-af", "medium", 1, f=0.9),
        made("zoomout-ce", "medium", 1, f=0.7),
        made("zoomout-ce", "medium", 2, f=0.1),
    )
    af, ce = row("zoomout-af"), row("zoomout-ce")
    assert results.differences(found, "medium", af, ce, "f") == {1: pytest.approx(0.2)}
    assert results.differences(found, "small", af, ce, "f") == {}
    printed = results.printed_differences(af, ce)
    assert printed["weighted_f_exact"] == pytest.approx(0.031)
    assert "f" not in printed


AF = row("zoomout-af")
AT_LEAST = at_least(AF, None, "f", 0.005)
EACH_TOO = at_least(AF, None, "f", 0.02, per_seed_min=-0.02)
AT_MOST = at_most(AF, None, "mae", -0.015)
WITHIN = within(AF, row("zoomout-ce"), "f", 0.01)


@pytest.mark.parametrize(
    ("bound", "interval", "verdict"),
    [
        (AT_LEAST, (0.005, 0.02), "holds"),
        (AT_LEAST, (0.0049, 0.02), "not decided"),  # Printed as .005, but not rounded to judge.
        (AT_LEAST, (-0.02, 0.0051), "not decided"),
        (AT_LEAST, (-0.02, 0.0049), "refuted"),
        (AT_MOST, (-0.03, -0.015), "holds"),
        (AT_MOST, (-0.03, -0.01), "not decided"),
        (AT_MOST, (-0.01, 0.01), "refuted"),
        (WITHIN, (0, 0), "holds"),
        (WITHIN, (-0.01, 0.01), "holds"),
        (WITHIN, (-0.011, 0.01), "not decided"),
        (WITHIN, (-0.2, 0.2), "not decided"),
        (WITHIN, (0.011, 0.02), "refuted"),
        (WITHIN, (-0.02, -0.011), "refuted"),
    ],
)
def test_bounds_by_the_interval(bound: Bound, interval: tuple[float, float], verdict: str):
    found = {0: (interval[0] + interval[1]) / 2}
    assert verdicts.verdict(bound, found, interval) == verdict


def test_a_value_without_an_interval_decides_nothing():
    assert verdicts.verdict(AT_LEAST, {0: 0.5}, None) == "not decided"


def test_a_seed_below_what_each_must_keep_refutes():
    assert verdicts.verdict(EACH_TOO, {0: 0.1, 1: -0.03}, (0.03, 0.05)) == "refuted"
    assert verdicts.verdict(EACH_TOO, {0: 0.1, 1: 0.03}, (0.03, 0.05)) == "holds"


SCALES = ("medium", "small")


def line_of(
    found: results.Results, claim: Claim, known: verdicts.Intervals | None = None
) -> list[str]:
    """The line of a claim in the table of verdicts, at both scales."""
    return claim_texts.verdict_line(found, known or {}, claim, SCALES)


EFFECT = "F +.01 in a plot"
CLAIM = Claim(
    "W: a claim",
    "Words.",
    (),
    Effects(()),
    (
        at_least(row("zoomout-af"), row("zoomout-ce"), "f", 0.005),
        at_least(row("zoomout-af"), row("zoomout-ce"), "weighted_f_exact", 0.005),
        at_most(row("zoomout-exact"), row("zoomout-ce"), "mae", -0.005),
        at_least(row("zoomout-af", "duts-te"), row("zoomout-ce", "duts-te"), "f", 0.005),
    ),
    effect=EFFECT,
)


TITLE = '[W: a claim](#w-a-claim "zoomout-af − zoomout-ce: Fʷ exact")'


def two_seeds(**by_recipe: float) -> results.Results:
    """Runs of W whose F is given and the same for both seeds, so that every interval is a point."""
    return grouped(
        *(
            made(f"zoomout-{name}", seed=seed, f=f)
            for name, f in by_recipe.items()
            for seed in range(2)
        )
    )


def known_of(found: results.Results, claim: Claim) -> verdicts.Intervals:
    """The intervals over seeds of a claim's bounds."""
    known: verdicts.Intervals = {}
    for bound, scale in product(claim.bounds, SCALES):
        of, minus, measure = bound.of, bound.minus, bound.measure
        one = verdicts.intervals_of(found, {}, scale, of, minus, [measure])
        known.setdefault((scale, of, minus), {}).update(one)
    return known


def test_a_claim_has_one_line_with_the_difference_that_the_paper_prints_too():
    found = two_seeds(af=0.71, ce=0.7)
    title, paper, medium, small, verdict, kept = line_of(found, CLAIM, known_of(found, CLAIM))
    assert title == TITLE
    assert (paper, medium) == ("Fʷ exact +.031", "")
    assert small == "Fʷ exact .000 [.000,\N{NO-BREAK SPACE}.000]"
    assert verdict == "**refuted** (≥\N{NO-BREAK SPACE}+.005)"
    assert kept == "2 of 3", "one bound is of a run that is missing"
    text = claim_texts.claim_text(found, known_of(found, CLAIM), CLAIM)
    assert "*In the table above: zoomout-af − zoomout-ce: Fʷ exact ≥ +.005.*" in text
    unmeasured = replace(CLAIM, bounds=CLAIM.bounds[:1])
    assert line_of({}, unmeasured)[1:] == [EFFECT, "", "", "not run", ""]
    pair = (row("zoomout-af"), row("zoomout-ce"))
    without = replace(CLAIM, bounds=(), effects=Effects((pair,), ("f", "weighted_f_exact")))
    line = [TITLE, "Fʷ exact +.031", "", "Fʷ exact .000", "no bound", ""]
    assert line_of(found, without) == line
    for seeds in found.values():
        del seeds[1]
    assert line_of(found, without)[3] == "Fʷ exact .000†"


def test_the_verdict_is_of_the_largest_scale_at_which_the_difference_was_measured():
    claim = replace(CLAIM, bounds=CLAIM.bounds[:1])
    found = two_seeds(af=0.71, ce=0.7)
    for name, f in (("af", 0.7), ("ce", 0.71)):
        for seed in range(2):
            one = made(f"zoomout-{name}", "medium", seed, f=f)
            found.setdefault((one["recipe"], "medium"), {})[seed] = one
    refuted = ["**refuted** (≥\N{NO-BREAK SPACE}+.005)", "0 of 1"]
    assert line_of(found, claim, known_of(found, claim))[-2:] == refuted
    del found["zoomout-ce", "medium"]
    assert line_of(found, claim, known_of(found, claim))[-2:] == [
        "holds (≥\N{NO-BREAK SPACE}+.005)",
        "1 of 1",
    ]


def test_rows_without_a_run_are_named_below_their_table():
    found = two_seeds(af=0.71, ce=0.7)
    shown = Table("ECSSD", (row("zoomout-af"), row("zoomout-dice"), row("fcn-ce-clean")), ("f",))
    text = claim_texts.table_text(found, shown)
    assert "| zoomout-af |  | .710 ± .000 |" in text
    assert "| fcn-ce-clean | F .905 |  |" in text, "its printed figure is shown all the same"
    assert "| zoomout-dice" not in text
    assert "\n\nNot run: zoomout-dice." in text
    assert "| zoomout-dice |" in claim_texts.table_text({}, shown)


def test_runs_on_other_images_are_not_subtracted():
    found = two_seeds(af=0.71, ce=0.7)
    found["zoomout-ce", "small"][1]["images"] = {"train": 9, "ecssd": 4}
    pair = row("zoomout-af"), row("zoomout-ce")
    assert results.differences(found, "small", *pair, "f") == {0: pytest.approx(0.01)}


def test_a_label_in_parentheses_stands_beside_what_the_paper_prints():
    ce = row("zoomout-ce", label="zoomout-ce (other data)")
    claim = replace(CLAIM, bounds=(at_least(row("zoomout-af"), ce, "weighted_f_exact", 0.005),))
    _, paper, *_ = line_of({}, claim)
    assert paper == "Fʷ exact +.031 (other data)"


@pytest.mark.parametrize(
    ("split", "parts", "told"),
    [
        (
            "network",
            ["zoomout-af", "zoomout-exact"],
            ["2 of 3 hold, **1 refuted**", "**refuted**"],
        ),
        (
            "test",
            ["ECSSD", "DUTS-TE"],
            ["1 of 3 hold, **2 refuted**", "holds"],
        ),
    ],
)
def test_a_split_claim_has_a_verdict_for_each_part_in_its_section(split, parts, told):
    found = two_seeds(af=0.71, ce=0.7, exact=0.7)
    claim = replace(CLAIM, split=split)
    assert parts_of(found, claim) == list(zip(parts, told, strict=True))
    assert line_of(found, claim, known_of(found, claim))[-1] == "2 of 4"
    assert parts_of(found, CLAIM) == []


def parts_of(found: results.Results, claim: Claim) -> list[tuple[str, str]]:
    """The parts of a claim in its section, with their verdicts."""
    by_scale = claim_texts.tested_at_scales(found, known_of(found, claim), claim)
    text = claim_texts.parts_text(claim, by_scale)
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    return [(line[0], line[-1]) for line in cells[2:]]


def test_equal_weights_are_a_part_of_their_own():
    pair = EqualWeights("fcn-cas-clean", "fcn-cas-swapped")
    claim = replace(CLAIM, bounds=CLAIM.bounds[:1], equal_weights=(pair,), split="network")
    found = grouped(made(pair.first), made(pair.second))
    assert parts_of(found, claim) == [("zoomout-af", "not run"), ("equal weights", "holds")]


def test_runs_at_the_papers_scale_stand_beside_the_papers_figures(tmp_path):
    runs = [
        made(name, scale, f=f, weighted_f_exact=f, weighted_f=f, miou=f)
        for name, f in (("zoomout-ce", 0.7), ("zoomout-af", 0.72))
        for scale in ("paper", "small")
    ]
    folder = write(tmp_path / "results", *runs)
    report.report(folder, tmp_path)
    text = (tmp_path / "docs/results.md").read_text(encoding="utf-8")
    assert "| claim | paper | paper scale | small | verdict | bounds kept |" in text
    assert "paper scale: MAE" in text
    assert "*paper scale*: " in text


def test_medium_stands_beside_small_where_it_was_run(tmp_path):
    """Three runs at medium scale, which three claims show: nothing else gets a column."""
    medium = [
        made("zoomout-ce", "medium", f=0.7, weighted_f_exact=0.7, weighted_f=0.7, miou=0.7),
        made("zoomout-af", "medium", f=0.72, weighted_f_exact=0.72, weighted_f=0.72, miou=0.72),
        made("zoomout-exact", "medium", f=0.7, mae=0.4, weighted_f_exact=0.752),
    ]
    names = [name for name in RECIPES if not name.startswith("scenes-")]
    folder = write(tmp_path / "results", *medium, *map(made, names))
    for one in medium:
        leave_rows(folder, one)
    report.report(folder, tmp_path)
    text = (tmp_path / "docs/results.md").read_text(encoding="utf-8")
    assert "pending" not in text
    parts = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    for title, part in parts.items():
        assert ("medium: MAE" in part) == (title[0] == "W"), title
    (of_w,) = (part for title, part in parts.items() if title[0] == "W")
    difference, *_ = re.findall(r"(?m)^\| zoomout-af − zoomout-ce[^|:]* \|.*", of_w)
    medium_f = difference.split(" | ")[4]
    mean, low, high = re.fullmatch(r"(\+\.\d+) \[(\+\.\d+),\s(\+\.\d+)\]", medium_f).groups()
    assert float(low) < float(mean) == 0.02 < float(high)
    line = r"\| zoomout-exact − zoomout-ce: Fʷ exact \| ≥ \+\.050 \| (.*): (.*) \| (.*): (.*) \|"
    medium_value, *others = re.search(line, of_w).groups()
    assert re.fullmatch(r"\+\.052 \[\+.*\]", medium_value)
    assert others == ["not decided", ".000", "not decided"]
    verdicts_table = text.partition("\n## ")[0]
    (line,) = re.findall(r"\| \[W: the exact measure.*", verdicts_table)
    cells = line.strip("| ").split(" | ")
    assert cells[2] == f"Fʷ exact {medium_value}†", "one seed"
    assert cells[-2] == "not\N{NO-BREAK SPACE}decided (≥\N{NO-BREAK SPACE}+.050)"


def measured(folder: Path, *runs: dict) -> tuple[results.Results, verdicts.Intervals]:
    """Runs that left rows of their images: their results, and the intervals of all differences."""
    write(folder, *runs)
    for one in runs:
        leave_rows(folder, one)
    found = results.read(folder)
    return found, verdicts.all_intervals(found, results.per_image_files(folder, found))


def test_several_seeds_have_both_their_spread_and_an_interval(tmp_path):
    every = [
        made(name, "medium", seed, weighted_f_exact=f + 0.01 * seed)
        for name, f in (("zoomout-ce", 0.7), ("zoomout-af", 0.6))
        for seed in range(3)
    ]
    found, known = measured(tmp_path, *every)
    (pair,) = {pair for pair in af_against_ce().effects.pairs if pair[0].test == "ecssd"}
    text = claim_texts.effects_text(found, known, Effects((pair,), ("weighted_f_exact",)))
    assert re.search(r"−\.100 ± \.000 \[−\.1\d\d,\s−\.0\d\d\]", text)
    claim = replace(CLAIM, bounds=(at_least(*pair, "weighted_f_exact", 0.005),))
    _, _, value, _, verdict, _ = line_of(found, claim, known)
    assert re.fullmatch(r"Fʷ exact −\.100 \[−\.1\d\d,\s−\.0\d\d\]", value)
    assert verdict == "**refuted** (≥\N{NO-BREAK SPACE}+.005)"
    # The rows of one seed say how much the images matter, also without those of the others.
    for seed in (1, 2):
        per_image.beside(tmp_path / f"zoomout-ce-torch-medium-{seed}.json").unlink()
    known = verdicts.all_intervals(found, results.per_image_files(tmp_path, found))
    _, _, value, _, verdict, _ = line_of(found, claim, known)
    assert re.fullmatch(r"Fʷ exact −\.100 \[−\.1\d\d,\s−\.0\d\d\]", value)
    # Without any rows the seeds alone decide.
    assert line_of(found, claim, known_of(found, claim))[2].endswith(
        "[−.100,\N{NO-BREAK SPACE}−.100]"
    )


def test_a_measure_of_fewer_seeds_has_an_interval_of_these(tmp_path):
    runs = [made(f"zoomout-{loss}", seed=seed) for loss in ("af", "ce") for seed in range(2)]
    for result in (one for one in runs if one["seed"] == 1):
        for maps in result["measures"].values():
            del maps["map"]["miou"]
    _, known = measured(tmp_path, *runs)
    (pair,) = {pair for pair in af_against_ce().effects.pairs if pair[0].test == "ecssd"}
    assert {"mae", "miou"} <= set(known["small", *pair])
    low, high = known["small", *pair]["mae"]
    assert low < 0 < high


def test_a_value_without_a_second_row_has_an_interval_too(tmp_path):
    collapsed = made("fcn-ce-swapped", "medium", mae=0.5, max_f=0.46)
    found, known = measured(tmp_path, collapsed)
    (claim,) = (c for c in claims() if c.title.startswith("C: labels"))
    by_label = {one.label: one for one in verdicts.tested(found, known, claim, "medium")}
    assert by_label["fcn-ce-swapped, ECSSD: MAE"].verdict == "holds"
    assert re.fullmatch(
        r"\.500 \[\.4\d\d,\s\.5\d\d\]", by_label["fcn-ce-swapped, ECSSD: MAE"].measured
    )
    assert by_label["fcn-ce-swapped, ECSSD: max F"].verdict == "not decided"
    unmeasured = by_label["weights of fcn-cas-clean and fcn-cas-swapped"]
    assert (unmeasured.measured, unmeasured.verdict) == ("", None)


def test_seconds_stand_in_one_table():
    timed = made("zoomout-ce", "medium") | {
        "inference_seconds": {"1": 0.0301, "8": 0.0212},
        "precision": "bfloat16",
    }
    beside = timed | {"seed": 1, "backbone_seconds": {"1": 0.0301, "8": 0.0106}}
    text = "\n".join(seconds_text([timed, beside, made("fcn-ce-clean")]))
    row = "| zoomout-ce | medium | torch | cpu: X | 224 | bfloat16 | 50 | 30.1 | 21.2 | 1.00 | 2.00"
    assert f"{row} | 94, portraits 36" in text
    text = "\n".join(seconds_text([timed]))
    assert "| 30.1 | 21.2 |  |  | 94, portraits 36" in text
    assert "fcn-ce-clean" not in text
    assert seconds_text([made("fcn-ce-clean")]) == []


def test_equal_bits_are_asked_for_on_a_cpu_alone():
    pair = EqualWeights("fcn-cas-clean", "fcn-cas-swapped")
    first, second = made(pair.first), made(pair.second)
    assert verdicts.equal_weights(grouped(first, second), "small", pair) == {0: True}
    second["weights_sha256"] = "bb"
    assert verdicts.equal_weights(grouped(first, second), "small", pair) == {0: False}
    second["device"] = "cpu: Y"  # Another order of summation.
    assert verdicts.equal_weights(grouped(first, second), "small", pair) == {0: None}
    assert verdicts.equal_weights(
        grouped(first, second | {"weights_sha256": "aa"}), "small", pair
    ) == {0: True}
    second["device"] = "cuda: H100"
    equal = verdicts.equal_weights(grouped(first, second), "small", pair)
    assert equal == {0: None}
    claim = replace(af_against_ce(), bounds=(), equal_weights=(pair,))
    (tested,) = verdicts.tested(grouped(first, second), {}, claim, "small")
    assert (tested.measured, tested.verdict) == ("not required on a GPU or on two CPUs", None)
    (tested,) = verdicts.tested({}, {}, claim, "small")
    assert (tested.measured, tested.verdict) == ("", None)


def test_numbers():
    assert number(0.8374) == ".837"
    assert number(1.5) == "1.500"
    assert number(-0.02) == "−.020"
    assert verdicts.signed(0.0131) == "+.013"
    assert verdicts.signed(-0.0001) == ".000"
    assert verdicts.spread({0: 0.5, 1: 0.6, 2: 0.7}) == ".600 ± .100"
    assert verdicts.spread({0: 0.5}) == ".500"
    assert verdicts.spread({0: 0.5, 1: 0.5}, (-0.01, 0.0111), sign=True) == (
        "+.500 ± .000 [−.010,\N{NO-BREAK SPACE}+.011]"
    )
    assert verdicts.spread({}) == ""


def test_runs_say_which_seeds_are_done():
    one = made("zoomout-ce", "medium", 1, "cuda: H100") | {"date": "2026-11-21"}
    text = runs.runs_text(grouped(one), {})
    assert (
        "| zoomout-ce | 1960 × 32 | 1: 1 + 0, 2026-11-21, cuda: H100, commit 0123456789-dirty |"
        in text
    )
    assert "| zoomout-exact | 1960 × 32 |  |" in text
    order = [name for name in re.findall(r"^\| ([\w-]+) \|", text, re.M) if name != "recipe"]
    assert order[:2] == ["zoomout-ce", "zoomout-exact"]


def test_results_that_are_none(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"a\.json is not a results file"):
        results.read(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(made("fcn-ce-clean") | {"recipe": "gone"}))
    with pytest.raises(InputError, match="'gone' no longer exists"):
        results.read(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(made("fcn-ce-clean") | {"backend": "jax"}))
    assert results.read(tmp_path) == {}


def test_a_picture_remembers_what_it_shows(tmp_path):
    lines = (("ce", ((0.0, (0.8, 0.9)), (0.1, (0.5, 0.6)))),)
    plot = figures.Plot("lines", (figures.Panel("t", lines, "x", "y"),))
    figures.draw(plot, tmp_path / "a.png")
    assert figures.stored_digest(tmp_path / "a.png") == plot.digest()
    assert figures.stored_digest(tmp_path / "b.png") is None


def test_the_legend_names_colours_and_dashes_apart_where_all_lines_come_in_pairs():
    points: figures.Points = ((0.0, (0.8,)), (1.0, (0.5,)))
    labels = [f"{name}, {end}" for name in "abcde" for end in ("T = 1", "prior")]
    by_colour = [*"abcde", "T = 1", "prior"]
    alone = list("abcde")
    for shown, entries in ((labels, by_colour), (labels[:-1], labels[:-1]), (alone, alone)):
        panel = figures.Panel("t", tuple((label, points) for label in shown))
        (legend,) = figures.lines(figures.Plot("lines", (panel,))).legends
        assert [text.get_text() for text in legend.get_texts()] == entries


def with_curves(result: dict) -> dict:
    """The results file of a run that has curves: precision falls from .9 to .4, recall rises."""
    precision, recall = np.linspace(0.9, 0.4, 52).tolist(), np.linspace(0, 1, 52).tolist()
    curves = {
        test: {name: {"precision": precision, "recall": recall} for name in maps}
        for test, maps in result["measures"].items()
    }
    return result | {"curves": curves}


def test_curves_are_drawn_for_the_runs_that_have_them(tmp_path):
    ce, af = with_curves(made("zoomout-ce")), made("zoomout-af")
    current = plots.plots(grouped(ce, af), {}, [])
    precise, f_measure = current["results-curves-w"].panels
    ((label, points),) = precise.lines
    assert label == "zoomout-ce"
    assert points[-1] == (1.0, (0.4,))
    assert len(points) == 51, "without the threshold that no pixel reaches"
    ((_, points),) = f_measure.lines
    assert points[0] == (0.0, (round(1.3 * 0.4 / (0.3 * 0.4 + 1), 4),))
    assert [at for at, _ in points] == sorted(at for at, _ in points)
    assert "results-curves-w" not in plots.plots(grouped(af), {}, [])


def test_f_is_drawn_after_each_round():
    result = made("anchors")
    row_of_zeros = dict.fromkeys(("mae", "f", "max_f"), 0.0)
    for maps in result["measures"].values():
        for rounds in range(1, 11):
            maps[f"T = {rounds}"] = row_of_zeros | {"f": 0.7 + rounds / 100}
    f, mae = plots.plots(grouped(result), {}, [])["results-rounds"].panels
    assert (f.y, mae.y) == ("F", "MAE")
    label, points = f.lines[0]
    assert label == "from DRFI"
    assert points[0] == (0.0, (0.5,)), "the prior"
    assert [x for x, _ in points] == list(range(11))
    assert points[-1] == (10.0, (pytest.approx(0.8),))
    two_rounds_only = plots.plots(grouped(made("anchors")), {}, [])
    assert "results-rounds" not in two_rounds_only


def test_recipes_that_differ_in_the_number_of_images_make_a_curve(monkeypatch):
    monkeypatch.setitem(RECIPES, "anchors-ce-50", RECIPES["anchors-ce"])
    few = made("anchors-ce", f=0.6) | {"recipe": "anchors-ce-50", "images": {"train": 50}}
    found = grouped(few, made("anchors-ce", f=0.8))
    f = plots.plots(found, {}, [])["results-few"].panels[-1]
    assert f.lines == (("cross-entropy", ((9.0, (0.8,)), (50.0, (0.6,)))),)
    assert "results-few" not in plots.plots(grouped(few), {}, [])


def test_a_plot_takes_the_largest_scale_that_has_the_data_of_most_lines():
    small = [with_curves(made(f"zoomout-{loss}")) for loss in ("ce", "af", "exact", "dice")]
    medium = [made("zoomout-ce", "medium"), with_curves(made("zoomout-af", "medium"))]
    panels = plots.plots(grouped(*small, *medium), {}, [])["results-curves-w"].panels
    assert {panel.title for panel in panels} == {"ECSSD (small)"}
    assert all(len(panel.lines) == 4 for panel in panels)


def test_the_committed_results_fill_every_plot():
    found = results.read(paths.RUNS)
    rows = results.per_image_files(paths.RUNS, found)
    drawn = plots.plots(found, rows, [])
    assert set(sum(plots.PLOTS_OF.values(), ())) <= set(drawn)
    lines = {label for panel in drawn["results-object-size"].panels for label, _ in panel.lines}
    assert lines == {"cross-entropy", "CAS"}
    assert all(len(panel.lines) == 2 for panel in drawn["results-object-size"].panels)


def test_f_by_object_size_comes_from_the_rows_of_images(tmp_path):
    result = made("fcn-ce-clean")
    folder = write(tmp_path, result)
    shares = (*[0.02] * 30, *[0.5] * 25, *[0.1] * 5)
    each = Each(
        tuple(map(str, range(60))),
        ("f",),
        {"map": [{"f": 0.9 if share > 0.2 else 0.4} for share in shares]},
        shares,
    )
    per_image.write(per_image.beside(folder / "fcn-ce-clean-torch-small-0.json"), {"ecssd": each})
    found = results.read(folder)
    (panel,) = plots.plots(found, results.per_image_files(folder, found), [])[
        "results-object-size"
    ].panels
    # The five images of a tenth are too few.
    assert panel.lines == (("cross-entropy", ((0.02, (0.4,)), (0.5, (0.9,)))),)
    without = each._replace(object_share=None)
    per_image.write(
        per_image.beside(folder / "fcn-ce-clean-torch-small-0.json"), {"ecssd": without}
    )
    assert "results-object-size" not in plots.plots(
        found, results.per_image_files(folder, found), []
    )


def test_every_plot_has_a_caption_and_a_place():
    placed = {*sum(plots.PLOTS_OF.values(), ()), *sum(plots.PICTURES_OF.values(), ())}
    assert placed | {"results-losses", "results-frameworks", report.GALLERY} == set(plots.CAPTIONS)
    assert set(plots.PLOTS_OF) == set(plots.PICTURES_OF) == set(claim_texts.PAPERS)


def steps(recipe: str, torch: list[float], jax: list[float]) -> dict:
    return {
        "recipe": recipe,
        "losses": {"torch": torch, "jax": jax},
        "device": "cpu: X",
        "commit": "0123456789abcdef",
    }


def test_both_frameworks_stand_side_by_side():
    theirs = grouped(*(made("zoomout-ce", seed=seed, mae=0.1 + seed / 100) for seed in range(3)))
    ours = grouped(made("zoomout-ce", mae=0.125, max_f=0.25), made("fcn-ce-clean"))
    first = [steps("fcn-ce-clean", [2.0, 1.0, 1.0], [2.0, 1.0, 1.04])]
    text = "\n".join(frameworks_text(theirs, ours, first))
    assert "| zoomout-ce | ecssd | MAE | .110 ± .010 | .125 | +.015 |" in text
    assert "| zoomout-ce | ecssd | max F | .500 ± .000 | .250 | −.250 |" in text
    assert "at most .250 (max F of zoomout-ce)" in text
    assert "| fcn-ce-clean | ecssd" not in text, "no run of it in PyTorch"
    assert "| fcn-ce-clean | 0e+00 | 3e-02 | 3e-02 | 1e-02 |" in text


def test_runs_in_jax_are_listed_apart():
    one = made("zoomout-ce", "medium", 0, "gpu: H100") | {"backend": "jax"}
    text = runs.runs_text({}, grouped(one))
    torch, jax = text.split("## In JAX: `--backend jax`")
    assert "gpu: H100" not in torch
    assert "0: 1 + 0, 2026-11-20, gpu: H100" in jax
