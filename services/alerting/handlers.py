"""Snapshots come in: load the models' alerts, judge, save, publish what changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, assert_never

import structlog
from prometheus_client import Counter

from services.alerting.domain.judgement import (
    AlertChanged,
    Conflict,
    Judged,
    JudgedModel,
    Judgement,
    ModelAlerts,
    Repeat,
    StateChanged,
    Transition,
    judge,
)
from services.alerting.domain.judgement import Snapshot as DomainSnapshot
from services.alerting.domain.rules import (
    AccuracyRule,
    AlertPolicy,
    BrierRule,
    Figures,
    MaeRule,
    StalenessRule,
)
from shared.contracts import alerts as contracts_alerts
from shared.contracts import models as contracts_models
from shared.contracts.alerts import AlertTransition
from shared.contracts.base import unknown_fields
from shared.contracts.models import Policy
from shared.contracts.snapshots import Snapshot
from shared.database import Connection
from shared.decoding import decode
from shared.effects import Effects, Handler
from shared.errors import Refusal
from shared.instruments import UNKNOWN_FIELDS_TOTAL
from shared.records import Record
from shared.topics import ALERTS

SNAPSHOTS_TOTAL = Counter("trueward_alerting_snapshots_total", "Snapshots by what came of them.", ["outcome"])
MISSING_SNAPSHOTS_TOTAL = Counter(
    "trueward_alerting_missing_snapshots_total", "Snapshots that a model's sequence skipped."
)
TRANSITIONS_TOTAL = Counter(
    "trueward_alerting_transitions_total", "Changes of alerts and of models' states.", ["transition"]
)

log = structlog.get_logger()


class Store(Protocol):
    """Where the models' alerts are kept. Everything happens in the batch's transaction."""

    async def lock(self, connection: Connection, models: Collection[str]) -> Mapping[str, ModelAlerts]:
        """The alerts of each of the models, locked until the transaction ends."""
        ...

    async def save(self, connection: Connection, judged: Collection[JudgedModel]) -> None:
        """Keep what the last snapshot made of each model."""
        ...

    async def append(self, connection: Connection, transitions: Collection[AlertTransition]) -> None:
        """Keep published transitions."""
        ...


@dataclass
class Decided:
    """What a batch of snapshots comes to.

    ``judgements`` are those of every snapshot; ``models`` is what is left of each model, and ``transitions``
    are the events, in the order in which they are published.
    """

    judgements: list[tuple[Snapshot, Judgement]] = field(default_factory=list)
    models: dict[str, JudgedModel] = field(default_factory=dict)
    transitions: list[AlertTransition] = field(default_factory=list)


def alerting_handler(store: Store) -> Handler:
    """The handler of the topic ``snapshots``."""

    async def handle(records: Sequence[Record], effects: Effects) -> None:
        received = accepted(records, effects)
        if not received:
            return
        snapshots = [snapshot for _, snapshot in received]
        models = sorted({snapshot.model for snapshot in snapshots})
        decided = decide(await store.lock(effects.connection, models), snapshots)
        await store.save(effects.connection, decided.models.values())
        await store.append(effects.connection, decided.transitions)
        for transition in decided.transitions:
            effects.emit(ALERTS, transition, key=transition.model)
        for (record, _), (snapshot, judgement) in zip(received, decided.judgements, strict=True):
            if isinstance(judgement, Conflict):
                effects.refuse(record, Refusal("conflict", "sequence", judgement.reason))
            effects.after_commit(partial(_tell, snapshot, judgement))

    return handle


def accepted(records: Iterable[Record], effects: Effects) -> list[tuple[Record, Snapshot]]:
    """The snapshots among the records, in their order; what is none goes to the dead letters."""
    snapshots = []
    for record in records:
        match decode(record, Snapshot):
            case Refusal() as refusal:
                effects.refuse(record, refusal)
            case snapshot:
                effects.count(UNKNOWN_FIELDS_TOTAL, len(unknown_fields(snapshot)), topic=record.topic)
                snapshots.append((record, snapshot))
    return snapshots


def decide(before: Mapping[str, ModelAlerts], snapshots: Iterable[Snapshot]) -> Decided:
    """Judge snapshots of any models one after the other, each by the state that the one before it left."""
    decided = Decided()
    for snapshot in snapshots:
        last = decided.models.get(snapshot.model)
        alerts = before[snapshot.model] if last is None else last.alerts
        judgement = judge(policy_of(snapshot.policy), alerts, snapshot_of(snapshot))
        decided.judgements.append((snapshot, judgement))
        if not isinstance(judgement, Judged):
            continue
        decided.models[snapshot.model] = JudgedModel(
            model=snapshot.model,
            snapshot_id=snapshot.snapshot_id,
            as_of=snapshot.as_of,
            policy_sha256=snapshot.policy_sha256,
            alerts=judgement.state,
            evaluations=judgement.evaluations,
        )
        decided.transitions += [
            event_of(change, snapshot, before=alerts, after=judgement.state) for change in judgement.transitions
        ]
    return decided


def _tell(snapshot: Snapshot, judgement: Judgement) -> None:
    """Count and log what came of a snapshot."""
    match judgement:
        case Repeat():
            SNAPSHOTS_TOTAL.labels(outcome="repeat").inc()
            log.info("snapshot dropped", model=snapshot.model, reason=judgement.reason)
        case Conflict():
            SNAPSHOTS_TOTAL.labels(outcome="conflict").inc()
            log.error("snapshot refused", model=snapshot.model, reason=judgement.reason)
        case Judged():
            SNAPSHOTS_TOTAL.labels(outcome="judged").inc()
            if judgement.missing:
                _tell_gap(snapshot, judgement.missing)
            for change in judgement.transitions:
                _tell_change(snapshot, change)
        case _:
            assert_never(judgement)


def _tell_gap(snapshot: Snapshot, missing: int) -> None:
    MISSING_SNAPSHOTS_TOTAL.inc(missing)
    log.warning(
        "snapshots are missing, streaks start anew",
        model=snapshot.model,
        sequence=snapshot.sequence,
        missing=missing,
    )


def _tell_change(snapshot: Snapshot, change: Transition) -> None:
    transition = _word(change)
    TRANSITIONS_TOTAL.labels(transition=transition).inc()
    log.info(
        transition,
        model=snapshot.model,
        as_of=snapshot.as_of.isoformat(),
        alert=None if isinstance(change, StateChanged) else change.alert_id,
        level=change.state if isinstance(change, StateChanged) else change.escalation_level,
        reason=change.reason,
    )


def policy_of(policy: Policy) -> AlertPolicy:
    """The part of a policy that alerting judges by."""
    rules = policy.rules
    accuracy, brier = rules.accuracy_breach, rules.brier_breach
    multiclass_brier, mae = rules.multiclass_brier_breach, rules.mae_breach
    return AlertPolicy(
        min_evaluated=policy.min_evaluated,
        accuracy_breach=None if accuracy is None else AccuracyRule(accuracy.below),
        brier_breach=None if brier is None else BrierRule(brier.above, brier.high_above),
        multiclass_brier_breach=None
        if multiclass_brier is None
        else BrierRule(multiclass_brier.above, multiclass_brier.high_above),
        mae_breach=None if mae is None else MaeRule(mae.baseline, mae.above_ratio, mae.high_above_ratio),
        data_stale=_staleness_rule(rules.data_stale),
        pipeline_stale=_staleness_rule(rules.pipeline_stale),
    )


def _staleness_rule(rule: contracts_models.StalenessRule | None) -> StalenessRule | None:
    return None if rule is None else StalenessRule(rule.above_seconds, rule.high_above_seconds)


def snapshot_of(snapshot: Snapshot) -> DomainSnapshot:
    """The part of a snapshot that alerting judges."""
    metrics = snapshot.metrics
    return DomainSnapshot(
        sequence=snapshot.sequence,
        as_of=snapshot.as_of,
        figures=Figures(
            kind=metrics.kind,
            mae=metrics.mae,
            baseline_mae=metrics.baseline_mae,
            baseline_evaluated_predictions=metrics.baseline_evaluated_predictions,
            evaluated_predictions=metrics.evaluated_predictions,
            accuracy=metrics.accuracy,
            brier_score=metrics.brier_score,
            data_freshness_seconds=metrics.data_freshness_seconds,
            pipeline_freshness_seconds=metrics.pipeline_freshness_seconds,
            catching_up=snapshot.catching_up,
        ),
    )


def event_of(
    change: Transition, snapshot: Snapshot, *, before: ModelAlerts, after: ModelAlerts
) -> AlertTransition:
    """The event that tells of a change which ``snapshot`` brought."""
    made = partial(
        AlertTransition,
        model=snapshot.model,
        alert_sequence=change.alert_sequence,
        state=after.state,
        previous_state=before.state,
        reason=change.reason,
        snapshot_id=snapshot.snapshot_id,
        snapshot_sequence=snapshot.sequence,
        as_of=snapshot.as_of,
        policy_sha256=snapshot.policy_sha256,
    )
    match change:
        case AlertChanged():
            return made(
                transition=change.transition,
                alert_id=change.alert_id,
                severity=change.severity,
                breach_streak=change.breach_streak,
                escalation_level=change.escalation_level,
                previous_escalation_level=change.previous_escalation_level,
                recommended_action=change.recommended_action,
                value=change.value,
                threshold=change.threshold,
            )
        case StateChanged():
            return made(
                transition="state_changed",
                alert_id=None,
                severity=None,
                breach_streak=None,
                escalation_level=None,
                previous_escalation_level=None,
                recommended_action=None,
                value=None,
                threshold=None,
            )
        case _:
            assert_never(change)


def _word(change: Transition) -> contracts_alerts.Transition:
    return "state_changed" if isinstance(change, StateChanged) else change.transition
