"""What the alerting service is told by its deployment.

Thresholds are no settings: they come with each snapshot, in the model's policy.
"""

from __future__ import annotations

from pydantic import Field

from shared.settings import Settings


class AlertingSettings(Settings):
    """Settings of the alerting service."""

    # A snapshot costs some 0.3 ms, ten times a prediction: at this size a batch's transaction stays far below
    # the time that PostgreSQL lets it be idle while its snapshots are decoded and judged.
    max_batch_records: int = Field(2_000, gt=0, description="Most snapshots in one transaction.")
