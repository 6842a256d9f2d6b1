"""What is remembered of entities: what was kept last, or nothing; never anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.metrics.domain.hot.states import PREDICTION_FIELDS, STATE, Recent, States, nothing_known

KEYS = [number.to_bytes(16, "big") for number in range(9)]
some_keys = st.lists(st.sampled_from(KEYS), max_size=9, unique=True)


def states_told(numbers: list[int]) -> States:
    """States that are told apart by a number."""
    states = nothing_known(len(numbers))
    states["predicted"], states["content_hash"], states["probability"] = True, numbers, 0.25
    return states


class Remembering(RuleBasedStateMachine):
    """A small ring beside a dict in which everything is kept."""

    @initialize(most=st.integers(1, 6))
    def begin(self, most: int) -> None:
        self.most = most
        self.recent = Recent(most)
        self.kept: dict[bytes, int] = {}
        self.told = 0

    @rule(keys=some_keys)
    def keep(self, keys: list[bytes]) -> None:
        numbers = list(range(self.told, self.told + len(keys)))
        new = [key for key in keys[-self.most :] if not known(self.recent, key)]
        self.told += len(keys)
        self.recent.keep(keys, states_told(numbers))
        self.kept |= dict(zip(keys, numbers, strict=True))
        assert not new or known(self.recent, new[-1])

    @rule(keys=some_keys)
    def forget(self, keys: list[bytes]) -> None:
        self.recent.forget(keys)
        for key in keys:
            self.kept.pop(key, None)
            assert not known(self.recent, key)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=12))
    def find(self, keys: list[bytes]) -> None:
        states, missing = self.recent.find(keys)
        unknown = set(missing.tolist())
        assert len(unknown) == len(missing)
        for place, key in enumerate(keys):
            if place in unknown:
                assert states[place] == nothing_known(1)[0]
            else:
                assert states[place] == states_told([self.kept[key]])[0]

    @invariant()
    def never_tells_anything_else(self) -> None:
        found = [key for key in KEYS if known(self.recent, key)]
        assert len(self.recent) == len(found) <= self.most
        assert set(found) <= set(self.kept)
        self.find(KEYS)


def known(recent: Recent, key: bytes) -> bool:
    return not len(recent.find([key])[1])


TestRemembering = Remembering.TestCase


def test_the_newest_take_the_places_of_the_oldest() -> None:
    recent = Recent(3)
    for number, key in enumerate(KEYS[:5]):
        recent.keep([key], states_told([number]))
    assert [known(recent, key) for key in KEYS[:5]] == [False, False, True, True, True]
    assert recent.find(KEYS[2:5])[0]["content_hash"].tolist() == [2, 3, 4]


@given(st.integers(1, 9))
def test_of_more_than_there_is_room_for_the_last_are_kept(most: int) -> None:
    recent = Recent(most)
    recent.keep(KEYS, states_told(list(range(len(KEYS)))))
    assert [known(recent, key) for key in KEYS] == [False] * (len(KEYS) - most) + [True] * most


def test_a_key_that_is_known_keeps_its_place() -> None:
    recent = Recent(2)
    recent.keep(KEYS[:2], states_told([0, 1]))
    recent.keep(KEYS[:2], states_told([2, 3]))
    assert recent.find(KEYS[:2])[0]["content_hash"].tolist() == [2, 3]


def test_a_known_key_that_loses_its_place_to_a_new_one_is_not_kept() -> None:
    recent = Recent(2)
    recent.keep(KEYS[:2], states_told([0, 1]))
    recent.keep([KEYS[0], KEYS[2]], states_told([2, 3]))
    assert not known(recent, KEYS[0])
    assert recent.find(KEYS[1:3])[0]["content_hash"].tolist() == [1, 3]


def test_a_known_key_that_there_is_no_room_for_is_not_known_as_it_was() -> None:
    recent = Recent(2)
    recent.keep(KEYS[:2], states_told([0, 1]))
    recent.keep([KEYS[1], KEYS[0], KEYS[2]], states_told([2, 3, 4]))
    assert not known(recent, KEYS[1])
    assert known(recent, KEYS[2])


def test_what_is_found_is_a_copy() -> None:
    recent = Recent(2)
    kept = states_told([1])
    recent.keep(KEYS[:1], kept)
    kept["content_hash"] = 2
    recent.find(KEYS[:1])[0]["content_hash"] = 3
    assert recent.find(KEYS[:1])[0]["content_hash"].tolist() == [1]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_of_nothing_known_an_entity_is_plain_and_that_is_all(count: int) -> None:
    states = nothing_known(count)
    assert states["plain"].tolist() == [True] * count
    others = [name for name in STATE.names or () if name != "plain"]
    assert not any(np.any(states[name]) for name in others)
    assert set(PREDICTION_FIELDS) < set(others)
