"""LISTEN: PostgreSQL's notifications as asyncio events."""

from __future__ import annotations

import asyncio
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

    def event(self, channel: str) -> asyncio.Event:
        """An event of the caller's own that is set at each notification on ``channel``. Ask before ``run``."""
        event = asyncio.Event()
        self._events[channel].append(event)
        return event

    async def run(self) -> None:
        """Listen until cancelled. Raises when the connection is lost: the caller runs it again."""
        connection = await connect(self._dsn, role=self._role, application_name=self._application_name)
        try:
            for channel in self._events:
                await connection.add_listener(channel, self._set)
            for channel in self._events:
                self._set(None, 0, channel, None)
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                await connection.execute("SELECT 1", timeout=CHECK_SECONDS)
        finally:
            connection.terminate()

    def _set(self, _connection: Any, _pid: int, channel: str, _payload: object) -> None:
        for event in self._events[channel]:
            event.set()
