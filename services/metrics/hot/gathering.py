"""A batch's plain events put together, and its other records decoded, to be taken one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from services.metrics.domain.hot.keys import Keys, KeyTable, Places, as_keys
from services.metrics.domain.hot.ruling import Arrived
from services.metrics.domain.hot.states import States
from services.metrics.hot.combinations import Combinations
from services.metrics.hot.decoding import Decoded, Origins, key_of
from services.metrics.intake import decode_record
from shared.contracts.base import Contract
from shared.contracts.observations import Label, Prediction
from shared.errors import Refusal
from shared.records import Record, Run

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Origin = tuple[int, int]
"""The number of a run in its batch, and a place in the run."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """The plain events of all runs, in their order.

    ``keys`` are the distinct entities; ``entity`` and ``labels.entity`` are places among them. ``predictions`` are
    what each would be alone. Origins have the shape (n, 2).
    """

    keys: Keys
    entity: Places
    predictions: States
    data_as_of: Integers
    has_data_as_of: Mask
    labels: Arrived
    prediction_origins: Origins
    label_origins: Origins
    combinations: Combinations

    def origins_of(self, entities: Mask) -> list[Origin]:
        """Where the events about some entities come from."""
        chosen = [self.prediction_origins[entities[self.entity]], self.label_origins[entities[self.labels.entity]]]
        return [(number, place) for number, place in np.concatenate(chosen).tolist()]


def gather(decoded: Decoded) -> Gathered:
    """Number the entities of a batch's plain events."""
    predictions, labels = decoded.predictions, decoded.labels
    keys = np.concatenate([predictions.keys, labels.keys])
    distinct = KeyTable(len(keys))
    places = distinct.add(keys)
    return Gathered(
        keys=distinct.keys,
        entity=places[: len(predictions.keys)],
        predictions=predictions.states,
        data_as_of=predictions.data_as_of,
        has_data_as_of=predictions.has_data_as_of,
        labels=Arrived(places[len(predictions.keys) :], labels.observed_at, labels.positive),
        prediction_origins=predictions.origins,
        label_origins=labels.origins,
        combinations=decoded.combinations,
    )


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

    def keys(self) -> Keys:
        """Every key that the events concern, once: of predictions, their entities, and labels."""
        keys: set[bytes] = set()
        for _, event in self._events.values():
            match event:
                case Prediction():
                    keys |= {key_of(event.prediction_id), key_of(event.entity)}
                case Label():
                    keys.add(key_of(event.entity_id))
        return as_keys(b"".join(keys))
