"""The relay: publishes what committed transactions left in the outbox, in order within a key.

One relay a service publishes, by an expiring lease with an epoch. Publishing is at least once: a relay that
dies between publishing and removing leaves the same bytes, with the same ``ce_id``, to its successor.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog

from shared.database import Queries
from shared.instruments import PUBLISHED_TOTAL, RELAY_LEADER

QUERIES = Queries.load("shared", "kernel.sql")
LEASE_SECONDS = 10.0
SEND_SECONDS = 5.0
"""A message not acknowledged by then counts as failed and is sent again; nothing is begun that could outlast
the lease by it."""
POLL_SECONDS = 2.0
"""The safety net under NOTIFY; well inside the lease, which is renewed at every turn."""
RELEASE_SECONDS = 2.0
PASS_MESSAGES = 1_000
PASS_BYTES = 16 * 1_048_576
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the outbox. ``topic`` is the registry's name."""

    id: int
    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


Send = Callable[[Message], Awaitable[None]]
"""Publishes one message and returns once the broker has acknowledged it; raises when it has not."""


def waves(messages: Iterable[Message]) -> list[list[Message]]:
    """Split messages so that no wave holds two of one key: sent wave after wave they keep their order.

    Messages without a key promise no order and all go with the first wave.
    """
    result: list[list[Message]] = []
    depth: dict[tuple[str, bytes], int] = {}
    for message in messages:
        level = 0
        if message.key is not None:
            place = (message.topic, message.key)
            level = depth.get(place, 0)
            depth[place] = level + 1
        if level == len(result):
            result.append([])
        result[level].append(message)
    return result


async def send_in_order(
    messages: Iterable[Message], send: Send, *, until: float = math.inf
) -> tuple[list[int], Exception | None]:
    """Send wave after wave; a key whose message failed is left out of the later waves.

    No wave begins after ``until``, in seconds of the monotonic clock. Returns the ids that the broker
    acknowledged, and one of the failures.
    """
    sent: list[int] = []
    failed: set[tuple[str, bytes | None]] = set()
    failure: Exception | None = None
    for wave in waves(messages):
        if time.monotonic() > until:
            break
        ready = [message for message in wave if (message.topic, message.key) not in failed]
        outcomes = await asyncio.gather(*map(send, ready), return_exceptions=True)
        for message, outcome in zip(ready, outcomes, strict=True):
            if outcome is None:
                sent.append(message.id)
                PUBLISHED_TOTAL.labels(topic=message.topic).inc()
            elif isinstance(outcome, Exception):
                failure = outcome
                if message.key is not None:
                    failed.add((message.topic, message.key))
            else:
                raise outcome
    return sent, failure


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as its holder knows it; ``taken_at`` in seconds of the monotonic clock."""

    epoch: int
    taken_at: float


class Relay:
    """Publishes one service's outbox for as long as this instance, named ``holder``, has the lease.

    A relay that is made anew after a fault is the same holder, and need not wait for its own lease to end.
    """

    def __init__(self, pool: asyncpg.Pool[Any], send: Send, wake: asyncio.Event, *, holder: str) -> None:
        self._pool = pool
        self._send = send
        self._wake = wake
        self._holder = holder
        self._lease: Lease | None = None

    async def run(self) -> None:
        """Relay until cancelled, then give the lease back. Raises on a fault: the caller retries."""
        try:
            while True:
                # Cleared before looking: a NOTIFY that comes while we look is not lost.
                self._wake.clear()
                while await self.relay_once():
                    pass
                try:
                    await asyncio.wait_for(self._wake.wait(), timeout=POLL_SECONDS)
                except TimeoutError:
                    continue
        finally:
            RELAY_LEADER.set(0)
            await self._release()

    async def relay_once(self) -> bool:
        """Publish one portion. Returns whether more may be waiting."""
        rows = await self._unsent() if self._is_fresh() else []
        # Nothing is there, or another holds the lease: taking it again tells which, and keeps it fresh.
        if not rows and await self._take_lease():
            rows = await self._unsent()
        if not rows or self._lease is None:
            return False
        until = self._lease.taken_at + LEASE_SECONDS - SEND_SECONDS
        sent, failure = await send_in_order(map(_message, rows), self._send, until=until)
        if sent:
            await self._pool.execute(QUERIES.remove_sent, sent, self._holder, self._lease.epoch)
        if failure is not None:
            raise failure
        full = len(rows) == PASS_MESSAGES or sum(len(row["value"]) for row in rows) >= PASS_BYTES
        return full or len(sent) < len(rows)

    def _is_fresh(self) -> bool:
        """Whether enough is left of the lease for a pass: its renewal is a write, and events wait for it."""
        return self._lease is not None and (
            time.monotonic() - self._lease.taken_at < (LEASE_SECONDS - SEND_SECONDS) / 2
        )

    async def _take_lease(self) -> bool:
        # It runs from when PostgreSQL grants it, which is later.
        taken_at = time.monotonic()
        epoch = await self._pool.fetchval(QUERIES.take_lease, self._holder, LEASE_SECONDS)
        RELAY_LEADER.set(0 if epoch is None else 1)
        self._lease = None if epoch is None else Lease(epoch, taken_at)
        return self._lease is not None

    async def _unsent(self) -> list[asyncpg.Record]:
        """The oldest portion; none where the lease is another's by now."""
        if self._lease is None:
            return []
        found: list[asyncpg.Record] = await self._pool.fetch(
            QUERIES.read_unsent, PASS_MESSAGES, PASS_BYTES, self._holder, self._lease.epoch
        )
        return found

    async def _release(self) -> None:
        try:
            # Getting a connection counts too: the database may be what has failed.
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._pool.execute(QUERIES.release_lease, self._holder)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.info("outbox lease not given back, it will expire", error=str(error))


def _message(row: asyncpg.Record) -> Message:
    headers = tuple((name, value.encode()) for name, value in row["headers"])
    return Message(row["id"], row["topic"], row["key"], row["value"], headers)
