"""Granian, embedded: serves the gateway's application in this process, on a socket that is bound already."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from granian import net
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from shared.errors import TruewardError

GRACE_SECONDS = 5
"""How long answers that are under way when the gateway is told to stop may still take."""
BACKLOG = 2_048
MOST_AT_ONCE = 65_536
"""Connections. Granian would serve as many as its backlog has, 128 by itself, and event streams stay open."""
LOGGER = "_granian"
SocketHolder: Any = net.SocketHolder  # type: ignore[attr-defined]  # its type information has another one


class _Embedded(Server):
    """Granian on a socket of ours: by itself it would bind one late, and say so in its own words."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        self._listening = listening
        super().__init__(
            app,
            # The lifespan is ours: an error in it must end the process.
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=MOST_AT_ONCE,
        )
        # It has just given its logger handlers of its own, and a level.
        logger = logging.getLogger(LOGGER)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.ERROR)

    def _init_shared_socket(self) -> None:
        holder = SocketHolder(self._listening.fileno(), False, self.backlog)
        self._ssp, self._shd, self._sfd = None, holder, self._listening.fileno()  # type: ignore[assignment]  # untyped


def run(app: FastAPI, listening: socket.socket, work: Callable[[], Awaitable[None]]) -> None:
    """Serve in this process until SIGTERM or SIGINT; ``work`` runs beside it and is cancelled first.

    Raises what ends it before that.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(app, listening, work))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32" or sys.implementation.name != "cpython":
        return None
    import uvloop  # noqa: PLC0415 - not there elsewhere

    return uvloop.new_event_loop


def _spare_the_collector() -> None:
    """What is there now stays: without this every full collection walks through it and holds up all requests.

    It is 130,000 objects and 60 milliseconds, twice a second under load.
    """
    gc.collect()
    gc.freeze()


async def serve(app: FastAPI, listening: socket.socket, work: Callable[[], Awaitable[None]]) -> None:
    """Serve until told to stop, then let what is under way end. Raises what ends it before that."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening.setblocking(False)
    async with app.router.lifespan_context(app):
        _spare_the_collector()
        server = _Embedded(app, listening)
        serving = asyncio.create_task(server.serve())
        beside: list[asyncio.Task[Any]] = [
            asyncio.create_task(stop.wait()),
            asyncio.ensure_future(work()),
        ]
        await asyncio.wait([serving, *beside], return_when=asyncio.FIRST_COMPLETED)
        ended_by_itself = serving.done()
        for task in beside:
            task.cancel()
        results = await asyncio.gather(*beside, return_exceptions=True)
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait([serving], timeout=GRACE_SECONDS)
    if serving.done():
        serving.result()
    if ended_by_itself:
        raise TruewardError("the HTTP server has ended by itself")
    for result in results:
        if isinstance(result, Exception):
            raise result
