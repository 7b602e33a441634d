"""What `python -m benchmarks` measures, a function for each command."""

from __future__ import annotations

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

from benchmarks import backends, robustness
from benchmarks.backends import EXACT, OURS, Side
from benchmarks.cases import CASES, DIRECTIONS, Case, generated_masks, papers_images
from benchmarks.options import Options
from benchmarks.other_libraries import DISTANCES, PACKAGES, Loss, Peer, contained, load
from benchmarks.tables import COPIES, ERROR
from benchmarks.timing import Recorder, Row, measure, versions
from saliency_losses import reference

GIB = 2**30
ERROR_SHAPES = ((64, 64), (48, 96), (96, 48))  # of the masks that distances are held against


def _chosen(options: Options) -> list[Case]:
    return [c for c in CASES if not options.cases or any(part in c.name for part in options.cases)]


def _recorder(options: Options, out: Path, name: str, **more: Any) -> Recorder:
    torch.set_num_threads(options.threads)
    return Recorder(out, name, threads=options.threads, seed=options.seed, **more)


def _seconds(options: Options) -> float:
    return min(options.seconds, 0.1) if options.quick else options.seconds


def _difference(value: float | None, exact: float | None) -> float | None:
    if value is None or exact is None:
        return None
    return abs(value - exact) / max(1.0, abs(exact))


def _quick_sides(options: Options, first: bool) -> Sequence[Side]:
    """All sides; with --quick torch.compile, which takes seconds to compile, for one case only."""
    every = backends.available()
    return [s for s in every if s.mode != "compile" or first or not options.quick]


def compare(options: Options, out: Path) -> None:
    """The exact definitions and ours from small to large images, then the paper's job."""
    sizes = options.sizes or ((16, 32, 64) if options.quick else tuple(2**k for k in range(4, 11)))
    cases = [c for c in _chosen(options) if c.exact]
    if cases:
        _compare_sizes(cases, sizes, options, out)
    if not options.cases or "paper" in options.cases:
        paper(options, out)


def _compare_sizes(
    cases: Sequence[Case], sizes: Sequence[int], options: Options, out: Path
) -> None:
    """Every side at every size, one image."""
    with _recorder(options, out, "compare") as recorder, tqdm(total=len(cases) * len(sizes)) as bar:
        for case in cases:
            history: list[tuple[int, float, int]] = []
            for size in sorted(sizes):
                bar.set_description(f"{case.name}, {size}²")
                exact = _exact_row(case, size, history, options)
                recorder.add(exact)
                for side in _quick_sides(options, case is cases[0] and size == max(sizes)):
                    for direction in DIRECTIONS:
                        row = _our_row(case, side, direction, size, options)
                        row.difference = _difference(row.value, exact.value)
                        recorder.add(row, side.device)
                bar.update()


def _exact_row(
    case: Case, size: int, history: list[tuple[int, float, int]], options: Options
) -> Row:
    """Measure the exact side, or say why not; `history` has (pixels, seconds, bytes) so far."""
    if not history and size > 64:  # something to judge by
        for probe in (32, 64):
            _exact_row(case, probe, history, options)
    row = Row(case.name, EXACT.name, DIRECTIONS[0], size, 1, case.channels, note=case.note)
    seconds = _predict([(p, s) for p, s, _ in history], size**2)
    memory = _predict([(p, b) for p, _, b in history], size**2)
    if seconds > options.exact_seconds or memory > options.exact_memory * GIB:
        row.note = (
            f"not run: about {seconds:.3g} s and {memory / GIB:.2g} GiB expected, bounds "
            f"{options.exact_seconds:g} s and {options.exact_memory:g} GiB"
        )
        return row
    run = EXACT.function(case, backward=False)
    if seconds < 5:  # tracing slows the call down, and the growth is known by then
        tracemalloc.start()
        run(EXACT.place(case.inputs(options.seed, 1, size, exact=True)))
        row.memory_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    placed = EXACT.place(case.inputs(options.seed, 1, size, exact=True))
    call = partial(run, placed)
    measure(row, call, seconds=_seconds(options), repeats=options.repeats, warm_up=False)
    history.append((size**2, row.median_s or 0.0, row.memory_bytes or int(memory)))
    return row


def _predict(history: Sequence[tuple[int, float]], pixels: int) -> float:
    """What the last two measurements lead one to expect, growing between linear and quadratic."""
    if not history:
        return 0.0
    last, value = history[-1]
    power = 2.0
    if len(history) > 1:
        before, less = history[-2]
        power = min(2.0, max(1.0, math.log(value / less) / math.log(last / before)))
    return float(value * (pixels / last) ** power)


def _our_row(case: Case, side: Side, direction: str, size: int, options: Options) -> Row:
    row = Row(case.name, side.name, direction, size, 1, case.channels)
    placed = side.place(case.inputs(options.seed, 1, size))
    _time(row, partial(side.function(case, direction != DIRECTIONS[0]), placed), options)
    return row


def _time(row: Row, call: Any, options: Options, unit: Any = None, share: float = 1.0) -> None:
    """Fill the row, or note the error: one failing side must not end a long run."""
    try:
        measure(row, call, seconds=share * _seconds(options), repeats=options.repeats, unit=unit)
    except Exception as error:
        row.note = _failed(error)


def _failed(error: Exception) -> str:
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def paper(options: Options, out: Path) -> None:
    """W §5.5: fifteen images at 224², one after the other, exact F_β^w against ours.

    With --quick 96² and the exact side on three images.
    """
    size, count = (96, 15) if options.quick else (224, 15)
    most = 3 if options.quick else count
    measure_case, loss_case = (
        next(c for c in CASES if c.name == f"weighted F-beta, {kind}")
        for kind in ("exact measure", "window")
    )
    images = papers_images(options.data, options.seed, count, size)
    source = f"ECSSD, {Path(options.data).name}" if options.data else "generated masks"
    chosen = _quick_sides(options, first=False)
    with (
        _recorder(options, out, "paper") as recorder,
        tqdm(total=count * (1 + 2 * len(chosen))) as bar,
    ):
        exact: dict[str, float | None] = {}
        spent = 0.0
        for image, inputs in images.items():
            bar.set_description(f"paper's job, exact, {image}")
            row = Row(measure_case.name, EXACT.name, DIRECTIONS[0], size, 1, 1, image, note=source)
            beyond = exact and spent * (1 + 1 / len(exact)) > options.paper_seconds
            if beyond or len(exact) == most:
                row.note = f"{source}; not run: beyond {most} images or {options.paper_seconds:g} s"
            else:
                call = partial(EXACT.function(measure_case, False), EXACT.place(inputs))
                measure(row, call, seconds=0.0, repeats=1, warm_up=False)
                exact[image] = row.value
                spent += row.median_s or 0.0
            recorder.add(row)
            bar.update()
        for case in (measure_case, loss_case):
            for side in chosen:
                run = side.function(case, backward=False)
                for image, inputs in images.items():
                    bar.set_description(f"paper's job, {case.name}, {side.name}, {image}")
                    row = Row(case.name, side.name, DIRECTIONS[0], size, 1, 1, image, note=source)
                    _time(row, partial(run, side.place(inputs)), options, share=1 / count)
                    if case is measure_case:
                        row.difference = _difference(row.value, exact.get(image))
                    recorder.add(row, side.device)
                    bar.update()


def speed(options: Options, out: Path) -> None:
    """Forward and backward of a batch of 8 on the CPU, in turns with BCE in the same framework.

    Runs on one thread and on several go to different files.
    """
    sizes = options.sizes or ((64,) if options.quick else (256, 512))
    cases, batch = _chosen(options), 8
    name = "speed" if options.threads == 1 else "speed_threads"
    with (
        _recorder(options, out, name) as recorder,
        tqdm(total=len(cases) * len(OURS) * len(sizes)) as bar,
    ):
        for size in sizes:
            units = {library: backends.bce(library, batch, size) for library in ("torch", "jax")}
            array = CASES[0].inputs(options.seed, batch, size)["features"]
            for library, unit in units.items():
                for what, copy in (("fresh", backends.copy), ("kept", backends.copy_in_place)):
                    row = Row(f"a copy of 16 channels, {what}", library, "", size, batch, 16)
                    row.unit, row.input_bytes = f"{library} BCE", array.nbytes
                    _time(row, copy(library, array), options, unit)
                    recorder.add(row)
            for case in cases:
                inputs = case.inputs(options.seed, batch, size)
                for side in OURS:
                    bar.set_description(f"{case.name}, {side.name}, {size}²")
                    row = Row(case.name, side.name, case.direction, size, batch, case.channels)
                    row.unit = f"{side.library} BCE"
                    call = partial(side.function(case, bool(case.gradients)), side.place(inputs))
                    if side.mode != "compile" or case is cases[0] or not options.quick:
                        _time(row, call, options, units[side.library])
                        if side.mode == "eager" and case.gradients:
                            row.memory_bytes = backends.saved_bytes(case, inputs)
                            row.input_bytes = sum(inputs[name].nbytes for name in case.gradients)
                        recorder.add(row)
                    bar.update()


def growth(options: Options, out: Path) -> None:
    """Forward and backward from images that no core's cache holds to sixteen times as large ones.

    A batch of 8, or of 2 where there are many channels, so that the largest fit the memory.
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
                inputs = case.inputs(options.seed, batch, size)
                for side in OURS:
                    bar.set_description(f"{case.name}, {side.name}, {size}²")
                    row = Row(case.name, side.name, case.direction, size, batch, case.channels)
                    if side.mode != "compile" or not options.quick:
                        call = side.function(case, bool(case.gradients))
                        _time(row, partial(call, side.place(inputs)), options)
                        recorder.add(row)
                    bar.update()


def bandwidth(options: Options, out: Path) -> None:
    """On CUDA: each input read once and each gradient written once, over the time of a copy."""
    if not torch.cuda.is_available():
        raise SystemExit("bandwidth: expected a GPU that torch sees, found none")
    batch, on_gpu = 32, [side for side in backends.available() if side.device == "cuda"]
    with _recorder(options, out, "bandwidth") as recorder:
        for size in options.sizes or (512,):
            copied = CASES[0].inputs(options.seed, batch, size)["features"]
            unit = backends.copy_in_place("torch", copied, "cuda")
            for case in _chosen(options):
                inputs = case.inputs(options.seed, batch, size)
                for side in on_gpu:
                    row = Row(case.name, side.name, case.direction, size, batch, case.channels)
                    row.unit = f"copy of {copied.nbytes} bytes"
                    row.input_bytes = sum(array.nbytes for array in inputs.values())
                    row.memory_bytes = row.input_bytes + sum(
                        inputs[name].nbytes for name in case.gradients
                    )
                    call = partial(side.function(case, bool(case.gradients)), side.place(inputs))
                    _time(row, call, options, unit)
                    recorder.add(row, "cuda")
                    print(f"{row.case}, {row.side}: {row.median_s}")


def peers(options: Options, out: Path) -> None:
    """Other libraries' losses beside ours: first how long they take, then what breaks them."""
    there, absent = load(options.cases)
    packages = {"versions": versions(*PACKAGES)}
    with _recorder(options, out, "peers", **packages) as recorder, tqdm(total=len(there)) as bar:
        for k, (peer, loss) in enumerate(there):
            bar.set_description(f"{peer.label}, {peer.framework}")
            for size in options.sizes or ((64,) if options.quick else (256, 512)):
                for row in _peer_rows(peer, loss, size, options, first=k == 0):
                    recorder.add(row)
            if peer.group == DISTANCES:
                for row in _distance_errors(peer, loss, options.seed):
                    recorder.add(row)
            bar.update()
        for peer, why in absent:
            recorder.add(Row(peer.label, peer.framework, item=peer.group, note=why))
    losses = [(peer, loss) for peer, loss in there if peer.leaves]
    if not losses:
        return
    packages["fields"] = robustness.FIELDS
    with (
        _recorder(options, out, "robustness", **packages) as recorder,
        tqdm(total=len(losses)) as bar,
    ):
        for peer, loss in losses:
            bar.set_description(f"robustness, {peer.label}, {peer.framework}")
            for finding in robustness.findings(peer, loss, options.seed, options.quick):
                recorder.add(finding)
            bar.update()
        for peer, why in absent:
            if peer.leaves:
                recorder.add(robustness.Finding(peer.label, peer.framework, note=why))


def _peer_rows(peer: Peer, loss: Loss, size: int, options: Options, first: bool) -> Iterator[Row]:
    """A copy of the input, then the peer on each of its sides, in turns with BCE.

    What runs forward alone runs in NumPy too, so PyTorch's BCE is the unit of all of it.
    """
    batch = 8 if peer.leaves else 1
    inputs = _peer_inputs(peer, batch, size, options.seed)
    array = inputs[peer.wants[0]]
    channels = array.shape[-1] if array.ndim == 4 else 1
    direction = DIRECTIONS[1 if peer.leaves else 0]
    in_jax = peer.backend == "jax"
    row = Row(peer.label, COPIES[in_jax], "", size, batch, channels, peer.group)
    _time(row, backends.copy("jax" if in_jax else "torch", array), options)
    yield row
    unit = "jax" if in_jax and peer.leaves else "torch"
    for side in peer.sides:
        if options.quick and side.mode == "compile" and not first:
            continue
        row = Row(peer.label, side.name, direction, size, batch, channels, peer.group)
        row.unit = f"{unit} BCE"
        with contained():
            expected = _expected(peer, loss, side, size, options)
            if expected > options.peer_seconds:
                row.note = (
                    f"not run: about {expected:.3g} s an image expected, bound "
                    f"{options.peer_seconds:g} s"
                )
            else:
                call = _peer_call(peer, loss, side, inputs)
                _time(row, call, options, backends.bce(unit, batch, size))
        yield row


def _peer_inputs(peer: Peer, batch: int, size: int, seed: int) -> dict[str, Any]:
    return peer.inputs(seed, generated_masks(np.random.default_rng(seed), batch, size))


def _peer_call(peer: Peer, loss: Loss, side: Side, inputs: dict[str, Any]) -> backends.Call:
    """The loss or the measure as a number; a distance transform gives none."""
    step, placed = side.step(loss, peer.gradients), side.place(inputs)

    def call() -> Any:
        value = step(placed)[0]
        return None if peer.group == DISTANCES else value

    return call


def _expected(peer: Peer, loss: Loss, side: Side, size: int, options: Options) -> float:
    """Seconds of one image, from small sizes; 0 for what is compiled and for small sizes."""
    if side.mode in ("compile", "jit") or size <= 64:
        return 0.0
    history: list[tuple[int, float]] = []
    for probe in (32, 64):
        call = _peer_call(peer, loss, side, _peer_inputs(peer, 1, probe, options.seed))
        call()
        started = time.perf_counter()
        call()
        history.append((probe**2, time.perf_counter() - started))
    return _predict(history, size**2)


def _distance_errors(peer: Peer, loss: Loss, seed: int) -> Iterator[Row]:
    """The largest error against the exact distances of few foreground pixels."""
    side = peer.sides[0]
    for shape in ERROR_SHAPES:
        foreground = np.random.default_rng(seed).random(shape) < 0.005
        exact = reference.distance_transform(foreground)
        row = Row(peer.label, side.name, f"{ERROR}{shape[0]} × {shape[1]}", item=peer.group)
        try:
            with contained():
                inputs = side.place(peer.inputs(seed, foreground[None]))
                found, _ = side.step(loss, ())(inputs)
            distances = found[0] if isinstance(found, tuple | list) else found
            difference = np.abs(np.asarray(distances, np.float64).reshape(shape) - exact)
            row.difference = float(difference.max())
        except Exception as error:
            row.note = _failed(error)
        yield row
