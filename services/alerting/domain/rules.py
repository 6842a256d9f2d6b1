"""The alert rules: what a snapshot's figures say about each alert, and why."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias, assert_never, get_args

AlertId = Literal[
    "accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "data_stale", "pipeline_stale"
]
Kind = Literal["binary", "multiclass", "regression"]
Severity = Literal["medium", "high"]

ALERT_IDS: Final[tuple[AlertId, ...]] = get_args(AlertId)
"""In the order of the rules, in which everything is told."""

RULES_OF_KIND: Final[Mapping[Kind, tuple[AlertId, ...]]] = {
    "binary": ("accuracy_breach", "brier_breach", "data_stale", "pipeline_stale"),
    "multiclass": ("accuracy_breach", "multiclass_brier_breach", "data_stale", "pipeline_stale"),
    "regression": ("mae_breach", "data_stale", "pipeline_stale"),
}
"""The rules that judge a model, by its kind."""

EXACT_SECONDS = 2**53
"""From here on a float holds no fraction of a second."""


@dataclass(frozen=True, slots=True)
class AccuracyRule:
    """Breached, always at high severity, when accuracy < ``below``."""

    below: float


@dataclass(frozen=True, slots=True)
class BrierRule:
    """Breached when brier_score > ``above`` (medium); of high severity above ``high_above``."""

    above: float
    high_above: float


@dataclass(frozen=True, slots=True)
class MaeRule:
    """Breached when mae > ``above_ratio`` times the baseline (medium); high above ``high_above_ratio`` times.

    The baseline is ``baseline``; None: that of the snapshot.
    """

    baseline: float | None
    above_ratio: float
    high_above_ratio: float


@dataclass(frozen=True, slots=True)
class StalenessRule:
    """Breached when freshness > ``above_seconds`` (medium); of high severity above ``high_above_seconds``."""

    above_seconds: float
    high_above_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """The part of a model's policy that alerting judges by; a rule that is None is off.

    The rules of quality need ``min_evaluated`` evaluated predictions in the window.
    """

    min_evaluated: int
    accuracy_breach: AccuracyRule | None
    brier_breach: BrierRule | None
    multiclass_brier_breach: BrierRule | None = None
    mae_breach: MaeRule | None = None
    data_stale: StalenessRule | None
    pipeline_stale: StalenessRule | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a snapshot says that rules look at. None is unknown.

    ``catching_up``: intake was more than an interval behind, so that staleness cannot be told from lag.
    ``baseline_mae`` is over the ``baseline_evaluated_predictions`` that were evaluated before the window.
    """

    kind: Kind = "binary"
    mae: float | None = None
    baseline_mae: float | None = None
    baseline_evaluated_predictions: int | None = None
    evaluated_predictions: int
    accuracy: float | None
    brier_score: float | None
    data_freshness_seconds: float | None
    pipeline_freshness_seconds: float | None
    catching_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """The figure is known and on the right side of the threshold."""

    reason: str
    value: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breached:
    """The figure is on the wrong side; ``threshold`` is the highest one that it crossed."""

    reason: str
    value: float
    threshold: float
    severity: Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class InsufficientData:
    """The rule cannot be judged, which is not a breach.

    ``evaluated_predictions`` is the count where it is the count that does not suffice, else None. ``threshold`` is
    None where it is not known for want of a baseline.
    """

    reason: str
    value: float | None
    threshold: float | None
    evaluated_predictions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """The policy does not have the rule."""

    reason: str = "the rule is off"
    value: None = None
    threshold: None = None


Outcome: TypeAlias = Quiet | Breached | InsufficientData | Off
Evaluations: TypeAlias = Mapping[AlertId, Outcome]
"""What every rule of the model's kind said of one snapshot, in the order of the rules."""


def evaluate(policy: AlertPolicy, figures: Figures) -> Evaluations:
    """Hold the figures against every rule that judges models of their kind."""
    return {alert_id: _evaluate(alert_id, policy, figures) for alert_id in RULES_OF_KIND[figures.kind]}


def _evaluate(alert_id: AlertId, policy: AlertPolicy, figures: Figures) -> Outcome:
    match alert_id:
        case "accuracy_breach":
            return _accuracy(policy.accuracy_breach, policy.min_evaluated, figures)
        case "brier_breach":
            return _brier(policy.brier_breach, policy.min_evaluated, figures)
        case "multiclass_brier_breach":
            return _brier(policy.multiclass_brier_breach, policy.min_evaluated, figures)
        case "mae_breach":
            return _mae(policy.mae_breach, policy.min_evaluated, figures)
        case "data_stale":
            freshness = figures.data_freshness_seconds
            return _staleness(policy.data_stale, "the newest data", freshness, figures.catching_up)
        case "pipeline_stale":
            subject, freshness = "the newest successful pipeline run", figures.pipeline_freshness_seconds
            return _staleness(policy.pipeline_stale, subject, freshness, figures.catching_up)
        case _:
            assert_never(alert_id)


def not_of_kind(kind: Kind) -> Off:
    """What a rule says of a model that it does not judge."""
    return Off(reason=f"the rule does not judge {kind} models")


def _accuracy(rule: AccuracyRule | None, min_evaluated: int, figures: Figures) -> Outcome:
    if rule is None:
        return Off()
    value, threshold = figures.accuracy, rule.below
    if (too_few := _too_few(figures, min_evaluated)) is not None:
        return _unjudged(too_few, value, threshold, figures.evaluated_predictions)
    if value is None:
        return _unjudged("accuracy is unknown", value, threshold)
    if value < threshold:
        reason = f"accuracy {value!r} is below {threshold!r}"
        return Breached(reason=reason, value=value, threshold=threshold, severity="high")
    return Quiet(reason=f"accuracy {value!r} is not below {threshold!r}", value=value, threshold=threshold)


def _brier(rule: BrierRule | None, min_evaluated: int, figures: Figures) -> Outcome:
    if rule is None:
        return Off()
    value, threshold = figures.brier_score, rule.above
    if (too_few := _too_few(figures, min_evaluated)) is not None:
        return _unjudged(too_few, value, threshold, figures.evaluated_predictions)
    if value is None:
        return _unjudged("brier_score is unknown", value, threshold)
    if value <= threshold:
        reason = f"brier_score {value!r} is not above {threshold!r}"
        return Quiet(reason=reason, value=value, threshold=threshold)
    severity, crossed = _graded(value, threshold, rule.high_above)
    reason = f"brier_score {value!r} is above {crossed!r}"
    return Breached(reason=reason, value=value, threshold=crossed, severity=severity)


def _mae(rule: MaeRule | None, min_evaluated: int, figures: Figures) -> Outcome:
    if rule is None:
        return Off()
    value, baseline = figures.mae, rule.baseline if rule.baseline is not None else figures.baseline_mae
    if (too_few := _too_few(figures, min_evaluated)) is not None:
        return _unjudged(too_few, value, _times(rule.above_ratio, baseline), figures.evaluated_predictions)
    before = figures.baseline_evaluated_predictions or 0
    if rule.baseline is None and before < min_evaluated:
        reason = f"{before} predictions evaluated before the window of the {min_evaluated} that a baseline needs"
        return _unjudged(reason, value, None, before)
    threshold = _times(rule.above_ratio, baseline)
    if value is None or baseline is None or threshold is None:
        return _unjudged(f"{'mae' if value is None else 'the baseline'} is unknown", value, threshold)
    against = f"times the baseline of {baseline!r}"
    if value <= threshold:
        reason = f"mae {value!r} is not above {threshold!r}, {rule.above_ratio!r} {against}"
        return Quiet(reason=reason, value=value, threshold=threshold)
    high = _times(rule.high_above_ratio, baseline)
    severity, crossed = _graded(value, threshold, threshold if high is None else high)
    ratio = rule.high_above_ratio if severity == "high" else rule.above_ratio
    reason = f"mae {value!r} is above {crossed!r}, {ratio!r} {against}"
    return Breached(reason=reason, value=value, threshold=crossed, severity=severity)


def _times(ratio: float, baseline: float | None) -> float | None:
    """A share of the baseline, as the numbers are written: 1.1 times 3 is 3.3 and not 3.3000000000000003.

    Never above the largest float, which no MAE exceeds.
    """
    if baseline is None:
        return None
    return min(float(Decimal(repr(ratio)) * Decimal(repr(baseline))), sys.float_info.max)


def _staleness(
    rule: StalenessRule | None, subject: str, freshness_seconds: float | None, catching_up: bool
) -> Outcome:
    if rule is None:
        return Off()
    value, threshold = freshness_seconds, rule.above_seconds
    if catching_up:
        return _unjudged("intake is catching up, so staleness cannot be told yet", value, threshold)
    if value is None:
        return _unjudged(f"{subject} is of unknown age", value, threshold)
    age = f"{subject} is {duration_in_words(value)} old"
    if value <= threshold:
        reason = f"{age}, not more than {duration_in_words(threshold)}"
        return Quiet(reason=reason, value=value, threshold=threshold)
    severity, crossed = _graded(value, threshold, rule.high_above_seconds)
    reason = f"{age}, more than {duration_in_words(crossed)}"
    return Breached(reason=reason, value=value, threshold=crossed, severity=severity)


def _graded(value: float, above: float, high_above: float) -> tuple[Severity, float]:
    """The severity of a value that is above ``above``, and the threshold that gave it."""
    return ("high", high_above) if value > high_above else ("medium", above)


def _too_few(figures: Figures, min_evaluated: int) -> str | None:
    if figures.evaluated_predictions >= min_evaluated:
        return None
    return f"{figures.evaluated_predictions} evaluated predictions of the {min_evaluated} that are needed"


def _unjudged(
    reason: str, value: float | None, threshold: float | None, evaluated_predictions: int | None = None
) -> InsufficientData:
    return InsufficientData(
        reason=reason, value=value, threshold=threshold, evaluated_predictions=evaluated_predictions
    )


def duration_in_words(seconds: float) -> str:
    """A duration without rounding, so that its words never contradict a comparison: ``2 d 1 h 0.5 s``."""
    sign, size = ("-", -seconds) if seconds < 0 else ("", seconds)
    whole = int(size)
    # Through the decimal that the float is written as: 172800.1 s is 2 d 0.1 s, not 0.10000000000582077 s.
    fraction = Decimal(repr(size)) - whole if size < EXACT_SECONDS else Decimal(0)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    parts = [f"{count} {unit}" for count, unit in ((day, "d"), (hour, "h"), (minute, "min")) if count]
    if second or fraction or not parts:
        parts.append(f"{second + fraction.normalize():f} s")
    return sign + " ".join(parts)
