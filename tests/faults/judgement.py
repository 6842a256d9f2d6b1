"""What alerts and retraining should come to, told again from the snapshots alone in the plainest way.

Nothing of the services is used. Documents are the JSON of the topics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Document = dict[str, Any]

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
    enough = metrics["evaluated_predictions"] >= snapshot["policy"]["min_evaluated"]
    found = {}
    if enough and metrics["accuracy"] < rules["accuracy_breach"]["below"]:
        found["accuracy_breach"] = "high"
    if enough and metrics["brier_score"] > rules["brier_breach"]["above"]:
        high = metrics["brier_score"] > rules["brier_breach"]["high_above"]
        found["brier_breach"] = "high" if high else "medium"
    for alert, figure in (("data_stale", "data_freshness"), ("pipeline_stale", "pipeline_freshness")):
        age, rule = metrics[f"{figure}_seconds"], rules[alert]
        if age is not None and not snapshot["catching_up"] and age > rule["above_seconds"]:
            found[alert] = "high" if age > rule["high_above_seconds"] else "medium"
    return found


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
        for alert in ("accuracy_breach", "brier_breach", "data_stale", "pipeline_stale"):
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
    found = [trigger for trigger in ("accuracy_breach", "brier_breach") if trigger in breaches]
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
