"""The parts of the written reports."""

from collections.abc import Iterable


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    heads = tuple(head)
    rows = ["| " + " | ".join(cells) + " |" for cells in (heads, *lines)]
    rows.insert(1, "|---|" + "---|" * (len(heads) - 1))
    return "\n".join(rows)


def folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def anchor(title: str) -> str:
    """The heading's anchor, as GitHub makes it."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def short(commit: str) -> str:
    """Ten digits, and whether there were local changes."""
    return commit[:10] + "-dirty" * commit.endswith("-dirty")
