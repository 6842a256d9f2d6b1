"""What alerting keeps in PostgreSQL: one row a model, and every transition it has published."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, assert_never

from services.alerting.domain.judgement import JudgedModel, ModelAlerts, StandingAlert
from services.alerting.domain.rules import ALERT_IDS, Breached, Evaluations, InsufficientData, Off, Outcome, Quiet
from shared.contracts.alerts import AlertTransition
from shared.database import Connection, Queries

QUERIES = Queries.load("services.alerting")

Document = dict[str, Any]


class PostgresStore:
    """Set-based: a batch costs the same few statements whatever the number of its models."""

    async def lock(self, connection: Connection, models: Collection[str]) -> dict[str, ModelAlerts]:
        """The models' alerts as they stand, locked in ascending order until the transaction ends."""
        await connection.execute(QUERIES.add_models, list(models))
        rows = await connection.fetch(QUERIES.lock_models, list(models))
        return {
            row["model"]: ModelAlerts(
                snapshot_sequence=row["snapshot_sequence"],
                as_of=row["as_of"],
                alert_sequence=row["alert_sequence"],
                standing=standing_from(row["standing"]),
            )
            for row in rows
        }

    async def save(self, connection: Connection, judged: Collection[JudgedModel]) -> None:
        """Keep what the last snapshot made of each model; the models are locked."""
        if judged:
            rows = [
                (
                    each.model,
                    each.alerts.snapshot_sequence,
                    each.snapshot_id,
                    each.as_of,
                    each.policy_sha256,
                    each.alerts.alert_sequence,
                    each.alerts.state,
                    document_of_standing(each.alerts.standing),
                    document_of_evaluations(each.evaluations),
                )
                for each in judged
            ]
            await connection.execute(QUERIES.save_models, *_columns(rows))

    async def append(self, connection: Connection, transitions: Collection[AlertTransition]) -> None:
        """Keep published transitions, as they are published."""
        if transitions:
            rows = [(each.model, each.alert_sequence, each.as_of, each.known()) for each in transitions]
            await connection.execute(QUERIES.append_transitions, *_columns(rows))


def _columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def document_of_standing(standing: tuple[StandingAlert, ...]) -> Document:
    """Standing alerts by their id, as the database keeps them and ``published_alerts`` tells them."""
    return {
        alert.alert_id: {
            "severity": alert.severity,
            "breach_streak": alert.breach_streak,
            "escalation_level": alert.escalation_level,
            "recommended_action": alert.recommended_action,
            "opened_as_of": alert.opened_as_of.isoformat(),
            "reason": alert.reason,
            "value": alert.value,
            "threshold": alert.threshold,
        }
        for alert in standing
    }


def standing_from(document: Document) -> tuple[StandingAlert, ...]:
    """The standing alerts that ``document_of_standing`` made the document of."""
    return tuple(
        StandingAlert(
            alert_id=alert_id,
            severity=document[alert_id]["severity"],
            breach_streak=document[alert_id]["breach_streak"],
            escalation_level=document[alert_id]["escalation_level"],
            opened_as_of=datetime.fromisoformat(document[alert_id]["opened_as_of"]),
            reason=document[alert_id]["reason"],
            # jsonb gives a great float back without an exponent, which Python reads as an integer.
            value=float(document[alert_id]["value"]),
            threshold=float(document[alert_id]["threshold"]),
        )
        for alert_id in ALERT_IDS
        if alert_id in document
    )


def document_of_evaluations(evaluations: Evaluations) -> Document:
    """What every rule said, by alert id, as ``published_states`` publishes it."""
    return {alert_id: document_of_outcome(outcome) for alert_id, outcome in evaluations.items()}


def document_of_outcome(outcome: Outcome) -> Document:
    """What one rule said: ``outcome`` quiet, breached, insufficient_data or off, and why."""
    severity, evaluated_predictions = None, None
    match outcome:
        case Quiet():
            word = "quiet"
        case Breached():
            word, severity = "breached", outcome.severity
        case InsufficientData():
            word, evaluated_predictions = "insufficient_data", outcome.evaluated_predictions
        case Off():
            word = "off"
        case _:
            assert_never(outcome)
    return {
        "outcome": word,
        "severity": severity,
        "evaluated_predictions": evaluated_predictions,
        "reason": outcome.reason,
        "value": outcome.value,
        "threshold": outcome.threshold,
    }
