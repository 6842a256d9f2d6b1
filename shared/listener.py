"""LISTEN: PostgreSQL's notifications as asyncio events."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import Any

import structlog

from shared.database import connect

CHECK_SECONDS = 5.0
log = structlog.get_logger()


class Listener:
    """One connection beside the pool that turns NOTIFY into events.

    A lost connection may have lost notifications, so every event is set after connecting again; whoever waits
    on one looks for itself and has a slow poll as a safety net.
    """

    def __init__(self, dsn: str, *, role: str, application_name: str) -> None:
        self._dsn = dsn
        self._role = role
        self._application_name = application_name
        self._events: dict[str, list[asyncio.Event]] = defaultdict(list)
        self._stirred = asyncio.Event()

    def event(self, channel: str) -> asyncio.Event:
        """An event of the caller's own that is set at each notification on ``channel``."""
        event = asyncio.Event()
        self._events[channel].append(event)
        self._stirred.set()
        return event

    async def run(self) -> None:
        """Listen until cancelled. Raises when the connection is lost: the caller runs it again."""
        connection = await connect(self._dsn, role=self._role, application_name=self._application_name)
        try:
            connection.add_termination_listener(lambda _connection: self._stirred.set())
            heard: set[str] = set()
            while True:
                self._stirred.clear()
                for channel in set(self._events) - heard:
                    await connection.add_listener(channel, self._set)
                    heard.add(channel)
                    # What was notified before we listened is looked for by whoever waits.
                    self._set(None, 0, channel, None)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stirred.wait(), CHECK_SECONDS)
                await connection.execute("SELECT 1", timeout=CHECK_SECONDS)
        finally:
            connection.terminate()

    def _set(self, _connection: Any, _pid: int, channel: str, _payload: object) -> None:
        for event in self._events[channel]:
            event.set()
