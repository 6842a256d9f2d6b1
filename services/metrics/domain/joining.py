"""The rule of the join: which label wins, and what a prediction and its label make together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Outcome = float | str | None
"""A number, a class name, or None: retracted."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label of an entity. ``observed_at`` is in microseconds since 1970."""

    observed_at: int
    outcome: Outcome

    def rank(self) -> tuple[int, int, str, float]:
        """Sort key: the greater label wins.

        Later ``observed_at`` first; at equal times the greater outcome: null, then strings by code point, then
        numbers.
        """
        if self.outcome is None:
            return (self.observed_at, 2, "", 0.0)
        if isinstance(self.outcome, str):
            return (self.observed_at, 1, self.outcome, 0.0)
        return (self.observed_at, 0, "", self.outcome)


Verdict = Literal["first", "corrected", "duplicate", "stale"]


def judge_label(standing: Label | None, arrived: Label) -> Verdict:
    """What an arriving label does to the standing one; first and corrected win, the others change nothing."""
    if standing is None:
        return "first"
    if arrived == standing:
        return "duplicate"
    return "corrected" if arrived.rank() > standing.rank() else "stale"


def is_new(label: Label, limit: int | None) -> bool:
    """Whether a standing label was observed after the limit (microseconds since 1970; None: every one was)."""
    return limit is None or label.observed_at > limit


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """A binary prediction as the join keeps it; times in microseconds since 1970, scores in their units."""

    prediction_key: UUID
    entity_key: UUID
    version_id: int
    segment_id: int
    predicted_at: int
    content_hash: int
    probability: float
    predicted_positive: bool
    squared_error_if_negative: int
    squared_error_if_positive: int
    log_loss_if_negative: int
    log_loss_if_positive: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A prediction and the winning label of its entity, met."""

    evaluated_at: int
    delay_seconds: float
    positive: bool
    correct: bool
    squared_error: int
    log_loss: int


def evaluate(prediction: StoredPrediction, label: Label | None) -> Evaluation | None:
    """Evaluate a prediction; None while it waits, after a retraction, or where the outcome is not 0 or 1.

    An outcome of another kind may well be meant for another model's prediction about the same entity.
    """
    if label is None or not isinstance(label.outcome, float) or label.outcome not in (0.0, 1.0):
        return None
    positive = label.outcome == 1.0
    evaluated_at = max(prediction.predicted_at, label.observed_at)
    return Evaluation(
        evaluated_at=evaluated_at,
        delay_seconds=(evaluated_at - prediction.predicted_at) / 1e6,
        positive=positive,
        correct=prediction.predicted_positive == positive,
        squared_error=prediction.squared_error_if_positive if positive else prediction.squared_error_if_negative,
        log_loss=prediction.log_loss_if_positive if positive else prediction.log_loss_if_negative,
    )
