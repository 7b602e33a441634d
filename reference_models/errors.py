"""The error for bad input, and lists of names in its messages."""

from collections.abc import Sequence


class InputError(ValueError):
    """Input that cannot be used. The message names the fault and the repair."""


def first_few(names: Sequence[str], most: int = 5) -> str:
    """The first names, joined by commas, and an ellipsis for the others."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def count(number: int, noun: str) -> str:
    """`3 masks`, or `1 mask`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
