"""What a world came to: the state in the database and the topics, in a form that two worlds can be compared in."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from shared.topics import ALERTS, DEAD_LETTERS, RETRAIN_DECISIONS, RETRAIN_JOBS, SNAPSHOTS
from tests.metrics_state import buckets_of, label_buckets_of, winning_labels_of
from tests.simulation.world import PREFIX, World

MOMENTS_OF_THE_HOST = (
    "created_at",
    "started_at",
    "heartbeat_at",
    "lease_expires_at",
    "finished_at",
    "received_at",
)
"""When something happened to be done, by the host's clock: another run does it at another moment."""
CITATION = "standing_alerts"
"""Alerts are cited as retrain has heard of them by then; no rule reads them."""
RECORDS = "records taken"
"""Compared with what this world's topics hold: a repeat on a topic is a record more."""
SEQUENCES = {
    SNAPSHOTS.name: ("model", "sequence"),
    ALERTS.name: ("model", "alert_sequence"),
    RETRAIN_DECISIONS.name: ("model", "decision_sequence"),
    RETRAIN_JOBS.name: ("job_id", "job_sequence"),
}


class OutcomeError(AssertionError):
    """What a topic or a table holds breaks a promise."""


@dataclass(frozen=True)
class Outcome:
    """``tables`` by name; ``topics`` as a reader keeps them that drops repeats."""

    tables: dict[str, Any]
    topics: dict[str, list[dict[str, Any]]]
    letters: frozenset[tuple[str, str, int, int]]

    def documents(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tables[table]
        return found

    def comparable(self) -> dict[str, Any]:
        """All that must be the same in every run of a history on the event clock."""
        return {
            **{name: _without(rows) for name, rows in self.tables.items() if name != RECORDS},
            **{f"topic {name}": _without(events) for name, events in self.topics.items()},
            "dead letters": sorted(self.letters),
        }


def _without(value: Any) -> Any:
    """The value without what a run may legally change (docs/guarantees.md)."""
    if isinstance(value, dict):
        left_out = (*MOMENTS_OF_THE_HOST, CITATION)
        return {name: _without(each) for name, each in value.items() if name not in left_out}
    if isinstance(value, list):
        return [_without(each) for each in value]
    return value


async def outcome_of(world: World) -> Outcome:
    """Read it. Raises ``OutcomeError`` where a topic's sequence has a hole or a repeat differs."""
    admin = world.server.admin
    await admin.execute("SET search_path = metrics")
    database: Any = SimpleNamespace(pool=admin)
    tables: dict[str, Any] = {
        "buckets": await buckets_of(database),
        "label buckets": await label_buckets_of(database),
        "labels": await winning_labels_of(database),
    }
    for name, query in DOCUMENTS.items():
        tables[name] = [json.loads(row[0]) for row in await admin.fetch(query)]
    tables[RECORDS] = [
        tuple(row) for row in await admin.fetch("SELECT * FROM simulation.taken ORDER BY 1, 2, 3, 4")
    ]
    topics = {name: read_as_a_reader(world, name) for name in SEQUENCES}
    return Outcome(tables, topics, letters_of(world))


DOCUMENTS = {
    "snapshots": "SELECT document::text FROM metrics.snapshot ORDER BY model, sequence",
    "figures": "SELECT to_jsonb(one)::text FROM metrics.latest_figures AS one ORDER BY model",
    # From when on retention counts depends on the boundary that a row was taken before, and so on delays.
    "predictions": "SELECT (to_jsonb(p) - 'kept_from')::text FROM metrics.prediction AS p ORDER BY prediction_key",
    "runs": "SELECT to_jsonb(one)::text FROM metrics.pipeline_run AS one ORDER BY to_jsonb(one)::text",
    "versions": "SELECT document::text FROM metrics.model_version_event ORDER BY document::text",
    "alert states": "SELECT to_jsonb(one)::text FROM alerting.models AS one ORDER BY model",
    "transitions": "SELECT document::text FROM alerting.transitions ORDER BY model, alert_sequence",
    "retrain models": "SELECT to_jsonb(one)::text FROM retrain.models AS one ORDER BY model",
    "decisions": "SELECT document::text FROM retrain.decisions ORDER BY model, decision_sequence",
    "jobs": "SELECT document::text FROM retrain.jobs ORDER BY job_id",
    "causes": "SELECT to_jsonb(one)::text FROM retrain.causes AS one ORDER BY job_id, trigger",
}
PERSISTED = {
    SNAPSHOTS.name: "snapshots",
    ALERTS.name: "transitions",
    RETRAIN_DECISIONS.name: "decisions",
}


def read_as_a_reader(world: World, topic: str) -> list[dict[str, Any]]:
    """Per key in sequence: what is not above the last one seen is dropped; a repeat must be the same bytes."""
    name_of, number_of = SEQUENCES[topic]
    last: dict[str, int] = defaultdict(int)
    said: dict[str, Any] = {}
    kept = []
    for partition, log in sorted(world.broker.logs.items()):
        if partition.topic != PREFIX + topic:
            continue
        for record in log:
            event = json.loads(record.value or b"null")
            event_id = dict(record.headers)["ce_id"].decode()
            fact = (record.key, record.value, record.headers)
            if said.setdefault(event_id, fact) != fact:
                raise OutcomeError(f"{topic}: {event_id} was published twice, with different content")
            name, number = event[name_of], event[number_of]
            if number > last[name]:
                if number != last[name] + 1:
                    raise OutcomeError(f"{topic}: {name} goes from {last[name]} to {number}")
                last[name] = number
                kept.append(event)
    return sorted(kept, key=lambda event: (event[name_of], event[number_of]))


def letters_of(world: World) -> frozenset[tuple[str, str, int, int]]:
    """Service, topic, partition and offset of every dead letter."""
    found = set()
    for partition, log in world.broker.logs.items():
        if partition.topic == PREFIX + DEAD_LETTERS.name:
            for record in log:
                letter = json.loads(record.value or b"null")
                found.add((letter["service"], letter["topic"], letter["partition"], letter["offset"]))
    return frozenset(found)
