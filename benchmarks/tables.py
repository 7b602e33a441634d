"""Markdown tables of benchmark results, from the CSV files alone."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.cases import CASES

Rows = list[dict[str, str]]
EXACT = "exact"
FORWARD = "forward"
ERROR = "largest error, "  # start of a direction in the peers' rows; the image's shape follows
COPIES = ("x.clone()", "x + 1")  # of a case's input, in torch and in JAX
OURS = "ours: "  # start of our labels among the peers
FITTED = 3  # number of sizes, the largest ones, to which a growth exponent is fitted
BACKENDS = ("torch eager", "torch.compile", "jax.jit")
FRAMEWORKS = {"torch BCE": "PyTorch", "jax BCE": "JAX"}  # of the peers' units
NBSP = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line of a cell


def read_rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def growth_exponent(pixels: Sequence[float], seconds: Sequence[float]) -> float:
    """Least-squares slope of log seconds against log pixels."""
    return float(np.polyfit(np.log(pixels), np.log(seconds), 1)[0])


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def median_times(rows: Rows) -> dict[int, float]:
    """Median seconds by size, for the rows that have a time."""
    return {int(r["size"]): float(r["median_s"]) for r in rows if r["median_s"]}


def select(rows: Rows, **equal: str) -> Rows:
    return [r for r in rows if all(r[k] == v for k, v in equal.items())]


def _exponent(times: dict[int, float]) -> str:
    """The growth exponent at the largest sizes, followed by those sizes."""
    sizes = sorted(times)[-FITTED:]
    if len(sizes) < FITTED:
        return "–"
    slope = growth_exponent([s**2 for s in sizes], [times[s] for s in sizes])
    return f"{slope:.2f} ({sizes[0]}²–{sizes[-1]}²)"


def _number(value: float) -> str:
    """The value with three significant digits, without an exponent."""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


def _duration(seconds: float) -> str:
    value, unit = (seconds, "s") if seconds >= 1 else (1e3 * seconds, "ms")
    return f"{_number(value)}{NBSP}{unit}"


def _markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def environment(name: str, rows: Rows) -> str:
    """Sentences on devices, threads, versions, commits, seed, dates and the file of the rows."""
    devices, commits = (", ".join(unique(r[k] for r in rows)) for k in ("device", "commit"))
    packages = "; also ".join(unique(r["versions"] for r in rows))
    first, last = min(r["date"] for r in rows), max(r["date"] for r in rows)
    threads, seed = rows[0]["threads"], rows[0]["seed"]
    return (
        f"{devices}; {threads} thread{'' if threads == '1' else 's'}; {packages}; commit "
        f"{commits}; seed {seed}; {first} to {last}. Medians; minimum, maximum and the first call "
        f"(with compilation) are in `{name}.csv`.\n"
    )


def compare_table(rows: Rows) -> str:
    """Growth exponents per loss, and speed-ups at the largest size of the exact definition."""
    ours = [b for b in unique(r["backend"] for r in rows) if b != EXACT]
    body = []
    for case in unique(r["case"] for r in rows):
        of_case = select(rows, case=case, direction=FORWARD)
        exact = median_times(select(of_case, backend=EXACT))
        if not exact:
            continue
        largest = max(exact)
        line = [case, f"{largest}²", _duration(exact[largest]), _exponent(exact)]
        for backend in ours:
            times = median_times(select(of_case, backend=backend))
            if largest in times:
                speed_up = _number(exact[largest] / times[largest])
                line.append(f"{speed_up}×, {_exponent(times)}")
            else:
                line.append("–")
        body.append(line)
    header = ["loss, forward", "largest exact size", "exact", "exact exponent"]
    return _markdown([*header, *(f"{b}: speed-up, exponent" for b in ours)], body)


def notes(rows: Rows) -> str:
    """A list of the rows' notes (skipped, failed, remarks), each with the sizes concerned."""
    sizes: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["note"]:
            key = (row["case"], row["backend"], row["note"])
            sizes.setdefault(key, []).append(f"{row['size']}²" if row["size"] else row["direction"])
    return "".join(
        f"- {', '.join(filter(None, (case, backend, *unique(at))))}: {note}.\n"
        for (case, backend, note), at in sizes.items()
    )


def paper_table(rows: Rows) -> str:
    """Times of the paper's benchmark per image and in total; extrapolated totals say so."""
    count = len(unique(r["item"] for r in rows))
    exact = {r["item"]: float(r["median_s"]) for r in select(rows, backend=EXACT) if r["median_s"]}
    body = []
    for case, backend in dict.fromkeys((r["case"], r["backend"]) for r in rows):
        chosen = select(rows, case=case, backend=backend)
        seconds = {r["item"]: float(r["median_s"]) for r in chosen if r["median_s"]}
        if not seconds:
            body.append([case, backend, "0", chosen[0]["note"], "", "", ""])
            continue
        times = list(seconds.values())
        total = _duration(sum(times) / len(times) * count)
        if len(times) < count:
            total += f", extrapolated from {len(times)}"
        # The exact measure's time depends on an image's foreground, so only common images count.
        common = exact.keys() & seconds.keys() if backend != EXACT else set()
        ratio = sum(exact[i] for i in common) / (sum(seconds[i] for i in common) or 1.0)
        differences = [float(r["difference"]) for r in chosen if r["difference"]]
        per_image = _duration(sum(times) / len(times))
        body.append(
            [
                case,
                backend,
                str(len(times)),
                f"{per_image} ({_duration(min(times))}–{_duration(max(times))})",
                total,
                f"{_number(ratio)}×" if common else "",
                f"{max(differences):.1e}" if differences else "",
            ]
        )
    header = ["", "backend", "images", "per image (min–max)", f"total of {count}", "speed-up"]
    return _markdown([*header, "difference"], body)


def speed_table(rows: Rows) -> str:
    """One table per size with multiples of the floor; at 256² on one thread also the goals."""
    return "\n".join(
        _speed_table(select(rows, size=size)) for size in unique(r["size"] for r in rows)
    )


def _speed_table(rows: Rows) -> str:
    """One size's table; a time beyond its goal is followed by its multiple of the goal, in bold."""
    with_goals = rows[0]["size"] == "256" and rows[0]["threads"] == "1"
    goals = {case.name: case.goals for case in CASES if with_goals}
    body = []
    for case in unique(r["case"] for r in rows if r["direction"]):
        line = [case]
        for k, backend in enumerate(BACKENDS):
            timed = select(rows, case=case, backend=backend)
            goal = goals.get(case)
            if timed and timed[0]["median_s"]:
                line.append(_speed_cell(timed[0], goal[k] if goal else math.inf))
            else:
                line.append("failed" if timed else "")
            if with_goals:
                line.append(f"{goal[k]:g}" if goal else "")
        eager = select(rows, case=case, backend="torch eager")
        kept = [int(r["memory_bytes"]) / int(r["input_bytes"]) for r in eager if r["input_bytes"]]
        body.append([*line, _number(kept[0]) if kept else ""])
    header = [f"{rows[0]['batch']} × C × {rows[0]['size']}²"]
    for backend in BACKENDS:
        header += [f"{backend}, × floor (× BCE; ms)", *(["goal"] if with_goals else [])]
    return f"{_markdown([*header, 'kept for backward, × input'], body)}\n{_units(rows)}"


def _speed_cell(row: dict[str, str], goal: float) -> str:
    # Files from before the floor was measured have no such column.
    floor = float(row.get("floor_median_s") or math.nan)
    seconds = float(row["median_s"])
    multiple = "–" if math.isnan(floor) else _number(seconds / floor)
    beyond = f", **{seconds / floor / goal:.2f}×**" if seconds > goal * floor else ""
    return f"{multiple} ({_number(multiple_of_unit(row))}; {_number(1e3 * seconds)}){beyond}"


def _units(rows: Rows) -> str:
    """Sentences on each unit's time and on copies into fresh and existing memory."""
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
                f"; a copy of 16 channels ({size} MiB) took {fresh} × BCE into fresh memory, "
                f"{kept} × BCE into existing memory"
            )
        parts.append(text)
    return f"{'. '.join(parts)}.\n"


def growth_table(rows: Rows) -> str:
    """Slopes of log time against log pixels with the times; a slope beyond its limit is bold."""
    body = []
    for case in unique(r["case"] for r in rows):
        limit = 1.6 if "exact" in case or "published" in case else 1.1
        line = [case, f"{limit}"]
        for backend in BACKENDS:
            times = median_times(select(rows, case=case, backend=backend))
            if len(times) < 2:
                line.append("failed" if select(rows, case=case, backend=backend) else "")
                continue
            slope = growth_exponent([size**2 for size in times], list(times.values()))
            milliseconds = " / ".join(_number(1e3 * seconds) for seconds in times.values())
            line.append(
                f"{slope:.2f} ({milliseconds})"
                if slope <= limit
                else f"**{slope:.2f}** ({milliseconds})"
            )
        body.append(line)
    sizes = " / ".join(f"{size}²" for size in unique(r["size"] for r in rows))
    return _markdown(["", "limit", *(f"{b} ({sizes}, ms)" for b in BACKENDS)], body)


def bandwidth_table(rows: Rows) -> str:
    """Bytes of inputs and gradients per second, as a share of the bytes that a copy moves."""
    body = []
    for case in unique(r["case"] for r in rows):
        line = [case]
        for backend in unique(r["backend"] for r in rows):
            (row, *_) = [*select(rows, case=case, backend=backend), {"median_s": ""}]
            if not row["median_s"]:
                line.append(row.get("note", ""))
                continue
            copied = 2 * int(row["unit"].split()[2]) / float(row["unit_median_s"])
            share = int(row["memory_bytes"]) / float(row["median_s"]) / copied
            line.append(f"{share:.0%} ({_number(1e3 * float(row['median_s']))}{NBSP}ms)")
        body.append(line)
    return _markdown(["", *unique(r["backend"] for r in rows)], body)


def panels_of(rows: Rows) -> Iterator[tuple[str, str, Rows]]:
    """The peers' rows by group and unit: only rows of equal unit compare with each other."""
    timed = [r for r in rows if r["unit_median_s"]]
    for group in unique(r["item"] for r in rows):
        units = unique(r["unit"] for r in select(timed, item=group))
        for unit in units:
            yield group, unit, select(rows, item=group, unit=unit)


def multiple_of_unit(row: dict[str, str]) -> float:
    return float(row["median_s"]) / float(row["unit_median_s"])


def peers_tables(rows: Rows) -> str:
    """One table per group and unit: multiples of BCE and of a copy, and errors of distances."""
    parts = []
    sizes = unique(r["size"] for r in rows if r["size"])
    for group, unit, panel in panels_of(rows):
        shapes = [
            d
            for d in unique(r["direction"] for r in select(rows, item=group))
            if d.startswith(ERROR)
        ]
        body = []
        for case, backend in dict.fromkeys((r["case"], r["backend"]) for r in panel):
            line = [case, backend]
            for size in sizes:
                timed = select(panel, case=case, backend=backend, size=size)
                (row, *_) = [*timed, {"median_s": ""}]
                line.append(_peer_cell(row, rows) if row["median_s"] else "–")
            for shape in shapes:
                (row, *_) = [*select(rows, case=case, direction=shape), {"difference": ""}]
                line.append(f"{float(row['difference']):.2g}" if row["difference"] else "failed")
            body.append(line)
        header = [
            "",
            "backend",
            *(f"{s}²: × BCE (ms; × copy of its input)" for s in sizes),
            *shapes,
        ]
        parts.append(f"### {_peers_title(group, unit, rows)}\n\n{_markdown(header, body)}")
    return "\n".join(parts)


def _peers_title(group: str, unit: str, rows: Rows) -> str:
    name, framework = f"{group[0].upper()}{group[1:]}", FRAMEWORKS[unit]
    if len(unique(r["unit"] for r in select(rows, item=group) if r["unit_median_s"])) > 1:
        return f"{name}, {framework} (multiples of BCE)"
    return f"{name} (multiples of {framework}'s BCE)"


def _peer_cell(row: dict[str, str], rows: Rows) -> str:
    same = {k: row[k] for k in ("case", "item", "size")}
    copy_rows = select(rows, backend=COPIES["jax" in row["backend"]], **same)
    copies = [r for r in copy_rows if r["median_s"]]
    seconds = float(row["median_s"])
    copy = f"; {_number(seconds / float(copies[0]['median_s']))}" if copies else ""
    return f"{_number(multiple_of_unit(row))} ({_number(1e3 * seconds)}{copy})"


def robustness_table(rows: Rows) -> str:
    """A row for each loss, a column for each check, and the sizes; failures are bold."""
    checks = list(dict.fromkeys((r["check"], r["size"]) for r in rows if r["check"]))
    body = []
    for case, framework in dict.fromkeys((r["case"], r["framework"]) for r in rows if r["check"]):
        line = [f"{case}, {framework}"]
        for check, size in checks:
            (row,) = select(rows, case=case, framework=framework, check=check, size=size) or [{}]
            verdict = row.get("verdict", "")
            line.append(verdict if verdict in ("", "ok", "–") else f"**{verdict}**")
        body.append(line)
    sizes = (
        f"{size}² ({'; '.join(check for check, own in checks if own == size)})"
        for size in unique(size for _, size in checks)
    )
    table = _markdown(["", *(check for check, _ in checks)], body)
    return f"{table}\nSizes of the images: {', '.join(sizes)}.\n"


def robustness_notes(rows: Rows) -> str:
    """A list of the messages and numbers behind the table's failures."""
    return "".join(
        f"- {r['case']}, {r['framework']}{', ' * bool(r['check'])}{r['check']}: {r['note']}\n"
        for r in rows
        if r["note"] and r["verdict"] != "ok"
    )


TABLES: dict[str, Callable[[Rows], str]] = {
    "compare": compare_table,
    "paper": paper_table,
    "speed": speed_table,
    "speed_threads": speed_table,
    "growth": lambda rows: growth_table(rows) + notes(rows),
    "bandwidth": bandwidth_table,
    "peers": lambda rows: f"{peers_tables(rows)}\n{notes(rows)}",
    "robustness": lambda rows: f"{robustness_table(rows)}\n{robustness_notes(rows)}",
}


def text(name: str, rows: Rows) -> str:
    """The tables of the results `name`, with the machine and versions of the run."""
    return f"{TABLES[name](rows)}\n{environment(name, rows)}"
