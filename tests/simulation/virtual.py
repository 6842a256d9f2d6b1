"""Virtual time: an event loop whose clock stands still until the scheduler moves it."""

from __future__ import annotations

import asyncio
import math
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any

PATIENCE_SECONDS = 0.002
"""How long, in real time, a statement may take before PostgreSQL is asked whether it waits for a lock."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time, which says when everything in it waits.

    Timers (sleeps, timeouts, polls) fire when ``advance`` has brought their moment; real sockets work as ever.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._start = EPOCH
        self._idle: asyncio.Future[float | None] | None = None
        self.under_way = 0
        """Statements that were sent to PostgreSQL and not answered yet, those that wait for locks left out."""
        super().__init__(_Watching(self))

    def begin(self, start: datetime) -> None:
        """Another world's time begins; the world before must have ended all that it began."""
        self._seconds = 0.0
        self._start = start

    def time(self) -> float:
        """Virtual seconds since the world's beginning."""
        return self._seconds

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass; the timers due are run when the loop next runs."""
        # Up to the next microsecond, which the clock in the database can tell, and no timer is missed by less.
        self._seconds = math.ceil((self._seconds + seconds) * 1e6) / 1e6

    async def idle(self) -> float | None:
        """Wait until nothing can go on by itself. Returns the seconds until the next timer; None without one.

        With statements under way it returns once they have taken longer than the patience for them.
        """
        self._idle = self.create_future()
        return await self._idle

    def _nothing_is_ready(self, until_timer: float | None) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(until_timer)


class _Watching(selectors.DefaultSelector):  # type: ignore[misc, valid-type]  # the platform's own class
    """Asked to wait, it tells the loop instead, unless PostgreSQL owes an answer."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if self._loop._idle is None:
            # The scheduler itself waits for PostgreSQL.
            return super().select(0.1)
        if self._loop.under_way:
            found = super().select(PATIENCE_SECONDS)
            if found:
                return found
        self._loop._nothing_is_ready(timeout)
        return []


class VirtualClock:
    """The services' clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return self._loop.now()


class VirtualTimeModule:
    """Stands for the module ``time`` where the kernel measures how long something took."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    perf_counter = monotonic


def run_in(loop: VirtualLoop, coroutine: Any) -> Any:
    """Run a coroutine to its end; the loop can be used again."""
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(coroutine)
