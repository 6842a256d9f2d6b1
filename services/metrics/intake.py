"""From a batch of records to what the join and the clock work on; what is refused becomes a dead letter here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from services.metrics.domain.buckets import MICROSECONDS
from services.metrics.domain.clock import Gate
from services.metrics.domain.contributions import BinaryScore, decides_positive, score
from services.metrics.domain.identity import id_of, key_of
from services.metrics.domain.joining import Label, StoredPrediction
from services.metrics.domain.kinds import Kind, names_of_version
from services.metrics.domain.multiclass import ClassScores, score_classes
from shared import topics
from shared.contracts import observations
from shared.contracts.base import Contract, unknown_fields
from shared.contracts.models import ModelVersion, Policy
from shared.decoding import decode
from shared.effects import Effects
from shared.errors import Refusal
from shared.instruments import UNKNOWN_FIELDS_TOTAL
from shared.publishing import unsupported
from shared.records import Place, Record

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_TOPICS = (topics.PREDICTIONS, topics.LABELS, topics.PIPELINE_RUNS)
"""The topics whose partitions carry event time."""

_CLOCK_NAMES = frozenset(topic.name for topic in CLOCK_TOPICS)
Segments = tuple[tuple[str, str], ...]


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970."""
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * MICROSECONDS + since.microseconds


def moment_of(microseconds_since_1970: int) -> datetime:
    """The inverse of :func:`microseconds`."""
    return EPOCH + timedelta(microseconds=microseconds_since_1970)


@dataclass(frozen=True, slots=True)
class NewPrediction:
    """A prediction as it arrived: what is stored, and the names behind its ids."""

    record: Record
    stored: StoredPrediction
    model: str
    version: str
    segments: Segments
    data_as_of: int | None
    kind: Kind = "binary"


@dataclass(slots=True)
class Batch:
    """What a batch says, by kind, in the order of the records. Labels by entity."""

    predictions: list[NewPrediction] = field(default_factory=list)
    labels: list[tuple[str, Label]] = field(default_factory=list)
    runs: list[observations.PipelineRun] = field(default_factory=list)
    versions: list[ModelVersion] = field(default_factory=list)
    policies: list[tuple[Record, Policy]] = field(default_factory=list)
    reached: dict[Place, int] = field(default_factory=dict)


def read(records: Sequence[Record], effects: Effects, gate: Gate | None) -> Batch:
    """Decode a batch up to where the event clock (``gate``, None on the wall clock) holds each partition."""
    return sort_in(((record, decode_record(record)) for record in records), effects, gate)


def sort_in(decoded: Iterable[tuple[Record, Contract | Refusal]], effects: Effects, gate: Gate | None) -> Batch:
    """The same for records that are decoded already."""
    batch = Batch()
    for record, event in decoded:
        place = (record.topic, record.partition)
        if place in batch.reached:
            continue
        if isinstance(event, Refusal):
            effects.refuse(record, event)
            continue
        if gate is not None and record.topic in _CLOCK_NAMES:
            occurred_at = microseconds(event.occurred_at)  # type: ignore[attr-defined]  # clock topics' events have it
            if gate.holds(occurred_at):
                effects.hold(record, until=gate.tag)
                batch.reached[place] = occurred_at
                continue
        extra = unknown_fields(event)
        if extra:
            effects.count(UNKNOWN_FIELDS_TOTAL, len(extra), topic=record.topic)
        _sort_one_in(batch, record, event, effects)
    return batch


def decode_record(record: Record) -> Contract | Refusal:
    """A record's event, in any of the forms that its topic takes, or why there is none."""
    contract = topics.topic_named(record.topic).contract
    event = decode(record, contract)
    if isinstance(event, Refusal) and record.topic in _CLOCK_NAMES and event.reason == "invalid":
        return _decode_other_form(record, event)
    return event


def _decode_other_form(record: Record, refusal: Refusal) -> Contract | Refusal:
    """A tick, or an OpenLineage event among the pipeline runs; else the first refusal stands."""
    document = json.loads(record.value or b"null")
    if not isinstance(document, dict):
        return refusal
    if "tick" in document:
        return decode(record, observations.Tick)
    if record.topic == topics.PIPELINE_RUNS.name and "eventTime" in document:
        return decode(record, observations.OpenLineageRunEvent)
    return refusal


def _sort_one_in(batch: Batch, record: Record, event: Contract, effects: Effects) -> None:
    if isinstance(event, observations.OpenLineageRunEvent):
        run = event.as_pipeline_run()
        if run is None:
            return
        event = run
    match event:
        case observations.Prediction():
            refusal = unsupported(event)
            if refusal is None:
                batch.predictions.append(_new_prediction(record, event))
            else:
                effects.refuse(record, refusal)
        case observations.Label():
            batch.labels.append((event.entity_id, Label(microseconds(event.observed_at), event.outcome)))
        case observations.PipelineRun():
            batch.runs.append(event)
        case observations.Tick():
            pass
        case ModelVersion():
            batch.versions.append(event)
        case Policy():
            batch.policies.append((record, event))
        case _:
            raise AssertionError(f"no rule for {type(event).__name__}")


class _Said(NamedTuple):
    """What a prediction says, by its kind, and in what words it is the same prediction."""

    kind: Kind
    words: object
    predicted: int | str | None
    probability: float = 0.0
    answer: ClassScores | float | None = None


def _said(event: observations.Prediction) -> _Said:
    # -0.0 is the same number as 0.0, and must not look like another prediction: + 0.0 makes it so.
    if event.probability is not None:
        probability = event.probability + 0.0
        predicted = event.predicted if isinstance(event.predicted, int) else None
        return _Said("binary", probability, predicted, probability=probability)
    if event.value is not None:
        value = event.value + 0.0
        # Told apart from a probability, which is written as the number alone.
        return _Said("regression", ("value", value), None, answer=value)
    probabilities = {name: given + 0.0 for name, given in sorted((event.probabilities or {}).items())}
    decided = event.predicted if isinstance(event.predicted, str) else None
    return _Said("multiclass", probabilities, decided, answer=score_classes(probabilities, decided))


def _new_prediction(record: Record, event: observations.Prediction) -> NewPrediction:
    segments = tuple(sorted(event.segment.items()))
    said = _said(event)
    scored = score(said.probability) if said.kind == "binary" else _NO_SCORE
    predicted_at = microseconds(event.predicted_at)
    data_as_of = None if event.data_as_of is None else microseconds(event.data_as_of)
    content = repr(
        (
            event.model,
            event.model_version,
            predicted_at,
            said.words,
            said.predicted,
            event.entity,
            segments,
            data_as_of,
        )
    )
    stored = StoredPrediction(
        prediction_key=key_of(event.prediction_id),
        entity_key=key_of(event.entity),
        version_id=id_of(*names_of_version(event.model, event.model_version, said.kind)),
        segment_id=id_of(*(part for pair in segments for part in pair)),
        predicted_at=predicted_at,
        content_hash=int.from_bytes(
            hashlib.blake2b(content.encode(), digest_size=8).digest(), "little", signed=True
        ),
        probability=said.probability,
        predicted_positive=said.kind == "binary"
        and decides_positive(said.probability, said.predicted if isinstance(said.predicted, int) else None),
        squared_error_if_negative=scored.squared_error_if_negative,
        squared_error_if_positive=scored.squared_error_if_positive,
        log_loss_if_negative=scored.log_loss_if_negative,
        log_loss_if_positive=scored.log_loss_if_positive,
        answer=said.answer,
    )
    return NewPrediction(record, stored, event.model, event.model_version, segments, data_as_of, said.kind)


_NO_SCORE = BinaryScore(0, 0, 0, 0)
"""Of what gives no probability of a positive outcome."""
