"""Runs that are stopped at random moments, until they end."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from reference_models.files import fingerprint, read_arrays
from tests.support.paths import ROOT

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
STEPS = 40
LEFT = "processes left"


def train_command(folder: Path, *more: str) -> list[str]:
    """A tiny run of the README's recipe, as a user types it."""
    words = (
        "--size", "16", "--train-images", "8", "--test-images", "4", "--batch", "4",
        "--out", str(folder), *more,
    )  # fmt: skip
    return [sys.executable, "-m", "reference_models.train", *words]


def short_run(folder: Path, backend: str, *more: str) -> list[str]:
    return train_command(folder, "--backend", backend, "--steps", str(STEPS), *more)


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def stopped_runs(folder: Path, backend: str, seed: int, stops: int) -> Counter[str]:
    """Stop a run `stops` times and let it end; returns how often each signal stopped it, and the
    number of processes left behind.

    After each stop the checkpoint, if there is one, must be whole, and the exit status must say
    what happened. In the end the weights must be those of a run without a stop.
    """
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    run, checkpoint = folder / "run", folder / "run" / "checkpoint.safetensors"
    for _ in range(stops):
        name = str(rng.choice(SIGNALS))
        child = start(run, backend)
        wait_for_a_moment(child, checkpoint, rng)
        child.send_signal(getattr(signal, name))
        _, errors = child.communicate(timeout=300)
        number = getattr(signal, name)
        # Outside of the training steps, SIGTERM and SIGHUP have their usual effect.
        assert child.returncode in (0, -number, 128 + number), errors
        counts[name if child.returncode else "ended before"] += 1
        counts[LEFT] += is_left(child)
        if checkpoint.exists():
            assert 0 <= len(read_arrays(checkpoint)["run/losses"]) <= STEPS
    child = start(run, backend)
    _, errors = child.communicate(timeout=600)
    assert child.returncode == 0, errors
    straight = folder / "straight"
    subprocess.run(short_run(straight, backend), cwd=ROOT, env=environment(), check=True,
                   capture_output=True)  # fmt: skip
    weights = (read_arrays(place / "weights.safetensors") for place in (run, straight))
    assert len({fingerprint(arrays) for arrays in weights}) == 1
    assert not list(run.glob("*.partial*"))
    return counts


def start(run: Path, backend: str) -> "subprocess.Popen[str]":
    return signalled(
        short_run(run, backend, "--checkpoint-seconds", "0"),
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


# Not by `preexec_fn`, for which Python forks, and JAX warns of it.
SET_SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    is_ignored = signal.Signals(number).name in sys.argv[1].split(",")
    signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


def signalled(
    words: list[str], ignored: tuple[str, ...] = (), **options: Any
) -> "subprocess.Popen[str]":
    """A process that ignores these signals and no others, whatever the process of the tests does.

    words: Begin with the path of a program.
    """
    set_signals = [sys.executable, "-S", "-c", SET_SIGNALS, ",".join(ignored)]
    return subprocess.Popen([*set_signals, *words], **options)


def wait_for_a_moment(
    child: "subprocess.Popen[str]", checkpoint: Path, rng: np.random.Generator
) -> None:
    """Mostly within training, where the checkpoint changes; sometimes before or after."""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0, 5))
        return
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    while child.poll() is None:
        if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
            time.sleep(rng.uniform(0, 0.5))
            return
        time.sleep(0.002)


# Measuring in several processes ------------------------------------------------------------------

MEASURING = """
import signal, sys, numpy as np
from reference_models.command_line import command
from reference_models.measures.saliency import measure_each, pool
if __name__ == "__main__":
    # What a shell starts in the background ignores Ctrl-C, and hands that down to here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("begun", flush=True)
    with command():
        if sys.argv[1] == "at work":
            pool(2).submit(int).result()
            print(*pool(2)._processes, flush=True)
        masks = np.zeros((2000, 128, 128), bool)
        masks[:, 50:90, 30:100] = True
        measure_each(128 * masks.astype(np.uint8), masks, workers=2)
"""


def measuring(folder: Path, when: str) -> subprocess.Popen:
    file = folder / "measuring.py"
    file.write_text(MEASURING)
    child = subprocess.Popen(
        [sys.executable, str(file), when],
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout.readline() == "begun\n"
    return child


def stopped_measuring(folder: Path, seed: int, stops: int) -> Counter[str]:
    """Stop a command that measures maps; returns counts as `stopped_runs` does."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    for _ in range(stops):
        name = str(rng.choice(SIGNALS))
        child = measuring(folder, str(rng.choice(["starting", "at work"])))
        time.sleep(rng.uniform(0, 3))
        child.send_signal(getattr(signal, name))
        child.communicate(timeout=300)
        counts[name if child.returncode else "ended before"] += 1
        counts[LEFT] += is_left(child)
    return counts


def is_left(child: "subprocess.Popen[str]") -> bool:
    """Whether a process of the child's session is still there half a minute after its end."""
    deadline = time.monotonic() + 30
    while group_alive(child.pid):
        if time.monotonic() > deadline:
            os.killpg(child.pid, signal.SIGKILL)
            return True
        time.sleep(0.05)
    return False


def group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
