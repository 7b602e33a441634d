"""Markdown tables, made from the CSV files alone."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.cases import CASES

Rows = list[dict[str, str]]
NAMES = ("compare", "paper", "speed", "speed_threads", "growth", "bandwidth", "peers", "robustness")
EXACT = "exact"
FORWARD = "forward"
ERROR = "largest error, "  # a direction of the peers' rows, with the image's sides
COPIES = ("x.clone()", "x + 1")  # of its own input, in torch and in JAX
OURS = "ours: "  # how the labels of ours begin among the peers
FITTED = 3  # sizes, the largest, that a growth exponent is fitted to
SIDES = ("torch eager", "torch.compile", "jax.jit")
CHECKS = 4  # BCE units that value checks may add to torch's goals


def read_rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def growth_exponent(pixels: Sequence[float], seconds: Sequence[float]) -> float:
    """Least-squares slope of log seconds over log pixels."""
    return float(np.polyfit(np.log(pixels), np.log(seconds), 1)[0])


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def median_times(rows: Rows) -> dict[int, float]:
    """Median seconds by size, of the rows that were measured."""
    return {int(r["size"]): float(r["median_s"]) for r in rows if r["median_s"]}


def select(rows: Rows, **equal: str) -> Rows:
    return [r for r in rows if all(r[k] == v for k, v in equal.items())]


def _exponent(times: dict[int, float]) -> str:
    """The exponent over the largest sizes, with those sizes."""
    sizes = sorted(times)[-FITTED:]
    if len(sizes) < FITTED:
        return "–"
    slope = growth_exponent([s**2 for s in sizes], [times[s] for s in sizes])
    return f"{slope:.2f} ({sizes[0]}²–{sizes[-1]}²)"


def _number(value: float) -> str:
    """Three significant digits without an exponent."""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


def _duration(seconds: float) -> str:
    return f"{_number(seconds)} s" if seconds >= 1 else f"{_number(1e3 * seconds)} ms"


def _markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def environment(rows: Rows) -> str:
    """Device, versions, commit, seed and dates of the rows."""
    devices, commits = (", ".join(unique(r[k] for r in rows)) for k in ("device", "commit"))
    packages = "; also ".join(unique(r["versions"] for r in rows))
    first, last = min(r["date"] for r in rows), max(r["date"] for r in rows)
    one = rows[0]
    return (
        f"{devices}; {one['threads']} thread(s); {packages}; commit {commits}; "
        f"seed {one['seed']}; {first} to {last}. Medians; minimum, maximum and the first call "
        "(with compilation) are in the CSV file.\n"
    )


def compare_summary(rows: Rows) -> str:
    """Per loss: the exponents, and the speed-up at the largest size that the exact side reached."""
    ours = [s for s in unique(r["side"] for r in rows) if s != EXACT]
    body = []
    for case in unique(r["case"] for r in rows):
        of_case = select(rows, case=case, direction=FORWARD)
        exact = median_times(select(of_case, side=EXACT))
        if not exact:
            continue
        largest = max(exact)
        line = [case, f"{largest}²", _duration(exact[largest]), _exponent(exact)]
        for side in ours:
            times = median_times(select(of_case, side=side))
            if largest in times:
                speed_up = _number(exact[largest] / times[largest])
                line.append(f"{speed_up}×, {_exponent(times)}")
            else:
                line.append("–")
        body.append(line)
    header = ["loss, forward", "largest exact size", "exact", "exact exponent"]
    return _markdown([*header, *(f"{side}: speed-up, exponent" for side in ours)], body)


def compare_times(rows: Rows) -> str:
    """Milliseconds at every size, exponent, speed-up and largest difference, per loss and side."""
    sizes = sorted({int(r["size"]) for r in rows})
    body = []
    for case in unique(r["case"] for r in rows):
        of_case = select(rows, case=case)
        exact = median_times(select(of_case, side=EXACT))
        for side in unique(r["side"] for r in of_case):
            for direction in unique(r["direction"] for r in select(of_case, side=side)):
                chosen = select(of_case, side=side, direction=direction)
                times = median_times(chosen)
                line = [case, side, direction]
                line += [_number(1e3 * times[s]) if s in times else "" for s in sizes]
                line.append(_exponent(times))
                common = sorted(set(exact) & set(times))
                compared = direction == FORWARD and side != EXACT and common
                ratio = exact[common[-1]] / times[common[-1]] if compared else 0.0
                line.append(f"{_number(ratio)}× at {common[-1]}²" if compared else "")
                differences = [float(r["difference"]) for r in chosen if r["difference"]]
                line.append(f"{max(differences):.1e}" if differences else "")
                body.append(line)
    header = ["loss", "side", "direction", *(f"{s}², ms" for s in sizes)]
    return _markdown([*header, "exponent", "speed-up", "difference"], body)


def notes(rows: Rows) -> str:
    """What was not run, failed or needs a word, with the sizes concerned."""
    sizes: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["note"]:
            key = (row["case"], row["side"], row["note"])
            sizes.setdefault(key, []).append(f"{row['size']}²" if row["size"] else row["direction"])
    return "".join(
        f"- {', '.join(filter(None, (case, side, *unique(at))))}: {note}.\n"
        for (case, side, note), at in sizes.items()
    )


def paper_table(rows: Rows) -> str:
    """The paper's job: per image and in total, what was extrapolated marked as such."""
    count = len(unique(r["item"] for r in rows))
    exact = {r["item"]: float(r["median_s"]) for r in select(rows, side=EXACT) if r["median_s"]}
    body = []
    for case, side in dict.fromkeys((r["case"], r["side"]) for r in rows):
        chosen = select(rows, case=case, side=side)
        seconds = {r["item"]: float(r["median_s"]) for r in chosen if r["median_s"]}
        if not seconds:
            body.append([case, side, "0", chosen[0]["note"], "", "", ""])
            continue
        times = list(seconds.values())
        total = _duration(sum(times) / len(times) * count)
        if len(times) < count:
            total += f", extrapolated from {len(times)}"
        # images differ in their foreground, hence in the exact side's time
        common = exact.keys() & seconds.keys() if side != EXACT else set()
        ratio = sum(exact[i] for i in common) / (sum(seconds[i] for i in common) or 1.0)
        differences = [float(r["difference"]) for r in chosen if r["difference"]]
        per_image = _duration(sum(times) / len(times))
        body.append(
            [
                case,
                side,
                str(len(times)),
                f"{per_image} ({_duration(min(times))}–{_duration(max(times))})",
                total,
                f"{_number(ratio)}×" if common else "",
                f"{max(differences):.1e}" if differences else "",
            ]
        )
    header = ["", "side", "images", "per image (min–max)", f"total of {count}", "speed-up"]
    return _markdown([*header, "difference"], body)


def speed_table(rows: Rows) -> str:
    """A table for each size: multiples of BCE, at 256² and on one thread beside the goals."""
    return "\n".join(
        _speed_table(select(rows, size=size)) for size in unique(r["size"] for r in rows)
    )


def _speed_table(rows: Rows) -> str:
    """What lies over a goal is bold, with the factor."""
    with_goals = rows[0]["size"] == "256" and rows[0]["threads"] == "1"
    goals = {case.name: case.goals for case in CASES if with_goals}
    body = []
    for case in unique(r["case"] for r in rows if r["direction"]):
        line = [case]
        for k, side in enumerate(SIDES):
            found = select(rows, case=case, side=side)
            goal = goals.get(case)
            if found and found[0]["median_s"]:
                multiple = multiple_of_unit(found[0])
                cell = f"{_number(multiple)} ({_number(1e3 * float(found[0]['median_s']))} ms)"
                line.append(cell + (_verdict(multiple, goal[k], side) if goal else ""))
            else:
                line.append("failed" if found else "")
            if with_goals:
                line.append(f"{goal[k]:g}" if goal else "")
        eager = select(rows, case=case, side="torch eager")
        kept = [int(r["memory_bytes"]) / int(r["input_bytes"]) for r in eager if r["input_bytes"]]
        body.append([*line, _number(kept[0]) if kept else ""])
    header = [f"{rows[0]['batch']} × C × {rows[0]['size']}²"]
    for side, unit in zip(SIDES, ("BCE", "BCE", "JAX's own BCE"), strict=True):
        header += [f"{side}, × {unit}", *(["goal"] if with_goals else [])]
    return f"{_markdown([*header, 'kept for backward, × input'], body)}\n{_units(rows)}"


def _verdict(multiple: float, goal: float, side: str) -> str:
    if multiple <= goal:
        return ""
    if side != "jax.jit" and multiple <= goal + CHECKS:
        return f", within the {CHECKS} for value checks"
    return f", **{multiple / goal:.2f} × the goal**"


def _units(rows: Rows) -> str:
    """What the units were, in milliseconds, and what part of them memory pages are."""
    parts = []
    for unit in unique(r["unit"] for r in rows if r["unit_median_s"]):
        of_unit = [r for r in rows if r["unit"] == unit and r["unit_median_s"]]
        times = [1e3 * float(r["unit_median_s"]) for r in of_unit]
        text = f"{unit} took {_number(min(times))} to {_number(max(times))} ms"
        copies = [r for r in of_unit if not r["direction"]]
        if copies:
            fresh, kept = (_number(multiple_of_unit(r)) for r in copies)
            size = _number(int(copies[0]["input_bytes"]) / 2**20)
            text += (
                f"; a copy of the {size} MiB of 16 channels {fresh} of it into fresh memory, "
                f"{kept} into memory that is there"
            )
        parts.append(text)
    return f"{'. '.join(parts)}.\n"


def growth_table(rows: Rows) -> str:
    """Milliseconds and the slope of log time over log pixels, beside what it may be."""
    body = []
    for case in unique(r["case"] for r in rows):
        most = 1.6 if "exact" in case or "published" in case else 1.1
        line = [case, f"{most}"]
        for side in SIDES:
            times = median_times(select(rows, case=case, side=side))
            if len(times) < 2:
                line.append("failed" if select(rows, case=case, side=side) else "")
                continue
            slope = growth_exponent([size**2 for size in times], list(times.values()))
            milliseconds = " / ".join(_number(1e3 * seconds) for seconds in times.values())
            line.append(
                f"{slope:.2f} ({milliseconds})"
                if slope <= most
                else f"**{slope:.2f}** ({milliseconds})"
            )
        body.append(line)
    sizes = " / ".join(f"{size}²" for size in unique(r["size"] for r in rows))
    return _markdown(["", "at most", *(f"{side} ({sizes}, ms)" for side in SIDES)], body)


def bandwidth_table(rows: Rows) -> str:
    """Bytes that must move, by the time taken, as a share of what a copy moves in that time."""
    body = []
    for case in unique(r["case"] for r in rows):
        line = [case]
        for side in unique(r["side"] for r in rows):
            (row, *_) = [*select(rows, case=case, side=side), {"median_s": ""}]
            if not row["median_s"]:
                line.append(row.get("note", ""))
                continue
            copied = 2 * int(row["unit"].split()[2]) / float(row["unit_median_s"])
            share = int(row["memory_bytes"]) / float(row["median_s"]) / copied
            line.append(f"{share:.0%} ({_number(1e3 * float(row['median_s']))} ms)")
        body.append(line)
    return _markdown(["", *unique(r["side"] for r in rows)], body)


def panels_of(rows: Rows) -> Iterator[tuple[str, str, Rows]]:
    """The peers' rows with a time by group and unit, which alone compare with each other."""
    timed = [r for r in rows if r["unit_median_s"]]
    for group in unique(r["item"] for r in rows):
        units = unique(r["unit"] for r in select(timed, item=group))
        for unit in units:
            yield group, unit, select(rows, item=group, unit=unit)


def multiple_of_unit(row: dict[str, str]) -> float:
    return float(row["median_s"]) / float(row["unit_median_s"])


def peers_tables(rows: Rows) -> str:
    """A table for each job: multiples of BCE and of a copy of the input; distances' errors."""
    parts = []
    sizes = unique(r["size"] for r in rows if r["size"])
    for group, unit, panel in panels_of(rows):
        shapes = [
            d
            for d in unique(r["direction"] for r in select(rows, item=group))
            if d.startswith(ERROR)
        ]
        body = []
        for case, side in dict.fromkeys((r["case"], r["side"]) for r in panel):
            line = [case, side]
            for size in sizes:
                (row, *_) = [*select(panel, case=case, side=side, size=size), {"median_s": ""}]
                line.append(_peer_cell(row, rows) if row["median_s"] else "–")
            for shape in shapes:
                (row, *_) = [*select(rows, case=case, direction=shape), {"difference": ""}]
                line.append(f"{float(row['difference']):.2g}" if row["difference"] else "failed")
            body.append(line)
        header = [
            "",
            "side",
            *(f"{s}²: × {unit} (ms; × copy of its input)" for s in sizes),
            *shapes,
        ]
        parts.append(f"### {group[0].upper()}{group[1:]}, in {unit}\n\n{_markdown(header, body)}")
    return "\n".join(parts)


def _peer_cell(row: dict[str, str], rows: Rows) -> str:
    same = {k: row[k] for k in ("case", "item", "size")}
    copies = [r for r in select(rows, side=COPIES["jax" in row["side"]], **same) if r["median_s"]]
    seconds = float(row["median_s"])
    copy = f"; {_number(seconds / float(copies[0]['median_s']))}" if copies else ""
    return f"{_number(multiple_of_unit(row))} ({_number(1e3 * seconds)}{copy})"


def robustness_table(rows: Rows) -> str:
    """A line for each loss, a column for each check; what is not well is bold."""
    checks = list(dict.fromkeys((r["check"], r["size"]) for r in rows if r["check"]))
    body = []
    for case, side in dict.fromkeys((r["case"], r["side"]) for r in rows if r["check"]):
        line = [f"{case}, {side}"]
        for check, size in checks:
            (row,) = select(rows, case=case, side=side, check=check, size=size) or [{}]
            verdict = row.get("verdict", "")
            line.append(verdict if verdict in ("", "ok", "–") else f"**{verdict}**")
        body.append(line)
    return _markdown(["", *(f"{check}, {size}²" for check, size in checks)], body)


def robustness_notes(rows: Rows) -> str:
    """What stands behind the words of the table."""
    return "".join(
        f"- {r['case']}, {r['side']}{', ' * bool(r['check'])}{r['check']}: {r['note']}\n"
        for r in rows
        if r["note"] and r["verdict"] != "ok"
    )


def _text(name: str, rows: Rows) -> str:
    if name == "compare":
        return (
            "# Exact definitions against the library, one image\n\n"
            "Exact: NumPy, float64, forward only. Ours: float32. Exponent: slope of log time over "
            f"log pixels at the {FITTED} largest sizes measured, which stand beside it. "
            "Difference: the largest |ours − exact| / max(1, |exact|).\n\n"
            f"{compare_summary(rows)}\n{compare_times(rows)}\n{notes(rows)}"
        )
    if name == "paper":
        return (
            f"# The paper's job: F_β^w of fifteen images at {rows[0]['size']}² (W §5.5)\n\n"
            "W prints, averaged over fifteen images of ECSSD at 224², 37 minutes for the exact "
            "measure, 8.7 s (CPU) and 0.33 s (GPU) for its approximation. Predictions here are the "
            f"masks, blurred and noisy. Masks: {rows[0]['note']}.\n\n{paper_table(rows)}"
        )
    if name == "peers":
        return (
            "# Other libraries' losses beside ours\n\n"
            "Forward + backward of a batch of 8, float32, from logits, as their users call them; "
            "measures and distance transforms forward, one image. BCE: BCEWithLogits forward + "
            "backward on as many maps of that size in the same framework, measured in turns with "
            "each; beside what runs in NumPy, that of torch. Distances are held against the exact "
            "ones of a few pixels. For embeddings and unlabelled regions none of the libraries "
            f"has a loss.\n\n{peers_tables(rows)}\n{notes(rows)}"
        )
    if name == "robustness":
        return (
            "# What breaks them\n\n"
            "Each loss called, the prediction another object than the mask. ok: value and gradient "
            "finite, or right; gradient 0: finite, but nothing is learnt; error: it raises, be it "
            f"in refusal; –: it takes no soft target.\n\n{robustness_table(rows)}\n"
            f"{robustness_notes(rows)}"
        )
    if name == "growth":
        return (
            "# From large images to larger ones\n\n"
            "Forward + backward, float32; a batch of 2 of 16 channels, else of 8, so that no "
            "input fits a core's own cache; memory pages are kept between calls. Slope of log time "
            "over log pixels, and what it may be; what is beyond is bold.\n\n"
            f"{growth_table(rows)}\n{notes(rows)}"
        )
    if name == "bandwidth":
        return (
            "# Shares of the GPU's copy bandwidth\n\n"
            f"Forward + backward, {rows[0]['batch']} × C × {rows[0]['size']}², float32: the bytes "
            "of each input, read once, and of each gradient, written once, over the time taken, "
            "beside what a copy of 16 channels moves in its time (read and written).\n\n"
            f"{bandwidth_table(rows)}\n{notes(rows)}"
        )
    return (
        f"# Forward + backward, {rows[0]['threads']} thread(s), as multiples of BCE\n\n"
        "BCE: BCEWithLogits forward + backward on as many maps of that size in the same framework "
        "and run, measured in turns with each case; float32; the published measure goes forward "
        f"only. The goals are for 256² and one thread; value checks may add {CHECKS} to those of "
        "torch. Kept for backward: what torch's graph holds, inputs included, over the inputs that "
        f"get gradients.\n\n{speed_table(rows)}\n{notes(rows)}"
    )


def write(folder: Path) -> str:
    """Write `<name>.md` for every `<name>.csv` in the folder, and plots; return the Markdown."""
    from benchmarks import plots

    texts: list[str] = []
    pictures = {"compare": plots.plot, "peers": plots.plot_peers}
    for name in NAMES:
        path = folder / f"{name}.csv"
        rows = read_rows(path) if path.exists() else []
        if not rows:
            continue
        text = f"{_text(name, rows)}\n{environment(rows)}"
        partial = folder / f"{name}.partial.md"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path.with_suffix(".md"))
        if name in pictures:
            pictures[name](rows, path.with_suffix(".png"))
        texts.append(text)
    return "\n".join([*texts, f"Written to {folder}"])
