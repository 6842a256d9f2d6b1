"""Output: tables and lines for people, JSON for machines, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

STATE_STYLES = {
    "incident": "bold red",
    "watch": "yellow",
    "active": "cyan",
    "none": "green",
    "good": "green",
    "waiting": "dim",
}
"""Colours only underline: the word is always there."""
WIDTH_UNSEEN = 200
"""Columns of a table that goes into a file or a pipe."""


def say(sentence: str) -> None:
    """A line for people, on standard output."""
    sys.stdout.write(sentence + "\n")


def note(sentence: str) -> None:
    """A line beside the answer, on standard error."""
    sys.stderr.write(sentence + "\n")


def answer(document: object) -> None:
    """A document for machines, on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def show(table: Table) -> None:
    """A table for people; where nobody looks it is as wide as it needs to be."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_UNSEEN)
    console.print(table)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with a title."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


@contextmanager
def progress(what: str, total: int | None, *, as_bytes: bool, hidden: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while work goes on; yields what to tell of each step."""
    units = (DownloadColumn(), TransferSpeedColumn()) if as_bytes else (MofNCompleteColumn(),)
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *units,
        TimeRemainingColumn(),
        console=console,
        disable=hidden or not console.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


def moment(time: datetime) -> str:
    """A moment, to the second, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ")


def figure(value: float | None) -> str:
    """A figure to four digits; unknown is said, not invented."""
    return "unknown" if value is None else f"{value:.4f}"
