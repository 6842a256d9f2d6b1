"""What the columns take as plain must be what the contract reads from the same bytes: one judge for every test."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services.metrics import intake
from services.metrics.domain.hot.states import PREDICTION_FIELDS
from services.metrics.domain.identity import key_of
from services.metrics.domain.joining import Label, StoredPrediction
from services.metrics.hot.combinations import Combinations
from services.metrics.hot.decoding import Decoded, PlainLabels, decode
from shared.contracts import observations
from shared.contracts.base import unknown_fields
from shared.records import Record, Run
from shared.topics import LABELS, PREDICTIONS

SCORES = tuple(field for field in PREDICTION_FIELDS if field not in ("predicted", "combination"))
"""Fields of a state that a stored prediction has under the same names."""


def taken_as_plain(topic: str, values: Sequence[bytes | None], received_at: datetime) -> list[int]:
    """The places of what is taken as plain, after asserting that the contract says the same of each."""
    records = [Record(topic, 0, place, received_at, None, value) for place, value in enumerate(values)]
    # A run of the other topic stands before, so that the numbers of runs count.
    other = LABELS.name if topic == PREDICTIONS.name else PREDICTIONS.name
    runs = [Run.of((other, 0), [Record(other, 0, 0, received_at, None, b"{}")]), Run.of((topic, 0), records)]
    decoded = decode(runs, Combinations())
    origins = [*decoded.predictions.origins.tolist(), *decoded.labels.origins.tolist()]
    assert all(number == 1 for number, _ in origins)
    places = [place for _, place in origins]
    assert places == sorted(set(places))
    assert decoded.others(runs) == [(0, 0), *((1, place) for place in range(len(values)) if place not in places)]
    if topic == PREDICTIONS.name:
        assert not len(decoded.labels.keys)
    else:
        assert not len(decoded.predictions.keys)
    for row, place in enumerate(places):
        if topic == PREDICTIONS.name:
            _same_prediction(decoded, row, records[place])
        else:
            _same_label(decoded.labels, row, records[place])
    return places


def _same_prediction(decoded: Decoded, row: int, record: Record) -> None:
    event = intake.decode_record(record)
    assert isinstance(event, observations.Prediction), (record.value, event)
    assert not unknown_fields(event), record.value
    new, found = intake._new_prediction(record, event), decoded.predictions
    state, key = found.states[row], UUID(bytes=found.keys[row].tobytes())
    assert key == key_of(event.prediction_id), record.value
    assert state["plain"]
    assert state["predicted"]
    assert not state["labelled"]
    named = decoded.combinations[int(state["combination"])]
    scores = {field: state[field].item() for field in SCORES}
    stored = StoredPrediction(key, key, named.version_id, named.segment_id, **scores)
    assert stored == new.stored, record.value
    assert repr(stored.probability) == repr(new.stored.probability), "-0.0 equals 0.0, but is stored otherwise"
    assert (named.model, named.version, tuple(named.segments)) == (new.model, new.version, new.segments)
    data_as_of = int(found.data_as_of[row]) if found.has_data_as_of[row] else None
    assert data_as_of == new.data_as_of, record.value
    assert new.kind == "binary"


def _same_label(found: PlainLabels, row: int, record: Record) -> None:
    event = intake.decode_record(record)
    assert isinstance(event, observations.Label), (record.value, event)
    assert not unknown_fields(event), record.value
    assert found.keys[row].tobytes() == key_of(event.entity_id).bytes, record.value
    label = Label(int(found.observed_at[row]), float(found.positive[row]))
    assert label == Label(intake.microseconds(event.observed_at), event.outcome), record.value
