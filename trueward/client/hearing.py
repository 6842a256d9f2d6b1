"""Hearing of transitions as they happen, over server-sent events, with nothing lost when the connection is.

The stream starts at now, and says ``resync`` when it cannot tell what happened meanwhile. Then the transitions
that are on record are read: those of the snapshots judged since the stream was first joined, and not told yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import httpx

from trueward.client.errors import AwayError, RequestRefusedError
from trueward.client.transport import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Transport
from trueward.client.types import AlertTransition, KnownModel

SILENCE_SECONDS = 30.0
"""The gateway says something every ten seconds; silence for longer is a connection that is lost."""


@dataclass(frozen=True, slots=True)
class ServerSent:
    """One server-sent event."""

    kind: str
    data: Any
    id: str | None


class Hearing:
    """One listener's place in the stream."""

    def __init__(
        self,
        transport: Transport,
        past: Callable[[str], Iterator[AlertTransition]],
        models: Callable[[], Iterator[KnownModel]],
        model: str | None,
    ) -> None:
        self._transport = transport
        self._past = past
        self._models = models
        self._model = model
        self._base: dict[str, int] | None = None
        self._told: dict[str, int] = {}
        self._last_id: str | None = None

    def transitions(self) -> Iterator[AlertTransition]:
        """Transitions, each once, in the order of their model's sequence."""
        away_since: float | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                for event in self._connection():
                    away_since, pause = None, FIRST_PAUSE_SECONDS
                    yield from self._new(event)
            except (httpx.HTTPError, AwayError) as error:
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now + pause - away_since > self._transport.patience_seconds:
                    said = str(error) or type(error).__name__
                    url = self._transport.url
                    raise AwayError(f"the gateway at {url} no longer tells what happens ({said})") from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _connection(self) -> Iterator[ServerSent]:
        """The stream's events until the connection ends. The first is made here: the stream is joined."""
        headers = {"Accept": "text/event-stream"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        parameters = {} if self._model is None else {"model": self._model}
        with self._transport.http.stream(
            "GET",
            f"{self._transport.url}/api/v1/events",
            params=parameters,
            headers=headers,
            timeout=httpx.Timeout(SILENCE_SECONDS),
        ) as answer:
            if not answer.is_success:
                answer.read()
                raise self._transport.fault(answer)
            first = self._base is None
            if first:
                # After joining: what is judged from here on is told by the stream or found on record.
                # The transitions of the snapshot judged last may be on their way still.
                self._base = {model: judged - 1 for model, judged in self._judged().items()}
            # A stream that was lost before it gave anything an id cannot be taken up where it was.
            yield ServerSent("joined" if first or self._last_id is not None else "resync", {}, None)
            yield from events_of(answer.iter_lines())

    def _new(self, event: ServerSent) -> Iterator[AlertTransition]:
        self._last_id = event.id or self._last_id
        if event.kind == "alert":
            transition = cast("AlertTransition", event.data)
            if self._is_new(transition):
                yield transition
        elif event.kind == "resync":
            yield from self._missed()

    def _is_new(self, transition: AlertTransition) -> bool:
        model, number = transition["model"], transition["alert_sequence"]
        if number <= self._told.get(model, 0):
            return False
        self._told[model] = number
        return True

    def _missed(self) -> Iterator[AlertTransition]:
        base = self._base or {}
        for model, judged in self._judged().items():
            begin = base.get(model, 0)
            if judged <= begin:
                continue
            missed: list[AlertTransition] = []
            for transition in self._past(model):
                told = transition["alert_sequence"] <= self._told.get(model, 0)
                if told or transition["snapshot_sequence"] <= begin:
                    break
                missed.append(transition)
            yield from filter(self._is_new, reversed(missed))

    def _judged(self) -> dict[str, int]:
        """Of each model, the sequence of the snapshot that alerting has judged last."""
        return {
            known["model"]: known["snapshot_sequence"]["alerting"] or 0
            for known in self._models()
            if self._model in (None, known["model"])
        }


def events_of(lines: Iterator[str]) -> Iterator[ServerSent]:
    """Server-sent events from the lines of a stream, as the HTML standard reads them; comments are passed over."""
    kind, data, identity = "message", list[str](), None
    for line in lines:
        if not line:
            if data:
                yield ServerSent(kind, _document("\n".join(data)), identity)
            kind, data, identity = "message", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            identity = value


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RequestRefusedError(f"the stream told of something that is no JSON: {error}", 200, {}) from error
