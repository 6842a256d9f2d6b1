"""The client of the gateway: publish, ask, run the policy, and hear what changes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Self, cast

import httpx

from trueward.client.errors import NotDecidedError
from trueward.client.hearing import Hearing
from trueward.client.publishing import Encoded, Publisher, Receipt, Refused
from trueward.client.transport import Parameters, Transport
from trueward.client.types import (
    AlertTransition,
    Job,
    JobStatus,
    KnownModel,
    Monitoring,
    OverviewModel,
    Point,
    PolicyRun,
    SystemStatus,
    Window,
)

PENDING_PAUSE_SECONDS = 0.5
LINES = {"Content-Type": "application/x-ndjson"}


class Trueward(Publisher):
    """A gateway. Usable from any thread, and as a context manager; ``close`` gives its connections back.

    ``patience_seconds`` is how long one call goes on asking a gateway that is away or too busy; one answer may
    take ``timeout_seconds``. ``http`` replaces the HTTP client: for certificates, proxies, headers.
    Methods raise ``AwayError`` and ``RequestRefusedError``.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        patience_seconds: float = 30.0,
        timeout_seconds: float = 20.0,
        http: httpx.Client | None = None,
    ) -> None:
        client = http if http is not None else httpx.Client(timeout=timeout_seconds, trust_env=False)
        self._transport = Transport(url, client, patience_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._transport.http.close()

    def monitoring(
        self,
        model: str,
        *,
        version: str | None = None,
        segment: str | None = None,
        window: Window | None = None,
    ) -> Monitoring:
        """Is the model still good? Figures, thresholds and standing alerts, as of the newest snapshot."""
        asked: Parameters = {"model": model, "version": version, "segment": segment, "window": window}
        return cast("Monitoring", self.get("/api/v1/mlops/monitoring", asked))

    def trend(self, model: str, *, days: int = 30) -> Iterator[Point]:
        """The champion's figures, snapshot by snapshot, newest first."""
        asked: Parameters = {"model": model, "days": days, "limit": 1_000}
        return cast("Iterator[Point]", self.pages("/api/v1/mlops/monitoring/trend", "points", asked))

    def policy(self, model: str) -> PolicyRun:
        """Should the model be retrained, and why? What the policy said of the newest snapshot; nothing is done."""
        return cast("PolicyRun", self.get("/api/v1/mlops/retrain/policy", {"model": model}))

    def run_policy(
        self,
        model: str,
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        requested_by: str | None = None,
        wait_seconds: float = 30.0,
    ) -> PolicyRun:
        """Run the policy now: it may queue a retraining job. The same key is the same run, however often asked.

        Without a key this call is a run of its own. Raises ``NotDecidedError`` where no decision comes in time.
        """
        key = idempotency_key or uuid.uuid4().hex
        body: dict[str, Any] = {"model": model, "dry_run": dry_run, "requested_by": requested_by}
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        answer = self._transport.ask("POST", "/api/v1/mlops/retrain/requests", content=content, headers=headers)
        deadline = time.monotonic() + wait_seconds
        while answer.status_code == httpx.codes.ACCEPTED:
            pending = self._transport.document(answer)
            if time.monotonic() + PENDING_PAUSE_SECONDS > deadline:
                said = f"the retrain service has not decided on {pending['request_id']} yet"
                raise NotDecidedError(said, key, pending["request_id"])
            time.sleep(PENDING_PAUSE_SECONDS)
            answer = self._transport.ask("GET", pending["location"])
        return cast("PolicyRun", self._transport.document(answer))

    def jobs(self, model: str | None = None, *, status: JobStatus | None = None) -> Iterator[Job]:
        """Retraining jobs, newest first."""
        asked: Parameters = {"model": model, "status": status, "limit": 200}
        return cast("Iterator[Job]", self.pages("/api/v1/mlops/retrain/jobs", "jobs", asked))

    def models(self) -> Iterator[KnownModel]:
        """The models known, by name."""
        return cast("Iterator[KnownModel]", self.pages("/api/v1/models", "models", {"limit": 1_000}))

    def overview(self) -> Iterator[OverviewModel]:
        """Every model at a glance, the worst first."""
        asked: Parameters = {"limit": 200, "sort": "worst"}
        return cast("Iterator[OverviewModel]", self.pages("/api/v1/overview", "models", asked))

    def status(self) -> SystemStatus:
        """Services, dependencies, lag, outboxes, the clock, and every champion's artifact."""
        return cast("SystemStatus", self.get("/api/v1/system/status"))

    def past_transitions(self, model: str) -> Iterator[AlertTransition]:
        """Every change of a model's alerts and state so far, newest first."""
        asked: Parameters = {"model": model, "limit": 500}
        pages = self.pages("/api/v1/mlops/alerts/transitions", "transitions", asked)
        return cast("Iterator[AlertTransition]", pages)

    def transitions(self, model: str | None = None) -> Iterator[AlertTransition]:
        """Every change of an alert or of a model's state from now on, as it comes, each once; it does not end.

        A lost connection is taken up again, and what happened meanwhile is told first. Raises ``AwayError`` where
        the gateway stays away for longer than the client's patience.
        """
        return Hearing(self._transport, self.past_transitions, self.models, model).transitions()

    def get(self, path: str, parameters: Parameters | None = None) -> Any:
        """The answer to any GET of the API, as JSON."""
        return self._transport.document(self._transport.ask("GET", path, parameters))

    def pages(self, path: str, items: str, parameters: Parameters | None = None) -> Iterator[Any]:
        """The items of any list of the API, asked for page by page as they are needed."""
        cursor: str | None = None
        while True:
            page = self.get(path, {**(parameters or {}), "cursor": cursor})
            yield from page[items]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _send(self, topic: str, batch: list[Encoded], offset: int, receipt: Receipt) -> None:
        content = b"\n".join(encoded.value for encoded in batch)
        answer = self._transport.ask("POST", f"/api/v1/ingest/{topic}", content=content, headers=LINES)
        said = self._transport.document(answer)
        receipt.accepted += said["accepted"]
        receipt.unknown_fields.update(said["unknown_fields"])
        receipt.refused += [
            Refused(offset + one["index"], one["field"], one["reason"], one["rule"]) for one in said["refused"]
        ]
