"""Tables of README.md and docs, written between their markers from committed results.

Run as `python docs/fill.py`; with `--check` it only fails if a page is out of date.
"""

import json
import re
import sys
from collections.abc import Mapping
from math import ceil, log
from pathlib import Path

from benchmarks import equal_iou, tables
from benchmarks.fbeta_versions import DIFFERENCE
from benchmarks.measures_speed import IMAGES
from benchmarks.options import RESULTS
from benchmarks.tables import NBSP
from benchmarks.training_steps import CROSS_ENTROPY, NOTICED
from reference_models.training.trained import MEANINGFUL

ROOT = Path(__file__).parents[1]
STUCK = ROOT / "docs" / "figures" / "cas_stuck.json"
PAGES = (
    "README.md",
    "docs/losses/cas.md",
    "docs/losses/weighted-fbeta.md",
    "docs/benchmarks.md",
    "docs/measures.md",
    "docs/distance.md",
    "docs/predict.md",
)


def texts_by_marker() -> dict[str, str]:
    return {
        **{name: benchmark_text(name) for name in tables.TABLES},
        "cas_stuck": stuck_table(json.loads(STUCK.read_text(encoding="utf-8"))),
        "fbeta": fbeta_table(tables.read_rows(RESULTS / "fbeta_versions.csv")),
        "equal_iou": equal_iou_text(
            json.loads((RESULTS / "equal_iou.json").read_text(encoding="utf-8"))
        ),
        "training_steps": steps_table(RESULTS / "training_steps.csv"),
        "copies": copies_table(tables.read_rows(RESULTS / "copies.csv")),
        "distance": distance_table(tables.read_rows(RESULTS / "distance.csv")),
        "measures": measures_table(tables.read_rows(RESULTS / "measures.csv")),
        "measures_speed": speed_of_measures(RESULTS / "measures_speed.csv"),
        "throughput": throughput_text(RESULTS / "throughput.csv"),
    }


def benchmark_text(name: str) -> str:
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return f"Not measured yet: `python -m benchmarks {name}`.\n"
    return tables.text(name, tables.read_rows(path))


def made_with(row: Mapping[str, str]) -> str:
    threads = f"{row['threads']} thread; " if row.get("threads") else ""
    return f"{row['device']}; {threads}{row['versions']}; commit {row['commit']}"


def fbeta_table(rows: tables.Rows) -> str:
    """Versions of the weighted F-beta measure, one column per detector."""
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    means = {
        (row["quantity"], row["detector"]): float(
            row["largest" if row["quantity"] == DIFFERENCE else "mean"]
        )
        for row in rows
    }
    lines = [
        f"Mean $F_\\beta^w$ (β = 1) of detectors' maps on {rows[0]['images']} images of ECSSD, by "
        "`1 − loss`, by `weighted_fbeta_score`, by `weighted_fmeasure`, and by the field's "
        "evaluation program (pysodmetrics, without stretching). The last two rows give the share "
        "of the foreground where A lowers the error.",
        "",
        "| | " + " | ".join(detectors) + " |",
        "|---|" + "---|" * len(detectors),
    ]
    for quantity in dict.fromkeys(row["quantity"] for row in rows):
        digits = 4 if quantity == DIFFERENCE else 3
        values = (f"{means[quantity, detector]:.{digits}f}" for detector in detectors)
        lines.append(f"| {quantity} | " + " | ".join(values) + " |")
    return "\n".join([*lines, "", f"{made_with(rows[0])}.", ""])


def equal_iou_text(results: dict) -> str:
    """The pairs of real maps of equal IoU in which each version of weighted F differs most."""
    pairs, found = results["pairs_of_equal_iou"], results["found"]
    apart = " and ".join(f"{found[name]['apart']:,} by `{name}`" for name in found)
    lines = [
        f"Maps of {len(equal_iou.DETECTORS)} detectors on {results['images']:,} images of ECSSD, "
        f"cut at ½: in {pairs:,} pairs of maps of one image both have an IoU of at least "
        f"{equal_iou.LEAST_IOU} and differ in it by less than {equal_iou.EQUAL}. Their weighted F "
        f"is at least {100 * equal_iou.APART:.0f} % apart in {apart}. The IoU of the "
        f"following pairs differs by at most {equal_iou.CLEAREST}; they are the furthest apart by "
        "each of the two:",
        "",
        "| | map | IoU | " + " | ".join(f"`{name}`" for name in found) + " |",
        "|---|---|---|" + "---|" * len(found),
    ]
    for measure, clearest in found.items():
        for detector, values in clearest["maps"].items():
            cells = (f"{values[name]:.3f}" for name in ("iou", *found))
            first = f"furthest by `{measure}`: image {clearest['image']}"
            lines.append(f"| {first} | {detector} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"`python -m benchmarks.equal_iou`; {made_with(results)}.", ""])


def steps_table(path: Path) -> str:
    """Multiples of the fastest step with cross-entropy; those that are noticeable are bold."""
    if not path.exists():
        return "Not measured yet: `python -m benchmarks.training_steps`.\n"
    rows = tables.read_rows(path)
    lines = [
        "| loss | backbone | framework | side | cross-entropy | loss | multiple |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        ours, unit = float(row["min_s"]), float(row["unit_min_s"])
        multiple = f"{ours / unit:.2f}"
        lines.append(
            f"| {row['case']} | {row['item']} | {row['backend']} | {row['size']} | "
            f"{1000 * unit:.0f}{NBSP}ms | {1000 * ours:.0f}{NBSP}ms | "
            f"{multiple if ours / unit <= NOTICED else f'**{multiple}**'} |"
        )
    longer = [row for row in rows if float(row["min_s"]) > NOTICED * float(row["unit_min_s"])]
    first = rows[0]
    return "\n".join(
        [
            f"Processor time of steps of {first['batch']} images, the least of each loss, in turns "
            f"with {CROSS_ENTROPY}. What takes more than {NOTICED} times as long is noticeable "
            f"(set before the measurement): {len(longer)} of {len(rows)}, in bold.",
            "",
            *lines,
            "",
            f"{made_with(first)}.",
            "",
        ]
    )


def measures_table(rows: tables.Rows) -> str:
    """The largest difference of our measures from the program's."""
    measured = tables.unique(row["measure"] for row in rows)
    lines = [
        f"Largest difference from pysodmetrics over {rows[0]['images']} maps of ECSSD by each of "
        f"{len({row['detector'] for row in rows})} detectors.",
        "",
        "| measure | float64 | float32 | our mean, DRFI | the program's |",
        "|---|---|---|---|---|",
    ]
    for measure in measured:
        own = [row for row in rows if row["measure"] == measure]
        largest = {
            dtype: max(float(row["largest_difference"]) for row in own if row["dtype"] == dtype)
            for dtype in ("float64", "float32")
        }
        first = own[0]
        lines.append(
            f"| {measure} | {largest['float64']:.1e} | {largest['float32']:.1e} | "
            f"{float(first['ours']):.4f} | {float(first['program']):.4f} |"
        )
    return "\n".join([*lines, "", f"`python -m benchmarks.measures`; {made_with(rows[0])}.", ""])


def speed_of_measures(path: Path) -> str:
    """Our time for the measures as a multiple of the program's, a column for each size of batch."""
    if not path.exists():
        return "Not measured yet: `python -m benchmarks.measures_speed`.\n"
    rows = tables.read_rows(path)
    batches = tables.unique(row["batch"] for row in rows)
    lines = [
        "| | " + " | ".join(f"batches of {batch}" for batch in batches) + " |",
        "|---" * (len(batches) + 1) + "|",
    ]
    for backend, dtype in dict.fromkeys((row["backend"], row["item"]) for row in rows):
        cells = []
        for row in tables.select(rows, backend=backend, item=dtype):
            ours, unit = float(row["min_s"]), float(row["unit_min_s"])
            cells.append(f"{ours / unit:.2f} ({1000 * ours / IMAGES:.1f}{NBSP}ms)")
        lines.append(f"| {backend}, {dtype} | " + " | ".join(cells) + " |")
    program = 1000 * min(float(row["unit_min_s"]) for row in rows) / IMAGES
    return "\n".join(
        [
            "Time per 256² image on one thread, as a multiple of pysodmetrics' for the same "
            f"measures in the same process ({program:.1f} ms at the fastest; below 1 is faster):",
            "",
            *lines,
            "",
            f"`python -m benchmarks.measures_speed`; {made_with(rows[0])}.",
            "",
        ]
    )


def copies_table(rows: tables.Rows) -> str:
    """Slopes and times of copies, a row for each, a column for each framework."""
    backends = tables.unique(row["backend"] for row in rows)
    sizes = " / ".join(f"{size}²" for size in tables.unique(row["size"] for row in rows))
    lines = [
        "| | " + " | ".join(f"{backend} ({sizes}, ms)" for backend in backends) + " |",
        "|---" * (len(backends) + 1) + "|",
    ]
    for case in tables.unique(row["case"] for row in rows):
        cells = []
        for backend in backends:
            times = tables.median_times(tables.select(rows, case=case, backend=backend))
            slope = tables.growth_exponent([size**2 for size in times], list(times.values()))
            milliseconds = " / ".join(f"{1000 * seconds:.3g}" for seconds in times.values())
            cells.append(f"{slope:.2f} ({milliseconds})")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    stamp = f"`python -m benchmarks.copies`; {made_with(rows[0])}."
    return "\n".join([*lines, "", stamp, ""])


def distance_table(rows: tables.Rows) -> str:
    """Multiples of SciPy's time at each side, of the fastest repeats, and the memory added."""
    timed = [row for row in rows if row["min_s"]]
    sides = tables.unique(row["size"] for row in timed)
    lines = [
        "| | backend | " + " | ".join(f"{side}² (ms)" for side in sides) + " | bytes a pixel |",
        "|---" * (len(sides) + 3) + "|",
    ]
    for case, backend in dict.fromkeys((row["case"], row["backend"]) for row in timed):
        own = {
            row["size"]: row for row in timed if (row["case"], row["backend"]) == (case, backend)
        }
        cells = [times_scipy(own[side]) if side in own else "–" for side in sides]
        largest = own[max(own, key=int)]
        added = largest["memory_bytes"]
        cells.append(f"{int(added) / int(largest['size']) ** 2:.0f}" if added else "–")
        lines.append(f"| {case} | {backend} | " + " | ".join(cells) + " |")
    notes = tables.unique(
        f"- {row['case']}, {row['backend']}: {row['note']}." for row in rows if row["note"]
    )
    stamp = f"`python -m benchmarks.distance`; {made_with(rows[0])}."
    return "\n".join([*lines, "", *notes, "", stamp, ""])


def times_scipy(row: dict[str, str]) -> str:
    ours, unit = float(row["min_s"]), float(row["unit_min_s"])
    return f"{ours / unit:.2f} ({1000 * ours:,.{1 if ours < 0.01 else 0}f})"


WITHOUT_RESIZING = ("decoding", "network", "encoding the map as PNG")


def throughput_text(path: Path) -> str:
    """The time of one large photograph, the rate of small ones, and the encoders."""
    if not path.exists():
        return "Not measured yet: `python -m benchmarks.throughput`.\n"
    rows = tables.read_rows(path)
    large, small, files = (tables.select(rows, part=part) for part in ("large", "small", "files"))
    steps = [row for row in large if not row["what"].startswith("predict")]
    total = sum(float(row["seconds"]) for row in steps)
    unit = sum(float(row["seconds"]) for row in steps if row["what"] in WITHOUT_RESIZING)
    names = ", ".join(row["what"] for row in steps)
    lines = [
        f"A photograph of 12 megapixels. On one core the steps of a map ({names}) take "
        + " + ".join(f"{1e3 * float(row['seconds']):.0f}" for row in steps)
        + f" = {1e3 * total:.0f} ms; without the changes of size {1e3 * unit:.0f} ms. The whole of "
        "`predict` on two cores, after loading, one photograph after the other:",
        "",
        f"| `--write` | `--format` | ms | of {1e3 * total:.0f} ms | of {1e3 * unit:.0f} ms |",
        "|---|---|---|---|---|",
    ]
    for row in large[len(steps) :]:
        _, write, format = row["what"].split(", ")
        seconds = float(row["seconds"])
        multiples = (f"{seconds / each:.2f}×" for each in (total, unit))
        lines.append("| " + " | ".join((write, format, f"{1e3 * seconds:.0f}", *multiples)) + " |")
    rates = {
        (row["what"], row["cores"]): int(row["photographs"]) / float(row["seconds"])
        for row in small
    }
    one, two = (rates["predict", cores] for cores in "12")
    ray, apart = rates["predict_ray", "2"], rates["predict, two runs", "2"]
    lines += [
        "",
        f"{int(small[0]['photographs']):,} photographs of 400 × 300, all three images: "
        f"{one:.1f} a second on one core, {two:.1f} on two, {two / one:.2f} times as many. Two "
        f"separate runs at once, each on a core of its own, do {apart:.1f} together, "
        f"{apart / one:.2f} times as many. Through Ray, two cores do {ray:.1f}, including the "
        "start of its processes.",
        "",
        "Encoding 12 megapixels on one core:",
        "",
        *encoders_table(files),
    ]
    return "\n".join([*lines, "", f"`python -m benchmarks.throughput`; {made_with(rows[0])}.", ""])


def encoders_table(rows: tables.Rows) -> list[str]:
    """Time and size of each kind of image, a column for each encoder."""
    cells = {
        tuple(row["what"].split(", ", 1)): f"{1e3 * float(row['seconds']):.0f}{NBSP}ms, "
        f"{float(row['megabytes']):.1f}{NBSP}MB"
        for row in rows
    }
    kinds, encoders = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 1))
    heads = (f"`{each}`" if each.startswith("--") else each for each in encoders)
    return [
        "| | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(encoders),
        *(
            f"| {kind} | " + " | ".join(cells.get((kind, each), "–") for each in encoders) + " |"
            for kind in kinds
        ),
    ]


def stuck_table(results: dict) -> str:
    """Tables of the CAS runs: how each way of training ended, and what tells the ends apart."""
    ends: dict[str, list[dict]] = {"found the object": [], "split by colour": [], "constant": []}
    for run in results["runs"]:
        stuck = "constant" if run["spread"] < 0.01 else "split by colour"
        ends["found the object" if run["correlation"] > MEANINGFUL else stuck].append(run)
    lines = [
        "| network | learning rate | " + " | ".join(ends) + " | starts for 99 % |",
        "|---|---|" + "---|" * (len(ends) + 1),
    ]
    for network, way in dict.fromkeys((run["network"], run["way"]) for run in results["runs"]):
        counts = [
            sum((run["network"], run["way"]) == (network, way) for run in runs)
            for runs in ends.values()
        ]
        stuck = sum(counts[1:]) / sum(counts)
        starts = ceil(log(0.01) / log(stuck)) if stuck else 1
        cells = [network, way, *map(str, counts), str(starts)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| | " + " | ".join(ends) + " |", "|---|" + "---|" * len(ends)]
    for key, name in {
        "loss": "loss of the last epoch",
        "correlation": "correlation of map and masks, over all images",
        "correlation_in_an_image": "the same in a single image, on average",
        "correlation_with_colour": "the map's correlation with what colour tells of it",
    }.items():
        spans = (span([run[key] for run in runs]) for runs in ends.values())
        lines.append(f"| {name} | " + " | ".join(spans) + " |")
    used = ", ".join(f"{name} {results['versions'][name]}" for name in ("python", "torch"))
    return "\n".join(
        [
            *lines,
            "",
            f"Seeds of each: {len({run['seed'] for run in results['runs']})}. {results['images']} "
            f"generated scenes of {results['side']}², {results['steps']} steps of "
            f"{results['batch']} with Adam, measured on 40 others. {results['device']}; {used}; "
            f"commit {results['commit'][:12]}; `python docs/figures/cas_stuck.py`.",
            "",
        ]
    )


def span(values: list[float]) -> str:
    ends = dict.fromkeys(f"{end(values):.2f}".replace("-0.00", "0.00") for end in (min, max))
    return " to ".join(ends).replace("-", "−")


def filled(text: str, texts: dict[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- {name}:begin -->\n{texts[name]}<!-- {name}:end -->"

    return re.sub(r"<!-- (\w+):begin -->\n.*?<!-- \1:end -->", fill, text, flags=re.DOTALL)


def main() -> None:
    texts = texts_by_marker()
    for page in PAGES:
        path = ROOT / page
        old = path.read_text(encoding="utf-8")
        new = filled(old, texts)
        if "--check" in sys.argv and new != old:
            raise SystemExit(f"{page} is out of date; run python docs/fill.py")
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
