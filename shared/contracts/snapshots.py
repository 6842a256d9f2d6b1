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
Kind = Literal["binary", "multiclass", "regression"]
"""What a model says: a probability, a probability of each class, or a value."""


class ReliabilityBin(Contract):
    """One row of the reliability table: predictions with ``lower`` <= probability < ``upper``."""

    lower: Finite
    upper: Finite
    count: Count
    mean_probability: Finite
    positive_rate: Finite


class ClassRecall(Contract):
    """A class of a multiclass model: how often it happened (``support``), the share decided so (``recall``)."""

    name: Name
    support: Count
    recall: Finite


class Metrics(Contract):
    """Quality of a model over one window. Unknown is null; no number is invented.

    ``predictions`` counts what was predicted in the window and ``labels_awaited`` those of them without a
    label; everything else about quality is over ``evaluated_predictions``: those whose evaluation (the later
    of prediction and winning label) lies in the window. Freshness is in seconds before ``as_of``.

    ``kind`` is that of most predictions, and all figures are of predictions of that kind;
    ``predictions_of_other_kinds`` counts the others in the window. What has no meaning for a kind is null.

    * binary: accuracy, ``brier_score`` (0 to 1), log loss, AUC, ECE, rates, the reliability table.
    * multiclass: accuracy, ``brier_score`` (summed over classes, 0 to 2), log loss, ``class_recall`` of the most
      frequent classes that happened; ``classes`` counts all of those.
    * regression, in the unit of the outcome: ``mae``, ``rmse``, ``bias`` (above zero: predicted too much), and
      ``baseline_mae``, over the ``baseline_evaluated_predictions`` evaluated before the window.
    """

    kind: Kind = "binary"
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
    classes: Count | None = None
    class_recall: tuple[ClassRecall, ...] = ()
    mae: Finite | None = None
    rmse: Finite | None = None
    bias: Finite | None = None
    baseline_mae: Finite | None = None
    baseline_evaluated_predictions: Count | None = None
    predictions_of_other_kinds: Count = 0
    new_labels: Count | None = None
    data_freshness_seconds: Finite | None = None
    pipeline_freshness_seconds: Finite | None = None


class VersionMetrics(Contract):
    """The figures that judge one version over the policy's window."""

    kind: Kind = "binary"
    evaluated_predictions: Count = 0
    accuracy: Finite | None = None
    brier_score: Finite | None = None
    log_loss: Finite | None = None
    mae: Finite | None = None
    rmse: Finite | None = None
    bias: Finite | None = None


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
