"""Errors that end a command: bad input, and a stop; and lists of names in messages."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from unicodedata import category


def escaped(text: str) -> str:
    """The text on one line: line breaks and other control characters, which the names of files may
    hold, as `\\n` and the like."""
    return "".join(
        character.encode("unicode_escape").decode()
        if category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in text
    )


class InputError(Exception):
    """Input that cannot be used. The message names each fault on a line of its own, and says how to
    repair it."""

    def __init__(self, *lines: str) -> None:
        self.lines = [escaped(line) for line in lines]
        super().__init__("\n  ".join(self.lines))


MINUTES_OVER = 75
"""Exit status of a command that used up its --minutes before it finished: EX_TEMPFAIL."""


class OutOfTime(Exception):
    """The time budget is used up, or a signal asked the command to stop."""

    def __init__(self, status: int = MINUTES_OVER) -> None:
        self.status = status
        """Exit status for the command."""


def lacks_memory(error: BaseException) -> bool:
    """Whether NumPy, PyTorch or JAX failed to allocate memory, of this machine or of a GPU."""
    texts = ("out of memory", "resource_exhausted", "allocate memory", "not enough memory")
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(each in text for each in texts)
    )


class Faults:
    """Input errors of several checks, reported together."""

    def __init__(self, errors: Iterable[InputError] = ()) -> None:
        self.errors = list(errors)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep an input error of the block for later."""
        try:
            yield
        except InputError as error:
            self.errors.append(error)

    def report(self, most: int = 10) -> None:
        """Raise what was collected, as one error that quotes at most `most` of them."""
        lines = list(dict.fromkeys(line for error in self.errors for line in error.lines))
        if len(lines) == 1:
            raise self.errors[0]  # Of its own class.
        if lines:
            rest = [f"and {len(lines) - most} more"] if len(lines) > most else []
            raise InputError(*lines[:most], *rest)


def first_few(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names, joined by commas; an ellipsis stands for the others."""
    return ", ".join(map(escaped, names[:most])) + (", …" if len(names) > most else "")


def count(number: int, singular: str, plural: str | None = None) -> str:
    """A number before a noun, or before a noun and its verb: "1 mask", "3 masks".

    plural: Default: `singular` with an s.
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"
