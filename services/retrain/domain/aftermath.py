"""Whether a retrained version is worse than what it replaced."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from services.retrain.domain.triggers import Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """When to revert: accuracy down by more than ``accuracy_drop``, or Brier up by more than ``brier_rise``.

    Both are against the figures stored with the job. None: that figure was unknown then.
    """

    accuracy_drop: float
    brier_rise: float
    baseline_accuracy: float | None
    baseline_brier_score: float | None


@dataclass(frozen=True, slots=True)
class NotYet:
    """Too few predictions of the new version are evaluated for a verdict."""

    reason: str


@dataclass(frozen=True, slots=True)
class Keep:
    """No criterion is met."""

    reason: str


@dataclass(frozen=True, slots=True)
class Revert:
    """A criterion is met: the previous model artifact should come back."""

    reason: str


def can_be_assessed(model_version: str | None, previous_version: str | None) -> bool:
    """Whether a completed job has made a version that is told apart from the one before it."""
    return model_version is not None and model_version != previous_version


def assess(criteria: Criteria, figures: Figures, *, min_evaluated: int) -> NotYet | Keep | Revert:
    """Hold the new version's figures against the criteria."""
    if figures.evaluated_predictions < min_evaluated:
        return NotYet(f"{figures.evaluated_predictions} evaluated predictions; {min_evaluated} are needed")
    comparisons = (
        _compare("accuracy", "down", criteria.baseline_accuracy, figures.accuracy, criteria.accuracy_drop),
        _compare("Brier score", "up", criteria.baseline_brier_score, figures.brier_score, criteria.brier_rise),
    )
    reason = "; ".join(text for _, text in comparisons)
    return Revert(reason) if any(worse for worse, _ in comparisons) else Keep(reason)


def _compare(
    name: str, worse_way: str, baseline: float | None, value: float | None, allowed: float
) -> tuple[bool, str]:
    """Whether the value is worse than the baseline by more than is allowed, and the comparison in words."""
    if baseline is None or value is None:
        return False, f"{name} cannot be compared: {baseline} before, {value} now"
    # As the numbers are written, so that 0.80 to 0.77 is down by 0.03 and not by 0.030000000000000027.
    change = Decimal(repr(value)) - Decimal(repr(baseline))
    worse_by = -change if worse_way == "down" else change
    worse = worse_by > Decimal(repr(allowed))
    words = "more than" if worse else "not more than"
    return worse, f"{name} {baseline} before, {value} now: {worse_way} by {words} {allowed}"
