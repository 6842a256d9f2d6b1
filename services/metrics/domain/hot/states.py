"""What is known of an entity that is its own prediction's id: the prediction and the label that stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.metrics.domain.hot.keys import Keys, KeyTable, Places

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
Mask = npt.NDArray[np.bool_]


def nothing_known(count: int) -> States:
    """Entities of which nothing is stored."""
    states = np.zeros(count, dtype=STATE)
    states["plain"] = True
    return states


# Where numpy knows of fields it copies one after the other; as bytes that it knows nothing of, ten times as fast.
_WHOLE = np.dtype((np.void, STATE.itemsize))


def chosen(states: States, places: Places | Mask) -> States:
    """``states[places]``, a copy."""
    found: States = states.view(_WHOLE)[places].view(STATE)
    return found


def put(states: States, places: Places, others: States) -> None:
    """``states[places] = others``."""
    states.view(_WHOLE)[places] = others.view(_WHOLE)


def strung_together(parts: Sequence[States]) -> States:
    """All states of the parts, of which there is one at least."""
    return np.concatenate([part.view(_WHOLE) for part in parts]).view(STATE)


class Recent:
    """The entities that were met last: ``most`` of them at most, and half as many at least.

    There are two generations. When the younger one is full it becomes the older one, and what that knew is
    forgotten; what is met again is younger again.
    """

    def __init__(self, most: int) -> None:
        self._room = max(1, most // 2)
        self._younger, self._older = _Generation(self._room), _Generation(self._room)

    def find(self, keys: Keys) -> tuple[States, Places]:
        """The states of keys, and the places in ``keys`` of those that are not known here."""
        states = nothing_known(len(keys))
        missing = np.arange(len(keys))
        for generation in (self._younger, self._older):
            numbers = generation.numbers_of(keys[missing])
            known = numbers >= 0
            put(states, missing[known], chosen(generation.states, numbers[known]))
            missing = missing[~known]
        return states, missing

    def keep(self, keys: Keys, states: States) -> None:
        """Keep the states of distinct keys; of more than there is room for, the last."""
        # What was known of those without room is known no more: their states have changed.
        self.forget(keys[: -self._room])
        keys, states = keys[-self._room :], states[-self._room :]
        if not self._younger.has_room_for(len(keys)):
            self._younger, self._older = _Generation(self._room), self._younger
        self._younger.keep(keys, states)

    def forget(self, keys: Keys) -> None:
        """Know nothing of these keys any more."""
        for generation in (self._younger, self._older):
            generation.forget(keys)


class _Generation:
    def __init__(self, room: int) -> None:
        self.states = np.empty(room, dtype=STATE)
        self._table = KeyTable(room)
        self._is_known = np.zeros(room, dtype=np.bool_)

    def has_room_for(self, count: int) -> bool:
        return len(self._table) + count <= len(self.states)

    def numbers_of(self, keys: Keys) -> Places:
        """-1 where nothing is known."""
        numbers = self._table.find(keys)
        return np.where((numbers >= 0) & self._is_known[numbers], numbers, -1)

    def keep(self, keys: Keys, states: States) -> None:
        numbers = self._table.add(keys)
        put(self.states, numbers, states)
        self._is_known[numbers] = True

    def forget(self, keys: Keys) -> None:
        numbers = self._table.find(keys)
        self._is_known[numbers[numbers >= 0]] = False
