"""What users, operators, trainers and the gateway send in a world: seeded, hostile, the same in every run of it.

A history has phases. Within one, records of different partitions arrive in any order; a phase ends when all of
it was taken in and all that follows from it was published. Trainers and the gateway act between phases, so that
what they see does not depend on the order in which anything happened.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from shared.contracts.base import canonical_json, sha256_of
from shared.contracts.retraining import Job
from shared.topics import (
    LABELS,
    PIPELINE_RUNS,
    PREDICTIONS,
    RETRAIN_JOB_UPDATES,
    RETRAIN_REQUESTS,
    TOPICS,
    Topic,
)
from tests.metrics_world import (
    MINUTE,
    Fact,
    at,
    classified,
    label,
    policy,
    prediction,
    run,
    valued,
    version,
)

Kind = Literal["binary", "multiclass", "regression"]

PARTITIONS = {topic.name: min(topic.partitions, 2) for topic in TOPICS}
OBSERVED = tuple(
    (topic, number) for topic in (PREDICTIONS, LABELS, PIPELINE_RUNS) for number in range(PARTITIONS[topic.name])
)
SHORT_LEASE_SECONDS = 15
"""Of a model whose trainers always die: nothing else may depend on how long anything takes."""
LONG_LEASE_SECONDS = 86_400
ANSWERS = ("completes", "completes", "fails", "cancels", "waits")
MODELS = ("arrivals", "departures", "delays")
CLASSES = ("red", "green", "3")
OUTCOMES: dict[Kind, tuple[float | str | None, ...]] = {
    "binary": (0, 0, 1, 1, 1, None),
    "multiclass": ("red", "red", "green", 3, "never heard of", None),
    "regression": (0, 2.5, 7, 1e-9, -12.125, None),
}
"""What happens, by the kind of the prediction about it. Predictions of other kinds may go on waiting."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A record that somebody sends. ``fact`` is what it says, None where it must become a dead letter."""

    topic: Topic
    partition: int | None
    value: bytes
    fact: Fact | None
    key: bytes | None = None


@dataclass(frozen=True)
class Phase:
    """``before`` is sent first, in order; then ``observed``, each partition in its order, all at once.

    ``last_boundary`` is the last that event time passes in the phase, in seconds of the tests' time.
    """

    before: tuple[Publication, ...]
    observed: dict[tuple[str, int], list[Publication]]
    last_boundary: int


@dataclass(frozen=True)
class Size:
    """How much happens in a world."""

    phases: int = 2
    kinds: tuple[Kind, ...] = ("binary", "multiclass", "regression")
    """One a model."""
    predictions: int = 7
    boundaries: int = 2


@dataclass
class History:
    """All that is sent whatever happens, made from a seed."""

    seed: int
    size: Size = field(default_factory=Size)
    ticks: bool = True
    without: frozenset[str] = frozenset()
    """Ids of predictions that are left out, with their labels: what shrinking takes away."""

    def __post_init__(self) -> None:
        self._chance = Random(f"history {self.seed}")
        self.models = MODELS[: len(self.size.kinds)]
        self._kinds = dict(zip(self.models, self.size.kinds, strict=True))
        self.abandoned = {model for model in self.models if self._chance.random() < 0.2}
        self._entities: list[tuple[str, int, Kind]] = []
        self.phases = [self._phase(number) for number in range(self.size.phases)]

    def _phase(self, number: int) -> Phase:
        length = self.size.boundaries * MINUTE
        begin, end = number * length, (number + 1) * length
        before = list(self._operators(begin)) if not number else []
        facts = [*self._predictions(number, begin, end), *self._runs(begin, end)]
        facts += self._labels(begin, end)
        observed = self._spread(facts)
        if self.ticks:
            tick = canonical_json({"tick": at(end + 1)})
            for topic, partition in OBSERVED:
                observed[topic.name, partition].append(Publication(topic, partition, tick, (topic, {})))
        return Phase(tuple(before), observed, end)

    def _operators(self, begin: int) -> Iterable[Publication]:
        chance = self._chance
        for model in self.models:
            # What a minute's histories have is all in the window: a baseline before it they never have.
            mae = {"baseline": chance.choice([0, 4.5])} if self._kinds[model] == "regression" else {}
            given = policy(
                model=model,
                mode=chance.choice(["enforce", "enforce", "observe"]),
                window=chance.choice(["1h", "7d"]),
                min_evaluated=chance.choice([1, 2, 3]),
                rules={
                    "data_stale": {"above_seconds": 50, "high_above_seconds": 110},
                    "pipeline_stale": {"above_seconds": 70, "high_above_seconds": 130},
                    "mae_breach": mae,
                },
                triggers={"new_labels": chance.choice([3, 5, 40])},
                segments=chance.choice([{}, {"region": ["eu"]}]),
                lease_seconds=SHORT_LEASE_SECONDS if model in self.abandoned else LONG_LEASE_SECONDS,
            )
            yield operator(given)
            if chance.random() < 0.7:
                yield operator(version("1", begin - 10, model=model, trained_through=at(begin - 20)))

    def _predictions(self, number: int, begin: int, end: int) -> Iterable[Fact]:
        chance = self._chance
        for count in range(self.size.predictions):
            name = f"p{number}-{count}"
            seconds = round(chance.uniform(begin, end), 3)
            if chance.random() < 0.2:
                seconds = max(0.0, seconds - 90)
            more: dict[str, Any] = {"segment": {"region": chance.choice(["eu", "us"])}}
            if chance.random() < 0.2 and self._entities:
                more["entity_id"] = chance.choice(self._entities)[0]
            if chance.random() < 0.3:
                more["data_as_of"] = at(seconds - chance.randint(1, 60))
            model = chance.choice(self.models)
            kind = self._kinds[model]
            if len(self.models) > 1 and chance.random() < 0.1:
                # Now and then a model says something of another kind than it usually does.
                kind = chance.choice(self.size.kinds)
            more["model"], more["version"] = model, chance.choice(["1", "1", "2"])
            found = _said(chance, kind, name, seconds, more)
            entity = more.get("entity_id", name)
            self._entities.append((entity, int(seconds), kind))
            if name not in self.without:
                yield found
                if chance.random() < 0.15:
                    yield found

    def _labels(self, begin: int, end: int) -> Iterable[Fact]:
        chance = self._chance
        for entity, seconds, kind in self._entities:
            if chance.random() < 0.6:
                delay = chance.choice([-20, 5, 30, 45, 100])
                moment = round(max(0.0, min(max(seconds + delay, begin - 60), end - 1)), 3)
                outcome = chance.choice(OUTCOMES[kind])
                if entity not in self.without:
                    for _ in range(chance.choice([1, 1, 1, 2])):
                        yield label(entity, moment, outcome)

    def _runs(self, begin: int, end: int) -> Iterable[Fact]:
        chance = self._chance
        for _ in range(chance.randint(0, 2)):
            more = {"model": chance.choice(self.models)} if chance.random() < 0.5 else {}
            status = chance.choice(["success", "success", "failed"])
            yield run(round(chance.uniform(begin, end - 1), 3), status, **more)

    def _spread(self, facts: list[Fact]) -> dict[tuple[str, int], list[Publication]]:
        """Any partition, whatever the key; a little out of order."""
        chance = self._chance
        found: dict[tuple[str, int], list[Publication]] = defaultdict(list)
        for topic, event in sorted(facts, key=lambda fact: moment_of(fact[1])):
            place = (topic.name, chance.randrange(PARTITIONS[topic.name]))
            found[place].append(Publication(topic, place[1], canonical_json(event), (topic, event)))
            if chance.random() < 0.06:
                found[place].append(Publication(topic, place[1], _garbage(chance, event), None))
        for sent in found.values():
            for _ in range(len(sent) // 3):
                first = chance.randrange(len(sent))
                second = min(first + 1, len(sent) - 1)
                if sent[first].fact and sent[second].fact:
                    sent[first], sent[second] = sent[second], sent[first]
        return found

    # Between the phases.

    def trainers(self, jobs: Sequence[Job], number: int) -> list[list[Publication]]:
        """What trainers answer to the jobs that stand queued, in turns: each is taken in before the next."""
        end = self.phases[number].last_boundary
        turns: list[list[Publication]] = [[], []]
        for job in jobs:
            chance = Random(f"trainer {self.seed} {job.job_id}")
            name = f"{number + 2}"
            word = "dies" if job.model in self.abandoned else chance.choice(ANSWERS)
            if word != "waits":
                turns[0] += [update(job.job_id, "started", end, trainer="t-1")] * chance.choice([1, 2])
            match word:
                case "completes":
                    turns[1].append(update(job.job_id, "heartbeat", end))
                    turns[1].append(update(job.job_id, "completed", end, model_version=name))
                    turns[1].append(operator(version(name, end + 2, model=job.model, job_id=job.job_id)))
                case "fails":
                    turns[1] += [update(job.job_id, "failed", end, message="no data")]
                case "cancels":
                    turns[1] += [update(job.job_id, "cancelled", end)] * 2
                case "waits":
                    turns[1].append(update("no-such-job", "started", end, fact=False))
        return [turn for turn in turns if turn]

    def gateway(self, number: int) -> list[list[Publication]]:
        """What people ask for through the gateway, some of it twice."""
        chance = Random(f"gateway {self.seed} {number}")
        turns = [
            [request(model, f"{chance.randrange(3)}", dry_run=chance.random() < 0.3)] * 2
            for model in self.models
            if chance.random() < 0.5
        ]
        if chance.random() < 0.2:
            turns.append([request("nobody", "1", dry_run=True, fact=False)])
        return turns

    def all_predictions(self) -> list[str]:
        return sorted(
            {
                publication.fact[1]["prediction_id"]
                for phase in self.phases
                for sent in phase.observed.values()
                for publication in sent
                if publication.fact and "prediction_id" in publication.fact[1]
            }
        )


def moment_of(event: dict[str, Any]) -> str:
    return str(event.get("predicted_at") or event.get("observed_at") or event.get("completed_at"))


def _said(chance: Random, kind: Kind, name: str, seconds: float, more: dict[str, Any]) -> Fact:
    """A prediction of a kind; probabilities are thousandths."""
    if kind == "binary":
        return prediction(name, seconds, chance.randrange(1001) / 1000, **more)
    if kind == "regression":
        return valued(name, seconds, chance.choice([round(chance.uniform(-20, 20), 3), 0, 7.25, 1e-9]), **more)
    first = chance.randrange(1001)
    second = chance.randrange(1001 - first)
    parts = (first, second, 1000 - first - second)
    return classified(
        name, seconds, {name: part / 1000 for name, part in zip(CLASSES, parts, strict=True)}, **more
    )


def _another(event: dict[str, Any]) -> dict[str, Any]:
    """A prediction with the same id and other content."""
    if "probability" in event:
        return {**event, "probability": (event["probability"] + 0.5) % 1}
    if "value" in event:
        return {**event, "value": event["value"] + 1}
    return {**event, "probabilities": {"blue": 1}}


def _garbage(chance: Random, event: dict[str, Any]) -> bytes:
    """Something that must become a dead letter."""
    if "prediction_id" in event and chance.random() < 0.5:
        # The same id with other content: behind the first in its own partition, so that it is the one refused.
        return canonical_json(_another(event))
    return chance.choice(
        [b"{", b"\xff\xfe", b"[]", json.dumps({**event, next(iter(event)): ""}).encode()],
    )


def operator(fact: Fact) -> Publication:
    topic, event = fact
    return Publication(topic, None, canonical_json(event), fact, str(event["model"]).encode())


def update(job_id: str, word: str, seconds: int, *, fact: bool = True, **more: Any) -> Publication:
    event = {"job_id": job_id, "update": word, "at": at(seconds), **more}
    found = (RETRAIN_JOB_UPDATES, event) if fact else None
    return Publication(RETRAIN_JOB_UPDATES, None, canonical_json(event), found, job_id.encode())


def request(model: str, idempotency_key: str, *, dry_run: bool, fact: bool = True) -> Publication:
    """As the gateway sends it: the same Idempotency-Key makes the same request."""
    event = {
        "request_id": f"request-{sha256_of([model, idempotency_key])[:32]}",
        "model": model,
        "dry_run": dry_run,
        "requested_at": at(0),
    }
    found = (RETRAIN_REQUESTS, event) if fact else None
    return Publication(RETRAIN_REQUESTS, None, canonical_json(event), found, model.encode())
