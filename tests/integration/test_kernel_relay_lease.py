"""A relay that has just taken its lease sends without renewing it, and never once it is another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from shared import outbox
from shared.database import connect_pool
from shared.effects import Effects
from shared.outbox import Message, Relay
from tests.kernel_world import OUTPUT, SERVICE, Tallied
from tests.support import RECEIVED_AT


class World:
    """A relay, what it has sent, and the time as the test sets it."""

    def __init__(self, pool: asyncpg.Pool[Any], wake: Any) -> None:
        self.pool = pool
        self.seconds = 100.0
        self.sent: list[str] = []
        self.relay = Relay(pool, self._send, wake, holder="me")

    async def _send(self, message: Message) -> None:
        self.sent.append(Tallied.model_validate_json(message.value).key)

    async def emit(self, *keys: str) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            effects = Effects(SERVICE, connection, RECEIVED_AT)
            for key in keys:
                effects.emit(OUTPUT, Tallied(key=key, sequence=1, n=1), key=key)
            await effects.flush()

    async def expires_at(self) -> datetime:
        found: datetime = await self.pool.fetchval("SELECT expires_at FROM outbox_lease")
        return found


@pytest.fixture
async def world(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    pool = await connect_pool(database_dsn, role=SERVICE, application_name="test", max_size=2)
    found = World(pool, None)
    monkeypatch.setattr(outbox, "time", SimpleNamespace(monotonic=lambda: found.seconds))
    yield found
    await pool.close()


async def test_events_do_not_wait_for_a_renewal_of_a_fresh_lease(world: World) -> None:
    await world.relay.relay_once()
    taken = await world.expires_at()
    for key in ("a", "b"):
        await world.emit(key)
        await world.relay.relay_once()
    assert world.sent == ["a", "b"]
    assert await world.expires_at() == taken


async def test_a_lease_that_is_half_over_is_renewed_before_anything_is_sent(world: World) -> None:
    await world.relay.relay_once()
    taken = await world.expires_at()
    world.seconds += (outbox.LEASE_SECONDS - outbox.SEND_SECONDS) / 2
    await world.emit("a")
    await world.relay.relay_once()
    assert world.sent == ["a"]
    assert await world.expires_at() > taken


async def test_a_look_that_finds_nothing_renews_the_lease(world: World) -> None:
    """So an idle relay's lease is fresh whenever something comes."""
    await world.relay.relay_once()
    taken = await world.expires_at()
    await world.relay.relay_once()
    assert await world.expires_at() > taken


async def test_nothing_is_sent_by_a_lease_that_became_anothers(world: World) -> None:
    """As after a stop: to the relay its lease is fresh, the database knows better."""
    await world.relay.relay_once()
    await world.emit("a")
    other = "UPDATE outbox_lease SET holder = 'other', epoch = epoch + 1, expires_at = clock_timestamp() + $1"
    await world.pool.execute(other, timedelta(seconds=outbox.LEASE_SECONDS))
    assert await world.relay.relay_once() is False
    assert world.sent == []
    await world.pool.execute("UPDATE outbox_lease SET expires_at = '-infinity'")
    await world.relay.relay_once()
    assert world.sent == ["a"]
    assert await world.pool.fetchval("SELECT epoch FROM outbox_lease") == 3


async def test_a_pass_by_a_lease_taken_before_ends_before_that_lease_could(world: World) -> None:
    """Not counted from the pass's own beginning."""
    await world.relay.relay_once()
    world.seconds += (outbox.LEASE_SECONDS - outbox.SEND_SECONDS) / 2 - 0.1
    await world.emit("a", "a")
    slow = world.relay._send

    async def send(message: Message) -> None:
        await slow(message)
        world.seconds += (outbox.LEASE_SECONDS - outbox.SEND_SECONDS) / 2 + 0.2

    world.relay._send = send
    assert await world.relay.relay_once() is True
    assert world.sent == ["a"]
    await world.relay.relay_once()
    assert world.sent == ["a", "a"]
