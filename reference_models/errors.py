"""The error for bad input, and counts and lists of names for its messages."""

from collections.abc import Sequence


class InputError(ValueError):
    """Input that cannot be used. The message names the fault and says how to repair it."""


def first_few(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names, joined by commas; an ellipsis stands for the others."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def count(number: int, singular: str, plural: str | None = None) -> str:
    """A number before a noun, or before a noun and its verb: "1 mask", "3 masks".

    plural: Default: `singular` with an s.
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"
