"""Publishing: four kinds of events, in batches, by whichever way they go."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trueward.client.errors import ClientError, EventsRefusedError
from trueward.client.types import Label, ModelVersion, OpenLineageRunEvent, PipelineRun, Prediction

MOST_EVENTS = 10_000
MOST_BYTES = 4 * 1024 * 1024
"""Of one batch: what the gateway takes at once, with room to spare."""

AnyEvent = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not sent. ``index`` counts from 0 through everything that one call was given."""

    index: int
    field: str | None
    reason: str
    rule: str


@dataclass(slots=True)
class Receipt:
    """What became of the events of a call. ``unknown_fields`` were accepted, but nothing will read them."""

    accepted: int = 0
    refused: list[Refused] = field(default_factory=list)
    unknown_fields: Counter[str] = field(default_factory=Counter)


class Publisher(ABC):
    """Publishes events. The same events sent twice change nothing: after an ``AwayError`` call again.

    Every method takes one event or any number of them, of whatever length; a time may be a ``datetime`` with zone.
    """

    def publish_predictions(self, events: Prediction | Iterable[Prediction], *, strict: bool = True) -> Receipt:
        """A model said something. Returns when the broker has all that was accepted.

        Raises ``EventsRefusedError`` if any was refused, unless not ``strict``; ``AwayError``.
        """
        return self._publish("predictions", events, strict=strict)

    def publish_labels(self, events: Label | Iterable[Label], *, strict: bool = True) -> Receipt:
        """What happened. As ``publish_predictions``."""
        return self._publish("labels", events, strict=strict)

    def publish_pipeline_runs(
        self,
        events: PipelineRun | OpenLineageRunEvent | Iterable[PipelineRun | OpenLineageRunEvent],
        *,
        strict: bool = True,
    ) -> Receipt:
        """A data pipeline finished. As ``publish_predictions``."""
        return self._publish("pipeline-runs", events, strict=strict)

    def publish_model_versions(
        self, events: ModelVersion | Iterable[ModelVersion], *, strict: bool = True
    ) -> Receipt:
        """A model version was registered, promoted or retired. As ``publish_predictions``."""
        return self._publish("model-versions", events, strict=strict)

    def _publish(self, topic: str, events: Any, *, strict: bool) -> Receipt:
        receipt = Receipt()
        offset = 0
        for batch in batches([events] if isinstance(events, Mapping) else events):
            self._send(topic, batch, offset, receipt)
            offset += len(batch)
        if strict and receipt.refused:
            raise EventsRefusedError(receipt)
        return receipt

    @abstractmethod
    def _send(self, topic: str, batch: list[Encoded], offset: int, receipt: Receipt) -> None:
        """Send a batch and note what became of it; ``offset`` is the first event's place in the call."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event, and its JSON in one line."""

    event: AnyEvent
    value: bytes


def batches(events: Iterable[AnyEvent]) -> Iterator[list[Encoded]]:
    """Events in batches that the gateway takes. Raises ``ClientError`` for what is no JSON object."""
    batch: list[Encoded] = []
    size = 0
    for index, event in enumerate(events):
        value = encode(event, index)
        if batch and (len(batch) == MOST_EVENTS or size + len(value) > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(Encoded(event, value))
        size += len(value) + 1
    if batch:
        yield batch


def encode(event: AnyEvent, index: int) -> bytes:
    """An event's JSON. Raises ``ClientError`` naming the event's index."""
    if not isinstance(event, Mapping):
        raise ClientError(f"event {index} is no mapping but {type(event).__name__}")
    try:
        return json.dumps(dict(event), separators=(",", ":"), allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise ClientError(f"event {index} cannot be said in JSON: {error}") from error


def _plain(value: object) -> object:
    """Times, and the scalars of numpy, as JSON has them."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.isoformat()
    item = getattr(value, "item", None)
    if callable(item):
        plain = item()
        if isinstance(plain, bool | int | str) or (isinstance(plain, float) and math.isfinite(plain)):
            return plain
    raise TypeError(f"{type(value).__name__} is no JSON type")
