"""How serious a standing alert is, and with it the model: the escalation table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from services.alerting.domain.rules import Severity

EscalationLevel = Literal["none", "watch", "incident"]
RecommendedAction = Literal["monitor", "investigate_now", "open_incident"]
ModelState = Literal["none", "active", "watch", "incident"]

HIGH_STREAK_FOR_INCIDENT: Final = 2
MEDIUM_STREAK_FOR_WATCH: Final = 3

RANK: Final[Mapping[EscalationLevel, int]] = {"none": 0, "watch": 1, "incident": 2}

RECOMMENDED_ACTION: Final[Mapping[EscalationLevel, RecommendedAction]] = {
    "none": "monitor",
    "watch": "investigate_now",
    "incident": "open_incident",
}


def escalation_level(severity: Severity, breach_streak: int) -> EscalationLevel:
    """The level of an alert that has been in breach for ``breach_streak`` snapshots in a row."""
    if severity == "high" and breach_streak >= HIGH_STREAK_FOR_INCIDENT:
        return "incident"
    if severity == "high" or breach_streak >= MEDIUM_STREAK_FOR_WATCH:
        return "watch"
    return "none"


def model_state(levels: Iterable[EscalationLevel]) -> ModelState:
    """The state of a model from the levels of its standing alerts: that of the most serious one."""
    ranked = sorted(levels, key=RANK.__getitem__)
    if not ranked:
        return "none"
    return "active" if ranked[-1] == "none" else ranked[-1]
