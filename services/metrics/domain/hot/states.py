"""What is known of an entity that is its own prediction's id: the prediction and the label that stands."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt

STATE = np.dtype(
    [
        # Of entities that are not plain nothing else is known here.
        ("plain", np.bool_),
        ("predicted", np.bool_),
        ("combination", np.int64),
        ("predicted_at", np.int64),
        ("content_hash", np.int64),
        ("probability", np.float64),
        ("predicted_positive", np.bool_),
        ("squared_error_if_negative", np.int64),
        ("squared_error_if_positive", np.int64),
        ("log_loss_if_negative", np.int64),
        ("log_loss_if_positive", np.int64),
        ("labelled", np.bool_),
        ("observed_at", np.int64),
        ("positive", np.bool_),
        ("first_observed_at", np.int64),
    ]
)
"""An entity. ``combination`` numbers a model, version and segments; times in microseconds since 1970.

``plain``: it has one binary prediction at most, whose id it is, and of labels 0, 1 or none. The fields behind
``predicted`` and ``labelled`` mean something where those are true.
"""

PREDICTION_FIELDS = (
    *("predicted", "combination", "predicted_at", "content_hash", "probability", "predicted_positive"),
    *("squared_error_if_negative", "squared_error_if_positive", "log_loss_if_negative", "log_loss_if_positive"),
)
"""The fields that a prediction fills."""

States = npt.NDArray[np.void]
Places = npt.NDArray[np.int64]


def nothing_known(count: int) -> States:
    """Entities of which nothing is stored."""
    states = np.zeros(count, dtype=STATE)
    states["plain"] = True
    return states


class Recent:
    """The entities that were met last, by key: a ring, in which the newest takes the place of the oldest."""

    def __init__(self, most: int) -> None:
        self._states = nothing_known(most)
        self._keys: list[bytes | None] = [None] * most
        self._places: dict[bytes, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._places)

    def find(self, keys: Sequence[bytes]) -> tuple[States, Places]:
        """The states of keys, and the places in ``keys`` of those that are not known here."""
        places = self._places_of(keys)
        states = self._states[places]
        missing = np.flatnonzero(places < 0)
        states[missing] = nothing_known(len(missing))
        return states, missing

    def keep(self, keys: Sequence[bytes], states: States) -> None:
        """Keep the states of distinct keys; of more than there is room for, the last."""
        most = len(self._keys)
        # What was known of those without room is known no more: their states have changed.
        self.forget(keys[:-most])
        keys, states = keys[-most:], states[-most:]
        places = self._places_of(keys)
        new = np.flatnonzero(places < 0)
        taken = (self._next + np.arange(len(new))) % most
        self._next = int(self._next + len(new)) % most
        # A key that was known may lose its place to a new one just now: it is not kept.
        places[np.isin(places, taken)] = -1
        places[new] = taken
        known = self._places
        for place, number in zip(taken.tolist(), new.tolist(), strict=True):
            before = self._keys[place]
            if before is not None:
                del known[before]
            known[keys[number]] = place
            self._keys[place] = keys[number]
        kept = places >= 0
        self._states[places[kept]] = states[kept]

    def _places_of(self, keys: Sequence[bytes]) -> Places:
        return np.fromiter(map(self._places.get, keys, repeat(-1)), dtype=np.int64, count=len(keys))

    def forget(self, keys: Sequence[bytes]) -> None:
        """Know nothing of these keys any more."""
        for key in keys:
            place = self._places.pop(key, None)
            if place is not None:
                self._keys[place] = None
