"""The commands of `python -m benchmarks`, one function each."""

import math
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import backends, plots, robustness, tables
from benchmarks.backends import EXACT, OURS, Backend, Call
from benchmarks.cases import CASES, DIRECTIONS, Case, Inputs, generated_masks, paper_images
from benchmarks.options import Options
from benchmarks.other_libraries import DISTANCES, PACKAGES, Loss, Peer, isolated, load
from benchmarks.tables import COPIES, ERROR
from benchmarks.timing import Recorder, Row, time_call, versions
from saliency_losses import reference

GIB = 2**30
SEED = 0
REPEATS, SECONDS, QUICK_SECONDS = 31, 2.0, 0.1  # limits for the timings of one call
# Limits beyond which a call is skipped, as extrapolated from smaller sizes.
EXACT_SECONDS, EXACT_GIB = 300.0, 4.0
PEER_SECONDS = 2.0  # per image
PAPER_SECONDS = 900.0  # for all images of the exact measure in the paper's benchmark
ERROR_SHAPES = ((64, 64), (48, 96), (96, 48))  # of the masks whose distances are checked


def _chosen(options: Options) -> list[Case]:
    return [c for c in CASES if not options.cases or any(part in c.name for part in options.cases)]


def _recorder(options: Options, out: Path, name: str, **more: Any) -> Recorder:
    torch.set_num_threads(options.threads)
    return Recorder(out, name, threads=options.threads, seed=SEED, **more)


def _seconds(options: Options) -> float:
    return QUICK_SECONDS if options.quick else SECONDS


def _difference(value: float | None, exact: float | None) -> float | None:
    if value is None or exact is None:
        return None
    return abs(value - exact) / max(1.0, abs(exact))


def _chosen_backends(options: Options, first: bool) -> Sequence[Backend]:
    """All backends; with --quick, torch.compile (which takes seconds) only if `first`."""
    return [b for b in backends.available() if b.mode != "compile" or first or not options.quick]


def report(options: Options, out: Path) -> None:
    """Print the tables of all CSV files in `out` and draw their plots."""
    for name in tables.TABLES:
        path = out / f"{name}.csv"
        rows = tables.read_rows(path) if path.exists() else []
        if not rows:
            continue
        print(f"## {name}\n\n{tables.text(name, rows)}")
        if name in plots.PLOTS:
            plots.PLOTS[name](rows, path.with_suffix(".png"))
    print(f"CSV files and plots are in {out}")


def compare(options: Options, out: Path) -> None:
    """Time the exact definitions and the library at growing sizes, then the paper's benchmark."""
    sizes = options.sizes or ((16, 32, 64) if options.quick else tuple(2**k for k in range(4, 11)))
    cases = [c for c in _chosen(options) if c.exact]
    if cases:
        _compare_sizes(cases, sizes, options, out)
    if not options.cases or "paper" in options.cases:
        paper(options, out)


def _compare_sizes(
    cases: Sequence[Case], sizes: Sequence[int], options: Options, out: Path
) -> None:
    """Time one image at every size on every backend."""
    with _recorder(options, out, "compare") as recorder, tqdm(total=len(cases) * len(sizes)) as bar:
        for case in cases:
            history: list[tuple[int, float, int]] = []
            for size in sorted(sizes):
                bar.set_description(f"{case.name}, {size}²")
                exact = _exact_row(case, size, history, options)
                recorder.add(exact)
                first = case is cases[0] and size == max(sizes)
                for backend in _chosen_backends(options, first):
                    for direction in DIRECTIONS:
                        row = _our_row(case, backend, direction, size, options)
                        row.difference = _difference(row.value, exact.value)
                        recorder.add(row, backend.device)
                bar.update()


def _exact_row(
    case: Case, size: int, history: list[tuple[int, float, int]], options: Options
) -> Row:
    """Time the exact definition, or note why it is skipped.

    `history` has (pixels, seconds, bytes) of the sizes measured so far; this size is appended.
    """
    if not history and size > 64:  # Extrapolation needs smaller sizes.
        for probe in (32, 64):
            _exact_row(case, probe, history, options)
    row = Row(case.name, EXACT.name, DIRECTIONS[0], size, 1, case.channels, note=case.note)
    seconds = _extrapolated([(p, s) for p, s, _ in history], size**2)
    memory = _extrapolated([(p, b) for p, _, b in history], size**2)
    if seconds > EXACT_SECONDS or memory > EXACT_GIB * GIB:
        row.note = (
            f"skipped: expected to take about {seconds:.3g} s and {memory / GIB:.2g} GiB, more "
            f"than the limit of {EXACT_SECONDS:g} s or {EXACT_GIB:g} GiB"
        )
        return row
    run = EXACT.function(case, backward=False)
    if seconds < 5:  # Tracing slows the call down; for longer calls the extrapolation must do.
        tracemalloc.start()
        run(EXACT.place(case.inputs(SEED, 1, size, exact=True)))
        row.memory_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    placed = EXACT.place(case.inputs(SEED, 1, size, exact=True))
    call = partial(run, placed)
    time_call(row, call, seconds=_seconds(options), repeats=REPEATS, warm_up=False)
    history.append((size**2, row.median_s or 0.0, row.memory_bytes or int(memory)))
    return row


def _extrapolated(history: Sequence[tuple[int, float]], pixels: int) -> float:
    """Extrapolation of the last two (pixels, value); growth between linear and quadratic."""
    if not history:
        return 0.0
    last_pixels, last_value = history[-1]
    power = 2.0
    if len(history) > 1:
        earlier_pixels, earlier_value = history[-2]
        slope = math.log(last_value / earlier_value) / math.log(last_pixels / earlier_pixels)
        power = min(2.0, max(1.0, slope))
    return float(last_value * (pixels / last_pixels) ** power)


def _our_row(case: Case, backend: Backend, direction: str, size: int, options: Options) -> Row:
    row = Row(case.name, backend.name, direction, size, 1, case.channels)
    placed = backend.place(case.inputs(SEED, 1, size))
    call = partial(backend.function(case, direction != DIRECTIONS[0]), placed)
    _time_or_note(row, call, options)
    return row


def _time_or_note(
    row: Row,
    call: Call,
    options: Options,
    unit: Call | None = None,
    floor: Call | None = None,
    share: float = 1.0,
) -> None:
    """Time the call, or note its error: one failing backend must not end a long run."""
    try:
        time_call(
            row, call, seconds=share * _seconds(options), repeats=REPEATS, unit=unit, floor=floor
        )
    except Exception as error:
        row.note = _failed(error)


def _failed(error: Exception) -> str:
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def paper(options: Options, out: Path) -> None:
    """Time F_β^w of fifteen images at 224², one by one, as in W §5.5: exact and ours.

    With --quick the images have 96², and the exact measure takes three of them.
    """
    size, count = (96, 15) if options.quick else (224, 15)
    exact_count = 3 if options.quick else count
    measure_case, loss_case = (
        next(c for c in CASES if c.name == f"weighted F-beta, {kind}")
        for kind in ("exact measure", "window")
    )
    images = paper_images(options.data, SEED, count, size)
    source = f"ECSSD, {options.data.name}" if options.data else "generated masks"
    chosen = _chosen_backends(options, first=False)
    with (
        _recorder(options, out, "paper") as recorder,
        tqdm(total=count * (1 + 2 * len(chosen))) as bar,
    ):
        exact: dict[str, float | None] = {}
        spent = 0.0
        for image, inputs in images.items():
            bar.set_description(f"paper's benchmark, exact, {image}")
            row = Row(measure_case.name, EXACT.name, DIRECTIONS[0], size, 1, 1, image, note=source)
            too_long = exact and spent * (1 + 1 / len(exact)) > PAPER_SECONDS
            if too_long or len(exact) == exact_count:
                row.note = (
                    f"{source}; skipped: the limit is {exact_count} images and {PAPER_SECONDS:g} s"
                )
            else:
                call = partial(EXACT.function(measure_case, False), EXACT.place(inputs))
                time_call(row, call, seconds=0.0, repeats=1, warm_up=False)
                exact[image] = row.value
                spent += row.median_s or 0.0
            recorder.add(row)
            bar.update()
        for case in (measure_case, loss_case):
            for backend in chosen:
                run = backend.function(case, backward=False)
                for image, inputs in images.items():
                    bar.set_description(f"paper's benchmark, {case.name}, {backend.name}, {image}")
                    row = Row(
                        case.name, backend.name, DIRECTIONS[0], size, 1, 1, image, note=source
                    )
                    call = partial(run, backend.place(inputs))
                    _time_or_note(row, call, options, share=1 / count)
                    if case is measure_case:
                        row.difference = _difference(row.value, exact.get(image))
                    recorder.add(row, backend.device)
                    bar.update()


def speed(options: Options, out: Path) -> None:
    """Time forward and backward of a batch of 8 on the CPU, in turns with the floor and BCE.

    Times on one thread go to speed.csv, those on several to speed_threads.csv.
    """
    sizes = options.sizes or ((64,) if options.quick else (256, 512))
    cases, batch = _chosen(options), 8
    name = "speed" if options.threads == 1 else "speed_threads"
    with (
        _recorder(options, out, name) as recorder,
        tqdm(total=len(cases) * len(OURS) * len(sizes)) as bar,
    ):
        for size in sizes:
            units = {name: backends.bce(name, batch, size) for name in ("torch", "jax")}
            array = CASES[0].inputs(SEED, batch, size)["features"]
            for framework, unit in units.items():
                for memory, copy in (("fresh", backends.copy), ("kept", backends.copy_in_place)):
                    row = Row(f"a copy of 16 channels, {memory}", framework, "", size, batch, 16)
                    row.unit, row.input_bytes = f"{framework} BCE", array.nbytes
                    _time_or_note(row, copy(framework, array), options, unit)
                    recorder.add(row)
            for case in cases:
                inputs = case.inputs(SEED, batch, size)
                for backend in OURS:
                    bar.set_description(f"{case.name}, {backend.name}, {size}²")
                    row = Row(case.name, backend.name, case.direction, size, batch, case.channels)
                    row.unit = f"{backend.framework} BCE"
                    if backend.mode != "compile" or case is cases[0] or not options.quick:
                        floor = backends.floor(backend, case, inputs)
                        call = partial(
                            backend.function(case, bool(case.gradients)), backend.place(inputs)
                        )
                        _time_or_note(row, call, options, units[backend.framework], floor)
                        if backend.mode == "eager" and case.gradients:
                            row.memory_bytes = backends.saved_bytes(case, inputs)
                            row.input_bytes = sum(inputs[name].nbytes for name in case.gradients)
                        recorder.add(row)
                    bar.update()


def growth(options: Options, out: Path) -> None:
    """Time forward and backward from images larger than a core's cache to 16 times that size.

    The batch has 8 images, or 2 for cases of many channels, so that the largest fit into memory.
    """
    sizes = sorted(options.sizes or ((16, 32, 64) if options.quick else (512, 1024, 2048)))
    cases = _chosen(options)
    with (
        _recorder(options, out, "growth") as recorder,
        tqdm(total=len(cases) * len(OURS) * len(sizes)) as bar,
    ):
        for case in cases:
            batch = 2 if case.channels > 2 else 8
            for size in sizes:
                inputs = case.inputs(SEED, batch, size)
                for backend in OURS:
                    bar.set_description(f"{case.name}, {backend.name}, {size}²")
                    row = Row(case.name, backend.name, case.direction, size, batch, case.channels)
                    if backend.mode != "compile" or not options.quick:
                        call = backend.function(case, bool(case.gradients))
                        _time_or_note(row, partial(call, backend.place(inputs)), options)
                        recorder.add(row)
                    bar.update()


def bandwidth(options: Options, out: Path) -> None:
    """Time forward and backward on CUDA, in turns with a copy, for shares of its bandwidth.

    The bytes counted are those of each input, read once, and of each gradient, written once.
    """
    if not torch.cuda.is_available():
        raise SystemExit(
            "bandwidth: expected a GPU that torch can use, found none; use a machine with CUDA"
        )
    batch, on_gpu = 32, [b for b in backends.available() if b.device == "cuda"]
    with _recorder(options, out, "bandwidth") as recorder:
        for size in options.sizes or (512,):
            copied = CASES[0].inputs(SEED, batch, size)["features"]
            unit = backends.copy_in_place("torch", copied, "cuda")
            for case in _chosen(options):
                inputs = case.inputs(SEED, batch, size)
                for backend in on_gpu:
                    row = Row(case.name, backend.name, case.direction, size, batch, case.channels)
                    row.unit = f"copy of {copied.nbytes} bytes"
                    row.input_bytes = sum(array.nbytes for array in inputs.values())
                    row.memory_bytes = row.input_bytes + sum(
                        inputs[name].nbytes for name in case.gradients
                    )
                    call = partial(
                        backend.function(case, bool(case.gradients)), backend.place(inputs)
                    )
                    _time_or_note(row, call, options, unit)
                    recorder.add(row, "cuda")
                    print(f"{row.case}, {row.backend}: {row.median_s}")


def peers(options: Options, out: Path) -> None:
    """Time other libraries' losses and ours, then run the robustness checks on them."""
    loaded, missing = load(options.cases)
    packages = versions(*PACKAGES)
    with (
        _recorder(options, out, "peers", versions=packages) as recorder,
        tqdm(total=len(loaded)) as bar,
    ):
        for k, (peer, loss) in enumerate(loaded):
            bar.set_description(f"{peer.label}, {peer.framework_name}")
            for size in options.sizes or ((64,) if options.quick else (256, 512)):
                for row in _peer_rows(peer, loss, size, options, first=k == 0):
                    recorder.add(row)
            if peer.group == DISTANCES:
                for row in distance_errors(peer, loss, SEED):
                    recorder.add(row)
            bar.update()
        for peer, reason in missing:
            recorder.add(Row(peer.label, peer.framework_name, item=peer.group, note=reason))
    losses = [(peer, loss) for peer, loss in loaded if peer.gradients]
    if not losses:
        return
    with (
        _recorder(
            options, out, "robustness", versions=packages, kind=robustness.Finding
        ) as recorder,
        tqdm(total=len(losses)) as bar,
    ):
        for peer, loss in losses:
            bar.set_description(f"robustness, {peer.label}, {peer.framework_name}")
            for finding in robustness.findings(peer, loss, SEED, options.quick):
                recorder.add(finding)
            bar.update()
        for peer, reason in missing:
            if peer.gradients:
                recorder.add(robustness.Finding(peer.label, peer.framework_name, note=reason))


def _peer_rows(peer: Peer, loss: Loss, size: int, options: Options, first: bool) -> Iterator[Row]:
    """Rows of a copy of the input, then of the peer on each of its backends, in turns with BCE.

    Functions that run forward only exist in NumPy too, so PyTorch's BCE is the unit of them all.
    """
    batch = 8 if peer.gradients else 1
    inputs = _peer_inputs(peer, batch, size)
    array = inputs[peer.arguments[0]]
    channels = array.shape[-1] if array.ndim == 4 else 1
    direction = DIRECTIONS[1 if peer.gradients else 0]
    in_jax = peer.framework == "jax"
    row = Row(peer.label, COPIES[in_jax], "", size, batch, channels, peer.group)
    _time_or_note(row, backends.copy("jax" if in_jax else "torch", array), options)
    yield row
    unit = "jax" if in_jax and peer.gradients else "torch"
    for backend in peer.backends:
        if options.quick and backend.mode == "compile" and not first:
            continue
        row = Row(peer.label, backend.name, direction, size, batch, channels, peer.group)
        row.unit = f"{unit} BCE"
        with isolated():
            expected = _expected_seconds(peer, loss, backend, size)
            if expected > PEER_SECONDS:
                row.note = (
                    f"skipped: expected to take about {expected:.3g} s per image, more than the "
                    f"limit of {PEER_SECONDS:g} s"
                )
            else:
                call = _peer_call(peer, loss, backend, inputs)
                _time_or_note(row, call, options, backends.bce(unit, batch, size))
        yield row


def _peer_inputs(peer: Peer, batch: int, size: int) -> Inputs:
    return peer.inputs(SEED, generated_masks(np.random.default_rng(SEED), batch, size))


def _peer_call(peer: Peer, loss: Loss, backend: Backend, inputs: Inputs) -> Call:
    """A call that returns the loss or measure as a number, or None for a distance transform."""
    step, placed = backend.step(loss, peer.gradients), backend.place(inputs)

    def call() -> Any:
        value = step(placed)[0]
        return None if peer.group == DISTANCES else value

    return call


def _expected_seconds(peer: Peer, loss: Loss, backend: Backend, size: int) -> float:
    """Seconds per image, extrapolated from small sizes; 0 if compiled or at a small size."""
    if backend.mode in ("compile", "jit") or size <= 64:
        return 0.0
    history: list[tuple[int, float]] = []
    for probe in (32, 64):
        call = _peer_call(peer, loss, backend, _peer_inputs(peer, 1, probe))
        call()
        started = time.perf_counter()
        call()
        history.append((probe**2, time.perf_counter() - started))
    return _extrapolated(history, size**2)


def distance_errors(peer: Peer, loss: Loss, seed: int) -> Iterator[Row]:
    """Rows of the largest error of distances to a few foreground pixels, for each test shape."""
    backend = peer.backends[0]
    for shape in ERROR_SHAPES:
        foreground = np.random.default_rng(seed).random(shape) < 0.005
        exact = reference.distance_transform(foreground)
        row = Row(peer.label, backend.name, f"{ERROR}{shape[0]} × {shape[1]}", item=peer.group)
        try:
            with isolated():
                inputs = backend.place(peer.inputs(seed, foreground[None]))
                result, _ = backend.step(loss, ())(inputs)
            distances = result[0] if isinstance(result, tuple | list) else result
            difference = np.abs(np.asarray(distances, np.float64).reshape(shape) - exact)
            row.difference = float(difference.max())
        except Exception as error:
            row.note = _failed(error)
        yield row
