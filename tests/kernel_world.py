"""A service of the tests' own on the real kernel: it writes down every record that it takes, whenever it takes it.

Nothing in its table forbids a second row for a record, so an effect that happened twice shows. Run as a program
it is that service in a process of its own, to be stopped or killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from shared.contracts.base import Contract, Event
from shared.decoding import decode
from shared.effects import Effects, Handler
from shared.errors import Refusal
from shared.records import Record
from shared.service import Health, ServiceDefinition, Worker, run
from shared.settings import Settings
from shared.topics import ALERTS, MAX_MESSAGE_BYTES, SNAPSHOTS

SERVICE = "alerting"
"""Whose schema, role and topic it borrows."""
INPUT = SNAPSHOTS
OUTPUT = ALERTS
DEADLINE_SECONDS = 40.0
POLL_SECONDS = 0.02

TABLES = """
CREATE TABLE alerting.taken (
    id bigint GENERATED ALWAYS AS IDENTITY,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    n integer NOT NULL
);
CREATE TABLE alerting.tallies (key bytea PRIMARY KEY, sequence bigint NOT NULL);
GRANT SELECT, INSERT, UPDATE, DELETE ON alerting.taken, alerting.tallies TO trueward_alerting;
"""
TAKE = """
INSERT INTO taken (partition, "offset", key, n)
SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bytea[], $4::bigint[])
"""
TALLY = """
INSERT INTO tallies AS t (key, sequence) VALUES ($1, 1)
ON CONFLICT (key) DO UPDATE SET sequence = t.sequence + 1 RETURNING sequence
"""

T = TypeVar("T")


class RawName(str):
    """A header's name that a producer writes as these bytes, UTF-8 or not."""

    __slots__ = ("raw",)

    def __new__(cls, raw: bytes) -> Self:
        name = super().__new__(cls, "name")
        name.raw = raw
        return name

    def encode(self, *_encoding: str) -> bytes:
        return self.raw


class Tally(Contract):
    """What the service reads. The database takes 32 bits of ``n``, the contract any: the rest is poison."""

    n: int
    occurred_at: datetime | None = None


class Tallied(Event):
    """What it says: the ``sequence``-th record of this key was ``n``."""

    event_type: ClassVar[str] = "trueward.test.tallied.v1"

    key: str
    sequence: int
    n: int

    def event_id(self) -> str:
        return f"{self.key}-{self.sequence}"

    def subject(self) -> str:
        return self.key

    def event_time(self) -> datetime:
        return datetime.fromisoformat("2026-01-01T00:00:00Z")


async def tally(records: Sequence[Record], effects: Effects) -> None:
    """The handler: write every record down, and say so under its key, in sequence."""
    found: list[tuple[Record, Tally]] = []
    for record in records:
        match decode(record, Tally):
            case Refusal() as refusal:
                effects.refuse(record, refusal)
            case event:
                found.append((record, event))
    await effects.connection.execute(
        TAKE,
        [record.partition for record, _ in found],
        [record.offset for record, _ in found],
        [record.key for record, _ in found],
        [event.n for _, event in found],
    )
    # Keys in one order, as every service locks: two batches that share keys must not wait in a circle.
    for record, event in sorted(found, key=lambda pair: pair[0].key or b""):
        key = record.key or b""
        sequence = await effects.connection.fetchval(TALLY, key)
        effects.emit(OUTPUT, Tallied(key=key.decode(), sequence=sequence, n=event.n), key=key)


def definition(handler: Handler = tally) -> ServiceDefinition:
    return ServiceDefinition(name=SERVICE, handler_for=lambda _context: handler)


def make_tables(dsn: str) -> None:
    """What the handler writes to."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLES)


def query(dsn: str, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Look into the database with an administrator's rights."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement.encode(), arguments).fetchall()


def change(dsn: str, statement: str, *arguments: object) -> int:
    """Change the database behind the service's back. Returns how many rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement.encode(), arguments).rowcount


def taken(dsn: str) -> Counter[int]:
    """How often each ``n`` was taken."""
    return Counter(n for (n,) in query(dsn, "SELECT n FROM alerting.taken"))


def settings_for(dsn: str, bootstrap_servers: str, topic_prefix: str, **more: Any) -> Settings:
    """Settings of a service under test; small batches, so that there are many transactions."""
    given = {"max_batch_records": 100, "session_timeout_seconds": 6, **more}
    return Settings(
        postgres_dsn=dsn, kafka_bootstrap_servers=bootstrap_servers, topic_prefix=topic_prefix, **given
    )


@dataclass
class Running:
    """A service that runs in this process."""

    health: Health
    task: asyncio.Task[None]

    async def ready(self) -> None:
        """Wait until it says that it is."""
        await eventually(self._obstacle, lambda obstacle: obstacle is None, "ready")

    async def _obstacle(self) -> str | None:
        if self.task.done():
            await self.task
        return await self.health.obstacle()


@contextlib.asynccontextmanager
async def running(
    settings: Settings, handler: Handler = tally, *, service: ServiceDefinition | None = None
) -> AsyncIterator[Running]:
    """The service, with everything but HTTP, until the block ends."""
    health = Health()
    worker = Worker(service or definition(handler), settings, health)
    task = asyncio.create_task(worker.run())
    try:
        yield Running(health, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(
    look: Callable[[], Awaitable[T]],
    satisfied: Callable[[T], bool],
    what: str,
    *,
    seconds: float = DEADLINE_SECONDS,
) -> T:
    """Look until what is seen satisfies. Raises ``AssertionError`` with the last sight after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if satisfied(seen):
            return seen
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}; last seen: {str(seen)[:500]}"
        await asyncio.sleep(POLL_SECONDS)


async def taken_all(dsn: str, expected: Iterable[int], *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until every ``n`` was taken; then each must have been, once."""
    wanted = set(expected)

    async def look() -> Counter[int]:
        return await asyncio.to_thread(taken, dsn)

    seen = await eventually(look, lambda found: wanted <= set(found), "all taken", seconds=seconds)
    assert {n: count for n, count in seen.items() if count != 1} == {}
    assert set(seen) == wanted


@contextlib.asynccontextmanager
async def producing(bootstrap_servers: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A producer, as any client would have it."""
    options = {"acks": "all", "max_request_size": MAX_MESSAGE_BYTES, **options}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def as_value(n: int) -> bytes:
    return json.dumps({"n": n}).encode()


async def publish(
    producer: AIOKafkaProducer, topic: str, numbers: Iterable[int], *, keys: int = 5, partition: int | None = None
) -> None:
    """One record a number, spread over keys, acknowledged."""
    pending = [
        await producer.send(topic, as_value(n), key=f"key-{n % keys}".encode(), partition=partition)
        for n in numbers
    ]
    await asyncio.gather(*pending)


async def read_topic(
    bootstrap_servers: str, topic: str, enough: Callable[[list[ConsumerRecord[bytes, bytes]]], bool]
) -> list[ConsumerRecord[bytes, bytes]]:
    """Read a topic from its beginning until what was read is enough."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", max_partition_fetch_bytes=1 << 24
    )
    await consumer.start()
    found: list[ConsumerRecord[bytes, bytes]] = []

    async def look() -> list[ConsumerRecord[bytes, bytes]]:
        for records in (await consumer.getmany(timeout_ms=100)).values():
            found.extend(records)
        return found

    try:
        return await eventually(look, enough, f"enough in {topic}")
    finally:
        await consumer.stop()


def assert_in_sequence(records: Iterable[ConsumerRecord[bytes, bytes]]) -> dict[str, int]:
    """Per key: what a reader keeps, who drops what is not above the last sequence, is 1, 2, 3, ... without a hole.

    A repeat must be the same event: the same id, the same bytes. Returns the last sequence of each key.
    """
    last: dict[str, int] = defaultdict(int)
    said: dict[bytes, tuple[bytes, tuple[tuple[str, bytes], ...]]] = {}
    for record in records:
        headers = dict(record.headers)
        event = Tallied.model_validate_json(record.value or b"")
        assert headers["ce_id"] == event.event_id().encode()
        fact = (record.value or b"", tuple(record.headers))
        assert said.setdefault(headers["ce_id"], fact) == fact
        if event.sequence > last[event.key]:
            assert event.sequence == last[event.key] + 1
            last[event.key] = event.sequence
    return dict(last)


class ServiceProcess:
    """The service in a process of its own, as a deployment runs it."""

    _numbers = itertools.count(1)

    def __init__(self, settings: Settings, folder: Path) -> None:
        given = settings.model_dump(mode="json", exclude_unset=True)
        given["postgres_dsn"] = settings.postgres_dsn.get_secret_value()
        self._environment = {f"TRUEWARD_{name.upper()}": str(value) for name, value in given.items()}
        self.log = folder / f"service-{next(self._numbers)}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.kernel_world"],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_code(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for its end."""
        process = self._process
        assert process is not None

        async def look() -> int | None:
            return process.poll()

        return (
            await eventually(look, lambda code: code is not None, f"ended: {self.words()}", seconds=seconds) or 0
        )

    def words(self) -> str:
        """What it logged, the end of it."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def kill(self) -> None:
        """End it whatever it does; nothing happens where it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Proxy:
    """Stands between a client and a server, and can take the server away: refuse, cut, or fall silent."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handler = asyncio.create_task(self._carry(reader, writer))
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)

        self._server = await asyncio.start_server(connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and cut those that stand."""
        assert self._server is not None
        self._flowing.set()
        self._server.close()
        self.cut()
        await asyncio.gather(*self._handlers)

    def cut(self) -> None:
        """Cut the connections that stand; new ones are taken."""
        for writer in self._pairs:
            writer.transport.abort()

    def fall_silent(self) -> None:
        """Take everything and answer nothing, as a host does that has lost its network."""
        self._flowing.clear()

    def speak(self) -> None:
        """Let everything through again."""
        self._flowing.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pairs.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            far_reader, far = await asyncio.open_connection(*self._target)
            self._pairs.add(far)
            # Either side's end is the end of both.
            pumps = [
                asyncio.create_task(self._pump(reader, far)),
                asyncio.create_task(self._pump(far_reader, writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, far):
                if end is not None:
                    self._pairs.discard(end)
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a PostgreSQL, and the DSN that leads through it."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    proxy = Proxy(str(parts["host"]), int(parts.get("port") or 5432))
    await proxy.start()
    credentials = f"{parts['user']}:{parts['password']}" if "password" in parts else parts["user"]
    try:
        yield proxy, f"postgresql://{credentials}@127.0.0.1:{proxy.port}/{parts['dbname']}"
    finally:
        await proxy.stop()


if __name__ == "__main__":
    run(definition(), Settings())
