"""Afterwards: everything that was published and answered is held against what was sent, record by record."""

from __future__ import annotations

import base64
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from shared.topics import (
    ALERTS,
    DEAD_LETTERS,
    RETRAIN_DECISIONS,
    RETRAIN_JOB_UPDATES,
    RETRAIN_JOBS,
    SNAPSHOTS,
    TOPICS,
    read_by,
)
from tests.faults import judgement
from tests.faults.recomputation import Recomputation, differences
from tests.faults.traffic import MODELS, Ledger
from tests.faults.world import CONSUMERS, INTERVAL_SECONDS, World, until
from tests.metrics_world import Fact
from tests.plain_metrics import WINDOWS

Log = list[ConsumerRecord[bytes, bytes]]
Document = dict[str, Any]

SNAPSHOTS_RECOMPUTED = 6
"""Of each model, chosen by the seed, beside its last; recomputing one costs a fraction of a second."""
FRESHNESS = ("data_freshness_seconds", "pipeline_freshness_seconds")
ENDS = ("opened", "resolved")
INPUTS = frozenset(topic.name for topic in TOPICS if "users" in topic.writers or "operators" in topic.writers)
METRICS_INPUT = tuple(topic.name for topic in read_by("metrics"))
INPUT_NAMES = (*METRICS_INPUT, RETRAIN_JOB_UPDATES.name)
NAMED = {topic.name: topic for topic in TOPICS}


@dataclass
class Findings:
    """What an audit saw. ``breaches`` are broken promises, in words."""

    breaches: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def expect(self, found: Any, expected: Any, what: str) -> None:
        if found != expected:
            self.breaches.append(f"{what}: {str(found)[:400]}, not {str(expected)[:400]}")


async def read_log(world: World, topic: str) -> Log:
    """All of a topic, partition after partition, as far as it is there now."""
    ends = await until(partial(world.log_ends, [topic]), bool, f"the ends of {topic}")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.cluster.bootstrap_servers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        wanted = {TopicPartition(world.prefix + topic, place[1]): end for place, end in ends.items() if end}
        consumer.assign(list(wanted))
        found: Log = []

        async def look() -> bool:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found.extend(records)
            return all([await consumer.position(place) >= end for place, end in wanted.items()])

        await until(look, bool, f"all of {topic} read")
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        await consumer.stop()


async def settle(world: World) -> None:
    """Wait until nothing is on its way any more: all input taken, all output published, no job open."""
    await world.fresh()
    for service in CONSUMERS:
        ends = await world.log_ends([topic.name for topic in read_by(service)])
        await until(partial(world.behind, service, ends), lambda left: not left, f"{service} has read all")
        waiting = f"SELECT id FROM {service}.outbox LIMIT 1"
        if service != "metrics":  # which has a snapshot to publish every other second
            await until(partial(world.query, waiting), lambda rows: not rows, f"{service} has published all")
    active = "SELECT job_id FROM retrain.published_jobs WHERE status IN ('queued', 'running')"
    await until(partial(world.query, active), lambda rows: not rows, "every job ended")


class Audit:
    """One audit of one world, whose traffic has ended."""

    def __init__(self, world: World, ledger: Ledger, seed: int) -> None:
        self._world = world
        self._ledger = ledger
        self._chance = Random(f"audit {seed}")
        self.found = Findings()
        self._inputs: dict[str, Log] = {}
        self._facts: list[tuple[str, str, int, Fact]] = []

    async def run(self, answered: dict[tuple[str, str], set[str]]) -> Findings:
        """Look at everything; ``answered`` are the request ids that were given out, by model and key."""
        await settle(self._world)
        for topic in INPUT_NAMES:
            self._inputs[topic] = await read_log(self._world, topic)
        self._input_is_what_was_sent()
        await self._nothing_waits_or_is_lost()
        await self._dead_letters()
        await self._answers()
        snapshots = await self._snapshots()
        await settle(self._world)
        await self._transitions(snapshots)
        decisions = await self._decisions(snapshots)
        await self._jobs(decisions)
        self._requests(decisions, answered)
        self.found.breaches += self._world.complaints()
        return self.found

    def _input_is_what_was_sent(self) -> None:
        """The broker kept every acknowledged record; what it holds beyond the ledger are repeats."""
        held: Counter[tuple[str, bytes | None, bytes]] = Counter()
        for topic, log in self._inputs.items():
            held.update((topic, record.key, record.value or b"") for record in log)
        sent = self._ledger.events | self._ledger.garbage
        self.found.expect(sent - held.keys(), set(), "acknowledged by the broker and not in its log")
        self.found.expect(held.keys() - sent, set(), "in the log and never sent")
        self.found.counts["records in the logs"] += held.total()
        self.found.counts["of them repeats"] += held.total() - len(held)

        self._facts = [
            (topic, str(record.partition), record.offset, (NAMED[topic], json.loads(record.value or b"")))
            for topic, log in self._inputs.items()
            for record in log
            if topic in METRICS_INPUT and (topic, record.key, record.value or b"") not in self._ledger.garbage
        ]

    def _facts_before(self, offsets: dict[str, dict[str, int]]) -> Iterator[Fact]:
        """The events that a snapshot has taken in, by the offsets that it names."""
        for topic, partition, offset, fact in self._facts:
            if offset < offsets.get(topic, {}).get(partition, 0):
                yield fact

    async def _nothing_waits_or_is_lost(self) -> None:
        for service in CONSUMERS:
            topics = [topic.name for topic in read_by(service) if topic.name in INPUTS]
            ends = await self._world.log_ends(topics) if topics else {}
            statement = f"SELECT topic, partition, next_offset, lost_records FROM {service}.inbox"
            rows = await self._world.query(statement)
            taken = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
            mine = {place: taken.get(place, 0) for place, end in ends.items() if end}
            self.found.expect(mine, {place: end for place, end in ends.items() if end}, f"{service}'s inbox")
            self.found.expect(sum(row["lost_records"] for row in rows), 0, f"{service}'s lost records")

    async def _dead_letters(self) -> None:
        """One letter a garbage record, of its bytes, and no other."""
        expected = Counter(
            (topic, record.partition, record.offset, record.key, record.value)
            for topic, log in self._inputs.items()
            for record in log
            if (topic, record.key, record.value or b"") in self._ledger.garbage
        )
        letters = self._once(await read_log(self._world, DEAD_LETTERS.name))
        found = Counter(
            (
                letter["topic"],
                letter["partition"],
                letter["offset"],
                None if letter["key_base64"] is None else base64.b64decode(letter["key_base64"]),
                base64.b64decode(letter["value_base64"]),
            )
            for letter in letters
        )
        self.found.expect(found - expected, Counter(), "dead letters of what was no garbage")
        self.found.expect(expected - found, Counter(), "garbage without a dead letter")
        self.found.counts["dead letters"] += found.total()

    def _once(self, log: Log) -> list[Document]:
        """The events of a topic, repeats dropped by their id; a repeat must be the same, byte for byte."""
        first: dict[bytes, ConsumerRecord[bytes, bytes]] = {}
        for record in log:
            identity = dict(record.headers)["ce_id"]
            known = first.setdefault(identity, record)
            if known is not record:
                self.found.counts["events published again"] += 1
                if (known.value, known.headers, known.key) != (record.value, record.headers, record.key):
                    self.found.breaches.append(f"{record.topic}: two events with the id {identity!r}")
        return [json.loads(record.value or b"") for record in first.values()]

    def _in_sequence(self, log: Log, number: str) -> dict[str, list[Document]]:
        """By model, as a reader keeps them who drops what is not above the last: 1, 2, 3, ... without a hole."""
        kept: dict[str, list[Document]] = defaultdict(list)
        self._once(log)
        for record in log:
            event = json.loads(record.value or b"")
            mine = kept[event["model"]]
            if event[number] > len(mine):
                self.found.expect(event[number], len(mine) + 1, f"{record.topic}, {event['model']}, {number}")
                mine.append(event)
        return kept

    async def _snapshots(self) -> dict[str, list[Document]]:
        """Without a gap, at boundaries, each cut once; figures of some recomputed from the offsets they name."""
        kept = self._in_sequence(await read_log(self._world, SNAPSHOTS.name), "sequence")
        self.found.expect(set(kept), set(MODELS), "models with snapshots")
        for model, snapshots in kept.items():
            self.found.counts["snapshots"] += len(snapshots)
            moments = [int(datetime.fromisoformat(one["as_of"]).timestamp()) for one in snapshots]
            for (before, after), one in zip(itertools.pairwise(moments), snapshots[1:], strict=True):
                missed = (after - before) // INTERVAL_SECONDS - 1
                what = f"{model} {one['sequence']}: missed boundaries"
                self.found.expect(one["missed_boundaries"], missed, what)
            for before_it, one in itertools.pairwise(snapshots):
                self.found.expect(
                    went_back(before_it["offsets"], one["offsets"]), [], f"{one['snapshot_id']} back"
                )
            chosen = self._chance.sample(snapshots, min(SNAPSHOTS_RECOMPUTED, len(snapshots)))
            for one in [*chosen, snapshots[-1]]:
                self._recompute(one)
        return kept

    def _recompute(self, snapshot: Document) -> None:
        plain = Recomputation(self._facts_before(snapshot["offsets"]))
        as_of = int(datetime.fromisoformat(snapshot["as_of"]).timestamp())
        what = f"snapshot {snapshot['snapshot_id']} of {snapshot['model']}"
        champion = plain.champion(snapshot["model"], as_of)
        self.found.expect(snapshot["champion"] and snapshot["champion"]["version"], champion and champion[1], what)
        judged = champion[1] if champion else ""
        expected = plain.figures_of(snapshot["model"], judged, "", snapshot["window"], as_of)
        self.found.expect(differences(snapshot["metrics"], expected), {}, f"{what}, figures")
        self.found.counts[f"{expected['kind']} snapshots recomputed"] += 1

    async def _answers(self) -> None:
        """Every figure that the API has, of both gateways, is the recomputed one."""
        plain = Recomputation(fact for *_, fact in self._facts)
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            for model in MODELS:
                own = [event for event in plain.predictions.values() if event["model"] == model]
                versions = sorted({event["model_version"] for event in own})
                declared = plain.policies[model]["segments"]["region"]
                segments = [None, *(f"region:{region}" for region in (*declared, "other"))]
                kinds = [(version, None) for version in versions]
                kinds += list(itertools.product([None, "all"], segments))
                for number, (kind, window) in enumerate(itertools.product(kinds, WINDOWS)):
                    asked = {"model": model, "version": kind[0], "segment": kind[1], "window": window}
                    await self._answer(client, f"gateway-{number % 2 + 1}", asked, plain)

    async def _answer(
        self, client: httpx.AsyncClient, gateway: str, asked: dict[str, str | None], plain: Recomputation
    ) -> None:
        url = f"{self._world.url(gateway)}/api/v1/mlops/monitoring"
        answer = await client.get(url, params={name: text for name, text in asked.items() if text is not None})
        if answer.status_code != httpx.codes.OK:
            self.found.breaches.append(f"{gateway}, {asked}: {answer.status_code} {answer.text[:200]}")
            return
        document = answer.json()
        as_of = int(datetime.fromisoformat(document["as_of"]).timestamp())
        version = asked["version"] or (document["champion"] or {"version": "all"})["version"]
        expected = plain.figures_of(
            str(asked["model"]),
            "" if version == "all" else version,
            asked["segment"] or "",
            str(asked["window"]),
            as_of,
        )
        known = {name for name, figure in document["metrics"].items() if figure}
        if is_nothing(expected) and known <= {"kind", "new_labels", *FRESHNESS}:
            return  # what has no sums in a window has no figures there
        self.found.expect(differences(document["metrics"], expected), {}, f"{gateway}, {asked}")
        self.found.counts[f"{expected['kind']} API answers recomputed"] += 1

    async def _transitions(self, snapshots: dict[str, list[Document]]) -> None:
        """The alerts' history is what the snapshots say, transition by transition."""
        kept = self._in_sequence(await read_log(self._world, ALERTS.name), "alert_sequence")
        for model, judged in snapshots.items():
            # Snapshots go on while the topics are read, one after the other.
            said = [judgement.told(one) for one in kept[model] if one["snapshot_sequence"] <= len(judged)]
            self.found.expect(said, list(judgement.transitions(judged)), f"transitions of {model}")
            self.found.counts["transitions"] += len(said)
            self.found.counts.update(f"{alert} {what}" for _, _, what, alert, *_ in said if what in ENDS)

    async def _decisions(self, snapshots: dict[str, list[Document]]) -> dict[str, list[Document]]:
        """One decision a snapshot and a request, without a gap, each as its snapshot says."""
        kept = self._in_sequence(await read_log(self._world, RETRAIN_DECISIONS.name), "decision_sequence")
        for model, judged in snapshots.items():
            decided = kept[model]
            self.found.counts["decisions"] += len(decided)
            by_snapshot = [
                one["evidence"]["snapshot_sequence"] for one in decided if one["asked_by"] == "snapshot"
            ]
            in_order = list(range(1, len(by_snapshot) + 1))
            self.found.expect(by_snapshot, in_order, f"{model}: decisions on snapshots")
            self.found.expect(len(by_snapshot) >= len(judged), True, f"{model}: a decision on every snapshot")
            for one in decided:
                number = one["evidence"]["snapshot_sequence"]
                if number <= len(judged):
                    expected = judgement.fired(judged[number - 1])
                    self.found.expect(list(one["fired"]), expected, f"{one['decision_id']}: fired")
        return kept

    async def _jobs(self, decisions: dict[str, list[Document]]) -> None:
        """Each job exists once: one per decision that queued it, one per cause, with a legal life."""
        jobs = self._once(await read_log(self._world, RETRAIN_JOBS.name))
        queued = sorted(
            one["job_id"] for decided in decisions.values() for one in decided if one["action"] == "queued-retrain"
        )
        made = sorted(one["job_id"] for one in jobs if one["job_sequence"] == 1)
        self.found.expect(made, queued, "jobs made, and decisions that queued one")
        for model in MODELS:
            self.found.breaches += judgement.faults_of_jobs([one for one in jobs if one["model"] == model])
        rows = await self._world.query("SELECT job_id, status FROM retrain.published_jobs")
        last = {one["job_id"]: one["status"] for one in jobs}
        self.found.expect({row["job_id"]: row["status"] for row in rows}, last, "jobs in the database")
        self.found.counts["jobs"] += len(made)

    def _requests(self, decisions: dict[str, list[Document]], answered: dict[tuple[str, str], set[str]]) -> None:
        """The same key is one request, and a request one decision."""
        decided = itertools.chain(*decisions.values())
        found = Counter(one["request_id"] for one in decided if one["request_id"])
        expected: Counter[str] = Counter()
        for (model, key), ids in answered.items():
            self.found.expect(len(ids), 1, f"request ids of {key} for {model}")
            expected.update(ids)
        self.found.expect(found, expected, "decisions by request")
        self.found.counts["requests"] += len(expected)


def is_nothing(figures: Document) -> bool:
    """Whether neither a prediction nor an evaluation lies in the window."""
    counts = ("predictions", "evaluated_predictions", "predictions_of_other_kinds")
    return not any(figures[name] for name in counts)


def went_back(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> list[str]:
    """The partitions in which a snapshot has taken in less than the one before it."""
    return [
        f"{topic}-{partition}"
        for topic, offsets in before.items()
        for partition, offset in offsets.items()
        if after.get(topic, {}).get(partition, 0) < offset
    ]


def shortened(breaches: Sequence[str], most: int = 20) -> Iterable[str]:
    """The first breaches, and how many more there are."""
    yield from breaches[:most]
    if len(breaches) > most:
        yield f"... and {len(breaches) - most} more"
