"""Markdown for the reports: tables, folded sections and anchors."""

from collections.abc import Iterable


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    heads = tuple(head)
    rows = ["| " + " | ".join(cells) + " |" for cells in (heads, *lines)]
    rows.insert(1, "|---|" + "---|" * (len(heads) - 1))
    return "\n".join(rows)


def folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def folded_table(title: str, head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    return folded(title, table(head, lines))


def anchor(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    characters = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return characters.replace(" ", "-")


def short(commit: str) -> str:
    """The first ten digits of a commit, with "-dirty" if there were local changes."""
    return commit[:10] + "-dirty" * commit.endswith("-dirty")
