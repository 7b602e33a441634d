"""Every Python block of README and docs runs; their links and tables are true."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from reference_models.training.trained import MEANINGFUL
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


# Each block by itself, in one process: starting takes longer than the blocks do.
RUN = """import json, sys
for page, blocks in json.load(sys.stdin).items():
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{page}, block {number}", "exec"), {})"""


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def test_code_blocks_run() -> None:
    found = {str(page.relative_to(ROOT)): blocks(page) for page in PAGES}
    assert sum(map(bool, found.values())) > 9
    command = [sys.executable, "-W", "error", "-c", RUN]
    done = subprocess.run(
        command, input=json.dumps(found), text=True, capture_output=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_bars_in_formulas_say_on_which_side_they_stand() -> None:
    for page in PAGES:
        prose = re.sub(
            r"```(?!math).*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S
        )
        for formula in re.findall(r"```math\n.*?```|\$[^$\n]+\$", prose, re.S):
            assert not re.search(r"(?<!\\)\||\\\||\\[vV]ert\b", formula), (page.name, formula)
            for kind in "vV":
                assert formula.count(f"\\l{kind}ert") == formula.count(f"\\r{kind}ert"), formula


def anchors(page: Path) -> set[str]:
    """Heading anchors as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    # A target may have a title in quotes, which may hold brackets.
    for target in re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


@pytest.mark.slow
def test_every_picture_of_a_loss_can_be_drawn_and_is_shown(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-W", "error", "docs/figures/losses.py", str(tmp_path)],
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn == {file.name for file in (ROOT / "docs" / "figures").glob("loss-*.png")}
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "losses").glob("*.md")]
    assert drawn == set(re.findall(r"figures/(loss-[\w-]+\.png)", "".join(pages)))


def test_pictures_of_menet_can_be_drawn_and_are_shown(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs/figures/menet.py"))
    script["main"](tmp_path, steps=1)
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn == {file.name for file in (ROOT / "docs/figures").glob("menet-*.png")}
    page = (ROOT / "docs/losses/metric.md").read_text(encoding="utf-8")
    assert drawn == set(re.findall(r"figures/(menet-[\w-]+\.png)", page))


def test_tables_are_those_of_the_results() -> None:
    subprocess.run(
        [sys.executable, "docs/fill.py", "--check"],
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )


def test_what_the_page_says_of_stuck_cas_runs() -> None:
    """Correlations tell them from the others, and so does the loss where all else is equal."""
    runs = json.loads((ROOT / "docs/figures/cas_stuck.json").read_text(encoding="utf-8"))["runs"]
    assert {0.6 < run["correlation"] < 0.65 for run in runs} == {False}
    assert f"below {MEANINGFUL}." in (ROOT / "docs/losses/cas.md").read_text(encoding="utf-8")
    for way in {(run["network"], run["way"]) for run in runs}:
        alike = [run for run in runs if (run["network"], run["way"]) == way]
        stuck = [run["loss"] for run in alike if run["correlation"] < MEANINGFUL]
        found = [run["loss"] for run in alike if run["correlation"] > MEANINGFUL]
        assert len(alike) == 20
        assert max(found) < min(stuck, default=0), way


def test_readme_commands_are_those_of_the_gate() -> None:
    readme, gate = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    commands = re.findall(r"\.venv/bin/python (-m \S+(?: -n 2)?)", readme)
    assert {"-m pytest -n 2", "-m reference_models.train"} <= set(commands)
    for command in commands:
        assert command in gate, command
    for line in re.findall(r"```bash\n(.*?)```", readme, re.S):
        for extra in re.findall(r'pip install -c constraints.txt -e "\.\[(\w+)\]"', line):
            assert extra in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
