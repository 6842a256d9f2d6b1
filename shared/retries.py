"""Try again until it works: transient faults lose nothing, and say what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina
import structlog

from shared.errors import TruewardError
from shared.instruments import RETRIES_TOTAL

T = TypeVar("T")
FIRST_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 5.0

# What is retried is logged here, in the service's words; the library's own lines would say it twice.
stamina.instrumentation.set_on_retry_hooks([])
log = structlog.get_logger()


async def until_done(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Await ``attempt()`` again and again, with backoff, until it returns.

    An expected error (``TruewardError``) says that waiting is no use and is raised at once, as is
    cancellation; every other one is logged with its cause and tried again.
    """
    async for turn in stamina.retry_context(
        # Cancellation reaches the predicate too; it is no fault.
        on=lambda error: isinstance(error, Exception) and not isinstance(error, TruewardError),
        attempts=None,
        timeout=None,
        wait_initial=FIRST_WAIT_SECONDS,
        wait_max=LONGEST_WAIT_SECONDS,
        # The library's own jitter of up to a second would be most of the first waits.
        wait_jitter=FIRST_WAIT_SECONDS,
    ):
        with turn:
            try:
                return await attempt()
            except Exception as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # What fails on the way out (a rollback, its connection gone) must not hide the cancellation.
                    raise asyncio.CancelledError from error
                if not isinstance(error, TruewardError):
                    RETRIES_TOTAL.labels(fault=type(error).__name__).inc()
                    log.warning(
                        "trying again",
                        what=what,
                        attempt=turn.num,
                        fault=type(error).__name__,
                        error=str(error),
                    )
                raise
    raise AssertionError("retrying without a limit ends only by returning or raising")
