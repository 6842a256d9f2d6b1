"""Settings of the metrics service.

Its clock and interval are the deployment's. How long something counts or is kept is told in event time: it is
counted back from the newest boundary, never from the host's clock.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, ValidationInfo, field_validator

from shared.settings import Duration, Settings


class MetricsSettings(Settings):
    """Settings of the metrics service."""

    label_horizon: Duration = Field(
        timedelta(days=90),
        gt=timedelta(0),
        description="How long a prediction may wait for its label, and a label for its prediction: the most that "
        "`predicted_at` and the `observed_at` of the entity's first label may lie apart. "
        "Fixed with the first start.",
    )
    correction_horizon: Duration = Field(
        timedelta(days=30),
        gt=timedelta(0),
        description="How long after the entity's first label, by `observed_at`, another label still corrects it. "
        "Fixed with the first start.",
    )
    raw_retention: Duration = Field(
        timedelta(days=180),
        gt=timedelta(0),
        description="How long predictions and labels are kept, counted in the time of boundaries from when they "
        "were taken; at least both horizons together. What comes later than that may find nothing to join.",
    )
    snapshot_retention: Duration = Field(
        timedelta(days=400),
        gt=timedelta(0),
        description="How long snapshots are kept, counted back from the model's newest, which always stays.",
    )

    @field_validator("raw_retention")
    @classmethod
    def _covers_the_horizons(cls, retention: timedelta, info: ValidationInfo) -> timedelta:
        horizons = [info.data.get(name, timedelta(0)) for name in ("label_horizon", "correction_horizon")]
        if retention < sum(horizons, timedelta(0)):
            raise ValueError("must be at least label_horizon and correction_horizon together")
        return retention
