"""The outbox and its relay on a real PostgreSQL: one holder of the lease, order within a key, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import asyncpg
import pytest

from shared import outbox
from shared.clock import WallClock
from shared.database import connect_pool
from shared.effects import Effects, outbox_channel
from shared.errors import Refusal
from shared.input import Input
from shared.instruments import DEAD_LETTERS_TOTAL, PUBLISHED_TOTAL
from shared.listener import Listener
from shared.outbox import QUERIES, Message, Relay
from shared.records import Record
from shared.service import Context
from shared.settings import Settings
from tests.kernel_world import OUTPUT, SERVICE, Tallied, change, eventually, query
from tests.support import RECEIVED_AT

CHANNEL = outbox_channel(SERVICE)


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    """Connections in the service's role."""
    pool = await connect_pool(database_dsn, role=SERVICE, application_name="test", max_size=4)
    yield pool
    await pool.close()


class Broker:
    """Takes what the relay sends; refuses or delays what it is told to."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.refuses: Callable[[Message], bool] = lambda _message: False
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, message: Message) -> None:
        await self.gate.wait()
        if self.refuses(message):
            raise ConnectionError(f"{message.id} refused")
        self.got.append(message)

    def sequences(self, key: bytes) -> list[int]:
        return [Tallied.model_validate_json(each.value).sequence for each in self.got if each.key == key]

    async def has(self, count: int, *, seconds: float = 20) -> None:
        async def look() -> int:
            return len(self.got)

        await eventually(look, lambda found: found >= count, f"{count} messages", seconds=seconds)


@pytest.fixture
def broker() -> Broker:
    return Broker()


def relay(pool: asyncpg.Pool[Any], broker: Broker, holder: str = "me", wake: asyncio.Event | None = None) -> Relay:
    return Relay(pool, broker.send, wake or asyncio.Event(), holder=holder)


async def emit(pool: asyncpg.Pool[Any], keys: Iterable[bytes | None], first: int = 1) -> None:
    """Events in one transaction, numbered across keys."""
    async with pool.acquire() as connection, connection.transaction():
        effects = Effects(SERVICE, connection, RECEIVED_AT)
        for sequence, key in enumerate(keys, start=first):
            name = "nobody" if key is None else key.decode()
            effects.emit(OUTPUT, Tallied(key=name, sequence=sequence, n=sequence), key=key)
        await effects.flush()


async def unsent(pool: asyncpg.Pool[Any]) -> int:
    return int(await pool.fetchval("SELECT count(*) FROM outbox"))


async def lease(pool: asyncpg.Pool[Any]) -> tuple[str, int]:
    row = await pool.fetchrow("SELECT holder, epoch FROM outbox_lease")
    assert row is not None
    return row["holder"], row["epoch"]


@contextlib.asynccontextmanager
async def relaying(*relays: Relay) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(each.run()) for each in relays]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_that_is_unsent_is_sent_in_order_and_removed(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    await emit(pool, [b"a", b"b", b"a", None, b"a"])
    assert await relay(pool, broker).relay_once() is False
    assert broker.sequences(b"a") == [1, 3, 5]
    assert len(broker.got) == 5
    assert await unsent(pool) == 0


async def test_an_empty_outbox_sends_nothing(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    assert await relay(pool, broker).relay_once() is False
    assert broker.got == []


async def test_what_is_sent_is_what_was_emitted(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    await emit(pool, [b"\xff\x00"[:0] + "münchen".encode()])
    await relay(pool, broker).relay_once()
    (message,) = broker.got
    assert (message.topic, message.key) == (OUTPUT.name, "münchen".encode())
    assert message.value == Tallied(key="münchen", sequence=1, n=1).to_json()
    assert dict(message.headers)["ce_id"] == "münchen-1".encode()


async def test_what_is_rolled_back_is_never_sent(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    async with pool.acquire() as connection:
        doomed = connection.transaction()
        await doomed.start()
        effects = Effects(SERVICE, connection, RECEIVED_AT)
        effects.emit(OUTPUT, Tallied(key="a", sequence=1, n=1), key="a")
        await effects.flush()
        await doomed.rollback()
    await relay(pool, broker).relay_once()
    assert broker.got == []


async def test_a_transaction_that_commits_late_is_not_passed_over(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    """Order of id is not order of commit: what is unsent is sent, whatever was sent before."""
    async with pool.acquire() as connection:
        late = connection.transaction()
        await late.start()
        effects = Effects(SERVICE, connection, RECEIVED_AT)
        effects.emit(OUTPUT, Tallied(key="late", sequence=1, n=1), key="late")
        await effects.flush()
        await emit(pool, [b"early"])
        sender = relay(pool, broker)
        await sender.relay_once()
        assert [message.key for message in broker.got] == [b"early"]
        await late.commit()
    await sender.relay_once()
    assert [message.key for message in broker.got] == [b"early", b"late"]


async def test_a_send_that_fails_keeps_its_key_in_order(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    await emit(pool, [b"a", b"b", b"a", b"b", b"a"])
    refused = {3}
    broker.refuses = lambda message: Tallied.model_validate_json(message.value).sequence in refused
    sender = relay(pool, broker)
    with pytest.raises(ConnectionError):
        await sender.relay_once()
    assert broker.sequences(b"a") == [1]
    assert broker.sequences(b"b") == [2, 4]
    assert await unsent(pool) == 2
    refused.clear()
    await sender.relay_once()
    assert broker.sequences(b"a") == [1, 3, 5]
    assert broker.sequences(b"b") == [2, 4]


async def test_many_messages_go_in_portions(
    pool: asyncpg.Pool[Any], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PASS_MESSAGES", 3)
    await emit(pool, [b"a", b"b"] * 4)
    sender = relay(pool, broker)
    turns = [await sender.relay_once() for _ in range(3)]
    assert turns == [True, True, False]
    assert broker.sequences(b"a") == [1, 3, 5, 7]
    assert await unsent(pool) == 0


async def test_large_messages_go_few_at_a_time(
    pool: asyncpg.Pool[Any], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of large dead letters must not fill the memory; one is always sent, however large."""
    monkeypatch.setattr(outbox, "PASS_BYTES", 100)
    await emit(pool, [b"a"] * 7)
    sizes = {len(Tallied(key="a", sequence=n, n=n).to_json()) for n in range(1, 8)}
    assert sizes == {30}
    sender, sent = relay(pool, broker), []
    while await sender.relay_once():
        sent.append(len(broker.got))
    assert sent == [4]
    assert broker.sequences(b"a") == list(range(1, 8))
    monkeypatch.setattr(outbox, "PASS_BYTES", 1)
    await emit(pool, [b"a"] * 2, first=8)
    assert await sender.relay_once() is True
    assert len(broker.got) == 8


async def test_only_the_holder_of_the_lease_sends(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    await emit(pool, [b"a"])
    first, second = relay(pool, broker, "first"), relay(pool, broker, "second")
    await first.relay_once()
    assert await lease(pool) == ("first", 1)
    await emit(pool, [b"a"], first=2)
    assert await second.relay_once() is False
    assert broker.sequences(b"a") == [1]
    await first.relay_once()
    assert broker.sequences(b"a") == [1, 2]
    assert await lease(pool) == ("first", 1)


async def test_a_lease_that_is_over_is_taken_over_with_a_greater_epoch(
    pool: asyncpg.Pool[Any], broker: Broker
) -> None:
    first, second = relay(pool, broker, "first"), relay(pool, broker, "second")
    await first.relay_once()
    await emit(pool, [b"a"])
    await pool.execute("UPDATE outbox_lease SET expires_at = clock_timestamp() - interval '1 ms'")
    await second.relay_once()
    assert await lease(pool) == ("second", 2)
    assert broker.sequences(b"a") == [1]
    await pool.execute("UPDATE outbox_lease SET expires_at = '-infinity'")
    await first.relay_once()
    assert await lease(pool) == ("first", 3)


async def test_of_many_that_want_the_lease_at_once_one_gets_it(pool: asyncpg.Pool[Any]) -> None:
    takes = [pool.fetchval(QUERIES.take_lease, f"holder-{n}", 10.0) for n in range(12)]
    epochs = [epoch for epoch in await asyncio.gather(*takes) if epoch is not None]
    assert epochs == [1]


async def test_a_relay_made_anew_after_a_fault_is_the_same_holder(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    """It need not wait for its own lease to end, which it may have been unable to give back."""
    await relay(pool, broker, "instance").relay_once()
    await emit(pool, [b"a"])
    await relay(pool, broker, "instance").relay_once()
    assert broker.sequences(b"a") == [1]
    assert await lease(pool) == ("instance", 1)


async def test_an_old_holder_removes_nothing_that_its_successor_sends(pool: asyncpg.Pool[Any]) -> None:
    """Stopped between publishing and removing, overtaken, and going on: the rows are its successor's."""
    zombie, successor = Broker(), Broker()
    await emit(pool, [b"a", b"a", b"b"])
    zombie.gate.clear()
    stopped = asyncio.create_task(relay(pool, zombie, "zombie").relay_once())

    async def holder() -> str:
        return (await lease(pool))[0]

    await eventually(holder, lambda found: found == "zombie", "the zombie holds the lease")
    await pool.execute("UPDATE outbox_lease SET expires_at = '-infinity'")
    successor.refuses = lambda message: message.key == b"b"
    with pytest.raises(ConnectionError):
        await relay(pool, successor, "successor").relay_once()
    assert successor.sequences(b"a") == [1, 2]
    zombie.gate.set()
    await stopped
    assert len(zombie.got) == 3
    assert await unsent(pool) == 1  # b is the successor's to remove, once it has sent it
    assert await lease(pool) == ("successor", 2)


async def test_a_crash_between_publishing_and_removing_repeats_the_same_bytes(
    pool: asyncpg.Pool[Any], database_dsn: str
) -> None:
    """The connection dies when everything is sent and nothing removed."""
    before, after = Broker(), Broker()
    await emit(pool, [b"a", b"b", b"a"])
    own = await connect_pool(database_dsn, role=SERVICE, application_name="crashing", max_size=1)
    sent = itertools.count(1)

    async def send(message: Message) -> None:
        await before.send(message)
        if next(sent) == 3:
            own.terminate()

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await Relay(own, send, asyncio.Event(), holder="crashing").relay_once()
    assert await unsent(pool) == 3
    await pool.execute("UPDATE outbox_lease SET expires_at = '-infinity'")
    await relay(pool, after, "successor").relay_once()
    assert sorted(before.got, key=lambda message: message.id) == sorted(after.got, key=lambda message: message.id)
    assert await unsent(pool) == 0


async def test_a_pass_ends_before_its_lease_could(
    pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each send is slow, and all are of one key: none begins that could still run when another has the lease."""
    monkeypatch.setattr(outbox, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(outbox, "SEND_SECONDS", 0.3)
    begun: list[float] = []

    async def send(_message: Message) -> None:
        begun.append(time.monotonic())
        await asyncio.sleep(0.05)

    await emit(pool, [b"a"] * 30)
    sender = Relay(pool, send, asyncio.Event(), holder="slow")
    start = time.monotonic()
    assert await sender.relay_once() is True
    assert 1 <= len(begun) < 30
    assert begun[-1] - start <= 0.6 - 0.3 + 0.05
    while await sender.relay_once():
        pass
    assert len(begun) == 30
    assert await unsent(pool) == 0


async def test_the_lease_is_given_back_at_the_end(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    await emit(pool, [b"a"])
    async with relaying(relay(pool, broker, "first")):
        await broker.has(1)
    await emit(pool, [b"a"], first=2)
    # Nobody waits for ten seconds.
    await relay(pool, broker, "second").relay_once()
    # Stopped between sending and removing, the first leaves what it sent to be sent once more.
    assert list(dict.fromkeys(broker.sequences(b"a"))) == [1, 2]
    assert await lease(pool) == ("second", 2)


async def test_a_fault_ends_the_run_and_gives_the_lease_back(pool: asyncpg.Pool[Any], broker: Broker) -> None:
    await emit(pool, [b"a"])
    broker.refuses = lambda _message: True
    with pytest.raises(ConnectionError):
        await relay(pool, broker, "first").run()
    broker.refuses = lambda _message: False
    await relay(pool, broker, "second").relay_once()
    assert broker.sequences(b"a") == [1]


async def test_a_notification_wakes_the_relay(
    pool: asyncpg.Pool[Any], broker: Broker, database_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a poll so slow that only NOTIFY explains that the event is sent."""
    monkeypatch.setattr(outbox, "POLL_SECONDS", 3_600.0)
    listener = Listener(database_dsn, role=SERVICE, application_name="listener")
    wake = listener.event(CHANNEL)
    listening = asyncio.create_task(listener.run())
    async with relaying(relay(pool, broker, wake=wake)):
        for n in range(1, 4):
            await emit(pool, [b"a"], first=n)
            await broker.has(n, seconds=10)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert broker.sequences(b"a") == [1, 2, 3]


async def test_without_notifications_the_poll_finds_what_is_unsent(
    pool: asyncpg.Pool[Any], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 0.05)
    async with relaying(relay(pool, broker)):
        for n in range(1, 4):
            await emit(pool, [b"a"], first=n)
            await broker.has(n, seconds=10)


async def test_relays_of_two_instances_send_each_event_once_while_both_live(
    pool: asyncpg.Pool[Any], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 0.01)
    async with relaying(relay(pool, broker, "one"), relay(pool, broker, "two")):
        for n in range(1, 30):
            await emit(pool, [b"a", b"b"], first=2 * n)
        await broker.has(58)
    assert broker.sequences(b"a") == sorted(set(broker.sequences(b"a")))
    assert len(broker.got) == 58


async def until_set(event: asyncio.Event, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


@contextlib.asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(listener.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_channel_asked_for_while_listening_is_heard_too(
    database_dsn: str, pool: asyncpg.Pool[Any]
) -> None:
    """A loop may ask for its channel only after the listener has connected."""
    listener = Listener(database_dsn, role=SERVICE, application_name="listener")
    early = listener.event("early")
    async with listening(listener):
        await until_set(early)
        late = listener.event("late")
        await until_set(late)  # whoever asks looks for itself first
        for event, channel in ((late, "late"), (early, "early")):
            event.clear()
            await pool.execute("SELECT pg_notify($1, '')", channel)
            await until_set(event, seconds=3)


async def test_every_event_of_a_channel_is_set(database_dsn: str, pool: asyncpg.Pool[Any]) -> None:
    listener = Listener(database_dsn, role=SERVICE, application_name="listener")
    events = [listener.event("shared") for _ in range(3)]
    async with listening(listener):
        for event in events:
            await until_set(event)
            event.clear()
        await pool.execute("SELECT pg_notify('shared', '')")
        for event in events:
            await until_set(event)


async def test_a_lost_connection_ends_the_listening_at_once(database_dsn: str) -> None:
    listener = Listener(database_dsn, role=SERVICE, application_name="listener-to-lose")
    event = listener.event("channel")
    async with listening(listener) as task:
        await until_set(event)
        terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        query(database_dsn, terminate, "listener-to-lose")
        started = time.monotonic()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await asyncio.wait_for(asyncio.shield(task), timeout=10)
        assert time.monotonic() - started < 3
    event.clear()
    async with listening(listener):
        await until_set(event)  # what was notified meanwhile is looked for


async def test_counters_follow_the_commit(database_dsn: str, pool: asyncpg.Pool[Any]) -> None:
    """What is rolled back counts nothing, what is tried again counts once."""
    counter = DEAD_LETTERS_TOTAL.labels(reason="conflict")
    before, told = counter._value.get(), []
    record = Record("snapshots", 0, 0, RECEIVED_AT, b"k", b"{}")
    context = Context(
        service=SERVICE,
        settings=Settings(),
        pool=pool,
        clock=WallClock(),
        listener=Listener(database_dsn, role=SERVICE, application_name="unused"),
        input=Input(Settings()),
    )
    with contextlib.suppress(ZeroDivisionError):
        async with context.transaction() as effects:
            effects.refuse(record, Refusal("conflict", None, "first attempt"))
            effects.after_commit(lambda: told.append("rolled back"))
            raise ZeroDivisionError
    assert (counter._value.get(), told, await unsent(pool)) == (before, [], 0)
    async with context.transaction() as effects:
        effects.refuse(record, Refusal("conflict", None, "second attempt"))
        effects.count(PUBLISHED_TOTAL, 3, topic="counted")
        effects.count(PUBLISHED_TOTAL, topic="counted")
        effects.after_commit(lambda: told.append("durable"))
        effects.after_commit(lambda: 1 // 0)
        effects.after_commit(lambda: told.append("in any case"))
        assert (counter._value.get(), told) == (before, [])
    assert counter._value.get() == before + 1
    assert PUBLISHED_TOTAL.labels(topic="counted")._value.get() == 4
    assert told == ["durable", "in any case"]
    assert await unsent(pool) == 1


async def test_the_published_view_tells_of_what_waits(pool: asyncpg.Pool[Any], database_dsn: str) -> None:
    assert query(database_dsn, "SELECT unsent, oldest_unsent_at FROM alerting.published_outbox") == [(0, None)]
    await emit(pool, [b"a"])
    change(database_dsn, "UPDATE alerting.outbox SET created_at = '2026-01-01T00:00:00Z'")
    await emit(pool, [b"a"])
    assert query(database_dsn, "SELECT unsent, oldest_unsent_at FROM alerting.published_outbox") == [
        (2, RECEIVED_AT)
    ]


async def test_reading_the_oldest_needs_no_look_at_the_rest(pool: asyncpg.Pool[Any]) -> None:
    """The plan stops after the portion: a backlog of a million costs a pass no more than one of a thousand."""
    await pool.execute(
        "INSERT INTO outbox (topic, value, headers) SELECT 'alerts', 'x', '[]' FROM generate_series(1, 20000)"
    )
    epoch = await pool.fetchval(QUERIES.take_lease, "me", 10.0)
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES.read_unsent}"
    plan = await pool.fetchval(explain, 1_000, 1 << 24, "me", epoch)
    scans = [node["Actual Rows"] for node in _nodes(plan[0]["Plan"]) if "Scan" in node["Node Type"]]
    assert max(scans) <= 1_001


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for child in plan.get("Plans", []) for node in _nodes(child)]
