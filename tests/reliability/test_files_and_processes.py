"""Damaged files, stops and their exit statuses, workers that end with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from reference_models import files
from reference_models.command_line import command
from reference_models.errors import InputError, OutOfTime
from reference_models.files import atomic_path, read_about, read_arrays, write_arrays, write_json
from reference_models.options import Options
from reference_models.training.flax_trainer import FlaxTrainer
from reference_models.training.processes import with_others
from reference_models.training.run import Shared, run
from reference_models.training.stopping import clock
from reference_models.training.torch_trainer import TorchTrainer
from reference_models.training.trained import options_of
from tests.reliability.stops import (
    alive,
    environment,
    group_alive,
    measuring,
    signalled,
    train_command,
)
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("torch_settings")

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def replace_by_text(file: Path) -> None:
    file.write_text("no arrays")


def without_moments(file: Path) -> None:
    arrays = {n: a for n, a in read_arrays(file).items() if not n.startswith("optimizer/")}
    write_arrays(file, arrays, {})


def without_one_moment(file: Path) -> None:
    arrays = read_arrays(file)
    del arrays[next(name for name in arrays if name.startswith("optimizer/"))]
    write_arrays(file, arrays, {})


def with_a_flat_moment(file: Path) -> None:
    arrays = read_arrays(file)
    name = next(n for n, a in arrays.items() if n.startswith("optimizer/") and a.ndim > 1)
    write_arrays(file, arrays | {name: arrays[name].ravel()}, {})


def of_another_network(file: Path) -> None:
    write_arrays(file, {"x": np.zeros(3)}, {})


DAMAGES = (
    flip_a_byte,
    cut,
    replace_by_text,
    without_moments,
    without_one_moment,
    with_a_flat_moment,
    of_another_network,
)


@pytest.fixture(scope="module", params=["torch", "jax"])
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A run that was stopped after two of its four steps."""
    options = Options(
        recipe="scenes-cas",
        backend=request.param,
        size=16,
        steps=4,
        batch=4,
        train_images=8,
        test_images=4,
        out=tmp_path_factory.mktemp(request.param) / "run",
    )
    calls = iter(range(2))

    def check() -> None:
        if next(calls, None) is None:
            raise OutOfTime

    with pytest.raises(OutOfTime):
        run(options, Shared(), check)
    return options


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_named_with_the_repair(
    stopped: Options, damage: Callable[[Path], None]
):
    checkpoint = stopped.folder / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    try:
        damage(checkpoint)
        with pytest.raises(InputError, match=r"checkpoint\.safetensors .*delete it to restart"):
            run(stopped, Shared(), clock())
    finally:
        checkpoint.write_bytes(before)
    assert not (stopped.folder / "weights.safetensors").exists()


def test_a_damaged_record_of_options_is_named(stopped: Options):
    record = stopped.folder / "options.json"
    before = record.read_bytes()
    for content in (b"", b"{", b"[1]", b'{"schedule": 3}', b"\xff\xfe"):
        record.write_bytes(content)
        with pytest.raises(InputError, match=r"options\.json is damaged; delete .*run to restart"):
            run(stopped, Shared(), clock())
    record.write_bytes(before)


def test_weights_that_do_not_say_what_they_are(tmp_path: Path):
    file = tmp_path / "weights.safetensors"
    schedule = {"backbone": None, "size": 64}
    good = {
        "recipe": "scenes-cas",
        "backend": "torch",
        "scale": "small",
        "schedule": schedule,
    }
    for about, match in (
        ({}, "does not say which network it holds"),
        (good | {"backend": "tf"}, "backend 'tf', which must be one of torch, jax"),
        (good | {"scale": "full"}, "scale 'full', which must be one of small, medium"),
        (good | {"schedule": None}, "does not say which network it holds"),
        (good | {"schedule": {"backbone": 3}}, "does not say which network it holds"),
        (good | {"schedule": schedule | {"size": 64.0}}, r"size 64\.0, .* of type int"),
        (good | {"schedule": schedule | {"size": True}}, "size True, .* of type int"),
        (good | {"schedule": schedule | {"size": 65}}, r"weights\.safetensors .*multiple of 4"),
        (good | {"schedule": schedule | {"size": 2**20}}, r"weights\.safetensors .*at most 4096"),
        (good | {"schedule": schedule | {"backbone": {"padding": "no"}}}, "padding 'no', .* both"),
        (good | {"inverted": "no"}, "inverted 'no', .* of type bool"),
        (good | {"recipe": "gone"}, "'gone', which no longer exists"),
    ):
        write_arrays(file, {"x": np.zeros(1)}, about)
        with pytest.raises(InputError, match=match):
            options_of(file, "cpu")
    for about in ({"about": "[1]"}, {"about": "{"}, None):
        save_file({"x": np.zeros(1)}, file, metadata=about)
        with pytest.raises(InputError, match=r"weights\.safetensors"):
            read_about(file)


def test_arrays_come_back_as_written_and_are_readable_by_others(tmp_path: Path):
    file = tmp_path / "a.safetensors"
    arrays = {"b": np.arange(6, dtype=np.float16).reshape(2, 3).T, "a": np.array(2.5)}
    write_arrays(file, arrays, {"of": "me"})
    first = file.read_bytes()
    write_arrays(file, arrays, read_about(file))
    assert file.read_bytes() == first
    for name, array in read_arrays(file).items():
        np.testing.assert_array_equal(array, arrays[name])
    assert load_file(file).keys() == arrays.keys()
    if os.name == "posix":
        umask = os.umask(0)
        os.umask(umask)
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch):
    order = []
    monkeypatch.setattr(files, "to_disk", lambda path: order.append(path.name))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("replace"), replace(*a)))
    write_json(tmp_path / "a.json", {})
    assert order == [".a.json.partial", "replace", tmp_path.name]
    order.clear()
    with atomic_path(tmp_path / "a.json", shared=True) as own:
        own.touch()
    assert order == [own.name, "replace"]
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "b"):
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@POSIX
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_exit_status_says_what_stopped_a_run(tmp_path: Path, name: str):
    child = signalled(
        train_command(tmp_path / "run", "--steps", "100000", "--checkpoint-seconds", "0"),
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "run/checkpoint.safetensors").exists():
        time.sleep(0.01)
    child.send_signal(getattr(signal, name))
    out, err = child.communicate(timeout=120)
    assert child.returncode == 128 + getattr(signal, name), err
    assert "Stopped. Run the same command again" in out


def test_minutes_that_are_over_have_a_status_of_their_own(tmp_path: Path):
    done = subprocess.run(
        train_command(tmp_path / "run", "--minutes", "0"),
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 75, done.stderr
    assert "Stopped. Run the same command again" in done.stdout


def test_what_the_system_refuses_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/run", tmp_path / ("x" * 300)):
        done = subprocess.run(
            train_command(out), cwd=ROOT, env=environment(), text=True, capture_output=True
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert out.name in done.stderr


def lacking_memory() -> list[Exception]:
    """What NumPy, PyTorch and JAX raise, and PyTorch and JAX of a GPU."""
    errors: list[Exception] = [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
    ]
    for allocate in (np.ones, torch.ones, jnp.ones):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            allocate((2**24, 2**24))
        errors.append(caught.value)
    return errors


def test_a_lack_of_memory_is_one_line():
    for error in lacking_memory():
        with pytest.raises(SystemExit) as end, command():
            raise error
        assert str(end.value).startswith("error: the memory does not suffice (")
        assert "\n" not in str(end.value)
        # Of this process, not of another one that it waits for.
        with pytest.raises(type(error)), with_others(2):
            raise error
    with pytest.raises(RuntimeError, match="of the program"), command():
        raise RuntimeError("a defect of the program")


def test_a_checkpoint_is_not_blamed_for_a_lack_of_memory(stopped: Options, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for trainer in (TorchTrainer, FlaxTrainer):
        monkeypatch.setattr(trainer, "restore", full)
    with pytest.raises(torch.OutOfMemoryError):
        run(stopped, Shared(), clock())


@POSIX
@pytest.mark.parametrize("when", ["starting", "at work"])
def test_ctrl_c_ends_measuring_with_a_line_and_leaves_nothing(tmp_path: Path, when: str):
    child = measuring(tmp_path, when)
    if when == "at work":
        child.stdout.readline()
    time.sleep(0.5)
    os.killpg(child.pid, signal.SIGINT)
    begun = time.monotonic()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err == "stopped\n"
    assert time.monotonic() - begun < 20  # One on a quiet machine.
    ends(lambda: group_alive(child.pid))


@POSIX
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path):
    child = measuring(tmp_path, "at work")
    workers = [int(word) for word in child.stdout.readline().split()]
    assert len(workers) == 2
    child.kill()
    child.communicate()  # Their pipes close with them.
    ends(lambda: any(alive(worker) for worker in workers))


def ends(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while there():
        assert time.monotonic() < deadline, "a process outlives its parent"
        time.sleep(0.05)
