"""Trueward's HTTP interface, as far as the demo asks it."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from examples.flights.model import MODEL
from examples.flights.story import Standing
from examples.flights.wire import Document


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

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def judged(self) -> Judged:
        """What alerting has made of the snapshots so far."""
        said = await self.monitoring()
        standing = {alert["alert_id"]: alert["escalation_level"] for alert in said["alerts"]}
        sequence = said["judged"]["snapshot_sequence"] if said["judged"] else 0
        return Judged(sequence, said["escalation"]["state"], standing)

    async def monitoring(self, **parameters: str) -> Document:
        """The figures of a version, segment and window (default: the champion's, of the policy's window)."""
        return await self._get("/api/v1/mlops/monitoring", model=MODEL, **parameters)

    async def known_model(self) -> Document | None:
        """The model's versions, champion and policy, as far as they are taken in; None while it is unknown."""
        models = (await self._get("/api/v1/models"))["models"]
        return next((model for model in models if model["model"] == MODEL), None)

    async def status(self) -> Document:
        """How the services and the parts they depend on are."""
        return await self._get("/api/v1/system/status")

    async def _get(self, path: str, **parameters: str) -> Document:
        try:
            answer = await self._client.get(path, params=parameters)
            answer.raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            raise GatewayAwayError(f"the gateway does not answer {path}: {error}") from error
        document: Document = answer.json()
        return document
