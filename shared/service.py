"""A service's life: wait for what it needs, consume, relay, answer for its health, stop cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import asyncpg
import structlog
import uvicorn
from aiokafka import AIOKafkaConsumer
from faststream.kafka import KafkaBroker
from opentelemetry import trace
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared import breaker, logs, topic_identity, tracing
from shared.broker import (
    AssignmentWatch,
    close_producer,
    create_missing_topics,
    make_broker,
    make_producer,
    sender,
    start_asker,
    subscribe,
)
from shared.clock import Clock, WallClock
from shared.consumer import Consumer
from shared.database import connect_pool, require_migrations
from shared.effects import Effects, Handler, Prepare, outbox_channel
from shared.errors import USAGE_EXIT_CODE, ServiceExit, TruewardError, UsageError
from shared.input import Input
from shared.instruments import BREAKER_TRIPPED
from shared.listener import Listener
from shared.outbox import Relay
from shared.retries import until_done
from shared.settings import Settings
from shared.topics import Service, read_by

PROBE_SECONDS = 2.0
CLOSE_SECONDS = 5.0
FETCHED_AT_ONCE = 2_000
"""Records that are taken from what was fetched, and prepared, without a pause in which PostgreSQL is heard."""
GARBAGE_THRESHOLD = (20_000, 20, 20)
"""For Python's garbage collector. By default it looks at every 700th new object, and a boundary of many models
makes millions: a tenth of its time."""
MIGRATIONS = "the database to be migrated: run `trueward migrate`"
T = TypeVar("T")
Isolation = Literal["read_committed", "repeatable_read", "serializable"]
log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a service's handler and background loops are given."""

    service: Service
    settings: Settings
    pool: asyncpg.Pool[Any]
    clock: Clock
    listener: Listener
    input: Input
    kept: dict[str, Any] = field(default_factory=dict)
    """What the service's handler and loops share in memory, by name."""

    @contextlib.asynccontextmanager
    async def transaction(self, isolation: Isolation = "read_committed") -> AsyncIterator[Effects]:
        """Effects outside a batch, for background loops: durable when the block ends without an error."""
        # A trace begins here where no record brought one: with the clock, or a lease that ends.
        with trace.get_tracer("trueward").start_as_current_span(f"{self.service} loop"):
            async with self.pool.acquire() as connection, connection.transaction(isolation=isolation):
                effects = Effects(self.service, connection, self.clock.now())
                yield effects
                await effects.flush()
        effects.committed()


@dataclass(frozen=True, kw_only=True)
class ServiceDefinition:
    """A service: its name (schema, role and consumer group too), its handler, its loops.

    With ``prepare_for`` what the handler can do before a transaction is done while the one before is under way.
    With ``keys_meet`` what has one key in several topics belongs together, and comes to one instance where the
    topics have as many partitions.
    ``first`` is done before any record is taken, each by what the service then waits for.
    ``background`` loops run beside the consumer until cancelled; one that raises is run again with backoff.
    """

    name: Service
    handler_for: Callable[[Context], Handler]
    prepare_for: Callable[[Context], Prepare] | None = None
    keys_meet: bool = False
    first: Mapping[str, Callable[[Context], Awaitable[None]]] = field(default_factory=dict)
    background: tuple[Callable[[Context], Awaitable[None]], ...] = ()


@dataclass
class Health:
    """What stands between the service and readiness; empty when nothing does."""

    waiting_for: str | None = "PostgreSQL"
    pool: asyncpg.Pool[Any] | None = None
    broker: KafkaBroker | None = None
    watch: AssignmentWatch = field(default_factory=AssignmentWatch)

    async def obstacle(self) -> str | None:
        """In words, or None when ready; known within ``PROBE_SECONDS``."""
        if self.waiting_for is not None or self.pool is None or self.broker is None:
            return f"waiting for {self.waiting_for}"
        postgres, kafka = await asyncio.gather(_postgres_obstacle(self.pool), _kafka_obstacle(self.broker))
        # A breaker that has tripped first: who waits for it for long is taken its partitions away.
        if postgres is None and kafka is None and not self.watch.assigned:
            return "waiting for Kafka to assign partitions"
        return postgres or kafka


async def _postgres_obstacle(pool: asyncpg.Pool[Any]) -> str | None:
    """That PostgreSQL does not answer, or what it says: a breaker that has tripped."""
    try:
        state = await _within(PROBE_SECONDS, breaker.read_by(pool))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return f"PostgreSQL does not answer: {type(error).__name__}"
    BREAKER_TRIPPED.set(0 if state.reason is None else 1)
    return state.reason


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await work for that long. Raises ``TimeoutError`` then, without waiting for its end.

    Cancelling a query waits for the database that does not answer, so nobody may wait for the cancellation.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.wait_for(asyncio.shield(task), seconds)
    finally:
        if not task.done():
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            task.cancel()


async def _kafka_obstacle(broker: KafkaBroker) -> str | None:
    # Assigned partitions say little: a consumer keeps them for as long as it hears nothing else.
    return None if await broker.ping(PROBE_SECONDS) else "Kafka does not answer"


class Worker:
    """Runs a service's parts; ``run`` ends only by cancellation or by an error that waiting cannot cure."""

    def __init__(self, definition: ServiceDefinition, settings: Settings, health: Health) -> None:
        self._definition = definition
        self._settings = settings
        self._health = health
        self._application_name = f"trueward-{definition.name}-{os.getpid()}"
        self._relay_name = str(uuid.uuid4())

    async def run(self) -> None:
        """Start everything in order, waiting for what is away, and keep it running."""
        name, settings, health = self._definition.name, self._settings, self._health
        dsn = settings.postgres_dsn.get_secret_value()
        pool = await until_done("PostgreSQL", self._connect)
        try:
            health.waiting_for = MIGRATIONS
            await until_done("migrations", lambda: require_migrations(pool))
            health.pool = pool
            health.waiting_for = "Kafka"
            if settings.create_topics:
                await until_done("topics", lambda: create_missing_topics(settings))
            listener = Listener(dsn, role=name, application_name=f"{self._application_name}-listen")
            context = Context(
                service=name,
                settings=settings,
                pool=pool,
                clock=WallClock(),
                listener=listener,
                input=Input(settings),
            )
            await self._run_parts(context)
        finally:
            health.waiting_for = "stop"
            await _close(pool)

    async def _connect(self) -> asyncpg.Pool[Any]:
        self._health.waiting_for = "PostgreSQL"
        try:
            return await connect_pool(
                self._settings.postgres_dsn.get_secret_value(),
                role=self._definition.name,
                application_name=self._application_name,
            )
        except asyncpg.InvalidParameterValueError:
            # There is no such role yet: the first migration makes it.
            self._health.waiting_for = MIGRATIONS
            raise

    async def _run_parts(self, context: Context) -> None:
        definition = self._definition
        handler = definition.handler_for(context)
        consumer = Consumer(
            service=context.service,
            settings=context.settings,
            pool=context.pool,
            clock=context.clock,
            handler=handler,
            prepare=None if definition.prepare_for is None else definition.prepare_for(context),
        )
        context.input.consumer = consumer
        self._health.watch.on_change = consumer.assignment_changed
        wake = context.listener.event(outbox_channel(context.service))
        loops = {loop.__name__: loop for loop in definition.background}
        same_topics = partial(self._check_topics, context)
        await until_done("topics' identities", same_topics)
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        consumer.on_failure = partial(_fail, failed)
        for awaited, step in definition.first.items():
            self._health.waiting_for = awaited
            await until_done(awaited, partial(step, context))
        self._health.waiting_for = "Kafka"
        broker = await until_done("Kafka", lambda: self._start_consuming(consumer, failed))
        self._health.broker = broker
        try:
            context.input.asker = await until_done("Kafka", self._start_asker)
            self._health.waiting_for = None
            async with asyncio.TaskGroup() as group:
                group.create_task(_end_with(failed))
                group.create_task(self._stop_with_the_others(broker, consumer, context.pool))
                aligned = partial(consumer.keep_aligned, self._health.watch.new_assignment)
                group.create_task(_for_ever("alignment", aligned))
                group.create_task(_again_and_again("topics' identities", same_topics))
                group.create_task(_for_ever("relay", lambda: self._relay(context, wake)))
                for name, loop in loops.items():
                    group.create_task(_for_ever(name, partial(loop, context)))
                group.create_task(_for_ever("listener", context.listener.run))
        finally:
            if context.input.asker is not None:
                await context.input.asker.stop()
            await broker.stop()

    async def _stop_with_the_others(
        self, broker: KafkaBroker, consumer: Consumer, pool: asyncpg.Pool[Any]
    ) -> None:
        """Wait for the end; then stop reading.

        The batch in flight is finished and committed, or rolled back with its transaction. A database that does
        not answer holds nobody up for longer than that: even the cancellation of a query would wait for it.
        """
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().call_later(self._settings.graceful_timeout_seconds, pool.terminate)
            await consumer.finish(self._settings.graceful_timeout_seconds)
            await broker.stop()

    async def _start_consuming(self, consumer: Consumer, failed: asyncio.Future[None]) -> KafkaBroker:
        settings = self._settings
        broker = make_broker(settings, self._application_name)

        async def consume(raw: Any, kafka: Any) -> None:
            if failed.done():
                return
            try:
                await consumer.consume(raw, kafka)
            except Exception as error:  # noqa: BLE001 - FastStream would log it and go on behind the batch
                _fail(failed, error)

        subscriber = subscribe(
            broker,
            settings,
            group=self._definition.name,
            topics=read_by(self._definition.name),
            watch=self._health.watch,
            consume=consume,
            most_at_once=FETCHED_AT_ONCE if self._definition.prepare_for else settings.max_batch_records,
            keys_meet=self._definition.keys_meet,
        )
        try:
            await broker.start()
        except BaseException:
            await broker.stop()
            raise
        consumer.kafka = subscriber.consumer
        return broker

    async def _start_asker(self) -> AIOKafkaConsumer | None:
        return await start_asker(self._settings)

    async def _check_topics(self, context: Context) -> None:
        topics = [topic.name for topic in read_by(context.service)]
        await topic_identity.check(context.pool, context.service, context.settings, topics)

    async def _relay(self, context: Context, wake: asyncio.Event) -> None:
        # A new producer at each start: an idempotent one that has failed for good cannot be used again.
        producer = make_producer(context.settings, f"{self._application_name}-relay")
        try:
            # A start that is cancelled must be stopped as well.
            await producer.start()
            send = sender(producer, context.settings.topic_prefix)
            await Relay(context.pool, send, wake, holder=self._relay_name).run()
        finally:
            await close_producer(producer)


def _fail(failed: asyncio.Future[None], error: BaseException) -> None:
    if not failed.done():
        failed.set_exception(error)


async def _end_with(failed: asyncio.Future[None]) -> None:
    await failed


async def _close(pool: asyncpg.Pool[Any]) -> None:
    """Close the connections; those of a database that does not answer are cut off."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        log.warning("PostgreSQL's connections cut off, they did not close in time")


async def _again_and_again(name: str, look: Callable[[], Awaitable[None]]) -> None:
    """Look every few seconds. Raises what waiting cannot cure."""
    while True:
        await asyncio.sleep(topic_identity.CHECK_SECONDS)
        await until_done(name, look)


async def _for_ever(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop again whenever it raises or returns."""
    while True:
        await until_done(name, loop)


def health_app(health: Health) -> Starlette:
    """``/health/live``, ``/health/ready`` and ``/metrics``."""

    async def live(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(_request: Request) -> JSONResponse:
        obstacle = await health.obstacle()
        if obstacle is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "detail": obstacle}, status_code=503)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
        ]
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``UsageError`` when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off the delay of small packets only on a socket that says that it is TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # A port is taken only once somebody listens: two sockets can be bound to one before that.
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening


async def serve(app: Any, listening: socket.socket, work: Callable[[], Awaitable[None]] | None = None) -> None:
    """Serve HTTP and do the work until SIGTERM or SIGINT; raises what ends the work before that."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    # Signals are this function's: uvicorn would raise them again once it has stopped.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(stop.wait())
    tasks: list[asyncio.Task[Any]] = [serving, stopping]
    if work is not None:
        tasks.append(asyncio.ensure_future(work()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks[1:]:
            task.cancel()
        results = await asyncio.gather(*tasks[1:], return_exceptions=True)
        server.should_exit = True
        await serving
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


def run(definition: ServiceDefinition, settings: Settings) -> None:
    """Run a service in this process until it is told to stop.

    Raises ``UsageError`` when its port is taken. Exits with one line when going on would be wrong: with 2 where
    the settings must change, else with 1.
    """
    logs.configure(definition.name, log_format=settings.log_format, level=settings.log_level)
    if settings.tracing:
        tracing.begin(definition.name)
    # What was imported stays: a look for garbage that goes through all of it would hold everything up for long.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLD)
    health = Health()
    listening = bind(settings.http_host, settings.http_port)
    worker = Worker(definition, settings, health)
    stopped_by: BaseException | None = None
    try:
        asyncio.run(serve(health_app(health), listening, worker.run))
    except* TruewardError as errors:
        stopped_by = _first(errors)
    if stopped_by is not None:
        log.critical("stopped", error=str(stopped_by))
        raise ServiceExit(USAGE_EXIT_CODE if isinstance(stopped_by, UsageError) else 1)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
