"""The shapes of what is published and answered, as the API's JSON has them. Times are RFC 3339 strings in UTC.

An answer may hold more than is named here: fields are added within a version. Unknown is None, never a made-up
number.
"""

# No postponed annotations: they would hide from readers at run time what may be left out.

from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

Time = str | datetime
"""What a publisher may give for a moment: RFC 3339 with a zone, or a ``datetime`` with a zone."""

Window = Literal["1h", "1d", "7d", "30d", "all"]
ModelState = Literal["none", "active", "watch", "incident"]
JobStatus = Literal["queued", "running", "completed", "failed", "cancelled", "expired"]
AlertId = Literal[
    "accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "data_stale", "pipeline_stale"
]
Kind = Literal["binary", "multiclass", "regression"]
Severity = Literal["medium", "high"]
EscalationLevel = Literal["none", "watch", "incident"]
RecommendedAction = Literal["monitor", "investigate_now", "open_incident"]
Trigger = Literal["accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "new_labels"]
Action = Literal["dry-run-noop", "noop", "queued-retrain", "already-queued"]


class Prediction(TypedDict):
    """A model said something. One of ``probability``, ``probabilities`` and ``value`` is given."""

    prediction_id: str
    model: str
    model_version: str
    predicted_at: Time
    probability: NotRequired[float | None]
    probabilities: NotRequired[dict[str, float] | None]
    value: NotRequired[float | None]
    entity_id: NotRequired[str | None]
    predicted: NotRequired[int | str | None]
    segment: NotRequired[dict[str, str]]
    data_as_of: NotRequired[Time | None]


class Label(TypedDict):
    """What happened to an entity. An ``outcome`` of None retracts what was said before."""

    entity_id: str
    outcome: float | str | None
    observed_at: Time
    source: NotRequired[str | None]


class PipelineRun(TypedDict):
    """A data pipeline finished. Without ``model`` it concerns every model."""

    pipeline: str
    completed_at: Time
    status: Literal["success", "failed"]
    model: NotRequired[str | None]
    records: NotRequired[int | None]
    run_id: NotRequired[str | None]


class OpenLineageRun(TypedDict):
    """The ``run`` of an OpenLineage RunEvent."""

    runId: str


class OpenLineageJob(TypedDict):
    """The ``job`` of an OpenLineage RunEvent."""

    namespace: str
    name: str


class OpenLineageRunEvent(TypedDict):
    """An OpenLineage RunEvent as it is, as far as it is read."""

    eventType: NotRequired[Literal["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"] | None]
    eventTime: Time
    run: OpenLineageRun
    job: OpenLineageJob


class Artifact(TypedDict):
    """Where a model version's bytes lie."""

    uri: str
    sha256: NotRequired[str | None]
    size_bytes: NotRequired[int | None]
    created_at: NotRequired[Time | None]


class ModelVersion(TypedDict):
    """A model version was registered, promoted or retired."""

    model: str
    version: str
    registered_at: Time
    stage: Literal["candidate", "champion", "retired"]
    changed_at: NotRequired[Time | None]
    artifact: NotRequired[Artifact | None]
    trained_through: NotRequired[Time | None]
    training: NotRequired[dict[str, Any]]
    job_id: NotRequired[str | None]


class Figures(TypedDict):
    """Quality over one window."""

    kind: Kind | None
    predictions: int | None
    labels_awaited: int | None
    label_coverage: float | None
    label_delay_p50_seconds: float | None
    label_delay_p95_seconds: float | None
    evaluated_predictions: int | None
    accuracy: float | None
    accuracy_interval_95: list[float] | None
    brier_score: float | None
    log_loss: float | None
    auc: float | None
    ece: float | None
    positive_rate: float | None
    predicted_positive_rate: float | None
    classes: int | None
    mae: float | None
    rmse: float | None
    bias: float | None
    baseline_mae: float | None
    baseline_evaluated_predictions: int | None
    predictions_of_other_kinds: int | None
    new_labels: int | None
    data_freshness_seconds: float | None
    pipeline_freshness_seconds: float | None


class ClassRecall(TypedDict):
    """A class of a multiclass model: how often it happened, and the share of that which was decided so."""

    name: str
    support: int
    recall: float


class FiguresWithReliability(Figures):
    """Quality over one window, with the reliability table and the recall of the most frequent classes."""

    reliability: list[dict[str, float]]
    class_recall: list[ClassRecall]


class AlertThresholds(TypedDict):
    """What the alert rules compare with; None where a rule is off."""

    min_evaluated: int
    accuracy_below: float | None
    brier_above: float | None
    brier_high_above: float | None
    multiclass_brier_above: float | None
    multiclass_brier_high_above: float | None
    mae_baseline: float | None
    mae_above_ratio: float | None
    mae_high_above_ratio: float | None
    data_freshness_above_seconds: int | None
    data_freshness_high_above_seconds: int | None
    pipeline_freshness_above_seconds: int | None
    pipeline_freshness_high_above_seconds: int | None


class StandingAlert(TypedDict):
    """An alert that stands."""

    alert_id: AlertId
    severity: Severity
    breach_streak: int
    escalation_level: EscalationLevel
    recommended_action: RecommendedAction
    reason: str
    value: float | None
    threshold: float | None
    opened_as_of: str
    snapshot_id: str
    snapshot_sequence: int


class Escalation(TypedDict):
    """A model's escalation state, and how many alerts stand."""

    state: ModelState
    incident_alerts: int
    watch_alerts: int
    total_alerts: int


class Judged(TypedDict):
    """How far the alerting service has judged a model."""

    snapshot_sequence: int
    as_of: str


class Monitoring(TypedDict):
    """Whether a model still is good."""

    model: str
    version: str | None
    segment: str | None
    window: Window
    snapshot_id: str | None
    snapshot_sequence: int | None
    as_of: str | None
    catching_up: bool | None
    missed_boundaries: int | None
    champion: dict[str, Any] | None
    policy_sha256: str | None
    metrics: FiguresWithReliability
    thresholds: AlertThresholds
    alerts: list[StandingAlert]
    escalation: Escalation
    judged: Judged | None
    evaluations: Any


class Point(TypedDict):
    """One snapshot's figures: the champion's, over the policy's window."""

    snapshot_id: str
    snapshot_sequence: int
    as_of: str
    version: str
    window: Window
    catching_up: bool
    missed_boundaries: int
    policy_sha256: str
    metrics: Figures


class Reason(TypedDict):
    """What one trigger said, and the comparison in words."""

    trigger: Trigger
    outcome: Literal["fired", "quiet", "off", "insufficient_data"]
    value: float | None
    threshold: float | None
    text: str


class RetrainThresholds(TypedDict):
    """What the triggers compared with; None where a trigger is off, or nothing was judged yet."""

    accuracy_below: float | None
    brier_above: float | None
    multiclass_brier_above: float | None
    mae_above: float | None
    new_labels_at_least: int | None
    min_evaluated: int | None


class Execution(TypedDict):
    """What was done about it."""

    dry_run: bool
    executed: bool
    decision_id: str | None
    request_id: str | None
    job_id: str | None
    covered_by: dict[str, str]


class PolicyRun(TypedDict):
    """What the policy says about retraining, and on what evidence."""

    model: str
    should_retrain: bool | None
    action: Action
    mode: Literal["observe", "enforce"] | None
    fired: list[Trigger]
    reasons: list[Reason]
    metrics: FiguresWithReliability
    thresholds: RetrainThresholds
    execution: Execution
    snapshot_id: str | None
    snapshot_sequence: int | None
    as_of: str | None
    policy_sha256: str | None
    champion: dict[str, Any] | None
    standing_alerts: list[dict[str, Any]]


class RunDetails(TypedDict):
    """What the trainer said of a job's run."""

    trainer: str | None
    model_version: str | None
    message: str | None
    details: dict[str, Any]


class Job(TypedDict):
    """A retraining job: its cause, its life, and what to do if the new version is worse."""

    job_id: str
    model: str
    job_sequence: int
    status: JobStatus
    champion: dict[str, Any] | None
    triggers: list[Trigger]
    reasons: list[Reason]
    thresholds: RetrainThresholds
    evidence: dict[str, Any]
    artifact_snapshot: dict[str, Any] | None
    rollback_plan: dict[str, Any]
    decision_id: str
    as_of: str
    lease_seconds: int
    created_at: str
    started_at: str | None
    heartbeat_at: str | None
    lease_expires_at: str | None
    finished_at: str | None
    run: RunDetails
    aftermath: dict[str, Any] | None


class Processed(TypedDict):
    """The last snapshot sequence that each service has processed."""

    metrics: int | None
    alerting: int | None
    retrain: int | None


class KnownModel(TypedDict):
    """A model that Trueward knows."""

    model: str
    champion: str | None
    state: ModelState
    versions: list[ModelVersion]
    unregistered_versions: list[str]
    snapshot_sequence: Processed
    policy_sha256: str | None


class LastJob(TypedDict):
    """A model's newest retraining job, in short."""

    job_id: str
    status: JobStatus
    triggers: list[Trigger]
    as_of: str
    created_at: str
    finished_at: str | None


class OverviewModel(TypedDict):
    """One model at a glance."""

    model: str
    standing: Literal["incident", "watch", "active", "waiting", "good"]
    state: ModelState
    champion: str | None
    snapshot_sequence: int | None
    as_of: str | None
    window: Window | None
    metrics: Figures
    thresholds: AlertThresholds | None
    alerts: list[StandingAlert]
    longest_streak: int
    sparkline: list[float | None]
    last_job: LastJob | None


class SystemStatus(TypedDict):
    """Everything that must work, and how far it is."""

    status: Literal["ok", "degraded"]
    at: str
    services: dict[str, dict[str, Any]]
    dependencies: dict[str, dict[str, Any]]
    consumer_lag: list[dict[str, Any]]
    outbox: dict[str, dict[str, Any]]
    clock: dict[str, Any] | None
    artifacts: list[dict[str, Any]]


class AlertTransition(TypedDict):
    """An alert, or (``state_changed``) a model's escalation state, changed."""

    model: str
    alert_sequence: int
    transition: Literal["opened", "escalated", "de_escalated", "resolved", "state_changed"]
    alert_id: AlertId | None
    severity: Severity | None
    breach_streak: int | None
    escalation_level: EscalationLevel | None
    previous_escalation_level: EscalationLevel | None
    recommended_action: RecommendedAction | None
    state: ModelState
    previous_state: ModelState
    reason: str
    value: float | None
    threshold: float | None
    snapshot_id: str
    snapshot_sequence: int
    as_of: str
    policy_sha256: str
