"""The common work: predictions and labels generated from a seed, and what they must come to, in plain Python.

Published in the order of event time, as the world would: a label ten minutes after its prediction, 10 % of the
labels before it; 5 % of the records come again, 2 % of the labels are corrected.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shared.topics import LABELS, PREDICTIONS

SECOND = 1_000_000
START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * SECOND
BETWEEN_PREDICTIONS = SECOND // 10
LABEL_DELAY, EARLY_BY, REPEATED_AFTER, CORRECTED_AFTER = 600 * SECOND, 5 * SECOND, 30 * SECOND, 1_200 * SECOND
MODELS = 20
SHARE_EARLY, SHARE_DUPLICATE, SHARE_CORRECTED = 0.10, 0.05, 0.02
EVEN_CHANCE = 500
VERSION = "2026-01"


def iso(moment: int) -> str:
    """Microseconds since 1970 as RFC 3339, always with six digits, so that texts compare as times do."""
    return datetime.fromtimestamp(moment / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def model_name(number: int) -> str:
    return f"model-{number:02d}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction about an entity of its own; its probability in thousandths, so that sums are exact."""

    entity: str
    model: str
    predicted_at: int
    thousandths: int

    topic = PREDICTIONS.name

    def value(self) -> bytes:
        document = {
            "prediction_id": self.entity,
            "model": self.model,
            "model_version": VERSION,
            "predicted_at": iso(self.predicted_at),
            "probability": self.thousandths / 1000,
            "segment": {"region": "north-west"},
        }
        return json.dumps(document).encode()


@dataclass(frozen=True, slots=True)
class Label:
    """What happened to an entity: 0 or 1."""

    entity: str
    outcome: int
    observed_at: int

    topic = LABELS.name

    def value(self) -> bytes:
        document = {
            "entity_id": self.entity,
            "outcome": self.outcome,
            "observed_at": iso(self.observed_at),
            "source": "what-happened",
        }
        return json.dumps(document).encode()


Event = Prediction | Label


def events(count: int, seed: int, start: int = START) -> Iterator[Event]:
    """``count`` predictions, as many labels, the repeats and the corrections, in the order of publication.

    ``start``: when the first is made, in microseconds since 1970.
    """
    rng = random.Random(seed)
    weights = [1 / rank for rank in range(1, MODELS + 1)]
    models = [model_name(number) for number in range(MODELS)]
    waiting: list[tuple[int, int, Event]] = []
    pushed = 0

    def later(moment: int, event: Event) -> None:
        nonlocal pushed
        heapq.heappush(waiting, (moment, pushed, event))
        pushed += 1

    for number in range(count):
        moment = start + number * BETWEEN_PREDICTIONS
        entity = f"entity-{seed}-{number:012d}"
        thousandths = rng.randrange(1001)
        prediction = Prediction(entity, rng.choices(models, weights)[0], moment, thousandths)
        label = Label(entity, int(rng.random() < thousandths / 1000), moment + LABEL_DELAY)
        labelled = moment - EARLY_BY if rng.random() < SHARE_EARLY else label.observed_at
        later(moment, prediction)
        later(labelled, label)
        for published, event in ((moment, prediction), (labelled, label)):
            if rng.random() < SHARE_DUPLICATE:
                later(published + REPEATED_AFTER, event)
        if rng.random() < SHARE_CORRECTED:
            corrected = Label(entity, 1 - label.outcome, moment + CORRECTED_AFTER)
            later(corrected.observed_at, corrected)
        # An early label of the next one is published EARLY_BY before its prediction, and nothing is earlier.
        while waiting and waiting[0][0] < moment + BETWEEN_PREDICTIONS - EARLY_BY:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


BucketKey = tuple[str, str]
"""A model and a minute, as ``2026-01-01T00:00``."""


@dataclass(slots=True)
class Bucket:
    """Exact sums over one minute of one model; errors in the units of the service (1e-12, 1e-9)."""

    predictions: int = 0
    evaluated: int = 0
    correct: int = 0
    positives: int = 0
    squared_error: int = 0
    log_loss: int = 0


@dataclass(slots=True)
class Expected:
    """What a set of events must come to, whatever the order: fill with ``add``, then ask for ``buckets``."""

    records: int = 0
    _predictions: dict[str, Prediction] = field(default_factory=dict)
    _labels: dict[str, Label] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        self.records += 1
        if isinstance(event, Prediction):
            self._predictions.setdefault(event.entity, event)
            return
        standing = self._labels.get(event.entity)
        if standing is None or (event.observed_at, event.outcome) > (standing.observed_at, standing.outcome):
            self._labels[event.entity] = event

    def buckets(self) -> dict[BucketKey, Bucket]:
        """By model and minute: predictions in that of ``predicted_at``, the rest in that of the evaluation."""
        found: dict[BucketKey, Bucket] = defaultdict(Bucket)
        for entity, prediction in self._predictions.items():
            found[prediction.model, iso(prediction.predicted_at)[:16]].predictions += 1
            label = self._labels.get(entity)
            if label is not None:
                moment = max(prediction.predicted_at, label.observed_at)
                _evaluate(found[prediction.model, iso(moment)[:16]], prediction.thousandths, label.outcome)
        return dict(found)


_LOG_LOSS = [round(-math.log(max(given / 1000, 1e-15)) * 1e9) for given in range(1001)]


def _evaluate(bucket: Bucket, thousandths: int, outcome: int) -> None:
    missed = 1000 - thousandths if outcome else thousandths
    bucket.evaluated += 1
    bucket.correct += (thousandths >= EVEN_CHANCE) == bool(outcome)
    bucket.positives += outcome
    bucket.squared_error += missed * missed * 10**6
    bucket.log_loss += _LOG_LOSS[1000 - missed]
