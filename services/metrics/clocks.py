"""The two clocks: loops that find the next boundary and cut it, once, whichever instance is first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from services.metrics.cutting import ChampionChangedError, Cut, cut_snapshots
from services.metrics.domain.buckets import MICROSECONDS, bucket_seconds
from services.metrics.domain.clock import (
    first_boundary,
    holder,
    missed_boundaries,
    newest_boundary,
    why_not_this_clock,
)
from services.metrics.domain.horizons import Horizons, why_not_these
from services.metrics.handlers import CLOCK_CHANNEL
from services.metrics.instruments import LAST_AS_OF_SECONDS, SNAPSHOTS_TOTAL
from services.metrics.intake import CLOCK_TOPICS, microseconds
from services.metrics.resuming import take_back
from services.metrics.settings import MetricsSettings
from services.metrics.store import QUERIES, begun_horizons
from services.metrics.world import adopt_champions
from shared.database import Connection
from shared.errors import UsageError
from shared.records import Place
from shared.retries import until_done
from shared.service import Context
from shared.settings import Settings
from shared.topics import MODEL_VERSIONS, POLICIES

POLL_SECONDS = 1.0
"""The safety net under NOTIFY."""
BROKER_SECONDS = 2.0
"""How long a boundary of the wall clock waits for the broker's word on what is unread."""
OPERATORS_SECONDS = 10.0
"""After which the event clock says that the broker does not answer, and asks again."""
_sleep = asyncio.sleep
log = structlog.get_logger()


def interval_of(settings: Settings) -> int:
    """The snapshot interval in seconds."""
    return int(settings.snapshot_interval.total_seconds())


def horizons_of(settings: Settings) -> Horizons:
    """How long predictions wait and labels may be corrected."""
    found = settings_of(settings)
    return Horizons.of(found.label_horizon, found.correction_horizon)


def settings_of(settings: Settings) -> MetricsSettings:
    """The service's own settings. Raises ``UsageError`` where it was started with another's."""
    if not isinstance(settings, MetricsSettings):
        raise UsageError("the metrics service needs MetricsSettings")
    return settings


async def prepare_clock(connection: Connection, settings: Settings) -> None:
    """Start the deployment's clock, or check that it still is the one that was started.

    Raises ``UsageError`` when the clock, the width of buckets or the horizons would change: sums that exist
    already could not answer for others.
    """
    interval = interval_of(settings)
    width = bucket_seconds(interval)
    await connection.execute(QUERIES.start_clock, settings.clock, interval, width)
    row = await _read_clock(connection)
    reason = why_not_this_clock((row["clock"], row["bucket_seconds"]), settings.clock, width)
    if reason is not None:
        raise UsageError(reason)
    await _prepare_horizons(connection, row, horizons_of(settings))
    if row["interval_seconds"] != interval:
        if settings.clock == "event":
            raise UsageError(
                f"this database was begun with an interval of {row['interval_seconds']} s; on the event clock "
                "another one needs a new database"
            )
        await connection.execute(QUERIES.change_interval, interval)


async def _prepare_horizons(connection: Connection, row: asyncpg.Record, horizons: Horizons) -> None:
    if begun_horizons(row) is None:
        seconds = [one // MICROSECONDS for one in (horizons.label, horizons.correction)]
        await connection.execute(QUERIES.start_horizons, *seconds)
        row = await _read_clock(connection)
    reason = why_not_these(begun_horizons(row) or horizons, horizons)
    if reason is not None:
        raise UsageError(reason)


async def run_clock(context: Context) -> None:
    """Cut every boundary that comes, until cancelled."""
    async with context.pool.acquire() as connection:
        await prepare_clock(connection, context.settings)
    if context.settings.clock == "wall":
        await until_done("published snapshots", partial(take_back, context))
        await _run_wall(context)
    else:
        await _run_event(context)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the broker said of a boundary before it came. ``overdue`` as in :class:`Cut`."""

    as_of: int
    overdue: Mapping[Place, int] | None


async def _run_wall(context: Context) -> None:
    interval = interval_of(context.settings)
    while True:
        boundary = (microseconds(context.clock.now()) // MICROSECONDS // interval + 1) * interval
        # What counts is what came an interval before the boundary, so the answer is known before it comes.
        await _sleep_until(context, boundary - min(BROKER_SECONDS, interval / 2))
        overdue = await until_done("what is unread", partial(_overdue, context, boundary))
        await _sleep_until(context, boundary)
        await until_done("snapshot", partial(cut_wall, context, Asked(boundary, overdue)))


async def _sleep_until(context: Context, moment: float) -> None:
    """``moment`` in seconds since 1970."""
    await _sleep(max(0.0, moment - microseconds(context.clock.now()) / MICROSECONDS))


async def _overdue(context: Context, as_of: int) -> Mapping[Place, int] | None:
    """Per input partition the offset below which all was received more than an interval before the boundary.

    None where the broker cannot be believed or does not answer: silence must be noticed then as well.
    """
    if not context.settings.kafka_true_end_offsets:
        return None
    received_before = datetime.fromtimestamp(as_of, UTC) - context.settings.snapshot_interval
    try:
        async with asyncio.timeout(BROKER_SECONDS):
            places = await context.input.places(CLOCK_TOPICS)
            ends = await context.input.received_before(places, received_before)
            unread = await context.input.unread(await _taken(context), ends)
            return {place: end for place, end in ends.items() if place in unread}
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("what is unread is unknown, the newest batches tell", error=str(error))
        return None


async def cut_wall(context: Context, asked: Asked | None = None) -> bool:
    """Cut the newest boundary that has passed, unless another instance has. Returns whether this one did.

    The broker is asked now where ``asked`` is of another boundary: one was let pass.
    """
    interval = interval_of(context.settings)
    as_of = newest_boundary(microseconds(context.clock.now()), interval)
    if asked is None or asked.as_of != as_of:
        asked = Asked(as_of, await _overdue(context, as_of))
    cut = Cut(
        as_of=as_of,
        clock="wall",
        interval_seconds=interval,
        bucket_seconds=bucket_seconds(interval),
        horizons=horizons_of(context.settings),
        overdue=asked.overdue,
    )
    return await _cut(context, cut, next_boundary=None)


async def _cut(context: Context, cut: Cut, next_boundary: int | None) -> bool:
    """Cut a boundary unless another instance does; try again where one was at it or a champion has changed."""
    while True:
        try:
            return await _cut_once(context, cut, next_boundary)
        except asyncpg.SerializationError as reason:
            log.debug("boundary looked at again", as_of=cut.as_of, reason=str(reason))
        except ChampionChangedError:
            await _adopt(context, cut)


async def _adopt(context: Context, cut: Cut) -> None:
    """Count the new labels of models whose champion has changed. A boundary at which none has needs no look."""
    async with context.transaction() as effects:
        await adopt_champions(
            effects.connection,
            cut.microseconds,
            bucket_seconds=cut.bucket_seconds,
            label_horizon=cut.horizons.label,
        )


async def _cut_once(context: Context, cut: Cut, next_boundary: int | None) -> bool:
    async with context.transaction("repeatable_read") as effects:
        row = await _read_clock(effects.connection, QUERIES.lock_clock)
        if row["last_as_of"] is not None and row["last_as_of"] >= cut.as_of:
            return False
        # Another instance may have cut a boundary since this one was found due: under the lock nobody does.
        missed = missed_boundaries(cut.as_of, cut.interval_seconds, row["last_as_of"])
        count = await cut_snapshots(effects, replace(cut, missed=missed))
        await effects.connection.execute(QUERIES.move_clock, CLOCK_CHANNEL, cut.as_of, next_boundary)
    SNAPSHOTS_TOTAL.inc(count)
    LAST_AS_OF_SECONDS.set(cut.as_of)
    return True


async def _read_clock(connection: Connection, query: str = QUERIES.read_clock) -> asyncpg.Record:
    row: asyncpg.Record | None = await connection.fetchrow(query)
    if row is None:
        raise ConnectionError("the clock's row is missing; it is written when the service starts")
    return row


async def _run_event(context: Context) -> None:
    woken = context.listener.event(CLOCK_CHANNEL)
    held = context.input.held_changed
    while True:
        woken.clear()
        held.clear()
        while await advance_event_clock(context):
            pass
        waits = [asyncio.ensure_future(event.wait()) for event in (woken, held)]
        try:
            await asyncio.wait(waits, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


async def advance_event_clock(context: Context) -> bool:
    """Release what waits for boundaries already cut, then take the next step if every partition is ready.

    Returns whether there may be another step to take at once.
    """
    async with context.pool.acquire() as connection:
        row = await _read_clock(connection)
        times = await connection.fetch(QUERIES.read_partition_times)
    boundary: int | None = row["next_boundary"]
    if boundary is not None:
        context.input.release(boundary)
    expected = {(time["topic"], time["partition"]): time["reached_at"] for time in times}
    reached = {place: moment for place, moment in expected.items() if moment is not None}
    places = await context.input.places(CLOCK_TOPICS)
    await _expect(context, places - expected.keys())
    if holder(places, reached, boundary) is not None:
        return False
    interval = interval_of(context.settings)
    if boundary is None:
        async with context.transaction() as effects:
            await effects.connection.execute(
                QUERIES.set_first_boundary, first_boundary(reached.values(), interval)
            )
            await effects.connection.execute("SELECT pg_notify($1, '')", CLOCK_CHANNEL)
        return True
    if not await _operators_heard(context):
        return False
    cut = Cut(
        as_of=boundary,
        clock="event",
        interval_seconds=interval,
        bucket_seconds=bucket_seconds(interval),
        horizons=horizons_of(context.settings),
    )
    await _cut(context, cut, next_boundary=boundary + interval)
    return True


async def _expect(context: Context, unheard: set[Place]) -> None:
    """Make partitions known that nothing was read from, so that they can be named as those that hold the clock."""
    if unheard:
        async with context.pool.acquire() as connection:
            topics, partitions = zip(*sorted(unheard), strict=True)
            await connection.execute(QUERIES.expect_partitions, topics, partitions)


async def _operators_heard(context: Context) -> bool:
    """Whether every policy and model version published so far was taken in.

    They carry no event time of their own on the clock, so a boundary waits for all of them: what was published
    before the records that reached the boundary is in the snapshot, in a replay as well.
    """
    async with asyncio.timeout(OPERATORS_SECONDS):
        places = await context.input.places((POLICIES, MODEL_VERSIONS))
        ends = await context.input.log_ends(places)
        return not await context.input.unread(await _taken(context), ends)


async def _taken(context: Context) -> dict[Place, int]:
    async with context.pool.acquire() as connection:
        rows = await connection.fetch(QUERIES.read_offsets)
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
