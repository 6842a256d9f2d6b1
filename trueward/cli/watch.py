"""``trueward watch``: what the services publish, one line an event, as it comes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import Literal

from pydantic import ValidationError

from shared.contracts.alerts import AlertTransition
from shared.contracts.base import Event
from shared.contracts.retraining import Decision, Job
from shared.contracts.snapshots import Snapshot
from shared.topics import ALERTS, RETRAIN_DECISIONS, RETRAIN_JOBS, SNAPSHOTS, Topic
from trueward.cli import broker, output
from trueward.cli.connection import Connection
from trueward.cli.output import figure, moment

Subject = Literal["alerts", "jobs", "decisions", "snapshots"]
TOPICS: dict[Subject, Topic] = {
    "alerts": ALERTS,
    "jobs": RETRAIN_JOBS,
    "decisions": RETRAIN_DECISIONS,
    "snapshots": SNAPSHOTS,
}


TRANSITIONS: tuple[Subject, ...] = ("alerts", "jobs")
"""What changes: watched where nothing is named."""


def watch(
    subject: Subject | None,
    connection: Connection,
    *,
    model: str | None,
    from_beginning: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Print events until interrupted, or until ``count`` were printed; without a ``subject``, transitions.

    Raises ``UsageError`` for a missing topic, ``AwayError`` without a broker.
    """
    try:
        asyncio.run(_watch(subject, connection, model, count, from_beginning=from_beginning, as_json=as_json))
    except KeyboardInterrupt:
        # Being interrupted is how watching ends.
        return


async def _watch(
    subject: Subject | None,
    connection: Connection,
    model: str | None,
    count: int | None,
    *,
    from_beginning: bool,
    as_json: bool,
) -> None:
    settings = connection.settings()
    watched = [TOPICS[name] for name in ((subject,) if subject else TRANSITIONS)]
    topics = {settings.topic_prefix + topic.name: topic for topic in watched}
    broker.quiet()
    shown = 0
    with broker.one_line(settings):
        records = broker.read(settings, watched, from_beginning=from_beginning)
        async with aclosing(records):
            async for record in records:
                line = printed(topics[record.topic], record.value, model=model, as_json=as_json)
                if line is None:
                    continue
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
                shown += 1
                if shown == count:
                    return


def printed(topic: Topic, value: bytes | None, *, model: str | None, as_json: bool) -> str | None:
    """An event's line; None for an event of another model than asked, or one that cannot be read."""
    try:
        event = topic.contract.model_validate_json(value or b"")
    except ValidationError as error:
        output.note(f"note: passed over a record that is no {topic.contract.__name__}: {error.errors()[0]['msg']}")
        return None
    if model is not None and getattr(event, "model", None) != model:
        return None
    return event.to_json().decode() if as_json else describe(event)


def describe(event: Event | object) -> str:
    """An event in one readable line."""
    match event:
        case AlertTransition():
            return _transition(event)
        case Job():
            return _job(event)
        case Decision():
            return _decision(event)
        case Snapshot():
            return _snapshot(event)
    raise TypeError(f"{type(event).__name__} is not watched")


def _transition(event: AlertTransition) -> str:
    if event.alert_id is None:
        what = f"state {event.previous_state} -> {event.state}"
    else:
        level = f"{event.previous_escalation_level or 'none'} -> {event.escalation_level or 'none'}"
        what = (
            f"{event.alert_id} {event.transition.replace('_', '-')}, {event.severity or 'no'} severity,"
            f" level {level}, streak {event.breach_streak or 0}, {event.recommended_action or 'nothing to do'}"
        )
    return f"{moment(event.as_of)}  {event.model}  {what}: {event.reason}"


def _job(event: Job) -> str:
    said = event.run.message or event.run.model_version
    verdict = f", verdict {event.aftermath.verdict}: {event.aftermath.reason}" if event.aftermath else ""
    return (
        f"{moment(event.as_of)}  {event.model}  job {event.job_id} {event.status}"
        f" ({', '.join(event.triggers)}){f', {said}' if said else ''}{verdict}"
    )


def _decision(event: Decision) -> str:
    reasons = "; ".join(reason.text for reason in event.reasons if reason.outcome == "fired") or "no trigger fired"
    job = f", job {event.job_id}" if event.job_id else ""
    return f"{moment(event.evidence.as_of)}  {event.model}  {event.action} ({event.asked_by}{job}): {reasons}"


def _snapshot(event: Snapshot) -> str:
    metrics = event.metrics
    champion = event.champion.version if event.champion else "all versions"
    behind = ", catching up" if event.catching_up else ""
    quality = f"accuracy {figure(metrics.accuracy)}, Brier {figure(metrics.brier_score)}"
    if metrics.kind == "regression":
        quality = f"MAE {_error(metrics.mae)}, RMSE {_error(metrics.rmse)}, bias {_error(metrics.bias)}"
    return (
        f"{moment(event.as_of)}  {event.model}  snapshot {event.sequence} of {champion}, {event.window}:"
        f" {metrics.evaluated_predictions:,} evaluated, {quality}{behind}"
    )


def _error(value: float | None) -> str:
    """An error to four digits, of whatever size."""
    return "unknown" if value is None else f"{value:.4g}"
