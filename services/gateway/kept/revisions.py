"""The revision of a model's figures and alerts, as the database has it after one asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

ReadRevisions = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""Reads the revisions of some models, in one statement; a model without a snapshot has none."""


class Revisions:
    """Answers every question by a read that began after it was asked; one read answers all that wait for it.

    At most one read is on its way at a time: however many ask, the database is asked no oftener than it answers.
    """

    def __init__(self, read: ReadRevisions) -> None:
        self._read = read
        self._waiting: dict[str, list[asyncio.Future[str | None]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def of(self, model: str) -> str | None:
        """The model's revision now; None before its first snapshot. Raises what reading raises."""
        # One each: who goes away while he waits must not take the answer of the others with him.
        told: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(model, []).append(told)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_for_all())
        return await told

    async def _read_for_all(self) -> None:
        try:
            while self._waiting:
                # Who asks from here on may ask about what this read no longer sees: he waits for the next one.
                asked, self._waiting = self._waiting, {}
                try:
                    found = await self._read(list(asked))
                except Exception as error:  # noqa: BLE001 - it is raised to each that asked
                    _refuse(asked, error)
                except BaseException:
                    _cancel(asked)
                    raise
                else:
                    _tell(asked, found)
        finally:
            self._reading = None
            _cancel(self._waiting)


Asked = Mapping[str, list["asyncio.Future[str | None]"]]


def _tell(asked: Asked, found: Mapping[str, str]) -> None:
    for model, waiting in asked.items():
        revision = found.get(model)
        for told in waiting:
            if not told.done():
                told.set_result(revision)


def _refuse(asked: Asked, error: Exception) -> None:
    for waiting in asked.values():
        for told in waiting:
            if not told.done():
                told.set_exception(error)


def _cancel(asked: Asked) -> None:
    for waiting in asked.values():
        for told in waiting:
            told.cancel()
