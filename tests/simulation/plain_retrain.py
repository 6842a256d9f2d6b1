"""What retrain should decide, turn by turn of a history, in the plainest way. Nothing of the service is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.simulation.plain_alerts import mae_is_above

TRIGGERS = ("accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "new_labels")
COVERED_FOR = timedelta(hours=12)
ENDED = {"completed": "completed", "failed": "failed", "cancelled": "cancelled"}


@dataclass
class PlainRetrain:
    """Decisions by (model, decision_sequence): who asked, triggers, action. Jobs by the same key: status."""

    expires: frozenset[str] = frozenset()
    """Models whose trainers fall silent: by the end of a turn their running jobs have expired."""
    decisions: dict[tuple[str, int], tuple[str, tuple[str, ...], str]] = field(default_factory=dict)
    jobs: dict[tuple[str, int], str] = field(default_factory=dict)
    _newest: dict[str, dict[str, Any]] = field(default_factory=dict)
    _active: dict[str, tuple[str, int] | None] = field(default_factory=dict)
    _causes: dict[Any, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    _answered: set[tuple[str, str]] = field(default_factory=set)
    _numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def take_snapshot(self, snapshot: dict[str, Any]) -> None:
        self._newest[snapshot["model"]] = snapshot
        acts = snapshot["policy"]["mode"] == "enforce"
        self._decide(snapshot, f"snapshot {snapshot['sequence']}", acts=acts)

    def take_request(self, request: Mapping[str, Any]) -> None:
        asked = (request["model"], request["request_id"])
        if asked not in self._answered:
            self._answered.add(asked)
            self._decide(self._newest[request["model"]], request["request_id"], acts=not request["dry_run"])

    def take_update(self, job: tuple[str, int], word: str) -> None:
        model = job[0]
        if word == "started":
            self.jobs[job] = "running"
        elif word in ENDED:
            self.jobs[job] = ENDED[word]
            self._active[model] = None

    def end_turn(self) -> None:
        for job, status in self.jobs.items():
            if job[0] in self.expires and status == "running":
                self.jobs[job] = "expired"
                self._active[job[0]] = None

    def _decide(self, snapshot: dict[str, Any], asked: str, *, acts: bool) -> None:
        model = snapshot["model"]
        as_of = datetime.fromisoformat(snapshot["as_of"])
        found = fired(snapshot)
        champion = (snapshot["champion"] or {}).get("version")
        free = [
            trigger
            for trigger in found
            if all(abs(as_of - made) >= COVERED_FOR for made in self._causes[model, champion, trigger])
        ]
        if not acts:
            action = "dry-run-noop"
        elif not found:
            action = "noop"
        elif self._active.get(model) or not free:
            action = "already-queued"
        else:
            action = "queued-retrain"
        self._numbers[model] += 1
        key = (model, self._numbers[model])
        self.decisions[key] = (asked, found, action)
        if action == "queued-retrain":
            self.jobs[key], self._active[model] = "queued", key
            for trigger in free:
                self._causes[model, champion, trigger].append(as_of)


def fired(snapshot: dict[str, Any]) -> tuple[str, ...]:
    """The triggers that a snapshot fires."""
    policy, metrics = snapshot["policy"], snapshot["metrics"]
    rules, triggers = policy["rules"], policy["triggers"]
    kind = metrics["kind"] if metrics["evaluated_predictions"] >= policy["min_evaluated"] else None
    brier = f"{'multiclass_' if kind == 'multiclass' else ''}brier_breach"
    decides = kind in ("binary", "multiclass")
    found = {
        "accuracy_breach": decides and metrics["accuracy"] < rules["accuracy_breach"]["below"],
        brier: decides and metrics["brier_score"] > rules[brier]["above"],
        "mae_breach": kind == "regression" and mae_is_above(rules["mae_breach"]["above_ratio"], snapshot),
        "new_labels": triggers["new_labels"] is not None and metrics["new_labels"] >= triggers["new_labels"],
    }
    return tuple(trigger for trigger in TRIGGERS if found.get(trigger))


def recompute(
    turns: Iterable[tuple[int, Sequence[Mapping[str, Any]]]],
    snapshots: Sequence[dict[str, Any]],
    job_of: Mapping[str, tuple[str, int]],
    expires: frozenset[str],
) -> PlainRetrain:
    """Go through a history's turns: each has the ``as_of`` (seconds) up to which snapshots came before it."""
    plain, left = PlainRetrain(expires), sorted(snapshots, key=lambda one: (one["as_of"], one["model"]))
    for boundary, events in turns:
        while left and datetime.fromisoformat(left[0]["as_of"]).timestamp() <= boundary:
            plain.take_snapshot(left.pop(0))
        for event in events:
            if "request_id" in event:
                plain.take_request(event)
            elif event.get("job_id") in job_of and "update" in event:
                plain.take_update(job_of[event["job_id"]], event["update"])
        plain.end_turn()
    assert not left, "snapshots that no turn explains"
    return plain
