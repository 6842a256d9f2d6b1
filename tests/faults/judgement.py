"""What alerts and retraining should come to, told again from the snapshots alone in the plainest way.

Nothing of the services is used. Documents are the JSON of the topics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

Document = dict[str, Any]

QUALITY = {
    "binary": ("accuracy_breach", "brier_breach"),
    "multiclass": ("accuracy_breach", "multiclass_brier_breach"),
    "regression": ("mae_breach",),
}
"""The rules of quality that judge a model, by its kind; each has a trigger of its name."""
ALERTS = (
    "accuracy_breach",
    "brier_breach",
    "multiclass_brier_breach",
    "mae_breach",
    "data_stale",
    "pipeline_stale",
)
RANKS = {"none": 0, "watch": 1, "incident": 2}
AFTER: dict[str | None, set[str]] = {
    None: {"queued"},
    "queued": {"running", "failed", "cancelled"},
    "running": {"completed", "failed", "cancelled", "expired"},
    "completed": {"completed"},  # the verdict
    "failed": set(),
    "cancelled": set(),
    "expired": set(),
}
"""The statuses that may follow each status of a job."""


def breached(snapshot: Document) -> dict[str, str]:
    """The rules in breach, with their severity."""
    rules, metrics = snapshot["policy"]["rules"], snapshot["metrics"]
    found = {}
    if metrics["evaluated_predictions"] >= snapshot["policy"]["min_evaluated"]:
        for alert in QUALITY[metrics["kind"]]:
            if severity := _severity(alert, snapshot):
                found[alert] = severity
    for alert, figure in (("data_stale", "data_freshness"), ("pipeline_stale", "pipeline_freshness")):
        age, rule = metrics[f"{figure}_seconds"], rules[alert]
        if age is not None and not snapshot["catching_up"] and age > rule["above_seconds"]:
            found[alert] = "high" if age > rule["high_above_seconds"] else "medium"
    return found


def _severity(alert: str, snapshot: Document) -> str | None:
    """How badly a rule of quality is broken, of whose predictions there are enough; None where it is not."""
    rule, metrics = snapshot["policy"]["rules"][alert], snapshot["metrics"]
    if alert == "accuracy_breach":
        return "high" if metrics["accuracy"] < rule["below"] else None
    figure, above, high_above = metrics["brier_score"], rule.get("above"), rule.get("high_above")
    if alert == "mae_breach":
        baseline = rule["baseline"]
        if baseline is None:
            if metrics["baseline_evaluated_predictions"] < snapshot["policy"]["min_evaluated"]:
                return None
            baseline = metrics["baseline_mae"]
        figure = metrics["mae"]
        above, high_above = times(rule["above_ratio"], baseline), times(rule["high_above_ratio"], baseline)
    if figure <= above:
        return None
    return "high" if figure > high_above else "medium"


def times(ratio: float, baseline: float) -> float:
    """A product of two numbers as they are written: 1.1 times 3 is 3.3."""
    return float(Fraction(repr(ratio)) * Fraction(repr(baseline)))


def level(severity: str, streak: int) -> str:
    if severity == "high":
        return "incident" if streak >= 2 else "watch"
    return "watch" if streak >= 3 else "none"


def state_of(levels: Sequence[str]) -> str:
    if not levels:
        return "none"
    highest = max(levels, key=RANKS.__getitem__)
    return "active" if highest == "none" else highest


def transitions(snapshots: Sequence[Document]) -> Iterator[tuple[Any, ...]]:
    """Of one model's snapshots in sequence: what changed, numbered.

    Each is its number, the snapshot's, what, the alert, severity, streak, level and the one before, state and the
    one before.
    """
    number = 0
    standing: dict[str, tuple[str, int]] = {}
    state = "none"
    for snapshot in snapshots:
        breaches = breached(snapshot)
        after = {alert: (breaches[alert], standing.get(alert, ("", 0))[1] + 1) for alert in breaches}
        before_state, state = state, state_of([level(*one) for one in after.values()])
        changes: list[tuple[Any, ...]] = []
        for alert in ALERTS:
            old, new = standing.get(alert), after.get(alert)
            if new and not old:
                changes.append(("opened", alert, *new, level(*new), None))
            elif old and not new:
                changes.append(("resolved", alert, old[0], 0, "none", level(*old)))
            elif old and new and level(*old) != level(*new):
                climbs = RANKS[level(*new)] > RANKS[level(*old)]
                change = "escalated" if climbs else "de_escalated"
                changes.append((change, alert, *new, level(*new), level(*old)))
        if state != before_state:
            changes.append(("state_changed", None, None, None, None, None))
        for change in changes:
            number += 1
            yield (number, snapshot["sequence"], *change, state, before_state)
        standing = after


def told(transition: Document) -> tuple[Any, ...]:
    """A published transition in the same form."""
    names = ("alert_sequence", "snapshot_sequence", "transition", "alert_id", "severity", "breach_streak")
    names += ("escalation_level", "previous_escalation_level", "state", "previous_state")
    return tuple(transition[name] for name in names)


def fired(snapshot: Document) -> list[str]:
    """The triggers that a snapshot fires."""
    breaches, policy = breached(snapshot), snapshot["policy"]
    found = [trigger for trigger in QUALITY[snapshot["metrics"]["kind"]] if trigger in breaches]
    wanted = policy["triggers"]["new_labels"]
    if wanted is not None and (snapshot["metrics"]["new_labels"] or 0) >= wanted:
        found.append("new_labels")
    return found


def faults_of_jobs(jobs: Sequence[Document]) -> Iterator[str]:
    """What is wrong with the published changes of a model's jobs, repeats dropped, in the order of the topic."""
    last: dict[str, Document] = {}
    causes: dict[tuple[str | None, str], str] = {}
    for job in jobs:
        before = last.get(job["job_id"])
        status = before and before["status"]
        if job["job_sequence"] != (before["job_sequence"] if before else 0) + 1:
            yield f"{job['job_id']}: change {job['job_sequence']} after {before and before['job_sequence']}"
        if job["status"] not in AFTER[status]:
            yield f"{job['job_id']}: {job['status']} after {status}"
        if before is None:
            others = [one["job_id"] for one in last.values() if one["status"] in ("queued", "running")]
            if others:
                yield f"{job['job_id']} beside {others}"
            for trigger in job["triggers"]:
                cause = (job["champion"] and job["champion"]["version"], trigger)
                if cause in causes:  # no campaign lasts 12 hours
                    yield f"{job['job_id']} for {cause}, which made {causes[cause]} already"
                causes[cause] = job["job_id"]
        last[job["job_id"]] = job
