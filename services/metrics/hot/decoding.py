"""Plain events read from bytes into columns: the same that the contracts read, or left for them to judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from itertools import accumulate
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from services.metrics.domain.contributions import DECISION_THRESHOLD, PROBABILITY_CLIP
from services.metrics.domain.hot.keys import KEY_BYTES, Keys, as_keys
from services.metrics.domain.hot.states import States, chosen, nothing_known, strung_together
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


Origins = npt.NDArray[np.int64]
"""Shape (n, 2): the number of a run in its batch, and a place in the run."""


@dataclass(frozen=True, slots=True)
class PlainPredictions:
    """Binary predictions whose entity is their own id, in columns.

    ``keys`` are those of their ids, ``states`` what each would be alone. ``data_as_of`` in microseconds since
    1970, where ``has_data_as_of``.
    """

    origins: Origins
    keys: Keys
    states: States
    data_as_of: Integers
    has_data_as_of: Mask


@dataclass(frozen=True, slots=True)
class PlainLabels:
    """Labels of 0 or 1, in columns; ``observed_at`` in microseconds since 1970."""

    origins: Origins
    keys: Keys
    observed_at: Integers
    positive: Mask


@dataclass(frozen=True, slots=True)
class Decoded:
    """The plain events of a batch, in its order; ``combinations`` are those that the states' numbers are of."""

    predictions: PlainPredictions
    labels: PlainLabels
    combinations: Combinations

    def others(self, runs: Sequence[Run]) -> list[tuple[int, int]]:
        """The origins of all other records of the batch."""
        origins = np.concatenate([self.predictions.origins, self.labels.origins])
        plain = np.bincount(origins[:, 0], minlength=len(runs)).tolist()
        found: list[tuple[int, int]] = []
        for number, run in enumerate(runs):
            if plain[number] < len(run):
                rest = np.ones(len(run), dtype=np.bool_)
                rest[origins[origins[:, 0] == number, 1]] = False
                found += [(number, place) for place in np.flatnonzero(rest).tolist()]
        return found

    def reaching(self, moment: int) -> set[int]:
        """The runs in which a plain event happened at a moment (microseconds since 1970) or later."""
        reached = self.predictions.origins[self.predictions.states["predicted_at"] >= moment, 0].tolist()
        return {*reached, *self.labels.origins[self.labels.observed_at >= moment, 0].tolist()}

    @classmethod
    def together(cls, parts: Sequence[Decoded], runs: Sequence[int]) -> Decoded:
        """The events of all parts, of which there is one at least; each part's batch has so many ``runs``."""
        if len(parts) == 1:
            return parts[0]
        first, second = [part.predictions for part in parts], [part.labels for part in parts]
        starts = list(accumulate(runs, initial=0))
        return cls(
            PlainPredictions(
                _moved([one.origins for one in first], starts),
                np.concatenate([one.keys for one in first]),
                strung_together([one.states for one in first]),
                np.concatenate([one.data_as_of for one in first]),
                np.concatenate([one.has_data_as_of for one in first]),
            ),
            PlainLabels(
                _moved([one.origins for one in second], starts),
                np.concatenate([one.keys for one in second]),
                np.concatenate([one.observed_at for one in second]),
                np.concatenate([one.positive for one in second]),
            ),
            parts[0].combinations,
        )

    def without(self, runs: Collection[int]) -> Decoded:
        """The same without the events of some runs, by their numbers."""
        predictions, labels = self.predictions, self.labels
        first, second = (np.flatnonzero(~np.isin(one.origins[:, 0], list(runs))) for one in (predictions, labels))
        return Decoded(
            PlainPredictions(
                predictions.origins[first],
                predictions.keys[first],
                chosen(predictions.states, first),
                predictions.data_as_of[first],
                predictions.has_data_as_of[first],
            ),
            PlainLabels(
                labels.origins[second],
                labels.keys[second],
                labels.observed_at[second],
                labels.positive[second],
            ),
            self.combinations,
        )


def _moved(origins: Sequence[Origins], starts: Sequence[int]) -> Origins:
    """Origins with the numbers of the runs in all parts together."""
    return np.concatenate([one + np.array([start, 0]) for one, start in zip(origins, starts, strict=False)])


def key_of(identifier: str) -> bytes:
    """The bytes of :func:`identity.key_of`."""
    return blake2b(identifier.encode(), digest_size=KEY_BYTES).digest()


def _keys_of(identifiers: Sequence[str]) -> Keys:
    # As key_of, without a call for each.
    return as_keys(b"".join([blake2b(one.encode(), digest_size=KEY_BYTES).digest() for one in identifiers]))


def decode(runs: Sequence[Run], combinations: Combinations) -> Decoded:
    """Read what is plain in a batch: of predictions and labels, whatever the columns have a rule for."""
    latest = min((microseconds(run.received_between()[0]) for run in runs), default=0) + _LEAD
    events, origins = _read(runs, PREDICTIONS.name, _decode_prediction)
    labels, label_origins = _read(runs, LABELS.name, _decode_label)
    return Decoded(
        _predictions(events, origins, latest, combinations),
        _labels(labels, label_origins, latest),
        combinations,
    )


def _read(runs: Sequence[Run], topic: str, decode_one: Callable[[bytes], _E]) -> tuple[list[_E], Origins]:
    """The events of a topic that follow the strict form, and where they come from."""
    events: list[_E] = []
    origins = [np.empty((0, 2), dtype=np.int64)]
    for number, run in enumerate(runs):
        if run.place[0] == topic:
            found, places = _read_run(run.values(), decode_one)
            events += found
            origins.append(np.stack([np.full(len(places), number), np.array(places, dtype=np.int64)], axis=1))
    return events, np.concatenate(origins)


def _read_run(values: list[bytes | None], decode_one: Callable[[bytes], _E]) -> tuple[list[_E], list[int]]:
    """What is written with a backslash, and so in more than one way, is left to the contract."""
    usual = [value for value in values if value is not None and len(value) <= MAX_RECORD_BYTES]
    if len(usual) == len(values) and b"\\" not in b"".join(usual):
        # Nearly always all of them are plain; one that is not costs a second look at each.
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return list(map(decode_one, usual)), list(range(len(usual)))
    events: list[_E] = []
    places: list[int] = []
    for place, value in enumerate(values):
        if value is None or len(value) > MAX_RECORD_BYTES or b"\\" in value:
            continue
        try:
            events.append(decode_one(value))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        places.append(place)
    return events, places


def _predictions(
    events: list[_Prediction], origins: Origins, latest: int, combinations: Combinations
) -> PlainPredictions:
    at, plain = read_times([event.predicted_at for event in events])
    plain &= at <= latest
    data_as_of, has_data = _data_as_of(events, plain)
    numbers = combinations.numbers_of(
        [(event.model, event.model_version, tuple(event.segment.items())) for event in events]
    )
    if None in numbers:
        plain &= np.array([number is not None for number in numbers], dtype=np.bool_)
    plain &= np.array(
        [event.entity_id is None or event.entity_id == event.prediction_id for event in events], dtype=np.bool_
    )
    if not plain.all():
        kept = np.flatnonzero(plain)
        places = kept.tolist()
        events, numbers = [events[place] for place in places], [numbers[place] for place in places]
        at, data_as_of, has_data, origins = at[kept], data_as_of[kept], has_data[kept], origins[kept]
    states = _states(events, at, numbers)
    words = _words(events, states, data_as_of, has_data, combinations)
    digests = b"".join([blake2b(said.encode(), digest_size=8).digest() for said in words])
    states["content_hash"] = np.frombuffer(digests, dtype="<i8")
    keys = _keys_of([event.prediction_id for event in events])
    return PlainPredictions(origins, keys, states, data_as_of, has_data)


def _data_as_of(events: list[_Prediction], plain: Mask) -> tuple[Integers, Mask]:
    """The times, and which events have one; ``plain`` is cleared where it could not be read."""
    texts = [event.data_as_of for event in events]
    has_data = np.array([text is not None for text in texts], dtype=np.bool_)
    moments = np.zeros(len(events), dtype=np.int64)
    if has_data.any():
        moments, read = read_times([text or "" for text in texts])
        plain &= read | ~has_data
    return moments, has_data


def _states(events: Sequence[_Prediction], at: Integers, numbers: Sequence[int | None]) -> States:
    """What :func:`contributions.score` makes of each probability, in columns."""
    states = nothing_known(len(events))
    states["predicted"] = True
    states["combination"] = np.array(numbers, dtype=np.int64)
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
    events: Sequence[_Prediction],
    states: States,
    data_as_of: Integers,
    has_data: Mask,
    combinations: Combinations,
) -> list[str]:
    """In what words each is the same prediction: those that :mod:`intake` hashes."""
    moments, given = states["predicted_at"].tolist(), states["probability"].tolist()
    spelled = map(combinations.spelled.__getitem__, states["combination"].tolist())
    data: list[int | None] = data_as_of.tolist() if has_data.any() else [None] * len(events)
    for place in np.flatnonzero(~has_data).tolist() if has_data.any() else ():
        data[place] = None
    return [
        f"{before}{moment}, {probability!r}, {event.predicted}, {event.prediction_id!r}{behind}{moment_of_data})"
        for event, moment, probability, (before, behind), moment_of_data in zip(
            events, moments, given, spelled, data, strict=True
        )
    ]


def _labels(events: list[_Label], origins: Origins, latest: int) -> PlainLabels:
    at, plain = read_times([event.observed_at for event in events])
    plain &= at <= latest
    if not plain.all():
        kept = np.flatnonzero(plain)
        events, at, origins = [events[place] for place in kept.tolist()], at[kept], origins[kept]
    return PlainLabels(
        origins=origins,
        keys=_keys_of([event.entity_id for event in events]),
        observed_at=at,
        positive=np.array([event.outcome for event in events], dtype=np.bool_),
    )
