"""Parts of a list of files, for several processes that share the work."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from reference_models.errors import InputError

T = TypeVar("T")

OWN_SHARE = "or say which part this process takes, --shard 1/1 for all"


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a list: every `count`-th name, from the name `index` on.

    Written I/N, with I from 1 to N; `Shard()` is the whole list.
    """

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def of(self, names: Sequence[T]) -> Sequence[T]:
        """The names of this part; all processes must pass the same list in the same order."""
        return names[self.index :: self.count]

    @classmethod
    def choose(cls, option: str | None) -> Self:
        """The value of --shard, or without it what the environment says."""
        return cls.from_environment() if option is None else cls.parse(option)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read I/N."""
        match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
        index, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= index <= count:
            raise InputError(
                f"--shard must be I/N with I from 1 to N, got {text}; of four parts the first is "
                "1/4, the last 4/4"
            )
        return cls(index - 1, count)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The part of this process: RANK of WORLD_SIZE in this task of a Slurm array.

        Either may be absent: torchrun sets RANK and WORLD_SIZE, `sbatch --array` the variables
        SLURM_ARRAY_TASK_ID, _COUNT, _MIN, _MAX and _STEP.
        """
        rank = cls._joined(environment)
        task = cls._array_task(environment)
        return cls(task.index * rank.count + rank.index, task.count * rank.count)

    @classmethod
    def _joined(cls, environment: Mapping[str, str]) -> Self:
        """The process among those of torchrun."""
        names = "RANK", "WORLD_SIZE"
        if not all(name in environment for name in names):
            return cls()
        rank, size = (_number(environment, name) for name in names)
        if rank >= size:
            raise InputError(
                f"RANK must be below WORLD_SIZE, got {rank} and {size}; unset both, {OWN_SHARE}"
            )
        return cls(rank, size)

    @classmethod
    def _array_task(cls, environment: Mapping[str, str]) -> Self:
        """The task of a Slurm array of evenly spaced numbers."""
        prefix = "SLURM_ARRAY_TASK_"
        if f"{prefix}ID" not in environment or f"{prefix}COUNT" not in environment:
            return cls()
        task, count = (_number(environment, prefix + name) for name in ("ID", "COUNT"))
        given = {"MIN": 0, "MAX": count - 1, "STEP": 1}
        for name in given:
            if prefix + name in environment:
                given[name] = _number(environment, prefix + name)
        step = max(given["STEP"], 1)
        index, rest = divmod(task - given["MIN"], step)
        if rest or not 0 <= index < count or (given["MAX"] - given["MIN"]) // step + 1 != count:
            raise InputError(
                f"the {count} tasks of the Slurm array, of which this is {task}, must be numbered "
                f"evenly, as in --array=0-{count - 1}; number them so, {OWN_SHARE}"
            )
        return cls(index, count)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment[name]
    if not re.fullmatch(r"\d+", value, re.ASCII):
        raise InputError(f"{name} must be a whole number, got {value!r}; unset it, {OWN_SHARE}")
    return int(value)
