"""Events as the other parties would publish them, for the tests of retrain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.contracts.alerts import AlertTransition
from shared.contracts.models import Artifact, Policy
from shared.contracts.retraining import Job, JobUpdate, RetrainRequest
from shared.contracts.snapshots import Champion, Metrics, Snapshot, VersionMetrics, snapshot_id

MODEL = "flights"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ARTIFACT = Artifact(uri="file:///models/v1", sha256="0" * 64, size_bytes=1024)
HEALTHY: dict[str, Any] = {"evaluated_predictions": 100, "accuracy": 0.8, "brier_score": 0.1, "new_labels": 0}
BAD_ACCURACY: dict[str, Any] = {"accuracy": 0.5}
BAD_BRIER: dict[str, Any] = {"brier_score": 0.3}


def make_champion(version: str | None) -> Champion | None:
    """A champion with an artifact, or none."""
    return None if version is None else Champion(version=version, changed_at=EPOCH, artifact=ARTIFACT)


def make_snapshot(
    sequence: int = 1,
    *,
    model: str = MODEL,
    at: datetime | None = None,
    champion: str | None = "v1",
    versions: dict[str, VersionMetrics] | None = None,
    policy: dict[str, Any] | None = None,
    **metrics: Any,
) -> Snapshot:
    """An enforced, healthy model's snapshot but for what is given; snapshots are an hour apart."""
    made = Policy.model_validate_json(
        Policy(model=model, mode="enforce").model_copy(update=policy or {}).to_json()
    )
    return Snapshot(
        snapshot_id=snapshot_id(model, sequence),
        model=model,
        sequence=sequence,
        as_of=at or EPOCH + sequence * HOUR,
        clock="event",
        interval_seconds=3600,
        window=made.window,
        champion=make_champion(champion),
        policy=made,
        policy_sha256=made.sha256(),
        metrics=Metrics(**{**HEALTHY, **metrics}),
        versions=versions or {},
        offsets={},
    )


def make_request(request_id: str = "r-1", *, model: str = MODEL, dry_run: bool = False) -> RetrainRequest:
    """Someone asks."""
    return RetrainRequest(request_id=request_id, model=model, dry_run=dry_run, requested_at=EPOCH)


def make_update(job: Job | str, update: str, **fields: Any) -> JobUpdate:
    """A trainer says how a job goes."""
    job_id = job.job_id if isinstance(job, Job) else job
    return JobUpdate.model_validate({"job_id": job_id, "update": update, "at": EPOCH, **fields}, strict=False)


def make_alert(
    sequence: int = 1, transition: str = "opened", *, alert_id: str | None = "accuracy_breach", **fields: Any
) -> AlertTransition:
    """An alert changed."""
    values: dict[str, Any] = {
        "model": MODEL,
        "alert_sequence": sequence,
        "transition": transition,
        "alert_id": alert_id,
        "severity": "high",
        "breach_streak": sequence,
        "escalation_level": "watch",
        "previous_escalation_level": "none",
        "recommended_action": "investigate_now",
        "state": "watch",
        "previous_state": "none",
        "reason": "accuracy 0.5 is below 0.55",
        "value": 0.5,
        "threshold": 0.55,
        "snapshot_id": snapshot_id(MODEL, sequence),
        "snapshot_sequence": sequence,
        "as_of": EPOCH,
        "policy_sha256": "0" * 64,
    }
    return AlertTransition.model_validate({**values, **fields}, strict=False)
