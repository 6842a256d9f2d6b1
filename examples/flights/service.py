"""Trueward's HTTP interface, as far as the demo asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar, cast

from examples.flights.model import MODEL
from examples.flights.story import Standing
from examples.flights.wire import Document
from trueward.client import AwayError, RequestRefusedError, Trueward
from trueward.client.types import Window

P = ParamSpec("P")
T = TypeVar("T")


class GatewayAwayError(ConnectionError):
    """The gateway does not answer just now."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How far alerting has come, and what it holds: ``sequence`` is 0 before the first snapshot."""

    sequence: int
    state: str
    standing: Standing


class Gateway:
    """Asks the gateway. Every call raises :class:`GatewayAwayError` where there is no answer."""

    def __init__(self, client: Trueward) -> None:
        self._client = client

    async def judged(self) -> Judged:
        """What alerting has made of the snapshots so far."""
        said = await self.monitoring()
        standing = {alert["alert_id"]: alert["escalation_level"] for alert in said["alerts"]}
        sequence = said["judged"]["snapshot_sequence"] if said["judged"] else 0
        return Judged(sequence, said["escalation"]["state"], standing)

    async def monitoring(self, *, version: str | None = None, window: Window | None = None) -> Document:
        """The figures of a version and window (default: the champion's, of the policy's window)."""
        return cast("Document", await self._ask(self._client.monitoring, MODEL, version=version, window=window))

    async def known_model(self) -> Document | None:
        """The model's versions, champion and policy, as far as they are taken in; None while it is unknown."""
        models = await self._ask(lambda: list(self._client.models()))
        return next((cast("Document", model) for model in models if model["model"] == MODEL), None)

    async def status(self) -> Document:
        """How the services and the parts they depend on are."""
        return cast("Document", await self._ask(self._client.status))

    async def _ask(self, question: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        """The client waits for its answers; the demo goes on meanwhile."""
        try:
            return await asyncio.to_thread(question, *arguments, **more)
        except (AwayError, RequestRefusedError) as error:
            raise GatewayAwayError(f"the gateway does not answer: {error}") from error
