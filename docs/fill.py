"""Puts the tables of committed results into README.md and docs/losses.md, between their markers.

Run as ``python docs/fill.py`` after ``python -m benchmarks report``; a test runs it with --check.
"""

import re
import sys
from pathlib import Path

from benchmarks import report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/losses.md")


def tables() -> dict[str, str]:
    """The text for each marker."""
    compare = report.read_rows(RESULTS / "compare.csv")
    paper = report.read_rows(RESULTS / "paper.csv")
    speed = report.read_rows(RESULTS / "speed.csv")
    return {
        "compare": report.compare_summary(compare) + "\n" + report.environment(compare),
        "paper": report.paper_table(paper) + "\n" + report.environment(paper),
        "speed": report.speed_table(speed) + "\n" + report.environment(speed),
    }


def filled(text: str, texts: dict[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- {name}:begin -->\n{texts[name]}<!-- {name}:end -->"

    return re.sub(r"<!-- (\w+):begin -->\n.*?<!-- \1:end -->", fill, text, flags=re.DOTALL)


def main() -> None:
    texts = tables()
    for page in PAGES:
        path = ROOT / page
        old = path.read_text(encoding="utf-8")
        new = filled(old, texts)
        if "--check" in sys.argv and new != old:
            raise SystemExit(f"{page} is not up to date: python docs/fill.py")
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
