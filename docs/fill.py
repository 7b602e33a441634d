"""Puts the tables of committed results into README.md and docs, between their markers.

Run as ``python docs/fill.py`` after ``python -m benchmarks report``; a test runs it with --check.
"""

import re
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.measures import DIFFERENCE

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NOT_YET = "Not measured yet: `python -m benchmarks peers`.\n"
PAGES = ("README.md", "docs/losses.md", "docs/benchmarks.md")


def tables() -> dict[str, str]:
    """The text for each marker."""
    compare = report.read_rows(RESULTS / "compare.csv")
    paper = report.read_rows(RESULTS / "paper.csv")
    speed = report.read_rows(RESULTS / "speed.csv")
    measures = report.read_rows(RESULTS / "measures.csv")
    return {
        "compare": report.compare_summary(compare) + "\n" + report.environment(compare),
        "paper": report.paper_table(paper) + "\n" + report.environment(paper),
        "speed": report.speed_table(speed) + "\n" + report.environment(speed),
        "fbeta": measures_table(measures),
        "peers": peers(),
        "robustness": robustness(),
    }


def peers() -> str:
    path = RESULTS / "peers.csv"
    if not path.exists():
        return NOT_YET
    rows = report.read_rows(path)
    return "\n".join([
        "![Multiples of BCE, ours and the others](../benchmarks/results/peers.png)\n",
        report.peers_tables(rows), report.notes(rows), report.environment(rows)])


def robustness() -> str:
    path = RESULTS / "robustness.csv"
    if not path.exists():
        return NOT_YET
    rows = report.read_rows(path)
    return "\n".join([report.robustness_table(rows), report.robustness_notes(rows),
                      report.environment(rows)])


def measures_table(rows: report.Rows) -> str:
    """The versions of the weighted F-beta measure, a column per detector."""
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    means = {(row["quantity"], row["detector"]): float(
        row["largest" if row["quantity"] == DIFFERENCE else "mean"]) for row in rows}
    lines = [f"Detectors' maps on {rows[0]['images']} images of ECSSD, F_1^w, means: `1 − loss`, "
             "`weighted_fbeta_score`, `weighted_fmeasure`, and the field's evaluation program "
             "(pysodmetrics, without stretching). Last, the share of the foreground at which "
             "A lowers the error.", "", "| | " + " | ".join(detectors) + " |",
             "|---|" + "---|" * len(detectors)]
    for quantity in dict.fromkeys(row["quantity"] for row in rows):
        digits = 4 if quantity == DIFFERENCE else 3
        values = (f"{means[quantity, detector]:.{digits}f}" for detector in detectors)
        lines.append(f"| {quantity} | " + " | ".join(values) + " |")
    row = rows[0]
    return "\n".join([*lines, "", f"{row['device']}; {row['versions']}; commit {row['commit']}.",
                      ""])


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
