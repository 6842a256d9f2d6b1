"""What retrain does by itself, beside its input: ends leases, removes what is old."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from services.retrain.handlers import expire_jobs
from services.retrain.settings import RetrainSettings
from services.retrain.store import PostgresStore
from shared.errors import UsageError
from shared.service import Context
from shared.topics import RETRAIN_JOB_UPDATES

JOBS_A_TURN = 100
ROWS_A_TURN = 1_000
REMOVAL_INTERVAL_SECONDS = 600.0
REFUSED_REQUESTS_KEPT = timedelta(days=7)
log = structlog.get_logger()


async def expire_leases(context: Context) -> None:
    """Expire running jobs whose trainers were silent for a whole lease; runs until cancelled.

    A trainer is silent only where it could be heard. So nothing expires for a grace after a start, in which the
    heartbeats that lie unread are read, nor while the broker does not answer; any fault starts the grace anew,
    since the loop is then run again from its beginning.
    """
    settings = settings_of(context)
    store = PostgresStore()
    await asyncio.sleep(settings.lease_grace.total_seconds())
    while True:
        while await expire_overdue(context, store) == JOBS_A_TURN:
            pass
        await asyncio.sleep(settings.lease_check_interval.total_seconds())


async def expire_overdue(context: Context, store: PostgresStore) -> int:
    """Look once. Returns how many jobs were looked at. Raises aiokafka's errors when the broker is away."""
    async with context.pool.acquire() as connection:
        overdue = await store.overdue_jobs(connection, context.clock.now(), JOBS_A_TURN)
    if overdue:
        await context.input.log_ends(await context.input.places((RETRAIN_JOB_UPDATES,)))
        async with context.transaction() as effects:
            expired = await expire_jobs(store, effects, overdue)
        log.info("leases are over", jobs=expired)
    return len(overdue)


async def remove_old(context: Context) -> None:
    """Remove decisions that made no job, and refused requests, once they are old; runs until cancelled."""
    store = PostgresStore()
    while True:
        while await remove_some(context, store) == ROWS_A_TURN:
            pass
        await asyncio.sleep(REMOVAL_INTERVAL_SECONDS)


async def remove_some(context: Context, store: PostgresStore) -> int:
    """Remove one portion. Returns how many decisions went."""
    async with context.transaction() as effects:
        removed = await store.remove_old_decisions(
            effects.connection, settings_of(context).decision_retention, ROWS_A_TURN
        )
        await store.remove_old_refused_requests(effects.connection, effects.now - REFUSED_REQUESTS_KEPT)
    if removed:
        log.info("old decisions removed", count=removed)
    return removed


def settings_of(context: Context) -> RetrainSettings:
    """The service's own settings. Raises ``UsageError`` where it was started with another's."""
    if not isinstance(context.settings, RetrainSettings):
        raise UsageError("the retrain service needs RetrainSettings")
    return context.settings
