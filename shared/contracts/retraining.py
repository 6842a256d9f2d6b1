"""Requests, decisions, jobs and what trainers say of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.contracts.alerts import AlertId, EscalationLevel, Severity
from shared.contracts.base import Contract, Event, Finite, FreeMap, Name, Sha256, Text, Timestamp
from shared.contracts.models import Artifact, Policy
from shared.contracts.snapshots import Champion, Kind, Metrics

Trigger = Literal["accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "new_labels"]
Action = Literal["dry-run-noop", "noop", "queued-retrain", "already-queued"]
JobStatus = Literal["queued", "running", "completed", "failed", "cancelled", "expired"]
Verdict = Literal["keep", "revert_to_previous_model_artifact"]


class RetrainRequest(Contract):
    """Please evaluate (``dry_run``) or run the policy for a model now. The same request_id acts once."""

    request_id: Name
    model: Name
    dry_run: bool = True
    requested_at: Timestamp
    requested_by: Text | None = None

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return self.requested_at


class CitedAlert(Contract):
    """An alert that stood when a decision was made, as the retrain service had heard of it."""

    alert_id: AlertId
    severity: Severity
    breach_streak: Annotated[int, Field(ge=1)]
    escalation_level: EscalationLevel
    snapshot_id: Name


class Thresholds(Contract):
    """What the triggers compared with; null where one is off, not of the model's kind, or without a baseline."""

    accuracy_below: Finite | None
    brier_above: Finite | None
    multiclass_brier_above: Finite | None = None
    mae_above: Finite | None = None
    new_labels_at_least: int | None
    min_evaluated: int


class Reason(Contract):
    """What one trigger said: fired, quiet, off or insufficient_data, and the comparison in words."""

    trigger: Trigger
    outcome: Literal["fired", "quiet", "off", "insufficient_data"]
    value: Finite | None
    threshold: Finite | None
    text: Text


class Evidence(Contract):
    """Everything that a decision was made on."""

    snapshot_id: Name
    snapshot_sequence: Annotated[int, Field(ge=1)]
    as_of: Timestamp
    metrics: Metrics
    policy: Policy
    policy_sha256: Sha256
    champion: Champion | None
    standing_alerts: tuple[CitedAlert, ...]


class Decision(Event):
    """What the policy said, and on what evidence.

    ``asked_by`` is ``snapshot`` where the policy ran by itself; ``fired`` are the triggers that fired;
    ``covered_by`` maps a fired trigger to the job that already answers for it.
    """

    event_type: ClassVar[str] = "trueward.retrain-decision.v1"

    decision_id: Name
    model: Name
    decision_sequence: Annotated[int, Field(ge=1)]
    asked_by: Literal["snapshot", "request"]
    request_id: Name | None
    dry_run: bool
    mode: Literal["observe", "enforce"]
    should_retrain: bool
    action: Action
    fired: tuple[Trigger, ...]
    reasons: tuple[Reason, ...]
    thresholds: Thresholds
    evidence: Evidence
    job_id: Name | None
    covered_by: dict[Trigger, Name]

    def event_id(self) -> str:
        """The decision's id."""
        return self.decision_id

    def subject(self) -> str:
        """The model."""
        return self.model

    def event_time(self) -> datetime:
        """``as_of`` of the snapshot that was judged."""
        return self.evidence.as_of


class Baseline(Contract):
    """The figures at the decision, which the retrained version is later held against."""

    kind: Kind = "binary"
    evaluated_predictions: int
    accuracy: Finite | None
    brier_score: Finite | None
    mae: Finite | None = None


class RollbackPlan(Contract):
    """What to do if the retrained version turns out worse than the baseline by more than this.

    ``mae_rise`` is a share of the baseline; the others are differences. One is null where it does not apply.
    """

    action: Literal["revert_to_previous_model_artifact"] = "revert_to_previous_model_artifact"
    accuracy_drop: Finite
    brier_rise: Finite
    multiclass_brier_rise: Finite | None = None
    mae_rise: Finite | None = None
    baseline: Baseline
    previous_version: Name | None
    previous_artifact: Artifact | None


class RunDetails(Contract):
    """What the trainer said of the run."""

    trainer: Name | None = None
    model_version: Name | None = None
    message: Text | None = None
    details: FreeMap = Field(default_factory=dict)


class Aftermath(Contract):
    """The verdict on the retrained version, given once, at its first snapshot with enough evaluated."""

    verdict: Verdict
    reason: Text
    model_version: Name
    snapshot_id: Name
    snapshot_sequence: Annotated[int, Field(ge=1)]
    as_of: Timestamp
    evaluated_predictions: int
    accuracy: Finite | None
    brier_score: Finite | None
    mae: Finite | None = None


class Job(Event):
    """A retraining job after a change of state. Trainers act on ``status`` queued.

    ``job_sequence`` counts the job's changes 1, 2, 3, ...; wall times are those of the retrain service.
    """

    event_type: ClassVar[str] = "trueward.retrain-job.v1"

    job_id: Name
    model: Name
    job_sequence: Annotated[int, Field(ge=1)]
    status: JobStatus
    champion: Champion | None
    triggers: tuple[Trigger, ...]
    reasons: tuple[Reason, ...]
    thresholds: Thresholds
    evidence: Evidence
    artifact_snapshot: Artifact | None
    rollback_plan: RollbackPlan
    decision_id: Name
    as_of: Timestamp
    lease_seconds: Annotated[int, Field(gt=0)]
    created_at: Timestamp
    started_at: Timestamp | None
    heartbeat_at: Timestamp | None
    lease_expires_at: Timestamp | None
    finished_at: Timestamp | None
    run: RunDetails
    aftermath: Aftermath | None

    def event_id(self) -> str:
        """The job and the number of the change."""
        return f"{self.job_id}-{self.job_sequence}"

    def subject(self) -> str:
        """The model."""
        return self.model

    def event_time(self) -> datetime:
        """The newest moment that the job knows of."""
        return max(
            moment
            for moment in (self.created_at, self.started_at, self.heartbeat_at, self.finished_at)
            if moment is not None
        )


class JobUpdate(Contract):
    """A trainer says how a job goes. ``model_version`` names the new version of a completed job."""

    job_id: Name
    update: Literal["started", "heartbeat", "completed", "failed", "cancelled"]
    at: Timestamp
    trainer: Name | None = None
    model_version: Name | None = None
    message: Text | None = None
    details: FreeMap = Field(default_factory=dict)

    @property
    def occurred_at(self) -> datetime:
        """Event time."""
        return self.at
