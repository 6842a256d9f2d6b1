"""The judgement of one snapshot: which alerts stand after it, what changed, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from services.alerting.domain.escalation import (
    RANK,
    RECOMMENDED_ACTION,
    EscalationLevel,
    ModelState,
    RecommendedAction,
    escalation_level,
    model_state,
)
from services.alerting.domain.rules import (
    ALERT_IDS,
    AlertId,
    AlertPolicy,
    Breached,
    Evaluations,
    Figures,
    Outcome,
    Severity,
    evaluate,
    not_of_kind,
)

AlertTransitionKind = Literal["opened", "escalated", "de_escalated", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot of a model: its place in the model's sequence, its moment and its figures."""

    sequence: int
    as_of: datetime
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingAlert:
    """An alert that stands, as of the last snapshot.

    ``breach_streak`` counts the snapshots in breach in a row, that one included; ``reason`` is the rule's,
    and tells of the streak.
    """

    alert_id: AlertId
    severity: Severity
    breach_streak: int
    escalation_level: EscalationLevel
    opened_as_of: datetime
    reason: str
    value: float
    threshold: float

    @property
    def recommended_action(self) -> RecommendedAction:
        """What people should do."""
        return RECOMMENDED_ACTION[self.escalation_level]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAlerts:
    """A model's alerts after the snapshot with ``snapshot_sequence`` (0: none was judged yet).

    ``as_of`` is that snapshot's, ``alert_sequence`` the number of the model's newest transition; ``standing`` is
    in rule order.
    """

    snapshot_sequence: int = 0
    as_of: datetime | None = None
    alert_sequence: int = 0
    standing: tuple[StandingAlert, ...] = ()

    @property
    def state(self) -> ModelState:
        """The model's escalation state."""
        return model_state(alert.escalation_level for alert in self.standing)

    def alert(self, alert_id: AlertId) -> StandingAlert | None:
        """The standing alert of that id."""
        return next((alert for alert in self.standing if alert.alert_id == alert_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertChanged:
    """An alert opened, resolved, or moved between escalation levels.

    A resolved alert keeps the severity that it had; its streak is 0. ``previous_escalation_level`` is None
    for one that opened.
    """

    alert_sequence: int
    transition: AlertTransitionKind
    alert_id: AlertId
    severity: Severity
    breach_streak: int
    escalation_level: EscalationLevel
    previous_escalation_level: EscalationLevel | None
    reason: str
    value: float | None
    threshold: float | None

    @property
    def recommended_action(self) -> RecommendedAction:
        """What people should do."""
        return RECOMMENDED_ACTION[self.escalation_level]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """The model's escalation state changed."""

    alert_sequence: int
    state: ModelState
    previous_state: ModelState
    reason: str


Transition: TypeAlias = AlertChanged | StateChanged


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedModel:
    """What is kept of a model: its alerts, and what every rule said, at the last snapshot judged."""

    model: str
    snapshot_id: str
    as_of: datetime
    policy_sha256: str
    alerts: ModelAlerts
    evaluations: Evaluations


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The snapshot was new. ``missing`` counts the snapshots between the last one judged and this one."""

    state: ModelAlerts
    transitions: tuple[Transition, ...]
    evaluations: Evaluations
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """The snapshot is not above the last one judged: it changes nothing."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """The snapshot is new by its time and old by its number: whoever numbers them has lost what it published."""

    reason: str


Judgement: TypeAlias = Judged | Repeat | Conflict


def judge(policy: AlertPolicy, before: ModelAlerts, snapshot: Snapshot) -> Judgement:
    """Judge a snapshot by the policy that came with it.

    A pure function: the same state and snapshot always give the same judgement. Per alert there is at most
    one transition, in rule order, then at most one change of the model's state.
    """
    if snapshot.sequence <= before.snapshot_sequence:
        if before.as_of is not None and snapshot.as_of > before.as_of:
            return Conflict(
                reason=f"snapshot {snapshot.sequence} is later than {before.snapshot_sequence}, the last one "
                f"judged, of {before.as_of.isoformat()}: was the metrics service's database restored?"
            )
        return Repeat(
            reason=f"snapshot {snapshot.sequence} is not above {before.snapshot_sequence}, the last one judged"
        )
    missing = snapshot.sequence - before.snapshot_sequence - 1
    evaluations = _evaluations(policy, before, snapshot.figures)
    standing = tuple(_standing(before, snapshot.as_of, missing, evaluations))
    state = model_state(alert.escalation_level for alert in standing)
    transitions = tuple(_transitions(before, standing, state, evaluations))
    after = ModelAlerts(
        snapshot_sequence=snapshot.sequence,
        as_of=snapshot.as_of,
        alert_sequence=before.alert_sequence + len(transitions),
        standing=standing,
    )
    return Judged(state=after, transitions=transitions, evaluations=evaluations, missing=missing)


def _evaluations(policy: AlertPolicy, before: ModelAlerts, figures: Figures) -> Evaluations:
    """What the rules said, those of standing alerts included that do not judge the kind that the model now is."""
    found = evaluate(policy, figures)
    left = {alert.alert_id for alert in before.standing} - set(found)
    if not left:
        return found
    return {
        alert_id: found.get(alert_id, not_of_kind(figures.kind))
        for alert_id in ALERT_IDS
        if alert_id in found or alert_id in left
    }


def _standing(
    before: ModelAlerts, as_of: datetime, missing: int, evaluations: Evaluations
) -> Iterator[StandingAlert]:
    """The alerts in breach at this snapshot; nothing else stands."""
    for alert_id, outcome in evaluations.items():
        if not isinstance(outcome, Breached):
            continue
        old = before.alert(alert_id)
        streak = old.breach_streak + 1 if old is not None and not missing else 1
        yield StandingAlert(
            alert_id=alert_id,
            severity=outcome.severity,
            breach_streak=streak,
            escalation_level=escalation_level(outcome.severity, streak),
            opened_as_of=as_of if old is None else old.opened_as_of,
            reason=_with_streak(outcome.reason, streak, missing if old is not None else 0),
            value=outcome.value,
            threshold=outcome.threshold,
        )


def _with_streak(reason: str, streak: int, missing: int) -> str:
    if missing:
        return f"{reason}; the streak starts anew after a gap of {missing} in the snapshots"
    return reason if streak == 1 else f"{reason}, {streak} snapshots in a row"


def _transitions(
    before: ModelAlerts, standing: Sequence[StandingAlert], state: ModelState, evaluations: Evaluations
) -> Iterator[Transition]:
    after = {alert.alert_id: alert for alert in standing}
    sequence = before.alert_sequence
    for alert_id, outcome in evaluations.items():
        change = _change(before.alert(alert_id), after.get(alert_id), outcome, sequence + 1)
        if change is not None:
            yield change
            sequence += 1
    if state != before.state:
        yield StateChanged(
            alert_sequence=sequence + 1,
            state=state,
            previous_state=before.state,
            reason=_why(state, standing),
        )


def _change(
    old: StandingAlert | None, new: StandingAlert | None, outcome: Outcome, sequence: int
) -> AlertChanged | None:
    if new is None:
        return None if old is None else _resolved(old, outcome, sequence)
    if old is None:
        return _moved("opened", new, None, sequence)
    climb = RANK[new.escalation_level] - RANK[old.escalation_level]
    if climb == 0:
        return None
    return _moved("escalated" if climb > 0 else "de_escalated", new, old.escalation_level, sequence)


def _moved(
    transition: AlertTransitionKind, alert: StandingAlert, previous: EscalationLevel | None, sequence: int
) -> AlertChanged:
    return AlertChanged(
        alert_sequence=sequence,
        transition=transition,
        alert_id=alert.alert_id,
        severity=alert.severity,
        breach_streak=alert.breach_streak,
        escalation_level=alert.escalation_level,
        previous_escalation_level=previous,
        reason=alert.reason,
        value=alert.value,
        threshold=alert.threshold,
    )


def _resolved(old: StandingAlert, outcome: Outcome, sequence: int) -> AlertChanged:
    return AlertChanged(
        alert_sequence=sequence,
        transition="resolved",
        alert_id=old.alert_id,
        severity=old.severity,
        breach_streak=0,
        escalation_level="none",
        previous_escalation_level=old.escalation_level,
        reason=outcome.reason,
        value=outcome.value,
        threshold=outcome.threshold,
    )


def _why(state: ModelState, standing: Sequence[StandingAlert]) -> str:
    """The alerts that a model's state comes from."""
    if state == "none":
        return "no alert stands"
    if state == "active":
        return f"standing: {', '.join(alert.alert_id for alert in standing)}"
    named = (alert.alert_id for alert in standing if alert.escalation_level == state)
    return f"escalated to {state}: {', '.join(named)}"
