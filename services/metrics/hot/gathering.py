"""A batch's plain events put together, and its other records decoded, to be taken one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from services.metrics.domain.hot.ruling import Arrived
from services.metrics.domain.hot.states import Places, States, nothing_known
from services.metrics.hot.decoding import Decoded, PlainLabels, PlainPredictions, key_of
from services.metrics.intake import decode_record
from shared.contracts.base import Contract
from shared.contracts.observations import Label, Prediction
from shared.errors import Refusal
from shared.records import Record, Run

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_Number = TypeVar("_Number", np.int64, np.bool_)
Origin = tuple[int, int]
"""The number of a run in its batch, and a place in the run."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The plain events of all runs, in their order.

    ``keys`` are the distinct entities; ``entity`` and ``labels.entity`` are places among them. ``predictions`` are
    what each would be alone. Origins have the shape (n, 2).
    """

    keys: list[bytes]
    entity: Places
    predictions: States
    data_as_of: Integers
    has_data_as_of: Mask
    labels: Arrived
    prediction_origins: Integers
    label_origins: Integers

    def origins_of(self, entities: Mask) -> list[Origin]:
        """Where the events about some entities come from."""
        chosen = [self.prediction_origins[entities[self.entity]], self.label_origins[entities[self.labels.entity]]]
        return [(number, place) for number, place in np.concatenate(chosen).tolist()]


def gather(decoded: Sequence[Decoded]) -> Gathered:
    """Put the runs of a batch together."""
    predictions = [(number, one.predictions) for number, one in enumerate(decoded) if one.predictions is not None]
    labels = [(number, one.labels) for number, one in enumerate(decoded) if one.labels is not None]
    prediction_keys = [key for _, one in predictions for key in one.keys]
    label_keys = [key for _, one in labels for key in one.keys]
    keys = list(dict.fromkeys([*prediction_keys, *label_keys]))
    place_of = dict(zip(keys, range(len(keys)), strict=True))
    return Gathered(
        keys=keys,
        entity=_places(place_of, prediction_keys),
        predictions=np.concatenate([nothing_known(0), *(one.states for _, one in predictions)]),
        data_as_of=_column([one.data_as_of for _, one in predictions], np.int64),
        has_data_as_of=_column([one.has_data_as_of for _, one in predictions], np.bool_),
        labels=Arrived(
            _places(place_of, label_keys),
            _column([one.observed_at for _, one in labels], np.int64),
            _column([one.positive for _, one in labels], np.bool_),
        ),
        prediction_origins=_origins(predictions),
        label_origins=_origins(labels),
    )


def _places(place_of: Mapping[bytes, int], keys: list[bytes]) -> Places:
    return np.fromiter(map(place_of.__getitem__, keys), dtype=np.int64, count=len(keys))


def _column(parts: Sequence[npt.NDArray[_Number]], dtype: type[_Number]) -> npt.NDArray[_Number]:
    column: npt.NDArray[_Number] = np.concatenate([np.empty(0, dtype), *parts])
    return column


def _origins(parts: Iterable[tuple[int, PlainPredictions | PlainLabels]]) -> Integers:
    columns = [
        np.stack([np.full(len(one.places), number, dtype=np.int64), one.places], axis=1) for number, one in parts
    ]
    return np.concatenate([np.empty((0, 2), np.int64), *columns])


@dataclass(slots=True)
class OneByOne:
    """Records that are taken one by one, decoded, each once."""

    runs: Sequence[Run]
    _events: dict[Origin, tuple[Record, Contract | Refusal]] = field(default_factory=dict)

    def add(self, origins: Iterable[Origin]) -> None:
        """Decode records by their contracts."""
        for number, place in origins:
            record = self.runs[number][place]
            self._events[number, place] = record, decode_record(record)

    def in_order(self) -> list[tuple[Record, Contract | Refusal]]:
        """The records in the order of the batch."""
        return [decoded for _, decoded in sorted(self._events.items(), key=itemgetter(0))]

    def keys(self) -> set[bytes]:
        """Every key that the events concern: of predictions, their entities, and labels."""
        keys: set[bytes] = set()
        for _, event in self._events.values():
            match event:
                case Prediction():
                    keys |= {key_of(event.prediction_id), key_of(event.entity)}
                case Label():
                    keys.add(key_of(event.entity_id))
        return keys
