"""Between the contracts and the domain."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from services.retrain.domain.aftermath import Criteria, Keep, Revert
from services.retrain.domain.coverage import NO_CHAMPION
from services.retrain.domain.decisions import (
    AlreadyQueued,
    Asked,
    ByRequest,
    BySnapshot,
    DryRun,
    Noop,
    Outcome,
    QueuedRetrain,
)
from services.retrain.domain.ids import decision_id_for_request, decision_id_for_snapshot, job_id_for
from services.retrain.domain.jobs import Life, News
from services.retrain.domain.triggers import Figures, fired
from services.retrain.domain.triggers import Reason as DomainReason
from services.retrain.domain.triggers import Thresholds as DomainThresholds
from shared.contracts.alerts import AlertTransition
from shared.contracts.models import Policy
from shared.contracts.retraining import (
    Aftermath,
    Baseline,
    CitedAlert,
    Decision,
    Evidence,
    Job,
    JobUpdate,
    Reason,
    RollbackPlan,
    RunDetails,
    Thresholds,
    Trigger,
)
from shared.contracts.snapshots import Champion, Snapshot, VersionMetrics
from shared.errors import Refusal


def thresholds_of(policy: Policy) -> DomainThresholds:
    """What a policy's triggers compare with: a breach trigger takes its number from the rule of its name."""
    rules, triggers = policy.rules, policy.triggers
    accuracy, brier = rules.accuracy_breach, rules.brier_breach
    multiclass_brier, mae = rules.multiclass_brier_breach, rules.mae_breach
    return DomainThresholds(
        accuracy_below=accuracy.below if accuracy is not None and triggers.accuracy_breach else None,
        brier_above=brier.above if brier is not None and triggers.brier_breach else None,
        multiclass_brier_above=multiclass_brier.above
        if multiclass_brier is not None and triggers.multiclass_brier_breach
        else None,
        mae_above_ratio=mae.above_ratio if mae is not None and triggers.mae_breach else None,
        mae_baseline=None if mae is None else mae.baseline,
        new_labels_at_least=triggers.new_labels,
        min_evaluated=policy.min_evaluated,
    )


def figures_of(snapshot: Snapshot) -> Figures:
    """What the triggers read of a snapshot."""
    metrics = snapshot.metrics
    return Figures(
        evaluated_predictions=metrics.evaluated_predictions,
        accuracy=metrics.accuracy,
        brier_score=metrics.brier_score,
        new_labels=metrics.new_labels,
        kind=metrics.kind,
        mae=metrics.mae,
        baseline_mae=metrics.baseline_mae,
        baseline_evaluated_predictions=metrics.baseline_evaluated_predictions,
    )


def champion_of(judged: Snapshot | Evidence) -> str:
    """The champion's version as a part of a cause."""
    return NO_CHAMPION if judged.champion is None else judged.champion.version


def decision_of(
    snapshot: Snapshot,
    asked: Asked,
    outcome: Outcome,
    *,
    sequence: int,
    reasons: tuple[DomainReason, ...],
    thresholds: DomainThresholds,
    standing_alerts: tuple[CitedAlert, ...],
) -> Decision:
    """A decision as it is published, with everything that it was made on."""
    request_id = asked.request_id if isinstance(asked, ByRequest) else None
    decision_id = _decision_id(snapshot, asked)
    called_for = fired(reasons)
    return Decision(
        decision_id=decision_id,
        model=snapshot.model,
        decision_sequence=sequence,
        asked_by="snapshot" if request_id is None else "request",
        request_id=request_id,
        dry_run=asked.dry_run,
        mode=snapshot.policy.mode,
        should_retrain=bool(called_for),
        action=outcome.action,
        fired=called_for,
        reasons=tuple(_published_reason(reason) for reason in reasons),
        thresholds=_published_thresholds(thresholds, figures_of(snapshot)),
        evidence=_evidence(snapshot, standing_alerts),
        job_id=_job_named(outcome, decision_id),
        covered_by={} if isinstance(outcome, Noop) else dict(outcome.covered_by),
    )


def _decision_id(snapshot: Snapshot, asked: Asked) -> str:
    match asked:
        case BySnapshot():
            return decision_id_for_snapshot(snapshot.model, snapshot.sequence)
        case ByRequest(request_id):
            return decision_id_for_request(snapshot.model, request_id)
        case _:
            assert_never(asked)


def _job_named(outcome: Outcome, decision_id: str) -> str | None:
    match outcome:
        case QueuedRetrain():
            return job_id_for(decision_id)
        case AlreadyQueued(job_id):
            return job_id
        case DryRun() | Noop():
            return None
        case _:
            assert_never(outcome)


def _published_reason(reason: DomainReason) -> Reason:
    return Reason(
        trigger=reason.trigger,
        outcome=reason.outcome,
        value=reason.value,
        threshold=reason.threshold,
        text=reason.text,
    )


def _published_thresholds(thresholds: DomainThresholds, figures: Figures) -> Thresholds:
    kind = figures.kind
    return Thresholds(
        accuracy_below=None if kind == "regression" else thresholds.accuracy_below,
        brier_above=thresholds.brier_above if kind == "binary" else None,
        multiclass_brier_above=thresholds.multiclass_brier_above if kind == "multiclass" else None,
        mae_above=thresholds.mae_above(figures) if kind == "regression" else None,
        new_labels_at_least=thresholds.new_labels_at_least,
        min_evaluated=thresholds.min_evaluated,
    )


def _evidence(snapshot: Snapshot, standing_alerts: tuple[CitedAlert, ...]) -> Evidence:
    return Evidence(
        snapshot_id=snapshot.snapshot_id,
        snapshot_sequence=snapshot.sequence,
        as_of=snapshot.as_of,
        metrics=snapshot.metrics,
        policy=snapshot.policy,
        policy_sha256=snapshot.policy_sha256,
        champion=snapshot.champion,
        standing_alerts=standing_alerts,
    )


def new_job(decision: Decision, triggers: tuple[Trigger, ...], now: datetime) -> Job:
    """A queued job, with everything that its decision was made on and the way back from what it will make."""
    evidence = decision.evidence
    champion = evidence.champion
    return Job(
        job_id=job_id_for(decision.decision_id),
        model=decision.model,
        job_sequence=1,
        status="queued",
        champion=champion,
        triggers=triggers,
        reasons=decision.reasons,
        thresholds=decision.thresholds,
        evidence=evidence,
        artifact_snapshot=None if champion is None else champion.artifact,
        rollback_plan=_rollback_plan(evidence, champion),
        decision_id=decision.decision_id,
        as_of=evidence.as_of,
        lease_seconds=evidence.policy.lease_seconds,
        created_at=now,
        started_at=None,
        heartbeat_at=None,
        lease_expires_at=None,
        finished_at=None,
        run=RunDetails(),
        aftermath=None,
    )


def _rollback_plan(evidence: Evidence, champion: Champion | None) -> RollbackPlan:
    criteria, metrics = evidence.policy.rollback, evidence.metrics
    return RollbackPlan(
        accuracy_drop=criteria.accuracy_drop,
        brier_rise=criteria.brier_rise,
        multiclass_brier_rise=criteria.multiclass_brier_rise,
        mae_rise=criteria.mae_rise,
        baseline=Baseline(
            kind=metrics.kind,
            evaluated_predictions=metrics.evaluated_predictions,
            accuracy=metrics.accuracy,
            brier_score=metrics.brier_score,
            mae=metrics.mae,
        ),
        previous_version=None if champion is None else champion.version,
        previous_artifact=None if champion is None else champion.artifact,
    )


def life_of(job: Job) -> Life:
    """Where a job stands."""
    return Life(
        status=job.status,
        lease_seconds=job.lease_seconds,
        trainer=job.run.trainer,
        model_version=job.run.model_version,
        started_at=job.started_at,
        heartbeat_at=job.heartbeat_at,
        lease_expires_at=job.lease_expires_at,
        finished_at=job.finished_at,
    )


def news_of(update: JobUpdate) -> News:
    """What a trainer's update says to the job's state machine."""
    return News(update=update.update, trainer=update.trainer, model_version=update.model_version)


def job_with(job: Job, life: Life, update: JobUpdate | None = None) -> Job:
    """The job as it stands after a change; of what trainers tell, the newest that is not empty is kept."""
    run = RunDetails(
        trainer=life.trainer,
        model_version=life.model_version,
        message=update.message if update is not None and update.message else job.run.message,
        details=update.details if update is not None and update.details else job.run.details,
    )
    return job.model_copy(
        update={
            "status": life.status,
            "started_at": life.started_at,
            "heartbeat_at": life.heartbeat_at,
            "lease_expires_at": life.lease_expires_at,
            "finished_at": life.finished_at,
            "run": run,
        }
    )


def criteria_of(plan: RollbackPlan) -> Criteria:
    """When the retrained version is to be reverted."""
    return Criteria(
        accuracy_drop=plan.accuracy_drop,
        brier_rise=plan.brier_rise,
        baseline_accuracy=plan.baseline.accuracy,
        baseline_brier_score=plan.baseline.brier_score,
        kind=plan.baseline.kind,
        multiclass_brier_rise=plan.multiclass_brier_rise,
        mae_rise=plan.mae_rise,
        baseline_mae=plan.baseline.mae,
    )


def figures_of_version(metrics: VersionMetrics) -> Figures:
    """What the rollback criteria read of a version."""
    return Figures(
        evaluated_predictions=metrics.evaluated_predictions,
        accuracy=metrics.accuracy,
        brier_score=metrics.brier_score,
        kind=metrics.kind,
        mae=metrics.mae,
    )


def aftermath_of(verdict: Keep | Revert, version: str, figures: Figures, snapshot: Snapshot) -> Aftermath:
    """A verdict as it is published."""
    return Aftermath(
        verdict="keep" if isinstance(verdict, Keep) else "revert_to_previous_model_artifact",
        reason=verdict.reason,
        model_version=version,
        snapshot_id=snapshot.snapshot_id,
        snapshot_sequence=snapshot.sequence,
        as_of=snapshot.as_of,
        evaluated_predictions=figures.evaluated_predictions,
        accuracy=figures.accuracy,
        brier_score=figures.brier_score,
        mae=figures.mae,
    )


def cited(alert: AlertTransition) -> CitedAlert | Refusal:
    """The standing alert that a transition tells of; refused where the transition leaves out what stands."""
    if alert.alert_id is None or alert.severity is None or alert.escalation_level is None:
        missing = next(
            name for name in ("alert_id", "severity", "escalation_level") if getattr(alert, name) is None
        )
        return Refusal("invalid", missing, f"must be given where an alert is {alert.transition}")
    if not alert.breach_streak:
        return Refusal("invalid", "breach_streak", f"must be at least 1 where an alert is {alert.transition}")
    return CitedAlert(
        alert_id=alert.alert_id,
        severity=alert.severity,
        breach_streak=alert.breach_streak,
        escalation_level=alert.escalation_level,
        snapshot_id=alert.snapshot_id,
    )
