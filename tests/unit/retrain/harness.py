"""Retrain as a test drives it: events in, what was published out. In memory, or on PostgreSQL."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import asyncpg

from services.retrain.books import KeptJob, Ledger, ModelBook, Wanted
from services.retrain.domain.coverage import COVERED_FOR, Cause
from services.retrain.domain.jobs import ACTIVE
from services.retrain.handlers import expire_jobs, retrain_handler
from services.retrain.store import PostgresStore
from shared.contracts.alerts import AlertTransition
from shared.contracts.base import Contract
from shared.contracts.dead_letters import DeadLetter
from shared.contracts.retraining import Decision, Job, JobUpdate, RetrainRequest
from shared.contracts.snapshots import Snapshot
from shared.database import Connection
from shared.effects import Effects
from shared.records import Record
from shared.topics import ALERTS, RETRAIN_JOB_UPDATES, RETRAIN_REQUESTS, SNAPSHOTS, Topic
from tests.support import Feed, drain_outbox, make_consumer
from tests.unit.retrain.builders import BAD_ACCURACY, EPOCH, make_snapshot, make_update

TOPICS: dict[type[Contract], Topic] = {
    Snapshot: SNAPSHOTS,
    AlertTransition: ALERTS,
    RetrainRequest: RETRAIN_REQUESTS,
    JobUpdate: RETRAIN_JOB_UPDATES,
}


@dataclass
class Told:
    """What was published, topic by topic, in order."""

    decisions: list[Decision] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)

    def add(self, topic: str, value: bytes) -> None:
        match topic:
            case "retrain-decisions":
                self.decisions.append(Decision.model_validate_json(value))
            case "retrain-jobs":
                self.jobs.append(Job.model_validate_json(value))
            case "dead-letters":
                self.letters.append(DeadLetter.model_validate_json(value))
            case _:
                raise AssertionError(topic)

    def extend(self, other: Told) -> None:
        self.decisions += other.decisions
        self.jobs += other.jobs
        self.letters += other.letters


class Retrain(ABC):
    """A retrain service without Kafka."""

    def __init__(self) -> None:
        self.feed = Feed()

    async def take(self, *events: Contract | tuple[Topic, bytes | None], now: datetime = EPOCH) -> Told:
        """Take events in as one batch."""
        records = [
            self.feed.record(TOPICS[type(event)], event)
            if isinstance(event, Contract)
            else self.feed.record(*event)
            for event in events
        ]
        return await self.take_records(records, now)

    @abstractmethod
    async def take_records(self, records: Sequence[Record], now: datetime) -> Told:
        """Take records in as one batch."""

    @abstractmethod
    async def expire(self, *jobs: Job, now: datetime) -> Told:
        """Look whether the leases of the jobs are over."""

    @abstractmethod
    async def kept_jobs(self) -> list[Job]:
        """The jobs as they are kept, in the order of their ids."""


class MemoryStore:
    """Keeps a ledger in memory, with the guarantees that the database gives."""

    def __init__(self) -> None:
        self.models: dict[str, ModelBook] = {}
        self.jobs: dict[str, KeptJob] = {}
        self.decisions: dict[str, Decision] = {}
        self.causes: list[tuple[str, Cause]] = []
        self.refused: dict[tuple[str, str], str] = {}

    async def load(self, connection: Connection, wanted: Wanted) -> Ledger:  # noqa: ARG002 (the store's signature)
        for model in wanted.told:
            self.models.setdefault(model, ModelBook(model=model))
        models = wanted.told | {model for model, _ in wanted.asked}
        models |= {self.jobs[job_id].job.model for job_id in wanted.updated if job_id in self.jobs}
        ledger = Ledger({model: self._book(model) for model in models if model in self.models})
        for job_id, kept in self.jobs.items():
            awaits = kept.awaits_aftermath and kept.job.model in wanted.judged
            if job_id in wanted.updated or awaits:
                ledger.jobs[job_id] = replace(kept)
                if awaits:
                    ledger.models[kept.job.model].awaiting_aftermath[job_id] = None
        return ledger

    def _book(self, model: str) -> ModelBook:
        book = copy.copy(self.models[model])
        book.standing_alerts = dict(book.standing_alerts)
        book.causes = [cause for of, cause in self.causes if of == model]
        active = [
            kept.job.job_id for kept in self.jobs.values() if kept.job.model == model and kept.job.status in ACTIVE
        ]
        book.active_job = active[0] if active else None
        book.answered = {
            decision.request_id
            for decision in self.decisions.values()
            if decision.model == model and decision.request_id
        }
        book.awaiting_aftermath = {}
        return book

    async def save(self, connection: Connection, ledger: Ledger, now: datetime) -> None:  # noqa: ARG002 (likewise)
        for book in ledger.models.values():
            if book.changed:
                self.models[book.model] = replace(book, changed=False, has_new_snapshot=False)
        for decision in ledger.decisions:
            assert decision.decision_id not in self.decisions
            self.decisions[decision.decision_id] = decision
        for job_id, kept in ledger.jobs.items():
            if kept.changed or kept.is_new:
                self.jobs[job_id] = replace(kept, changed=False, is_new=False)
        for new in ledger.causes:
            self._claim(new.model, new.cause)
        active = [kept.job.model for kept in self.jobs.values() if kept.job.status in ACTIVE]
        assert len(active) == len(set(active))
        self.refused |= {(each.model, each.request_id): each.detail for each in ledger.refused_requests}

    def _claim(self, model: str, new: Cause) -> None:
        for of, cause in self.causes:
            same = (of, cause.champion, cause.trigger) == (model, new.champion, new.trigger)
            assert not same or abs(cause.as_of - new.as_of) >= COVERED_FOR
        self.causes.append((model, new))


class MemoryRetrain(Retrain):
    """On a store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()

    async def take_records(self, records: Sequence[Record], now: datetime) -> Told:
        effects = self._effects(now)
        await retrain_handler(self.store)(records, effects)
        return self._told(effects)

    async def expire(self, *jobs: Job, now: datetime) -> Told:
        effects = self._effects(now)
        await expire_jobs(self.store, effects, frozenset(job.job_id for job in jobs))
        return self._told(effects)

    async def kept_jobs(self) -> list[Job]:
        return [self.store.jobs[job_id].job for job_id in sorted(self.store.jobs)]

    def _effects(self, now: datetime) -> Effects:
        return Effects("retrain", _NO_CONNECTION, now)

    def _told(self, effects: Effects) -> Told:
        effects.committed()
        told = Told()
        for topic, _, value, _ in effects._messages:
            told.add(topic, value)
        return told


class PostgresRetrain(Retrain):
    """On PostgreSQL, in the kernel's own transactions."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        super().__init__()
        self.pool = pool
        self.store = PostgresStore()

    async def take_records(self, records: Sequence[Record], now: datetime) -> Told:
        handler = retrain_handler(self.store)
        await make_consumer(handler, self.pool, service="retrain", now=now).take(list(records), {})
        return await self.told()

    async def expire(self, *jobs: Job, now: datetime) -> Told:
        await self.look_at_leases(*jobs, now=now)
        return await self.told()

    async def look_at_leases(self, *jobs: Job, now: datetime) -> None:
        """As ``expire``, and leaves what it publishes in the outbox."""
        async with self.pool.acquire() as connection, connection.transaction():
            effects = Effects("retrain", connection, now)
            await expire_jobs(self.store, effects, frozenset(job.job_id for job in jobs))
            await effects.flush()

    async def kept_jobs(self) -> list[Job]:
        return await self.documents("SELECT document::text FROM jobs ORDER BY job_id")

    async def documents(self, query: str) -> list[Job]:
        return [Job.model_validate_json(row[0]) for row in await self.pool.fetch(query)]

    async def told(self) -> Told:
        """What was published since it was last asked for."""
        told = Told()
        for emitted in await drain_outbox(self.pool):
            told.add(emitted.topic, emitted.value)
        return told


def actions(decisions: Iterable[Decision]) -> list[str]:
    return [decision.action for decision in decisions]


_NO_CONNECTION: Any = None


async def queued(retrain: Retrain) -> Job:
    """A job, by a first snapshot whose accuracy is bad."""
    (job,) = (await retrain.take(make_snapshot(1, **BAD_ACCURACY))).jobs
    return job


async def completed(retrain: Retrain, version: str | None = "v2") -> Job:
    job = await queued(retrain)
    told = await retrain.take(make_update(job, "started"), make_update(job, "completed", model_version=version))
    return told.jobs[-1]
