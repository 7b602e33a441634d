"""Parts of a list of files, as users and job systems name them."""

import os

import pytest

from reference_models.errors import InputError
from reference_models.machine import leave_group
from reference_models.shards import Shard


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_shards_hold_every_name_once(count: int) -> None:
    names = [f"{index:03}" for index in range(10)]
    parts = [Shard.parse(f"{index}/{count}").of(names) for index in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == names
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Shard().of(names) == names


def test_a_shard_is_written_as_it_is_read() -> None:
    assert str(Shard.parse("2/4")) == "2/4"
    assert Shard.parse("2/4") == Shard(1, 4)


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "1.5/4", "٢/٤"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--shard must be I/N with I from 1 to N, got"):
        Shard.parse(text)


def array(**values: int) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, Shard()),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Shard(2, 4)),
        ({"RANK": "2"}, Shard()),
        (array(ID=3, COUNT=4), Shard(3, 4)),
        (array(ID=1, COUNT=4, MIN=1, MAX=4, STEP=1), Shard(0, 4)),
        (array(ID=7, COUNT=4, MIN=1, MAX=8, STEP=2), Shard(3, 4)),
        (array(ID=3), Shard()),
        # torchrun with two processes in each of three tasks.
        ({"RANK": "1", "WORLD_SIZE": "2"} | array(ID=2, COUNT=3, MIN=0, MAX=2), Shard(5, 6)),
    ],
)
def test_the_environment_says_which_part(environment: dict[str, str], shard: Shard) -> None:
    assert Shard.from_environment(environment) == shard


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK must be below WORLD_SIZE, got 4 and 4"),
        ({"RANK": "one", "WORLD_SIZE": "4"}, "RANK must be a whole number, got 'one'"),
        # --array=1,3,7, of which no task can tell its place.
        (array(ID=1, COUNT=3, MIN=1, MAX=7, STEP=1), "must be numbered evenly"),
        (array(ID=4, COUNT=4), "must be numbered evenly"),
        (array(ID=6, COUNT=3, MIN=2, MAX=8, STEP=3), "must be numbered evenly"),
    ],
)
def test_what_the_environment_says_must_make_sense(environment: dict[str, str], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Shard.from_environment(environment)


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Shard.choose("3/3") == Shard(2, 3)
    assert Shard.choose(None) == Shard(1, 2)


@pytest.mark.parametrize(
    ("before", "after"), [(None, "2"), ("", ""), ("5", "5"), ("4,7", "4"), ("4,7,1", "1")]
)
def test_a_process_takes_one_of_the_visible_gpus(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before or "")
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    leave_group()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    assert "WORLD_SIZE" not in os.environ
