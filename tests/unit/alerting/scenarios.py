"""Histories of snapshots with what alerting must make of them: one suite for the fake store and PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.contracts.alerts import AlertTransition
from shared.contracts.models import Rules
from shared.contracts.snapshots import Snapshot
from tests.unit.alerting.builders import DAY, MODEL, make_snapshot

HIGH = {"accuracy": 0.5}
MEDIUM = {"brier_score": 0.3}
STALE = {"data_freshness_seconds": 3.0 * DAY}
OFF = {"rules": Rules(accuracy_breach=None)}
FEW = {"accuracy": 0.5, "evaluated_predictions": 29}
HEALTHY: dict[str, Any] = {}

Change = tuple[int, str, str | None, str | None, str | None]
"""Snapshot sequence, transition, alert id, escalation level before and after (for a state: the states)."""
Standing = tuple[str, str, int, str]
"""Alert id, severity, streak, escalation level."""


@dataclass(frozen=True)
class Scenario:
    """``history`` by snapshot sequence; the expected changes in order, and what stands at the end."""

    name: str
    history: Sequence[tuple[int, Mapping[str, Any]]]
    changes: Sequence[Change]
    state: str
    standing: Sequence[Standing] = ()

    def snapshots(self) -> list[Snapshot]:
        return [make_snapshot(sequence, model=MODEL, **about) for sequence, about in self.history]


def changes_of(transitions: Sequence[AlertTransition]) -> list[Change]:
    return [
        (
            each.snapshot_sequence,
            each.transition,
            each.alert_id,
            each.previous_state if each.alert_id is None else each.previous_escalation_level,
            each.state if each.alert_id is None else each.escalation_level,
        )
        for each in transitions
    ]


OPENED_HIGH: list[Change] = [
    (1, "opened", "accuracy_breach", None, "watch"),
    (1, "state_changed", None, "none", "watch"),
]
HIGH_INCIDENT: list[Change] = [
    *OPENED_HIGH,
    (2, "escalated", "accuracy_breach", "watch", "incident"),
    (2, "state_changed", None, "watch", "incident"),
]


def resolved(sequence: int, alert_id: str = "accuracy_breach", level: str = "incident") -> list[Change]:
    state = "active" if level == "none" else level
    return [
        (sequence, "resolved", alert_id, level, "none"),
        (sequence, "state_changed", None, state, "none"),
    ]


SCENARIOS = [
    Scenario("a healthy model is silent", [(1, HEALTHY), (2, HEALTHY)], [], "none"),
    Scenario(
        "high breach opens at watch",
        [(1, HIGH)],
        OPENED_HIGH,
        "watch",
        [("accuracy_breach", "high", 1, "watch")],
    ),
    Scenario(
        "high breach is an incident at its second snapshot, and then silent",
        [(1, HIGH), (2, HIGH), (3, HIGH), (4, HIGH)],
        HIGH_INCIDENT,
        "incident",
        [("accuracy_breach", "high", 4, "incident")],
    ),
    Scenario(
        "medium breach is active, and watched from its third snapshot on",
        [(1, MEDIUM), (2, MEDIUM), (3, MEDIUM), (4, MEDIUM)],
        [
            (1, "opened", "brier_breach", None, "none"),
            (1, "state_changed", None, "none", "active"),
            (3, "escalated", "brier_breach", "none", "watch"),
            (3, "state_changed", None, "active", "watch"),
        ],
        "watch",
        [("brier_breach", "medium", 4, "watch")],
    ),
    Scenario(
        "medium that turns high after one snapshot is an incident",
        [(1, MEDIUM), (2, {"brier_score": 0.34})],
        [
            (1, "opened", "brier_breach", None, "none"),
            (1, "state_changed", None, "none", "active"),
            (2, "escalated", "brier_breach", "none", "incident"),
            (2, "state_changed", None, "active", "incident"),
        ],
        "incident",
        [("brier_breach", "high", 2, "incident")],
    ),
    Scenario(
        "high that turns medium de-escalates and keeps its streak",
        [(1, {"brier_score": 0.34}), (2, MEDIUM), (3, MEDIUM)],
        [
            (1, "opened", "brier_breach", None, "watch"),
            (1, "state_changed", None, "none", "watch"),
            (2, "de_escalated", "brier_breach", "watch", "none"),
            (2, "state_changed", None, "watch", "active"),
            (3, "escalated", "brier_breach", "none", "watch"),
            (3, "state_changed", None, "active", "watch"),
        ],
        "watch",
        [("brier_breach", "medium", 3, "watch")],
    ),
    Scenario(
        "a figure back in bounds resolves",
        [(1, HIGH), (2, HIGH), (3, HEALTHY)],
        [*HIGH_INCIDENT, *resolved(3)],
        "none",
    ),
    Scenario(
        "insufficient data resolves", [(1, HIGH), (2, HIGH), (3, FEW)], [*HIGH_INCIDENT, *resolved(3)], "none"
    ),
    Scenario(
        "an unknown value resolves",
        [(1, HIGH), (2, HIGH), (3, {"accuracy": None})],
        [*HIGH_INCIDENT, *resolved(3)],
        "none",
    ),
    Scenario(
        "a rule turned off resolves",
        [(1, HIGH), (2, HIGH), (3, {**HIGH, **OFF})],
        [*HIGH_INCIDENT, *resolved(3)],
        "none",
    ),
    Scenario(
        "catching up resolves staleness, which opens anew after it",
        [(1, STALE), (2, {**STALE, "catching_up": True}), (3, STALE)],
        [
            (1, "opened", "data_stale", None, "none"),
            (1, "state_changed", None, "none", "active"),
            *resolved(2, "data_stale", "none"),
            (3, "opened", "data_stale", None, "none"),
            (3, "state_changed", None, "none", "active"),
        ],
        "active",
        [("data_stale", "medium", 1, "none")],
    ),
    Scenario(
        "insufficient data ends the streak",
        [(1, HIGH), (2, FEW), (3, HIGH)],
        [
            *OPENED_HIGH,
            *resolved(2, level="watch"),
            (3, "opened", "accuracy_breach", None, "watch"),
            (3, "state_changed", None, "none", "watch"),
        ],
        "watch",
        [("accuracy_breach", "high", 1, "watch")],
    ),
    Scenario(
        "a gap starts the streak anew without closing the alert",
        [(1, HIGH), (2, HIGH), (4, HIGH), (5, HIGH)],
        [
            *HIGH_INCIDENT,
            (4, "de_escalated", "accuracy_breach", "incident", "watch"),
            (4, "state_changed", None, "incident", "watch"),
            (5, "escalated", "accuracy_breach", "watch", "incident"),
            (5, "state_changed", None, "watch", "incident"),
        ],
        "incident",
        [("accuracy_breach", "high", 2, "incident")],
    ),
    Scenario(
        "a gap keeps a medium streak from being watched",
        [(1, MEDIUM), (2, MEDIUM), (4, MEDIUM), (5, MEDIUM)],
        [
            (1, "opened", "brier_breach", None, "none"),
            (1, "state_changed", None, "none", "active"),
        ],
        "active",
        [("brier_breach", "medium", 2, "none")],
    ),
    Scenario(
        "what was missed before the first snapshot ends nothing",
        [(7, HIGH), (8, HIGH)],
        [
            (7, "opened", "accuracy_breach", None, "watch"),
            (7, "state_changed", None, "none", "watch"),
            (8, "escalated", "accuracy_breach", "watch", "incident"),
            (8, "state_changed", None, "watch", "incident"),
        ],
        "incident",
        [("accuracy_breach", "high", 2, "incident")],
    ),
    Scenario(
        "repeats and older snapshots change nothing",
        [(1, HIGH), (1, HIGH), (2, HIGH), (1, HEALTHY), (2, HIGH)],
        HIGH_INCIDENT,
        "incident",
        [("accuracy_breach", "high", 2, "incident")],
    ),
    Scenario(
        "several alerts change in rule order, the state once and last",
        [(1, {**HIGH, **MEDIUM, **STALE}), (2, {**MEDIUM, **STALE}), (3, {**HIGH, **MEDIUM, **STALE})],
        [
            (1, "opened", "accuracy_breach", None, "watch"),
            (1, "opened", "brier_breach", None, "none"),
            (1, "opened", "data_stale", None, "none"),
            (1, "state_changed", None, "none", "watch"),
            (2, "resolved", "accuracy_breach", "watch", "none"),
            (2, "state_changed", None, "watch", "active"),
            (3, "opened", "accuracy_breach", None, "watch"),
            (3, "escalated", "brier_breach", "none", "watch"),
            (3, "escalated", "data_stale", "none", "watch"),
            (3, "state_changed", None, "active", "watch"),
        ],
        "watch",
        [
            ("accuracy_breach", "high", 1, "watch"),
            ("brier_breach", "medium", 3, "watch"),
            ("data_stale", "medium", 3, "watch"),
        ],
    ),
    Scenario(
        "an alert that joins at the state's level does not change the state",
        [(1, HIGH), (2, {**HIGH, **STALE})],
        [
            *OPENED_HIGH,
            (2, "escalated", "accuracy_breach", "watch", "incident"),
            (2, "opened", "data_stale", None, "none"),
            (2, "state_changed", None, "watch", "incident"),
        ],
        "incident",
        [("accuracy_breach", "high", 2, "incident"), ("data_stale", "medium", 1, "none")],
    ),
]
