"""Changes of alerts and of a model's escalation state."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.contracts.base import Event, Finite, Name, Sha256, Text, Timestamp

AlertId = Literal[
    "accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "data_stale", "pipeline_stale"
]
Severity = Literal["medium", "high"]
EscalationLevel = Literal["none", "watch", "incident"]
RecommendedAction = Literal["monitor", "investigate_now", "open_incident"]
ModelState = Literal["none", "active", "watch", "incident"]
Transition = Literal["opened", "escalated", "de_escalated", "resolved", "state_changed"]


class AlertTransition(Event):
    """An alert, or (``state_changed``) a model's escalation state, changed.

    ``alert_sequence`` numbers a model's transitions 1, 2, 3, ...: a reader drops what is not above the last
    it saw. ``alert_id``, ``severity`` and what follows are null for ``state_changed``; ``state`` is the
    model's after the whole snapshot, so transitions of one snapshot agree on it.
    """

    event_type: ClassVar[str] = "trueward.alert-transition.v1"

    model: Name
    alert_sequence: Annotated[int, Field(ge=1)]
    transition: Transition
    alert_id: AlertId | None
    severity: Severity | None
    breach_streak: Annotated[int, Field(ge=0)] | None
    escalation_level: EscalationLevel | None
    previous_escalation_level: EscalationLevel | None
    recommended_action: RecommendedAction | None
    state: ModelState
    previous_state: ModelState
    reason: Text
    value: Finite | None
    threshold: Finite | None
    snapshot_id: Name
    snapshot_sequence: Annotated[int, Field(ge=1)]
    as_of: Timestamp
    policy_sha256: Sha256

    def event_id(self) -> str:
        """Derived from the snapshot and what changed: a transition happens once a snapshot."""
        return f"{self.snapshot_id}-{self.alert_id or 'state'}-{self.transition}"

    def subject(self) -> str:
        """The model."""
        return self.model

    def event_time(self) -> datetime:
        """``as_of`` of the snapshot that brought the change."""
        return self.as_of
