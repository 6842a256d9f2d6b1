"""What the gateway answers, as models: they are the answers' shape and their documentation at once.

Unknown is null everywhere; a number is never invented.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from shared.contracts.alerts import AlertId, EscalationLevel, ModelState, RecommendedAction, Severity
from shared.contracts.dead_letters import RefusalReason
from shared.contracts.models import Artifact, ModelVersion, Policy, Window
from shared.contracts.retraining import Action, CitedAlert, Job, Reason, Trigger
from shared.contracts.snapshots import Champion, ClassRecall, Kind, ReliabilityBin

Count = Annotated[int, Field(ge=0)]
Sequence = Annotated[int, Field(ge=1)]
NextCursor = Annotated[
    str | None, Field(description="Ask again with `cursor` set to this for what follows; null at the end.")
]


class Answer(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, json_schema_serialization_defaults_required=True)


class Figures(Answer):
    """Quality over one window. Unknown is null; before the first snapshot everything is, and what a kind lacks."""

    kind: Kind | None = None
    predictions: Count | None = Field(None, description="Predicted in the window.")
    labels_awaited: Count | None = Field(None, description="Those of them that have no label yet.")
    label_coverage: float | None = None
    label_delay_p50_seconds: float | None = None
    label_delay_p95_seconds: float | None = None
    evaluated_predictions: Count | None = Field(None, description="What the figures of quality are over.")
    accuracy: float | None = None
    accuracy_interval_95: tuple[float, float] | None = Field(None, description="Wilson's interval.")
    brier_score: float | None = Field(None, description="0 to 1; of a multiclass model 0 to 2.")
    log_loss: float | None = None
    auc: float | None = None
    ece: float | None = None
    positive_rate: float | None = None
    predicted_positive_rate: float | None = None
    classes: Count | None = Field(None, description="How many classes happened.")
    mae: float | None = Field(
        None, description="Mean absolute error, in the unit of the outcome; so are the next."
    )
    rmse: float | None = Field(None, description="Root of the mean squared error.")
    bias: float | None = Field(None, description="Mean of predicted minus happened.")
    baseline_mae: float | None = Field(None, description="The mean absolute error before the window.")
    baseline_evaluated_predictions: Count | None = Field(None, description="What `baseline_mae` is over.")
    predictions_of_other_kinds: Count | None = Field(None, description="Predicted in the window, and not judged.")
    new_labels: Count | None = None
    data_freshness_seconds: float | None = None
    pipeline_freshness_seconds: float | None = None


class FiguresWithReliability(Figures):
    """Quality over one window, with the reliability table and the recall of the most frequent classes."""

    reliability: tuple[ReliabilityBin, ...] = ()
    class_recall: tuple[ClassRecall, ...] = ()


class AlertThresholds(Answer):
    """What the alert rules compare with; null where a rule is off."""

    min_evaluated: int = Field(description="Quality rules need this many evaluated predictions.")
    accuracy_below: float | None
    brier_above: float | None
    brier_high_above: float | None
    multiclass_brier_above: float | None
    multiclass_brier_high_above: float | None
    mae_baseline: float | None = Field(description="Null: `baseline_mae` of the snapshot is the baseline.")
    mae_above_ratio: float | None = Field(description="Times the baseline.")
    mae_high_above_ratio: float | None = Field(description="Times the baseline.")
    data_freshness_above_seconds: int | None
    data_freshness_high_above_seconds: int | None
    pipeline_freshness_above_seconds: int | None
    pipeline_freshness_high_above_seconds: int | None

    @classmethod
    def of(cls, policy: Policy) -> AlertThresholds:
        """The thresholds that a policy names."""
        accuracy, brier = policy.rules.accuracy_breach, policy.rules.brier_breach
        multiclass_brier, mae = policy.rules.multiclass_brier_breach, policy.rules.mae_breach
        data, pipeline = policy.rules.data_stale, policy.rules.pipeline_stale
        return cls(
            min_evaluated=policy.min_evaluated,
            accuracy_below=accuracy and accuracy.below,
            brier_above=brier and brier.above,
            brier_high_above=brier and brier.high_above,
            multiclass_brier_above=multiclass_brier and multiclass_brier.above,
            multiclass_brier_high_above=multiclass_brier and multiclass_brier.high_above,
            mae_baseline=mae and mae.baseline,
            mae_above_ratio=mae and mae.above_ratio,
            mae_high_above_ratio=mae and mae.high_above_ratio,
            data_freshness_above_seconds=data and data.above_seconds,
            data_freshness_high_above_seconds=data and data.high_above_seconds,
            pipeline_freshness_above_seconds=pipeline and pipeline.above_seconds,
            pipeline_freshness_high_above_seconds=pipeline and pipeline.high_above_seconds,
        )


class StandingAlert(Answer):
    """An alert that stands."""

    alert_id: AlertId
    severity: Severity
    breach_streak: Sequence = Field(description="Consecutive snapshots in breach, the newest judged included.")
    escalation_level: EscalationLevel
    recommended_action: RecommendedAction
    reason: str
    value: float | None
    threshold: float | None
    opened_as_of: datetime = Field(description="`as_of` of the snapshot that opened it.")
    snapshot_id: str = Field(description="The newest snapshot that confirmed it.")
    snapshot_sequence: Sequence


class Escalation(Answer):
    """A model's escalation state, and how many alerts stand."""

    state: ModelState
    incident_alerts: Count
    watch_alerts: Count
    total_alerts: Count


class Judged(Answer):
    """How far the alerting service has judged the model: its alerts are those of this snapshot."""

    snapshot_sequence: Sequence
    as_of: datetime


class Monitoring(Answer):
    """Whether the model still is good."""

    model: str
    version: str | None = Field(
        description="The version that `metrics` are of; `all` for all together; null before the first snapshot."
    )
    segment: str | None = Field(description="The segment that `metrics` are of; null for everything.")
    window: Window
    snapshot_id: str | None
    snapshot_sequence: Sequence | None
    as_of: datetime | None = Field(description="The moment that the snapshot is about.")
    catching_up: bool | None = Field(description="Whether the snapshot was taken while intake lagged behind.")
    missed_boundaries: Count | None
    champion: Champion | None
    policy_sha256: str | None
    metrics: FiguresWithReliability
    thresholds: AlertThresholds
    alerts: list[StandingAlert]
    escalation: Escalation
    judged: Judged | None = Field(description="Null until the alerting service has judged a snapshot.")
    evaluations: JsonValue = Field(description="What each alert rule said at the snapshot judged last.")


class Point(Answer):
    """One snapshot's figures: the champion's, over the policy's window."""

    snapshot_id: str
    snapshot_sequence: Sequence
    as_of: datetime
    version: str = Field(description="The champion at the time; `all` while none was named.")
    window: Window
    catching_up: bool
    missed_boundaries: Count
    policy_sha256: str
    metrics: Figures


class Trend(Answer):
    """A model's snapshots, newest first."""

    model: str
    days: int
    as_of: datetime | None = Field(description="What `days` count back from: the newest snapshot's moment.")
    points: list[Point]
    next_cursor: NextCursor


class RetrainThresholds(Answer):
    """What the triggers compared with; null where a trigger is off, or nothing was judged yet."""

    accuracy_below: float | None = None
    brier_above: float | None = None
    multiclass_brier_above: float | None = None
    mae_above: float | None = None
    new_labels_at_least: int | None = None
    min_evaluated: int | None = None


class Execution(Answer):
    """What was done about it."""

    dry_run: bool
    executed: bool = Field(description="Whether a retraining job was queued by this run of the policy.")
    decision_id: str | None = Field(description="The decision on record.")
    request_id: str | None = Field(description="The request that it answers; null where a snapshot brought it.")
    job_id: str | None = Field(description="The job that was queued, or that already covers the cause.")
    covered_by: dict[Trigger, str] = Field(description="Fired trigger to the job that already covers its cause.")


class PolicyRun(Answer):
    """What the policy says about retraining, and on what evidence."""

    model: str
    should_retrain: bool | None = Field(description="Null before the first snapshot was judged.")
    action: Action
    mode: Literal["observe", "enforce"] | None
    fired: list[Trigger]
    reasons: list[Reason]
    metrics: FiguresWithReliability
    thresholds: RetrainThresholds
    execution: Execution
    snapshot_id: str | None
    snapshot_sequence: Sequence | None
    as_of: datetime | None
    policy_sha256: str | None
    champion: Champion | None
    standing_alerts: list[CitedAlert]


class Accepted(Answer):
    """There is no decision yet: the request is on its way to the retrain service, or was never made."""

    status: Literal["pending"] = "pending"
    model: str
    request_id: str
    location: str = Field(description="Where the decision will be; also in the Location header.")


class Jobs(Answer):
    """Retraining jobs, newest first."""

    jobs: list[Job]
    next_cursor: NextCursor


class ReceivedPolicy(Answer):
    """One policy event."""

    received_at: datetime
    effective_at: datetime | None
    policy_sha256: str
    policy: Policy


class Policies(Answer):
    """A model's policy in force, and every policy that was ever received for it, newest first."""

    model: str
    in_force: Policy | None = Field(description="What the newest snapshot is judged by; null before the first.")
    policy_sha256: str | None = Field(description="Of the policy in force.")
    policies: list[ReceivedPolicy]
    next_cursor: NextCursor


class Processed(Answer):
    """The last snapshot sequence that each service has processed; null for none."""

    metrics: Sequence | None
    alerting: Sequence | None
    retrain: Sequence | None


class KnownModel(Answer):
    """A model that Trueward knows."""

    model: str
    champion: str | None
    state: ModelState
    versions: list[ModelVersion]
    unregistered_versions: list[str] = Field(description="Versions that predict without having been registered.")
    snapshot_sequence: Processed
    policy_sha256: str | None


class Models(Answer):
    """The models known, by name."""

    models: list[KnownModel]
    next_cursor: NextCursor


class ServiceStatus(Answer):
    """One service, as its own readiness says."""

    ready: bool | None = Field(description="Null where the gateway was not told where the service answers.")
    detail: str


class DependencyStatus(Answer):
    """PostgreSQL or Kafka, as the gateway sees it."""

    ok: bool
    detail: str


class PartitionLag(Answer):
    """How far a service is behind in one partition."""

    service: str
    topic: str = Field(description="Without the deployment's prefix.")
    partition: Count
    next_offset: Count | None = Field(description="The next record to take; null where none was taken yet.")
    end_offset: Count | None = Field(description="The log's end; null where the broker's word is not to be had.")
    lag: Count | None = Field(description="Records still to take; null where `end_offset` is.")
    lost_records: Count | None = Field(description="Records that retention removed before they were taken.")
    updated_at: datetime | None


class OutboxStatus(Answer):
    """Events that a service has made but not yet published."""

    unsent: Count
    oldest_unsent_at: datetime | None


class ClockStatus(Answer):
    """What time snapshots follow, and who holds it."""

    clock: Literal["wall", "event"]
    interval_seconds: Annotated[int, Field(gt=0)]
    last_as_of: datetime | None
    next_boundary: datetime | None
    held_by_topic: str | None = Field(description="The topic whose partition has not reached the boundary.")
    held_by_partition: int | None
    held_at: datetime | None = Field(description="How far that partition's event time has come.")


class ModelArtifact(Answer):
    """The artifact of a model's champion."""

    model: str
    version: str | None
    trained_through: datetime | None
    artifact: Artifact | None


class SystemStatus(Answer):
    """Everything that must work, and how far it is."""

    status: Literal["ok", "degraded"] = Field(description="`degraded` if anything below is known not to work.")
    at: datetime
    services: dict[str, ServiceStatus]
    dependencies: dict[str, DependencyStatus]
    consumer_lag: list[PartitionLag]
    outbox: dict[str, OutboxStatus]
    clock: ClockStatus | None
    artifacts: list[ModelArtifact]


class RefusedEvent(Answer):
    """An event that was not sent, and the rule that it broke."""

    index: Count = Field(description="Its place among the events of the body, from 0; blank lines do not count.")
    field: str | None = Field(description="The field that broke the rule; null where it is the whole event.")
    reason: RefusalReason = Field(description="The kind of rule, as dead letters name it.")
    rule: str = Field(description="The rule, in words.")


class Ingested(Answer):
    """What became of the events of a body."""

    accepted: Count = Field(description="Events that the broker has acknowledged.")
    refused: list[RefusedEvent] = Field(description="Events that were not sent.")
    unknown_fields: dict[str, Count] = Field(
        description="Fields that no contract knows, and how often they came: accepted, but nothing reads them."
    )


class Live(Answer):
    """The process runs."""

    status: Literal["live"] = "live"


class Ready(Answer):
    """The gateway answers from the database. Commands need the broker too."""

    status: Literal["ready"] = "ready"
    broker: str = Field(description="`ok`, or why commands would be refused.")
