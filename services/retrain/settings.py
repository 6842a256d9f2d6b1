"""What the retrain service is told by its deployment.

Thresholds, triggers, modes and leases are no settings: they come with each snapshot, in the model's policy.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from shared.settings import Duration, Settings


class RetrainSettings(Settings):
    """Settings of the retrain service."""

    # A snapshot that makes a job costs some 1 ms: at this size a batch's transaction stays far below the time that
    # PostgreSQL lets it be idle while it is decided.
    max_batch_records: int = Field(1_000, gt=0, description="Most records in one transaction.")
    lease_check_interval: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), description="Time between two looks for leases that are over."
    )
    lease_grace: Duration = Field(
        timedelta(seconds=30),
        ge=timedelta(0),
        description="Time to read trainers' heartbeats after a start or a fault, before any lease is ended.",
    )
    decision_retention: Duration = Field(
        timedelta(days=90),
        gt=timedelta(0),
        description="How long decisions that made no job are kept, counted back from the model's newest snapshot.",
    )
