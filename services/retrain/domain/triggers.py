"""What calls for a retraining, read from one snapshot's figures alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, assert_never

Trigger = Literal["accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "new_labels"]
Kind = Literal["binary", "multiclass", "regression"]
TriggerOutcome = Literal["fired", "quiet", "off", "insufficient_data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What the triggers compare with; None where a trigger, or the rule that it takes its number from, is off.

    The MAE's threshold is ``mae_above_ratio`` times ``mae_baseline``; where that is None, the snapshot's baseline.
    """

    accuracy_below: float | None
    brier_above: float | None
    multiclass_brier_above: float | None = None
    mae_above_ratio: float | None = None
    mae_baseline: float | None = None
    new_labels_at_least: int | None
    min_evaluated: int

    def mae_above(self, figures: Figures) -> float | None:
        """The MAE's threshold for these figures; None where the trigger is off, or without enough of a baseline.

        As the numbers are written, so that 1.1 times 3 is 3.3, and never above the largest float.
        """
        baseline = self.mae_baseline
        if baseline is None and (figures.baseline_evaluated_predictions or 0) >= self.min_evaluated:
            baseline = figures.baseline_mae
        if self.mae_above_ratio is None or baseline is None:
            return None
        return min(float(Decimal(repr(self.mae_above_ratio)) * Decimal(repr(baseline))), sys.float_info.max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a snapshot that the triggers read; None is unknown."""

    evaluated_predictions: int
    accuracy: float | None
    brier_score: float | None
    new_labels: int | None = None
    kind: Kind = "binary"
    mae: float | None = None
    baseline_mae: float | None = None
    baseline_evaluated_predictions: int | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """What one trigger said, with the numbers compared and the comparison in words."""

    trigger: Trigger
    outcome: TriggerOutcome
    value: float | None
    threshold: float | None
    text: str


def judge(figures: Figures, thresholds: Thresholds) -> tuple[Reason, ...]:
    """What every trigger that concerns models of the figures' kind says of them, always in the same order."""
    new_labels = _new_labels(figures, thresholds)
    match figures.kind:
        case "binary":
            brier = _brier("brier_breach", thresholds.brier_above, figures, thresholds)
            return _accuracy(figures, thresholds), brier, new_labels
        case "multiclass":
            brier = _brier("multiclass_brier_breach", thresholds.multiclass_brier_above, figures, thresholds)
            return _accuracy(figures, thresholds), brier, new_labels
        case "regression":
            return _mae(figures, thresholds), new_labels
        case _:
            assert_never(figures.kind)


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


def _brier(trigger: Trigger, threshold: float | None, figures: Figures, thresholds: Thresholds) -> Reason:
    value = figures.brier_score
    if threshold is None or value is None or _too_few(figures, thresholds):
        return _unjudged(trigger, value, threshold, figures, thresholds)
    if value > threshold:
        return Reason(trigger, "fired", value, threshold, f"Brier score {value} is above {threshold}")
    return Reason(trigger, "quiet", value, threshold, f"Brier score {value} is not above {threshold}")


def _mae(figures: Figures, thresholds: Thresholds) -> Reason:
    value, ratio, threshold = figures.mae, thresholds.mae_above_ratio, thresholds.mae_above(figures)
    if ratio is None:
        return _unjudged("mae_breach", value, None, figures, thresholds)
    if value is None or _too_few(figures, thresholds):
        return Reason("mae_breach", "insufficient_data", value, threshold, _too_little(figures, thresholds))
    if threshold is None:
        before, needed = figures.baseline_evaluated_predictions or 0, thresholds.min_evaluated
        text = f"{before} predictions evaluated before the window; {needed} are needed for a baseline"
        return Reason("mae_breach", "insufficient_data", value, None, text)
    baseline = figures.baseline_mae if thresholds.mae_baseline is None else thresholds.mae_baseline
    against = f"{threshold}, {ratio} times the baseline of {baseline}"
    if value > threshold:
        return Reason("mae_breach", "fired", value, threshold, f"MAE {value} is above {against}")
    return Reason("mae_breach", "quiet", value, threshold, f"MAE {value} is not above {against}")


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
    return Reason(trigger, "insufficient_data", value, threshold, _too_little(figures, thresholds))


def _too_little(figures: Figures, thresholds: Thresholds) -> str:
    evaluated, needed = figures.evaluated_predictions, thresholds.min_evaluated
    if evaluated >= needed:
        return f"the figure is unknown, although {evaluated} predictions are evaluated"
    return f"{evaluated} evaluated predictions; {needed} are needed"
