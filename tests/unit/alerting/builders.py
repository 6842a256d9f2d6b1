"""Snapshots as the metrics service would publish them, for the tests of alerting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.contracts.models import Policy, Rules
from shared.contracts.snapshots import Metrics, Snapshot, snapshot_id

DAY = 86_400
MODEL = "flights"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

HEALTHY: dict[str, Any] = {
    "evaluated_predictions": 100,
    "accuracy": 0.8,
    "brier_score": 0.1,
    "data_freshness_seconds": 60.0,
    "pipeline_freshness_seconds": 3600.0,
}


def make_snapshot(
    sequence: int,
    *,
    model: str = MODEL,
    rules: Rules | None = None,
    min_evaluated: int = 30,
    catching_up: bool = False,
    **metrics: Any,
) -> Snapshot:
    """A healthy model's snapshot, but for the metrics given."""
    policy = Policy(model=model, min_evaluated=min_evaluated, rules=rules or Rules())
    return Snapshot(
        snapshot_id=snapshot_id(model, sequence),
        model=model,
        sequence=sequence,
        as_of=EPOCH + timedelta(minutes=sequence),
        clock="wall",
        interval_seconds=60,
        catching_up=catching_up,
        window=policy.window,
        champion=None,
        policy=policy,
        policy_sha256=policy.sha256(),
        metrics=Metrics(**{**HEALTHY, **metrics}),
        versions={},
        offsets={},
    )
