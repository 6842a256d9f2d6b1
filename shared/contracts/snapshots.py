"""Rolling metrics at a moment."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.contracts.base import (
    LARGEST_INT64,
    Contract,
    Event,
    Finite,
    Int64,
    Name,
    Sha256,
    Timestamp,
    sha256_of,
)
from shared.contracts.models import Artifact, Policy, Window

Count = Int64


class ReliabilityBin(Contract):
    """One row of the reliability table: predictions with ``lower`` <= probability < ``upper``."""

    lower: Finite
    upper: Finite
    count: Count
    mean_probability: Finite
    positive_rate: Finite


class Metrics(Contract):
    """Quality of a binary model over one window. Unknown is null; no number is invented.

    ``predictions`` counts what was predicted in the window and ``labels_awaited`` those of them without a
    label; everything else about quality is over ``evaluated_predictions``: those whose evaluation (the later
    of prediction and winning label) lies in the window. Freshness is in seconds before ``as_of``.
    """

    kind: Literal["binary"] = "binary"
    predictions: Count = 0
    labels_awaited: Count = 0
    label_coverage: Finite | None = None
    label_delay_p50_seconds: Finite | None = None
    label_delay_p95_seconds: Finite | None = None
    evaluated_predictions: Count = 0
    accuracy: Finite | None = None
    accuracy_interval_95: tuple[Finite, Finite] | None = None
    brier_score: Finite | None = None
    log_loss: Finite | None = None
    auc: Finite | None = None
    ece: Finite | None = None
    positive_rate: Finite | None = None
    predicted_positive_rate: Finite | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    new_labels: Count | None = None
    data_freshness_seconds: Finite | None = None
    pipeline_freshness_seconds: Finite | None = None


class VersionMetrics(Contract):
    """The figures that judge one version over the policy's window."""

    evaluated_predictions: Count = 0
    accuracy: Finite | None = None
    brier_score: Finite | None = None
    log_loss: Finite | None = None


class Champion(Contract):
    """The version in service, as the metrics service saw it."""

    version: Name
    changed_at: Timestamp
    trained_through: Timestamp | None = None
    artifact: Artifact | None = None


class Snapshot(Event):
    """A model's metrics before ``as_of``, with the policy and the champion that they are judged by.

    ``metrics`` are the champion's over the policy's window (all versions together where none was ever
    named). ``offsets`` name, per topic and partition, the next record that the snapshot has not taken in.
    ``missed_boundaries`` counts the boundaries before this one that a stopped service let pass.
    """

    event_type: ClassVar[str] = "trueward.snapshot.v1"

    snapshot_id: Name
    model: Name
    sequence: Annotated[int, Field(ge=1, le=LARGEST_INT64)]
    as_of: Timestamp
    clock: Literal["wall", "event"]
    interval_seconds: Annotated[int, Field(gt=0)]
    missed_boundaries: Count = 0
    catching_up: bool = False
    window: Window
    champion: Champion | None
    policy: Policy
    policy_sha256: Sha256
    metrics: Metrics
    versions: dict[Name, VersionMetrics]
    offsets: dict[str, dict[str, int]]

    def event_id(self) -> str:
        """The snapshot's id."""
        return self.snapshot_id

    def subject(self) -> str:
        """The model."""
        return self.model

    def event_time(self) -> datetime:
        """``as_of``."""
        return self.as_of


def snapshot_id(model: str, sequence: int) -> str:
    """The id of a model's n-th snapshot (at most 128 characters, whatever the model's name)."""
    return f"snapshot-{sha256_of(model)[:16]}-{sequence}"
