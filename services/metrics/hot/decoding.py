"""Plain events read from bytes into columns: the same that the contracts read, or left for them to judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from services.metrics.domain.contributions import DECISION_THRESHOLD, PROBABILITY_CLIP
from services.metrics.domain.hot.states import States, nothing_known
from services.metrics.domain.hot.times import read_times
from services.metrics.hot.combinations import Combinations
from services.metrics.intake import microseconds
from shared.contracts.base import NAME_LENGTH
from shared.decoding import LARGEST_LEAD
from shared.records import Run
from shared.topics import LABELS, MAX_RECORD_BYTES, PREDICTIONS

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH)]
_Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
_LEAD = LARGEST_LEAD // timedelta(microseconds=1)


class _Prediction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    prediction_id: _Name
    model: _Name
    model_version: _Name
    predicted_at: str
    probability: _Probability
    entity_id: _Name | None = None
    predicted: Literal[0, 1] | None = None
    segment: dict[_Name, _Name] = {}
    data_as_of: str | None = None


class _Label(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    entity_id: _Name
    outcome: Literal[0, 1]
    observed_at: str
    source: _Name | None = None


_decode_prediction = msgspec.json.Decoder(_Prediction).decode
_decode_label = msgspec.json.Decoder(_Label).decode
_E = TypeVar("_E", _Prediction, _Label)


@dataclass(frozen=True, slots=True)
class PlainPredictions:
    """Binary predictions whose entity is their own id, in columns.

    ``places`` are those of their records in the run, ``keys`` those of their ids, ``states`` what each would be
    alone. ``data_as_of`` in microseconds since 1970, where ``has_data_as_of``.
    """

    places: Integers
    keys: list[bytes]
    states: States
    data_as_of: Integers
    has_data_as_of: Mask


@dataclass(frozen=True, slots=True)
class PlainLabels:
    """Labels of 0 or 1, in columns; ``observed_at`` in microseconds since 1970."""

    places: Integers
    keys: list[bytes]
    observed_at: Integers
    positive: Mask


@dataclass(frozen=True, slots=True)
class Decoded:
    """A run: its plain events, and the places of the other records.

    ``combinations`` are those that the states' numbers are of.
    """

    predictions: PlainPredictions | None
    labels: PlainLabels | None
    others: Integers
    combinations: Combinations

    def reaches(self, moment: int) -> bool:
        """Whether a plain event happened at a moment (microseconds since 1970) or later."""
        times = [self.predictions.states["predicted_at"]] if self.predictions is not None else []
        times += [self.labels.observed_at] if self.labels is not None else []
        return any((found >= moment).any() for found in times)


def key_of(identifier: str) -> bytes:
    """The bytes of :func:`identity.key_of`."""
    return blake2b(identifier.encode(), digest_size=16).digest()


def decode(run: Run, combinations: Combinations) -> Decoded:
    """Read what is plain in a run. Of topics that hold neither predictions nor labels nothing is."""
    latest = microseconds(run.received_between()[0]) + _LEAD
    match run.place[0]:
        case PREDICTIONS.name:
            events, places = _read(run, _decode_prediction)
            predictions = _predictions(events, places, latest, combinations)
            return Decoded(predictions, None, _others(run, predictions.places), combinations)
        case LABELS.name:
            said, places = _read(run, _decode_label)
            labels = _labels(said, places, latest)
            return Decoded(None, labels, _others(run, labels.places), combinations)
        case _:
            return nothing_plain(run, combinations)


def nothing_plain(run: Run, combinations: Combinations) -> Decoded:
    """The run as records of which each is to be taken by itself."""
    return Decoded(None, None, np.arange(len(run)), combinations)


def _others(run: Run, plain: Integers) -> Integers:
    others = np.ones(len(run), dtype=np.bool_)
    others[plain] = False
    return np.flatnonzero(others)


def _read(run: Run, decode_one: Callable[[bytes], _E]) -> tuple[list[_E], list[int]]:
    """The events that follow the strict form, and the places of their records.

    What is written with a backslash, and so in more than one way, is left to the contract.
    """
    values = run.values()
    suspect = any(value is None for value in values)
    suspect = suspect or b"\\" in b"".join(values) or max(map(len, values), default=0) > MAX_RECORD_BYTES  # type: ignore[arg-type]
    events: list[_E] = []
    places: list[int] = []
    for place, value in enumerate(values):
        if value is None or (suspect and (b"\\" in value or len(value) > MAX_RECORD_BYTES)):
            continue
        try:
            events.append(decode_one(value))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        places.append(place)
    return events, places


def _predictions(
    events: list[_Prediction], places: list[int], latest: int, combinations: Combinations
) -> PlainPredictions:
    at, plain = read_times([event.predicted_at for event in events])
    plain &= at <= latest
    has_data = np.array([event.data_as_of is not None for event in events], dtype=np.bool_)
    data_as_of, read = (
        read_times([event.data_as_of or "" for event in events]) if has_data.any() else (at, ~has_data)
    )
    plain &= read | ~has_data
    numbers = [combinations.number_of(event.model, event.model_version, event.segment) for event in events]
    plain &= np.array([number is not None for number in numbers], dtype=np.bool_)
    plain &= np.array([event.entity_id in (None, event.prediction_id) for event in events], dtype=np.bool_)
    kept = np.flatnonzero(plain)
    chosen = kept.tolist()
    events = [events[place] for place in chosen]
    states = _states(events, at[kept], [numbers[place] or 0 for place in chosen])
    words = _words(
        events,
        states,
        [
            data if has else None
            for data, has in zip(data_as_of[kept].tolist(), has_data[kept].tolist(), strict=True)
        ],
        combinations,
    )
    digests = b"".join([blake2b(said.encode(), digest_size=8).digest() for said in words])
    states["content_hash"] = np.frombuffer(digests, dtype="<i8")
    return PlainPredictions(
        places=np.array(places, dtype=np.int64)[kept],
        keys=[key_of(event.prediction_id) for event in events],
        states=states,
        data_as_of=data_as_of[kept],
        has_data_as_of=has_data[kept],
    )


def _states(events: Sequence[_Prediction], at: Integers, numbers: Sequence[int]) -> States:
    """What :func:`contributions.score` makes of each probability, in columns."""
    states = nothing_known(len(events))
    states["predicted"] = True
    states["combination"] = numbers
    states["predicted_at"] = at
    # -0.0 is the same number as 0.0.
    probability = np.array([event.probability for event in events], dtype=np.float64) + 0.0
    missed = 1.0 - probability
    states["probability"] = probability
    decided = np.array([-1 if event.predicted is None else event.predicted for event in events], dtype=np.int64)
    states["predicted_positive"] = np.where(decided < 0, probability >= DECISION_THRESHOLD, decided == 1)
    # np.rint rounds halves to even, as round does.
    states["squared_error_if_negative"] = np.rint(probability * probability * 1e12)
    states["squared_error_if_positive"] = np.rint(missed * missed * 1e12)
    states["log_loss_if_negative"] = _log_loss_units(missed)
    states["log_loss_if_positive"] = _log_loss_units(probability)
    return states


def _log_loss_units(given_to_outcome: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # One by one with the logarithm that the contributions are defined by: numpy's may differ in the last bit.
    clipped = np.maximum(given_to_outcome, PROBABILITY_CLIP).tolist()
    logarithms = np.fromiter(map(math.log, clipped), dtype=np.float64, count=len(clipped))
    units: npt.NDArray[np.float64] = np.rint(-logarithms * 1e9)
    return units


def _words(
    events: Sequence[_Prediction], states: States, data_as_of: Sequence[int | None], combinations: Combinations
) -> list[str]:
    """In what words each is the same prediction: those that :mod:`intake` hashes."""
    moments, given = states["predicted_at"].tolist(), states["probability"].tolist()
    spelled = [combinations.spelled(number) for number in states["combination"].tolist()]
    return [
        f"{before}{moment}, {probability!r}, {event.predicted}, {event.prediction_id!r}{behind}{data})"
        for event, moment, probability, (before, behind), data in zip(
            events, moments, given, spelled, data_as_of, strict=True
        )
    ]


def _labels(events: list[_Label], places: list[int], latest: int) -> PlainLabels:
    at, plain = read_times([event.observed_at for event in events])
    kept = np.flatnonzero(plain & (at <= latest))
    events = [events[place] for place in kept.tolist()]
    return PlainLabels(
        places=np.array(places, dtype=np.int64)[kept],
        keys=[key_of(event.entity_id) for event in events],
        observed_at=at[kept],
        positive=np.array([event.outcome for event in events], dtype=np.bool_),
    )
