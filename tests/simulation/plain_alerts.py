"""What alerting should make of a model's snapshots, in the plainest way. Nothing of the service is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

RULES = (
    *("accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach"),
    *("data_stale", "pipeline_stale"),
)
OF_KINDS = {
    "accuracy_breach": ("binary", "multiclass"),
    "brier_breach": ("binary",),
    "multiclass_brier_breach": ("multiclass",),
    "mae_breach": ("regression",),
}
"""The rules of quality, and the kinds of models that each judges."""
RANKS = ("none", "watch", "incident")
COMPARED = (
    *("model", "alert_sequence", "transition", "alert_id", "severity", "breach_streak", "escalation_level"),
    *("previous_escalation_level", "state", "previous_state", "snapshot_id", "snapshot_sequence", "as_of"),
)


def severity_of(rule: str, snapshot: dict[str, Any]) -> str | None:
    """How severely a snapshot breaches a rule; None where it does not."""
    metrics, limits = snapshot["metrics"], snapshot["policy"]["rules"][rule]
    if limits is None or not is_judged(rule, snapshot):
        return None
    if rule == "accuracy_breach":
        return "high" if metrics["accuracy"] < limits["below"] else None
    if rule == "mae_breach":
        above, high = (mae_is_above(limits[name], snapshot) for name in ("above_ratio", "high_above_ratio"))
    elif rule in OF_KINDS:
        above, high = (metrics["brier_score"] > limits[name] for name in ("above", "high_above"))
    else:
        age = metrics[rule.replace("stale", "freshness_seconds")]
        above, high = (age > limits[name] for name in ("above_seconds", "high_above_seconds"))
    return ("high" if high else "medium") if above else None


def is_judged(rule: str, snapshot: dict[str, Any]) -> bool:
    """Whether a rule is for such models, and has enough to go by."""
    metrics = snapshot["metrics"]
    if rule in OF_KINDS:
        enough = metrics["evaluated_predictions"] >= snapshot["policy"]["min_evaluated"]
        return enough and metrics["kind"] in OF_KINDS[rule]
    return not snapshot["catching_up"] and metrics[rule.replace("stale", "freshness_seconds")] is not None


def mae_is_above(ratio: float, snapshot: dict[str, Any]) -> bool:
    """Whether a MAE is above so many times the baseline, taken of the numbers as they are written."""
    policy, metrics = snapshot["policy"], snapshot["metrics"]
    baseline = policy["rules"]["mae_breach"]["baseline"]
    if baseline is None and metrics["baseline_evaluated_predictions"] >= policy["min_evaluated"]:
        baseline = metrics["baseline_mae"]
    if baseline is None:
        return False
    return bool(metrics["mae"] > float(Fraction(str(ratio)) * Fraction(str(baseline))))


def transitions(snapshots: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of one model's snapshots, in sequence without a gap: every change, with the fields ``COMPARED``."""
    standing: dict[str, tuple[str, int, str]] = {}
    state, sequence = "none", 0
    for snapshot in snapshots:
        before, standing = standing, {}
        for rule in RULES:
            severity = severity_of(rule, snapshot)
            if severity is not None:
                streak = before[rule][1] + 1 if rule in before else 1
                standing[rule] = (severity, streak, _level(severity, streak))
        previous, state = state, _state(standing)
        common = {
            **{name: snapshot[name] for name in ("model", "snapshot_id", "as_of")},
            "snapshot_sequence": snapshot["sequence"],
            "state": state,
            "previous_state": previous,
        }
        changes = [change for rule in RULES if (change := _change(rule, before.get(rule), standing.get(rule)))]
        if state != previous:
            changes.append(dict.fromkeys(COMPARED) | {"transition": "state_changed"})
        for change in changes:
            sequence += 1
            yield change | common | {"alert_sequence": sequence}


def _level(severity: str, streak: int) -> str:
    if severity == "high":
        return "incident" if streak >= 2 else "watch"
    return "watch" if streak >= 3 else "none"


def _state(standing: dict[str, tuple[str, int, str]]) -> str:
    levels = {level for _, _, level in standing.values()}
    return next((level for level in ("incident", "watch") if level in levels), "active" if levels else "none")


def _change(
    rule: str, before: tuple[str, int, str] | None, after: tuple[str, int, str] | None
) -> dict[str, Any] | None:
    level_before = before[2] if before else None
    if after is None:
        if before is None:
            return None
        word, (severity, streak, level) = "resolved", (before[0], 0, "none")
    else:
        severity, streak, level = after
        if level_before is None:
            word = "opened"
        elif level == level_before:
            return None
        else:
            word = "escalated" if RANKS.index(level) > RANKS.index(level_before) else "de_escalated"
    return {
        "transition": word,
        "alert_id": rule,
        "severity": severity,
        "breach_streak": streak,
        "escalation_level": level,
        "previous_escalation_level": level_before,
    }
