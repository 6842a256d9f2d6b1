"""Several instances at once on one database, whatever comes: the guarantees hold after every round."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from services.retrain.handlers import retrain_handler
from services.retrain.store import PostgresStore
from shared.contracts.base import Contract
from shared.database import connect_pool
from shared.records import Record
from tests.support import drain_outbox, make_consumer
from tests.unit.retrain.builders import EPOCH, HOUR, make_request, make_snapshot, make_update
from tests.unit.retrain.harness import TOPICS, PostgresRetrain, Told

INSTANCES = 3
MODELS = ("a", "b")
instances = st.integers(0, INSTANCES - 1)
models = st.sampled_from(MODELS)


class Instances(RuleBasedStateMachine):
    """Events are handed to instances, each with partitions of its own; a round takes them in side by side."""

    dsn: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.pool: Any = self.runner.run(
            connect_pool(self.dsn, role="retrain", application_name="test", max_size=2 * INSTANCES)
        )
        self.runner.run(self._empty())
        self.now: datetime = EPOCH
        self.sequences = dict.fromkeys(MODELS, 0)
        self.waiting: list[list[Contract]] = [[] for _ in range(INSTANCES)]
        self.offsets: dict[tuple[str, int], int] = {}
        self.told = Told()

    async def _empty(self) -> None:
        owner = await asyncpg.connect(self.dsn, server_settings={"search_path": "retrain"})
        await owner.execute("TRUNCATE models, decisions, jobs, causes, refused_requests, inbox, outbox")
        await owner.close()

    def teardown(self) -> None:
        self.runner.run(self.pool.close())
        self.runner.close()

    @rule(
        model=models,
        instance=instances,
        hours=st.integers(1, 14),
        bad=st.tuples(st.booleans(), st.booleans()),
        enforce=st.booleans(),
        copies=st.integers(1, 2),
    )
    def snapshot(
        self, *, model: str, instance: int, hours: int, bad: tuple[bool, bool], enforce: bool, copies: int
    ) -> None:
        self.sequences[model] += 1
        made = make_snapshot(
            self.sequences[model],
            model=model,
            at=EPOCH + self.sequences[model] * 7 * HOUR + hours * timedelta(minutes=1),
            policy={"mode": "enforce" if enforce else "observe"},
            accuracy=0.1 if bad[0] else 0.9,
            brier_score=0.9 if bad[1] else 0.1,
        )
        self.waiting[instance].extend([made] * copies)

    @rule(model=models, instance=instances, request_id=st.sampled_from(["r-1", "r-2", "r-3"]))
    def request(self, model: str, instance: int, request_id: str) -> None:
        self.waiting[instance].append(make_request(request_id, model=model))

    @precondition(lambda self: self.told.jobs)
    @rule(
        instance=instances,
        index=st.integers(0, 100),
        update=st.sampled_from(["started", "heartbeat", "completed", "failed"]),
    )
    def update(self, instance: int, index: int, update: str) -> None:
        job = self.told.jobs[-1 - index % len(self.told.jobs)]
        self.waiting[instance].append(make_update(job, update))

    @rule(seconds=st.sampled_from([1, 450, 900]), also_expire=st.booleans())
    def take_a_round(self, seconds: int, also_expire: bool) -> None:
        """Every instance takes in what it was handed while two more look for leases that are over."""
        self.now += timedelta(seconds=seconds)
        self.runner.run(self._round(also_expire))
        self.waiting = [[] for _ in range(INSTANCES)]

    async def _round(self, also_expire: bool) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for instance, events in enumerate(self.waiting):
                if events:
                    consumer = make_consumer(
                        retrain_handler(PostgresStore()), self.pool, service="retrain", now=self.now
                    )
                    group.create_task(consumer.take(self._records(instance, events), {}))
            for _ in range(2 * also_expire):
                group.create_task(PostgresRetrain(self.pool).look_at_leases(*self.told.jobs, now=self.now))
        for emitted in await drain_outbox(self.pool):
            self.told.add(emitted.topic, emitted.value)

    def _records(self, instance: int, events: list[Contract]) -> list[Record]:
        records = []
        for event in events:
            topic = TOPICS[type(event)].name
            offset = self.offsets[topic, instance] = self.offsets.get((topic, instance), -1) + 1
            records.append(Record(topic, instance, offset, EPOCH, None, event.to_json()))
        return records

    @invariant()
    def one_active_job_a_model(self) -> None:
        active = self._fetch("SELECT model FROM jobs WHERE status IN ('queued', 'running')")
        assert len(active) == len(set(active))

    @invariant()
    def one_job_a_cause_within_twelve_hours(self) -> None:
        claims: dict[Any, list[datetime]] = {}
        for model, champion, trigger, as_of in self._fetch("SELECT model, champion, trigger, as_of FROM causes"):
            claims.setdefault((model, champion, trigger), []).append(as_of)
        for moments in claims.values():
            assert all(later - earlier >= 12 * HOUR for earlier, later in pairwise(sorted(moments)))

    @invariant()
    def sequences_have_no_gaps_and_nothing_is_told_twice(self) -> None:
        for model in MODELS:
            sequences = sorted(each.decision_sequence for each in self.told.decisions if each.model == model)
            assert sequences == list(range(1, len(sequences) + 1))
        for job_id in {job.job_id for job in self.told.jobs}:
            changes = sorted(job.job_sequence for job in self.told.jobs if job.job_id == job_id)
            assert changes == list(range(1, len(changes) + 1))
        requests = [(each.model, each.request_id) for each in self.told.decisions if each.request_id]
        assert len(requests) == len(set(requests))

    @invariant()
    def a_decision_names_a_job_that_exists(self) -> None:
        made = {job.job_id for job in self.told.jobs}
        for decision in self.told.decisions:
            assert decision.job_id is None or decision.job_id in made
            assert (decision.action == "queued-retrain") == (
                decision.decision_id in {job.decision_id for job in self.told.jobs}
            )

    def _fetch(self, query: str) -> list[Any]:
        rows: list[Any] = self.runner.run(self.pool.fetch(query))
        return [tuple(row) for row in rows]


def test_instances_side_by_side_keep_the_guarantees(database_dsn: str) -> None:
    class OnThisDatabase(Instances):
        dsn = database_dsn

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=12,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
