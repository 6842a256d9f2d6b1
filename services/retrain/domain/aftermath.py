"""Whether a retrained version is worse than what it replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from services.retrain.domain.triggers import Figures, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """When to revert: accuracy down by more than ``accuracy_drop``, or Brier up by more than ``brier_rise``.

    A multiclass model's Brier has a limit of its own, and a regression model's criterion is its MAE: up by more
    than ``mae_rise`` times the baseline. All are against the figures stored with the job. None: unknown then.
    """

    accuracy_drop: float
    brier_rise: float
    baseline_accuracy: float | None
    baseline_brier_score: float | None
    kind: Kind = "binary"
    multiclass_brier_rise: float | None = None
    mae_rise: float | None = None
    baseline_mae: float | None = None


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
    if figures.kind != criteria.kind:
        return Keep(f"a {figures.kind} model cannot be compared with the {criteria.kind} one before it")
    comparisons = tuple(_comparisons(criteria, figures))
    reason = "; ".join(text for _, text in comparisons)
    return Revert(reason) if any(worse for worse, _ in comparisons) else Keep(reason)


def _comparisons(criteria: Criteria, figures: Figures) -> Iterator[tuple[bool, str]]:
    """Each criterion of the model's kind: whether it is met, and the comparison in words."""
    if criteria.kind == "regression":
        yield _compare_share("MAE", criteria.baseline_mae, figures.mae, criteria.mae_rise)
        return
    brier_rise = criteria.brier_rise if criteria.kind == "binary" else criteria.multiclass_brier_rise
    yield _compare("accuracy", "down", criteria.baseline_accuracy, figures.accuracy, criteria.accuracy_drop)
    yield _compare("Brier score", "up", criteria.baseline_brier_score, figures.brier_score, brier_rise)


def _compare_share(
    name: str, baseline: float | None, value: float | None, allowed: float | None
) -> tuple[bool, str]:
    """Whether the value is above the baseline by more than a share of it, and the comparison in words."""
    if baseline is None or value is None or allowed is None:
        return False, f"{name} cannot be compared: {baseline} before, {value} now"
    # Exactly: as the numbers are written, whatever their size.
    worse = Fraction(repr(value)) > Fraction(repr(baseline)) * (1 + Fraction(repr(allowed)))
    words = "more than" if worse else "not more than"
    return worse, f"{name} {baseline} before, {value} now: up by {words} {allowed} times the former"


def _compare(
    name: str, worse_way: str, baseline: float | None, value: float | None, allowed: float | None
) -> tuple[bool, str]:
    """Whether the value is worse than the baseline by more than is allowed, and the comparison in words."""
    if baseline is None or value is None or allowed is None:
        return False, f"{name} cannot be compared: {baseline} before, {value} now"
    # As the numbers are written, so that 0.80 to 0.77 is down by 0.03 and not by 0.030000000000000027.
    change = Decimal(repr(value)) - Decimal(repr(baseline))
    worse_by = -change if worse_way == "down" else change
    worse = worse_by > Decimal(repr(allowed))
    words = "more than" if worse else "not more than"
    return worse, f"{name} {baseline} before, {value} now: {worse_way} by {words} {allowed}"
