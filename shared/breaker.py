"""The breaker: where most of what comes in is refused, reading on would only drain a topic into the dead letters.

The rule is pure. What it judges, and that it has tripped, lie in the service's schema: a restart changes neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from shared.database import Connection, Queries, connect
from shared.errors import Refusal, TruewardError
from shared.records import Record
from shared.settings import Settings
from shared.topics import Service

QUERIES = Queries.load("shared", "kernel.sql")
Refused = tuple[Record, Refusal]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """What counts as a flood: at least ``min_refused`` of a topic's records, and at least that share of them.

    ``min_refused`` 0 means never. ``window`` is how long a partition's refusals are counted together.
    """

    min_refused: int
    min_share: float
    window: timedelta


@dataclass(frozen=True, slots=True)
class Intake:
    """How many records were taken in, and how many of them were refused."""

    records: int
    refused: int


@dataclass(frozen=True, slots=True)
class Passing:
    """No flood, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Flood:
    """A flood of dead letters, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """What the breaker says: ``reason`` is None while records are taken in."""

    tripped_at: datetime | None = None
    reason: str | None = None
    passes_until: datetime | None = None


class FloodError(TruewardError):
    """A batch that would be a flood of dead letters: it is not taken in."""


class TrippedError(TruewardError):
    """The breaker has tripped: nothing is taken in until an operator resets it."""


def judge(policy: BreakerPolicy, state: State, now: datetime, *, batch: Intake, window: Intake) -> Passing | Flood:
    """Judge what one topic brought: a ``batch`` alone, and all of the ``window``, the batch included.

    The batch alone as well, because a window that began with many good records takes as many bad ones to show.
    """
    unjudged = let_pass(policy, state, now)
    if unjudged is not None:
        return unjudged
    for taken in (batch, window):
        if taken.refused >= policy.min_refused and taken.refused >= policy.min_share * taken.records:
            return Flood(f"{taken.refused} of {taken.records} records were refused")
    return Passing(f"{window.refused} of {window.records} records were refused")


def let_pass(policy: BreakerPolicy, state: State, now: datetime) -> Passing | None:
    """Why nothing is judged, or even counted, at the moment; None where it is."""
    if policy.min_refused == 0:
        return Passing("the breaker is off")
    if state.passes_until is not None and now < state.passes_until:
        return Passing("an operator lets everything pass for now")
    return None


def policy_of(settings: Settings) -> BreakerPolicy:
    """The rule that the deployment has chosen."""
    return BreakerPolicy(settings.breaker_min_refused, settings.breaker_min_share, settings.breaker_window)


def told(service: Service, topic: str, flood: Flood, refused: Sequence[Refused]) -> str:
    """A flood in words: how much of which topic, mostly why, where one stands to be looked at, and the way out."""
    (reason, field), count = Counter((each.reason, each.field) for _, each in refused).most_common(1)[0]
    record, refusal = next(pair for pair in refused if (pair[1].reason, pair[1].field) == (reason, field))
    named = f"{reason}, {field}" if field else reason
    return (
        f"the dead-letter breaker has stopped the intake: of {topic} {flood.reason}, {count} of the newest "
        f"{len(refused)} as {named}: {refusal.detail} (such as partition {record.partition}, offset "
        f"{record.offset}); mend the cause, then: trueward breaker reset --service {service}"
    )


async def check(
    connection: Connection,
    service: Service,
    policy: BreakerPolicy,
    now: datetime,
    *,
    taken: Iterable[Record],
    refused: Sequence[Refused],
) -> None:
    """Count a batch's refusals, in its own transaction, after the inbox has moved on.

    Raises ``FloodError`` where they are a flood: the transaction must be rolled back, and the breaker trip.
    """
    if not refused:
        return
    state = await read(connection)
    if let_pass(policy, state, now) is not None:
        return
    batches = _by_topic(taken, refused)
    await _count(connection, policy, now, refused)
    rows = await connection.fetch(QUERIES.read_refusals, list(batches), now, policy.window)
    windows = {row["topic"]: Intake(int(row["records"]), int(row["refused"])) for row in rows}
    for topic, batch in batches.items():
        verdict = judge(policy, state, now, batch=batch, window=windows[topic])
        if isinstance(verdict, Flood):
            raise FloodError(told(service, topic, verdict, [each for each in refused if each[0].topic == topic]))


def _by_topic(taken: Iterable[Record], refused: Iterable[Refused]) -> Mapping[str, Intake]:
    records = Counter(record.topic for record in taken)
    letters = Counter(record.topic for record, _ in refused)
    return {topic: Intake(records[topic], letters[topic]) for topic in sorted(letters)}


async def _count(connection: Connection, policy: BreakerPolicy, now: datetime, refused: Iterable[Refused]) -> None:
    counts = Counter((record.topic, record.partition) for record, _ in refused)
    firsts: dict[tuple[str, int], int] = {}
    for record, _ in refused:
        place = (record.topic, record.partition)
        firsts[place] = min(record.offset, firsts.get(place, record.offset))
    places = sorted(counts)
    await connection.execute(
        QUERIES.count_refusals,
        [topic for topic, _ in places],
        [partition for _, partition in places],
        [firsts[place] for place in places],
        [counts[place] for place in places],
        now,
        policy.window,
    )


async def read(connection: Connection) -> State:
    """The breaker as it stands."""
    row = await connection.fetchrow(QUERIES.read_breaker)
    return State() if row is None else State(**row)


async def read_by(pool: asyncpg.Pool[Any]) -> State:
    """The breaker as it stands, on a connection of a pool."""
    async with pool.acquire() as connection:
        return await read(connection)


async def refuse_when_tripped(connection: Connection) -> None:
    """Raises ``TrippedError`` while the breaker stands against taking records in."""
    state = await read(connection)
    if state.reason is not None:
        raise TrippedError(state.reason)


async def trip(connection: Connection, now: datetime, reason: str) -> None:
    """Stop every instance's intake, durably. A breaker that has tripped already keeps its first reason."""
    await connection.execute(QUERIES.trip_breaker, now, reason)


async def reset(dsn: str, *, service: str, passes_until: datetime | None = None) -> State:
    """Let a service take records in again, with nothing counted against it.

    Until ``passes_until`` nothing trips the breaker. Returns what it said before.
    """
    connection = await connect(dsn, role=service, application_name="trueward-breaker-reset")
    try:
        async with connection.transaction():
            before = await read(connection)
            await connection.execute(QUERIES.reset_breaker, passes_until)
            await connection.execute(QUERIES.forget_refusals, None)
    finally:
        await connection.close()
    return before


async def shown(dsn: str, *, service: str) -> State:
    """A service's breaker, for an operator."""
    connection = await connect(dsn, role=service, application_name="trueward-breaker-show")
    try:
        return await read(connection)
    finally:
        await connection.close()
