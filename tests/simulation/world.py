"""One world: its instances, its broker, its time, and the loop that lets one thing happen after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from unittest import mock

import stamina

import services.metrics.clocks
import services.metrics.resuming
import shared.consumer
import shared.input
import shared.outbox
import shared.service
from shared.contracts.retraining import Job
from shared.topics import RETRAIN_JOBS, Service
from tests.metrics_world import START
from tests.simulation.instance import PATIENCE_WITH_SILENCE_SECONDS, House, Instance, reader
from tests.simulation.kafka import Broker
from tests.simulation.scheduler import Fault, Point, Scheduler
from tests.simulation.virtual import VirtualLoop, VirtualTimeModule
from tests.simulation.wire import Server
from tests.simulation.workload import PARTITIONS, History, Phase, Publication

PREFIX = "trueward."
MOST_SECONDS = 900.0
"""In virtual time: far more than all faults of a plan take together."""
SERVICES: tuple[Service, ...] = ("metrics", "alerting", "retrain")
RESTART_SECONDS = 3.0
QUIET = """
SELECT 'metrics' AS service, topic, partition, next_offset FROM metrics.inbox
UNION ALL SELECT 'alerting', topic, partition, next_offset FROM alerting.inbox
UNION ALL SELECT 'retrain', topic, partition, next_offset FROM retrain.inbox
UNION ALL SELECT 'outbox', '', 0, (SELECT count(*) FROM metrics.outbox) + (SELECT count(*) FROM alerting.outbox)
    + (SELECT count(*) FROM retrain.outbox)
UNION ALL SELECT 'running', '', 0, count(*) FROM retrain.jobs
    WHERE status = 'running' AND lease_expires_at < created_at + interval '1 hour'
UNION ALL SELECT 'judged', '', 0, count(*) FROM retrain.models WHERE snapshot_sequence > 0
UNION ALL SELECT 'last_as_of', '', 0, coalesce(max(last_as_of), 0) FROM metrics.clock
"""


class WorldError(AssertionError):
    """The world could not come to its end."""


@dataclass(frozen=True)
class Plan:
    """All that decides what happens in a world: the same plan, the same world."""

    history: History
    order_seed: int
    clock: str = "event"
    instances: int = 2
    max_batch_records: int = 50
    publish_weight: float = 0.8
    fetch_weight: float = 0.2
    faults: tuple[Fault, ...] = ()

    @property
    def interval_seconds(self) -> int:
        return 60 if self.clock == "event" else 10


@dataclass
class World:
    """A world on a server, run once."""

    plan: Plan
    server: Server
    scheduler: Scheduler = field(init=False)
    broker: Broker = field(init=False)

    def __post_init__(self) -> None:
        plan, loop = self.plan, self.server.loop
        self._order = Random(f"order {plan.order_seed}")
        self.loop: VirtualLoop = loop
        self.scheduler = Scheduler(loop, self._order)
        topics = {PREFIX + topic: count for topic, count in PARTITIONS.items()}
        self.broker = Broker(loop, self.scheduler, Random(f"broker {plan.order_seed}"), topics)
        self._house = House(loop, self.server, self.scheduler, self.broker, self._settings(), self._notify)
        self.instances: dict[tuple[Service, int], Instance] = {}
        self._faults = {fault.at: fault for fault in plan.faults}
        self.struck: list[Fault] = []
        self._chores: list[Callable[[], Awaitable[None]]] = []
        self._to_send: dict[tuple[str, int | None], list[Publication]] = {}
        self._first: list[Publication] = []
        self.turns: list[tuple[int, Sequence[Publication]]] = []
        """Per turn the boundary that event time has come to by its end, and what was sent but observations."""
        self.sent: list[tuple[Publication, int, int]] = []
        """What was sent, with its partition and offset."""

    def _settings(self) -> dict[str, Any]:
        return {
            "topic_prefix": PREFIX,
            "clock": self.plan.clock,
            "snapshot_interval": timedelta(seconds=self.plan.interval_seconds),
            "max_batch_records": self.plan.max_batch_records,
        }

    async def run(self) -> None:
        """From nothing to the end of the history. Raises ``WorldError`` where it cannot come there."""
        with self._in_virtual_time():
            await self.server.empty()
            for service in SERVICES:
                for number in range(1, self.plan.instances + 1):
                    await self._start(service, number, 0)
            try:
                for turn in self._turns():
                    self._begin(turn)
                    await self._until_quiet()
            finally:
                for instance in self.instances.values():
                    await instance.die()

    @contextmanager
    def _in_virtual_time(self) -> Iterator[None]:
        # Far behind everything that happens in event time, so that nothing is of the future.
        self.loop.begin(START + timedelta(days=1))
        time = VirtualTimeModule(self.loop)

        async def holding_records(_settings: Any, spans: Any) -> Any:
            return self.broker.holding_records(spans)

        with ExitStack() as stack:
            for module in (shared.consumer, shared.outbox):
                stack.enter_context(mock.patch.object(module, "time", time))
            stack.enter_context(mock.patch.object(shared.input, "holding_records", holding_records))
            stack.enter_context(mock.patch.object(services.metrics.resuming, "AIOKafkaConsumer", reader))
            # Polls are nets under notifications, and cost statements: a wider net catches as well.
            stack.enter_context(mock.patch.object(shared.outbox, "POLL_SECONDS", 4.0))
            stack.enter_context(mock.patch.object(services.metrics.clocks, "POLL_SECONDS", 5.0))
            stack.enter_context(
                mock.patch.object(stamina._core, "random", Random(f"waits {self.plan.order_seed}"))
            )
            yield

    # What is sent.

    def _turns(self) -> Iterator[list[Publication] | Phase]:
        """What is sent together; the next turn comes when all that follows from one has happened."""
        history = self.plan.history
        for number, phase in enumerate(history.phases):
            self._boundary = phase.last_boundary
            self._until = self.loop.time() + 25
            yield phase
            self._until = 0
            yield from history.trainers(self.queued_jobs(), number)
            yield from history.gateway(number)

    def queued_jobs(self) -> list[Job]:
        """The jobs that stand queued, as a trainer knows them that drops what it has heard."""
        newest: dict[str, Job] = {}
        for partition, log in sorted(self.broker.logs.items()):
            if partition.topic == PREFIX + RETRAIN_JOBS.name:
                for record in log:
                    job = Job.model_validate_json(record.value or b"")
                    if job.job_id not in newest or newest[job.job_id].job_sequence < job.job_sequence:
                        newest[job.job_id] = job
        return [job for _, job in sorted(newest.items()) if job.status == "queued"]

    def _begin(self, turn: list[Publication] | Phase) -> None:
        self.turns.append((self._boundary, turn if isinstance(turn, list) else turn.before))
        if isinstance(turn, list):
            self._first, self._to_send = list(turn), {}
        else:
            self._first = list(turn.before)
            self._to_send = {place: list(sent) for place, sent in sorted(turn.observed.items())}
        self.scheduler.tell("--- the next turn begins")

    def _send_some(self) -> None:
        """The next records of the turn: what is to be first, else of any partition."""
        if self._first:
            self._send(self._first.pop(0))
            return
        places = [place for place, waiting in self._to_send.items() if waiting]
        waiting = self._to_send[self._order.choice(places)]
        for _ in range(min(self._order.randint(1, 4), len(waiting))):
            self._send(waiting.pop(0))

    def _send(self, publication: Publication) -> None:
        partition, offset = self.broker.append(
            PREFIX + publication.topic.name,
            publication.value,
            key=publication.key,
            partition=publication.partition,
        )
        self.sent.append((publication, partition, offset))
        self.scheduler.tell(f"        sent {publication.topic.name}/{partition}@{offset}")

    def _is_sending(self) -> bool:
        return bool(self._first) or any(self._to_send.values())

    # What happens.

    async def _until_quiet(self) -> None:
        while True:
            until_timer = await self._settle()
            candidates = self.scheduler.candidates()
            if self._is_sending() and (not candidates or self._order.random() < self.plan.publish_weight):
                self._send_some()
                if self.plan.clock == "wall":
                    await self._advance(self._order.choice([0.0, 0.0, 0.5, 1.5]))
            elif candidates:
                await self._pass(self._choice(candidates))
            elif (missing := await self._missing()) is None:
                return
            elif until_timer is None or self.loop.time() > MOST_SECONDS:
                raise WorldError(f"nothing goes on any more, and {missing}")
            else:
                await self._advance(until_timer)

    def _choice(self, candidates: Sequence[Point]) -> Point:
        """Any of them; who fetches late finds more, so that batches are of every size."""
        weights = [self.plan.fetch_weight if point.kind == "fetch" else 1.0 for point in candidates]
        return self._order.choices(candidates, weights)[0]

    async def _settle(self) -> float | None:
        """Let everything come to its next point, or to a lock that it waits for."""
        while True:
            until_timer = await self.loop.idle()
            self._check_that_all_run()
            if self.loop.under_way:
                await self.server.look_for_locks()
            elif self._chores:
                chores, self._chores = self._chores, []
                for chore in chores:
                    await chore()
            elif not await self.server.end_overdue_waits():
                return until_timer

    def _check_that_all_run(self) -> None:
        for instance in self.instances.values():
            if instance.task is not None and instance.task.done() and not instance.dead:
                instance.task.result()
                raise WorldError(f"{instance.name} has ended")

    async def _pass(self, point: Point) -> None:
        fault = self._faults.pop(self.scheduler.effects + 1, None) if point.is_effect else None
        if fault is None:
            self.scheduler.let_pass(point)
            return
        instance = point.actor
        assert isinstance(instance, Instance)
        self.struck.append(fault)
        self.scheduler.tell(f"  FAULT {instance.name:<11} {fault.kind} {fault.seconds:g} s, at {point.label}")
        match fault.kind:
            case "crash":
                await self._crash(instance, fault.seconds)
            case "pause":
                instance.stand_still(fault.seconds)
                self._later(PATIENCE_WITH_SILENCE_SECONDS, instance.lose_silent_transactions)
            case "lose":
                self.scheduler.let_pass(point, lost=True)
            case "rebalance":
                self.broker.rebalance(self.broker.groups[PREFIX + instance.service])
            case "delay":
                await self._advance(fault.seconds)
        if fault.kind != "lose":
            # The point was counted, whoever passes it in the end.
            self.scheduler.effects += 1

    async def _crash(self, instance: Instance, seconds: float) -> None:
        await instance.die()
        del self.instances[instance.service, instance.number]
        self._later(seconds, lambda: self._start(instance.service, instance.number, instance.life + 1))

    async def _start(self, service: Service, number: int, life: int) -> None:
        instance = Instance(self._house, service, number, life)
        self.instances[service, number] = instance
        instance.start()
        self.scheduler.tell(f"        {instance.name:<11} starts")

    def _later(self, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        self.loop.call_later(seconds, lambda: self._chores.append(chore))

    async def _advance(self, seconds: float) -> None:
        if seconds:
            self.loop.advance(seconds)
            await self.server.tell_time()

    def _notify(self, channel: str) -> None:
        for instance in self.instances.values():
            instance.listener.hear(channel)

    async def _missing(self) -> str | None:
        """What must still happen before all that was sent is taken in, and all that follows from it published."""
        rows = await self.server.admin.fetch(QUIET)
        found = {(row["service"], row["topic"], row["partition"]): row["next_offset"] for row in rows}
        boundary = int(START.timestamp()) + self._boundary
        reasons = {
            "the turn has time left": self.plan.clock == "wall" and self.loop.time() < self._until,
            "events are unsent": bool(found["outbox", "", 0]),
            "a job without a trainer runs": bool(found["running", "", 0]),
            # A request for a model without a snapshot is refused, so nobody asks before.
            "a model has no snapshot": found["judged", "", 0] < len(self.plan.history.models),
            f"the boundary {boundary} is not cut": (
                self.plan.clock == "event" and found["last_as_of", "", 0] != boundary
            ),
        }
        unread = (
            f"{service} stands at {taken} of {len(log)} in {name}/{partition.partition}"
            for service in SERVICES
            for partition, log in self.broker.logs.items()
            if (name := partition.topic.removeprefix(PREFIX)) in READ[service]
            and (taken := found.get((service, name, partition.partition), 0)) != len(log)
        )
        return next((reason for reason, holds in reasons.items() if holds), next(unread, None))


READ = {service: [topic.name for topic in shared.service.read_by(service)] for service in SERVICES}
