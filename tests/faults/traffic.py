"""Hostile traffic by a seed: late, early, duplicated, corrected, retracted, fanned out, and garbage.

The ledger holds what was sent. A record that was not acknowledged is sent again until it is, so the log may hold
more of a kind than the ledger, never less.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, POLICIES, PREDICTIONS, RETRAIN_JOB_UPDATES, Topic
from tests.faults.kinds import KIND_OF_MODEL, answer, contradiction, outcomes
from tests.faults.world import World
from tests.plain_kinds import KINDS

MODELS = tuple(KIND_OF_MODEL)
SEGMENTS = {"region": ["eu", "us"]}
TICK_SECONDS = 0.25
CASES_A_TICK = 7
RESEND_SECONDS = 0.2
LONG_AGO_SECONDS = 12_000
"""How far back what regression models say goes: half of it is settled before the last hour, for a baseline."""


@dataclass(frozen=True)
class Sent:
    """A record: ``partition`` None leaves the choice to the client, by the key or at random."""

    topic: Topic
    key: bytes | None
    value: bytes
    partition: int | None = None
    garbage: bool = False

    @property
    def identity(self) -> tuple[str, bytes | None, bytes]:
        return self.topic.name, self.key, self.value


@dataclass
class Ledger:
    """What was sent, each record once: events and garbage."""

    events: set[tuple[str, bytes | None, bytes]] = field(default_factory=set)
    garbage: set[tuple[str, bytes | None, bytes]] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, sent: Sent) -> None:
        (self.garbage if sent.garbage else self.events).add(sent.identity)
        self.counts["garbage" if sent.garbage else sent.topic.name] += 1


class Sender:
    """A producer that does not give up: what was not acknowledged goes out again, by a new one if need be."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self._world = world
        self._ledger = ledger
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()

    async def send(self, *batch: Sent) -> list[int]:
        """Returns the partition of each, once every one is acknowledged."""
        for sent in batch:
            self._ledger.note(sent)
        partitions: dict[int, int] = {}
        while len(partitions) < len(batch):
            missing = [number for number in range(len(batch)) if number not in partitions]
            outcomes = await asyncio.gather(*(self._once(batch[n]) for n in missing), return_exceptions=True)
            for number, outcome in zip(missing, outcomes, strict=True):
                if isinstance(outcome, int):
                    partitions[number] = outcome
                elif not isinstance(outcome, KafkaError | OSError | TimeoutError):
                    raise outcome
            if len(partitions) < len(batch):
                await self.stop()
                await asyncio.sleep(RESEND_SECONDS)
        return [partitions[number] for number in range(len(batch))]

    async def _once(self, sent: Sent) -> int:
        producer, topic = await self._started(), self._world.prefix + sent.topic.name
        if sent.partition is not None and sent.partition not in await producer.partitions_for(topic):
            raise TimeoutError("the partition is so new that the producer has not heard of it")
        found = await producer.send_and_wait(topic, sent.value, key=sent.key, partition=sent.partition)
        partition: int = found.partition
        return partition

    async def _started(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._world.cluster.bootstrap_servers,
                    acks="all",
                    enable_idempotence=True,
                    request_timeout_ms=10_000,
                    metadata_max_age_ms=2_000,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def stop(self) -> None:
        async with self._lock:
            producer, self._producer = self._producer, None
            if producer is not None:
                await producer.stop()


def encode(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


class Traffic:
    """Cases of one seed. A case is an entity's whole story, its records due tick by tick."""

    def __init__(self, seed: int, sender: Sender) -> None:
        self.chance = Random(f"traffic {seed}")
        self.seed = seed
        self.sender = sender
        self.versions = {model: ["1", "2"] for model in MODELS}
        self.partitions = 4
        self._begun = datetime.now(UTC)
        self._due: list[tuple[int, int, Sent]] = []
        self._places = itertools.count()
        self._numbers = itertools.count()
        self._tick = 0
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Let ``run`` send what is still due, and return."""
        self._stop.set()

    async def begin(self) -> None:
        """What operators say first."""
        start = self._begun - timedelta(hours=2)
        for model in MODELS:
            version = {"model": model, "version": "1", "stage": "champion", "registered_at": start.isoformat()}
            await self.operator(MODEL_VERSIONS, model, version)
            await self.operator(POLICIES, model, self.policy(model, SEGMENTS))

    def policy(self, model: str, segments: dict[str, list[str]]) -> dict[str, Any]:
        """Thresholds about what chance brings, so that alerts come and go."""
        return {
            "model": model,
            "mode": "observe" if model == "beta" else "enforce",
            "window": {"alpha": "1h", "beta": "7d", "epsilon": "1h"}.get(model, "1d"),
            "min_evaluated": 10 if model == "epsilon" else 20,  # before the window and in it
            "rules": {
                "accuracy_breach": {"below": 0.25 if model == "delta" else 0.5},
                "brier_breach": {"above": 0.36, "high_above": 0.38},
                "multiclass_brier_breach": {"above": 0.97, "high_above": 1.0},
                # Now against the policy's baseline, now against what was evaluated before the window.
                "mae_breach": {
                    "baseline": self.chance.choice([0.78, None]),
                    "above_ratio": 1.0,
                    "high_above_ratio": 1.05,
                },
            },
            "triggers": {"new_labels": 300 if model == "alpha" else None},
            "segments": segments,
            "lease_seconds": 3600,
        }

    async def operator(self, topic: Topic, model: str, event: dict[str, Any]) -> None:
        await self.sender.send(Sent(topic, model.encode(), encode(event)))

    async def run(self) -> None:
        """Send tick after tick until stopped, then all that is left."""
        while not self._stop.is_set():
            self._tick += 1
            for _ in range(CASES_A_TICK):
                for delay, sent in self._case():
                    self._schedule(delay, sent)
            await self._send_due(self._tick)
            if self._tick % 20 == 0:
                await self._now_and_then()
            await asyncio.sleep(TICK_SECONDS)
        await self._send_due(None)

    def _schedule(self, delay: int, sent: Sent) -> None:
        heapq.heappush(self._due, (self._tick + delay, next(self._places), sent))

    async def _send_due(self, tick: int | None) -> None:
        batch = []
        while self._due and (tick is None or self._due[0][0] <= tick):
            batch.append(heapq.heappop(self._due)[2])
        for first in range(0, len(batch), 200):
            portion = batch[first : first + 200]
            partitions = await self.sender.send(*portion)
            await self._conflict(portion, partitions)

    async def _conflict(self, portion: list[Sent], partitions: list[int]) -> None:
        """Now and then one that contradicts a prediction, behind it in its own partition: so it comes second."""
        made = [
            (sent, place)
            for sent, place in zip(portion, partitions, strict=True)
            if sent.topic is PREDICTIONS and not sent.garbage
        ]
        if not made or self.chance.random() > 0.2:
            return
        sent, partition = self.chance.choice(made)
        event = contradiction(json.loads(sent.value), self.chance)
        await self.sender.send(Sent(PREDICTIONS, sent.key, encode(event), partition, garbage=True))

    async def _now_and_then(self) -> None:
        """Pipelines run, a policy declares other segments, which sums the model anew, another a new baseline."""
        now = datetime.now(UTC)
        for status in ("success", "failed"):
            run = {"pipeline": "daily", "completed_at": now.isoformat(), "status": status}
            await self.sender.send(self._placed(PIPELINE_RUNS, "daily", run, partitions=1))
        if self._tick % 80 == 0:
            regions = self.chance.sample(["eu", "us", "ap"], self.chance.randrange(1, 4))
            await self.operator(POLICIES, "beta", self.policy("beta", {"region": regions}))
            await self.operator(POLICIES, "epsilon", self.policy("epsilon", SEGMENTS))

    def _placed(self, topic: Topic, entity: str, event: dict[str, Any], partitions: int | None = None) -> Sent:
        """As clients send: by key, without a key, or by a rule of their own."""
        how = self.chance.random()
        if how < 0.6:
            return Sent(topic, entity.encode(), encode(event))
        if how < 0.8:
            return Sent(topic, None, encode(event))
        number = self.chance.randrange(partitions or self.partitions)
        return Sent(topic, entity.encode(), encode(event), number)

    def _case(self) -> Iterator[tuple[int, Sent]]:
        """Records of one entity, each with the ticks until it is due."""
        chance, number = self.chance, next(self._numbers)
        if chance.random() < 0.04:
            yield chance.randrange(4), self._garbage(number)
            return
        entity = f"e-{self.seed}-{number}"
        models = chance.sample(MODELS, chance.choice([1, 1, 1, 2, 3]))
        stories = [*self._predictions(entity, models), *self._labels(entity, KIND_OF_MODEL[models[0]])]
        for delay, sent in stories:
            yield delay, sent
            if chance.random() < 0.15:  # delivered again, soon or long after
                yield delay + chance.choice([0, 1, 30]), sent

    def _moment(self, most_seconds: float) -> datetime:
        """A moment of the last while, in milliseconds, some a little ahead of now."""
        ago = self.chance.uniform(-20, most_seconds)
        moment = datetime.now(UTC) - timedelta(seconds=ago)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def _predictions(self, entity: str, models: list[str]) -> Iterator[tuple[int, Sent]]:
        """One of every model, of whatever kind; a few are not of the kind that is the model's own."""
        chance = self.chance
        for place, model in enumerate(models):
            kind = KIND_OF_MODEL[model] if chance.random() < 0.96 else chance.choice(KINDS)
            name = entity if place == 0 and chance.random() < 0.5 else f"{entity}-{place}"
            event: dict[str, Any] = {
                "prediction_id": name,
                "model": model,
                "model_version": chance.choice(self.versions[model]),
                "predicted_at": self._moment(LONG_AGO_SECONDS if kind == "regression" else 5_000).isoformat(),
                **answer(kind, chance),
                "segment": {"region": chance.choice(["eu", "us", "ap"])} if chance.random() < 0.8 else {},
            }
            if name != entity:
                event["entity_id"] = entity
            if chance.random() < 0.2:
                event["data_as_of"] = self._moment(9_000).isoformat()
            if chance.random() < 0.05:
                event["no_contract_knows_me"] = True
            yield chance.choice([0, 0, 1, 2, 25]), self._placed(PREDICTIONS, entity, event)

    def _labels(self, entity: str, kind: str) -> Iterator[tuple[int, Sent]]:
        """None, one, or several: early or late, corrected in any order, of one moment, taken back, of any kind."""
        chance = self.chance
        said = self._moment(LONG_AGO_SECONDS if kind == "regression" else 4_000)
        told, at_once = outcomes(kind, chance)
        for place, outcome in enumerate(told):
            observed = said + timedelta(seconds=0 if at_once else 7 * place)
            event = {"entity_id": entity, "outcome": outcome, "observed_at": observed.isoformat()}
            yield chance.choice([0, 0, 1, 3, 20]), self._placed(LABELS, entity, event)

    def _garbage(self, number: int) -> Sent:
        """What no contract accepts, each of its own bytes, so that it is told apart for ever."""
        mark = f"garbage-{self.seed}-{number}"
        now = datetime.now(UTC).isoformat()
        prediction = {"prediction_id": mark, "model": "alpha", "model_version": "1", "predicted_at": now}
        label = {"entity_id": mark, "outcome": 1, "observed_at": now}
        topic, value = self.chance.choice(
            [
                (PREDICTIONS, f"{{ {mark}".encode()),
                (PREDICTIONS, mark.encode() + b"\xff\xfe"),
                (PREDICTIONS, encode({**prediction, "probability": 1.5})),
                (PREDICTIONS, encode({**prediction, "probability": 0.5, "predicted_at": "yesterday"})),
                (PREDICTIONS, encode({**prediction, "probability": 0.5, "value": 0.5})),
                (PREDICTIONS, encode({**prediction, "probabilities": {"cat": 0.5, "dog": 0.4}})),
                (PREDICTIONS, encode({**prediction, "probabilities": {"cat": 1, "dog": 0}, "predicted": "owl"})),
                (PREDICTIONS, encode({**prediction, "value": 1, "predicted": 1})),
                (PREDICTIONS, encode({**prediction, "probability": 0.5, "predicted_at": "2099-01-01T00:00:00Z"})),
                (LABELS, encode({**label, "observed_at": "2099-01-01T00:00:00Z"})),
                (LABELS, encode({**label, "outcome": [1]})),
                (LABELS, encode({"entity_id": mark})),
                (PIPELINE_RUNS, encode({"pipeline": mark, "completed_at": now, "status": "perhaps"})),
                (POLICIES, encode({"model": "alpha", "min_evaluated": 0, "mark": mark})),
                (MODEL_VERSIONS, encode({"model": "alpha", "version": mark, "stage": "emperor"})),
                (RETRAIN_JOB_UPDATES, encode({"job_id": mark, "update": "started", "at": now})),
            ]
        )
        return Sent(topic, mark.encode() if self.chance.random() < 0.5 else None, value, garbage=True)
