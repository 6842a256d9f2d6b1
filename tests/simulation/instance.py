"""A service instance: the real worker, with its handler and its loops, between the simulated wires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from services.alerting.app import DEFINITION as ALERTING
from services.alerting.settings import AlertingSettings
from services.metrics.app import DEFINITION as METRICS
from services.metrics.settings import MetricsSettings
from services.retrain.app import DEFINITION as RETRAIN
from services.retrain.settings import RetrainSettings
from shared.consumer import Consumer, without_held
from shared.effects import Effects, Handler
from shared.input import Input
from shared.outbox import Relay
from shared.records import Records
from shared.service import Context, Health, ServiceDefinition, Worker
from shared.settings import Settings
from shared.topics import Service, read_by
from tests.simulation.kafka import Broker, Member, Reader, Sender
from tests.simulation.scheduler import Scheduler
from tests.simulation.virtual import VirtualClock, VirtualLoop
from tests.simulation.wire import Pool, Server

DEFINITIONS: Mapping[Service, ServiceDefinition] = {"metrics": METRICS, "alerting": ALERTING, "retrain": RETRAIN}
SETTINGS: Mapping[Service, type[Settings]] = {
    "metrics": MetricsSettings,
    "alerting": AlertingSettings,
    "retrain": RetrainSettings,
}
WRITE_DOWN = """
INSERT INTO simulation.taken SELECT $1, * FROM unnest($2::text[], $3::integer[], $4::bigint[])
"""
PATIENCE_WITH_SILENCE_SECONDS = 5.0
"""PostgreSQL's ``idle_in_transaction_session_timeout``, as the services set it; here in virtual time."""


OF_TASK: ContextVar[Instance] = ContextVar("instance")
"""Whose task it is that runs."""


def reader(topic: str, **_settings: Any) -> Reader:
    """What ``AIOKafkaConsumer`` is in a world: a consumer of the instance that makes it."""
    instance = OF_TASK.get()
    return Reader(instance.house.broker, instance, topic)


@dataclass(frozen=True)
class House:
    """What all instances of a world share."""

    loop: VirtualLoop
    server: Server
    scheduler: Scheduler
    broker: Broker
    settings: Mapping[str, Any]
    notify: Callable[[str], None]


class SimulatedListener:
    """NOTIFY as asyncio events: heard when the notifying transaction is durable."""

    def __init__(self) -> None:
        self._events: dict[str, list[asyncio.Event]] = {}

    def event(self, channel: str) -> asyncio.Event:
        event = asyncio.Event()
        self._events.setdefault(channel, []).append(event)
        return event

    def hear(self, channel: str) -> None:
        for event in self._events.get(channel, ()):
            event.set()

    async def run(self) -> None:
        await asyncio.Event().wait()


class SimulatedWorker(Worker):
    """The worker, but for what opens sockets: its consumer and its producer."""

    def __init__(self, instance: Instance, settings: Settings) -> None:
        definition = DEFINITIONS[instance.service]
        witnessed = replace(definition, handler_for=lambda context: _witnessed(definition.handler_for(context)))
        super().__init__(witnessed, settings, Health())
        self._instance = instance
        self._relay_name = instance.name

    async def run_parts(self) -> None:
        instance = self._instance
        instance.consumer_input = Input(self._settings)
        await self._run_parts(
            Context(
                service=instance.service,
                settings=self._settings,
                pool=instance.pool,  # type: ignore[arg-type]  # stands in for asyncpg's
                clock=VirtualClock(instance.house.loop),
                listener=instance.listener,  # type: ignore[arg-type]  # stands in for a connection's
                input=instance.consumer_input,
            )
        )

    async def _start_consuming(self, consumer: Consumer, failed: asyncio.Future[None]) -> Any:
        instance = self._instance
        member = Member(
            instance.house.broker,
            instance,
            self._settings.topic_prefix + instance.service,
            [self._settings.topic_prefix + topic.name for topic in read_by(instance.service)],
            self._settings.max_batch_records,
        )
        instance.member = member
        consumer.kafka = member

        async def read() -> None:
            while True:
                records = await member.fetch()
                try:
                    await consumer.consume(records, member)
                except Exception as error:  # noqa: BLE001 - as the worker hands it on
                    if not failed.done():
                        failed.set_exception(error)
                    return

        return _Reading([asyncio.create_task(read()), asyncio.create_task(member.coordinate(self._health.watch))])

    async def _start_asker(self) -> None:
        """The member answers questions itself: here no answer waits for a fetch."""

    async def _check_topics(self, context: Context) -> None:
        """The topics of a world are never made anew, and have no ids."""

    async def _relay(self, context: Context, wake: asyncio.Event) -> None:
        send = Sender(self._instance.house.broker, self._instance, context.settings.topic_prefix)
        await Relay(context.pool, send, wake, holder=self._relay_name).run()


def _witnessed(handler: Handler) -> Handler:
    """The handler, which also writes down what it takes."""

    async def handle(records: Records, effects: Effects) -> None:
        await handler(records, effects)
        taken = without_held(records, effects.held)
        await effects.connection.execute(
            WRITE_DOWN,
            effects.service,
            [record.topic for record in taken],
            [record.partition for record in taken],
            [record.offset for record in taken],
        )

    return handle


class _Reading:
    """What the worker knows of the broker: that it can be stopped."""

    def __init__(self, tasks: list[asyncio.Task[None]]) -> None:
        self._tasks = tasks

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Instance:
    """One life of an instance: from its start to its crash."""

    def __init__(self, house: House, service: Service, number: int, life: int) -> None:
        self.house = house
        self.service = service
        self.number = number
        self.life = life
        self.name = f"{service}-{number}" + (f".{life}" if life else "")
        self.dead = False
        self.paused = False
        self.member: Member | None = None
        self.consumer_input: Input | None = None
        self.listener = SimulatedListener()
        self.pool = Pool(house.server, house.scheduler, self, service, house.notify)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        # The task takes it along.
        OF_TASK.set(self)
        settings = SETTINGS[self.service](**self.house.settings)
        self.task = asyncio.create_task(SimulatedWorker(self, settings).run_parts(), name=self.name)

    async def die(self) -> None:
        """At once: nothing that it would do on its way out happens."""
        self.dead = True
        await self.pool.cut()
        self.house.scheduler.drop(self)
        if self.member is not None:
            self.member.leave_when_silent()
        consumer = None if self.consumer_input is None else self.consumer_input.consumer
        if consumer is not None and consumer._in_flight is not None:
            # On its way out it would wait for the end of it.
            consumer._in_flight.cancel()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            if not self.task.cancelled():
                self.task.exception()

    def stand_still(self, seconds: float) -> None:
        """As under SIGSTOP: its session with the broker may end, and its transaction."""
        self.paused = True
        if self.member is not None:
            self.member.leave_when_silent()
        self.house.loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self.paused = False
        if not self.dead:
            self.house.scheduler.tell(f"        {self.name:<11} goes on")

    async def lose_silent_transactions(self) -> None:
        """What PostgreSQL does to a session that holds locks and says nothing."""
        if self.paused and not self.dead:
            await self.pool.cut(in_transaction_only=True)
