"""What calls for a retraining, read from one snapshot's figures alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Trigger = Literal["accuracy_breach", "brier_breach", "new_labels"]
TriggerOutcome = Literal["fired", "quiet", "off", "insufficient_data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What the triggers compare with; None where a trigger, or the rule that it takes its number from, is off."""

    accuracy_below: float | None
    brier_above: float | None
    new_labels_at_least: int | None
    min_evaluated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a snapshot that the triggers read; None is unknown."""

    evaluated_predictions: int
    accuracy: float | None
    brier_score: float | None
    new_labels: int | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """What one trigger said, with the numbers compared and the comparison in words."""

    trigger: Trigger
    outcome: TriggerOutcome
    value: float | None
    threshold: float | None
    text: str


def judge(figures: Figures, thresholds: Thresholds) -> tuple[Reason, ...]:
    """What every trigger says of the figures, always in the same order."""
    return _accuracy(figures, thresholds), _brier(figures, thresholds), _new_labels(figures, thresholds)


def fired(reasons: Iterable[Reason]) -> tuple[Trigger, ...]:
    """The triggers that fired, in the order of their reasons."""
    return tuple(reason.trigger for reason in reasons if reason.outcome == "fired")


def _accuracy(figures: Figures, thresholds: Thresholds) -> Reason:
    value, threshold = figures.accuracy, thresholds.accuracy_below
    if threshold is None or value is None or _too_few(figures, thresholds):
        return _unjudged("accuracy_breach", value, threshold, figures, thresholds)
    if value < threshold:
        text = f"accuracy {value} is below {threshold}"
        return Reason("accuracy_breach", "fired", value, threshold, text)
    return Reason("accuracy_breach", "quiet", value, threshold, f"accuracy {value} is not below {threshold}")


def _brier(figures: Figures, thresholds: Thresholds) -> Reason:
    value, threshold = figures.brier_score, thresholds.brier_above
    if threshold is None or value is None or _too_few(figures, thresholds):
        return _unjudged("brier_breach", value, threshold, figures, thresholds)
    if value > threshold:
        return Reason("brier_breach", "fired", value, threshold, f"Brier score {value} is above {threshold}")
    return Reason("brier_breach", "quiet", value, threshold, f"Brier score {value} is not above {threshold}")


def _new_labels(figures: Figures, thresholds: Thresholds) -> Reason:
    value, threshold = figures.new_labels, thresholds.new_labels_at_least
    if threshold is None:
        return Reason("new_labels", "off", value, None, "the policy has this trigger off")
    if value is None:
        return Reason("new_labels", "insufficient_data", None, threshold, "the number of new labels is unknown")
    if value >= threshold:
        return Reason("new_labels", "fired", value, threshold, f"{value} new labels are at least {threshold}")
    return Reason("new_labels", "quiet", value, threshold, f"{value} new labels are fewer than {threshold}")


def _too_few(figures: Figures, thresholds: Thresholds) -> bool:
    return figures.evaluated_predictions < thresholds.min_evaluated


def _unjudged(
    trigger: Trigger, value: float | None, threshold: float | None, figures: Figures, thresholds: Thresholds
) -> Reason:
    """Why a breach trigger has nothing to compare."""
    if threshold is None:
        return Reason(trigger, "off", value, None, "the policy has this trigger, or the rule of its name, off")
    evaluated, needed = figures.evaluated_predictions, thresholds.min_evaluated
    text = f"{evaluated} evaluated predictions; {needed} are needed"
    if evaluated >= needed:
        text = f"the figure is unknown, although {evaluated} predictions are evaluated"
    return Reason(trigger, "insufficient_data", value, threshold, text)
