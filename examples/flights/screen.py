"""What a person watching the demo sees."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.box import HORIZONTALS
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.flights.loop import Chapter
from examples.flights.story import STATES, Story
from examples.flights.thresholds import Thresholds
from examples.flights.wire import Document

COLOURS = {"none": "green", "active": "cyan", "watch": "yellow", "incident": "red"}
VERDICTS = {
    "keep": "[green]keep it[/]",
    "revert_to_previous_model_artifact": "[red]revert to the previous model's artifact[/]",
}


class Screen:
    """Writes the story as it happens, above a progress bar."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """A line of the demo's own (markup allowed)."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def thresholds(self, chosen: Thresholds) -> None:
        """How the policy's thresholds were chosen, and what they are."""
        self.say("[bold]The policy's thresholds[/], from January and February alone:")
        for line in chosen.explanation():
            self.say(f"  {escape(line)}")

    def chapter(self, chapter: Chapter) -> None:
        """What came of a day, where anything did."""
        day = f"[bold]{chapter.day.end:%Y-%m-%d}[/]"
        for transition in chapter.transitions:
            self.say(f"{day}  {_transition(transition)}")
        for job in chapter.aftermaths:
            self.say(f"{day}  {_aftermath(job)}")
        if chapter.job is not None:
            self.say(f"{day}  {_job(chapter.job)}")
            for line in _outcome(chapter.job):
                self.say(f"{'':10}  {line}")

    @contextmanager
    def progress(self, days: int) -> Iterator[Days]:
        """A progress bar over the days."""
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
        )
        with bar:
            yield Days(bar, bar.add_task("1 March", total=days, note=""))

    def versions(self, rows: Iterable[VersionRow]) -> None:
        """The summary: a line for each version."""
        # Narrow enough for a terminal of 80 columns.
        table = Table(title="What each version came to", title_justify="left", box=HORIZONTALS, padding=0)
        for name in ("version", "in service", "predicted", "evaluated", "accuracy", "Brier"):
            table.add_column(name, justify="left" if name in {"version", "in service"} else "right", no_wrap=True)
        for version, period, metrics in rows:
            table.add_row(
                version,
                period,
                f"{metrics['predictions']:,}",
                f"{metrics['evaluated_predictions']:,}",
                _figure(metrics["accuracy"]),
                _figure(metrics["brier_score"]),
            )
        self.console.print(table)

    def states(self, story: Story) -> None:
        """How many days the model was in each state, and which states never occurred."""
        days = story.days_in_state()
        seen = ", ".join(f"[{COLOURS[state]}]{state}[/] {days[state]}" for state in STATES if days[state])
        self.say(f"Days in each state: {seen}")
        never = [state for state in STATES if not days[state]]
        if never:
            self.say(f"States that never occurred: {', '.join(never)}")

    def addresses(self, http: str) -> None:
        """Where to look."""
        self.say("Look around:")
        model = "?model=flight-late"
        for path in (
            "/",
            f"/api/v1/mlops/monitoring{model}",
            f"/api/v1/mlops/monitoring/trend{model}&days=30",
            f"/api/v1/mlops/retrain/jobs{model}",
            f"/api/v1/mlops/retrain/policy{model}",
            "/api/v1/models",
            "/api/v1/system/status",
        ):
            self.say(f"  {http}{path}")


VersionRow = tuple[str, str, Document]
"""A version, the period in which it predicted, and its metrics over everything."""


class Days:
    """The progress bar."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def advance(self, chapter: Chapter) -> None:
        """A day is through."""
        metrics = chapter.snapshot["metrics"]
        figures = f"accuracy {_figure(metrics['accuracy'])} Brier {_figure(metrics['brier_score'])}"
        colour = COLOURS[chapter.state]
        self._bar.update(
            self._task,
            advance=1,
            description=f"{chapter.day.start.day} {chapter.day.start:%B} [{colour}]{chapter.state}[/]",
            note=figures,
        )


def _transition(said: Document) -> str:
    if said["transition"] == "state_changed":
        before, after = (f"[{COLOURS[said[key]]}]{said[key]}[/]" for key in ("previous_state", "state"))
        return f"state     {before} -> {after}"
    what = said["transition"].replace("_", "-")
    severity = f" ({said['severity']})" if said["severity"] and said["transition"] != "resolved" else ""
    return f"alert     {said['alert_id']} {what}{severity}: {_words(said['reason'])}"


def _job(job: Document) -> str:
    fired = "; ".join(reason["text"] for reason in job["reasons"] if reason["outcome"] == "fired")
    return f"[magenta]retrain[/]   job {job['job_id']}: {_words(fired)}"


def _outcome(job: Document) -> Iterator[str]:
    run = job["run"]
    if job["status"] != "completed":
        yield f"[red]{job['status']}[/]: {escape(run['message'] or 'no reason was given')}"
        return
    details = run["details"]
    yield (
        f"{job['champion']['version']} -> [bold]{run['model_version']}[/], trained on {details['labels']:,} labels"
        f" of {_day(details['trained_from'])} to {_day(job['as_of'])}, in service from now on"
    )


def _aftermath(job: Document) -> str:
    after, before = job["aftermath"], job["rollback_plan"]["baseline"]
    better = _compared(after, before)
    return (
        f"[magenta]verdict[/]   {after['model_version']} is {better}:"
        f" accuracy {_figure(before['accuracy'])} -> {_figure(after['accuracy'])},"
        f" Brier {_figure(before['brier_score'])} -> {_figure(after['brier_score'])}; {VERDICTS[after['verdict']]}"
    )


def _compared(after: Document, before: Document) -> str:
    """Better or worse by both figures, or better by one alone."""
    if any(each[name] is None for each in (after, before) for name in ("accuracy", "brier_score")):
        return "not to be compared"
    gains = (after["accuracy"] > before["accuracy"], after["brier_score"] < before["brier_score"])
    if all(gains):
        return "[green]better[/] than before"
    return "[yellow]neither better nor worse[/] than before" if any(gains) else "[red]worse[/] than before"


def _words(reason: str) -> str:
    """A reason as it was given, with numbers as short as the table's."""
    return escape(re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", reason))


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _day(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d}"
