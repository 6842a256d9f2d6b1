"""The rule of the join: which label wins, and what a prediction and its label make together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from services.metrics.domain.multiclass import ClassScores
from services.metrics.domain.regression import in_units

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
    """A prediction as the join keeps it; times in microseconds since 1970, scores in their units.

    ``answer`` is None for a binary prediction. Otherwise it is what a multiclass one contributes, or the value
    that a regression one gave, and what is said of a probability is zero.
    """

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
    answer: ClassScores | float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A binary prediction and the winning label of its entity, met."""

    evaluated_at: int
    delay_seconds: float
    positive: bool
    correct: bool
    squared_error: int
    log_loss: int


@dataclass(frozen=True, slots=True)
class ClassEvaluation:
    """A multiclass prediction and the class that happened, met."""

    evaluated_at: int
    delay_seconds: float
    outcome: str
    correct: bool
    squared_error: int
    log_loss: int


@dataclass(frozen=True, slots=True)
class ErrorEvaluation:
    """A regression prediction and what happened, met; ``error``: predicted minus happened, in units of 1e-324."""

    evaluated_at: int
    delay_seconds: float
    error: int


AnyEvaluation = Evaluation | ClassEvaluation | ErrorEvaluation


def evaluate(prediction: StoredPrediction, label: Label | None) -> AnyEvaluation | None:
    """Evaluate a prediction; None while it waits, after a retraction, or where the outcome is none of its kind.

    An outcome of another kind may well be meant for another model's prediction about the same entity.
    """
    if label is None or label.outcome is None:
        return None
    if prediction.answer is not None:
        return _evaluate_answer(prediction, prediction.answer, label)
    return evaluate_binary(prediction, label)


def evaluate_binary(prediction: StoredPrediction, label: Label) -> Evaluation | None:
    """Evaluate a binary prediction; None where the outcome is not 0 or 1."""
    if not isinstance(label.outcome, float) or label.outcome not in (0.0, 1.0):
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


def _evaluate_answer(
    prediction: StoredPrediction, answer: ClassScores | float, label: Label
) -> ClassEvaluation | ErrorEvaluation | None:
    evaluated_at = max(prediction.predicted_at, label.observed_at)
    delay_seconds = (evaluated_at - prediction.predicted_at) / 1e6
    if isinstance(answer, float):
        if not isinstance(label.outcome, float):
            return None
        return ErrorEvaluation(evaluated_at, delay_seconds, in_units(answer) - in_units(label.outcome))
    place = answer.place_of(label.outcome)
    if place is None:
        return None
    return ClassEvaluation(
        evaluated_at=evaluated_at,
        delay_seconds=delay_seconds,
        outcome=answer.classes[place] if place < len(answer.classes) else str(label.outcome),
        correct=place == answer.decided,
        squared_error=answer.squared_errors[place],
        log_loss=answer.log_losses[place],
    )
