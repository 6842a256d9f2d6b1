"""What is remembered of entities: what was kept last, or nothing; never anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.metrics.domain.hot.keys import Keys, as_keys
from services.metrics.domain.hot.states import (
    PREDICTION_FIELDS,
    STATE,
    Recent,
    States,
    chosen,
    nothing_known,
    put,
    strung_together,
)

KEYS = [number.to_bytes(16, "big") for number in range(9)]
some_keys = st.lists(st.sampled_from(KEYS), max_size=9, unique=True)


def stored(keys: list[bytes]) -> Keys:
    return as_keys(b"".join(keys))


def states_told(numbers: list[int]) -> States:
    """States that are told apart by a number."""
    states = nothing_known(len(numbers))
    states["predicted"], states["content_hash"], states["probability"] = True, numbers, 0.25
    return states


class Remembering(RuleBasedStateMachine):
    """A small memory beside a dict in which everything is kept."""

    @initialize(most=st.integers(1, 8))
    def begin(self, most: int) -> None:
        self.most = max(2, most // 2 * 2)
        self.recent = Recent(most)
        self.kept: dict[bytes, int] = {}
        self.told = 0
        self.newest: list[bytes] = []

    @rule(keys=some_keys)
    def keep(self, keys: list[bytes]) -> None:
        numbers = list(range(self.told, self.told + len(keys)))
        self.told += len(keys)
        self.recent.keep(stored(keys), states_told(numbers))
        self.kept |= dict(zip(keys, numbers, strict=True))
        self.newest = [*(key for key in self.newest if key not in keys), *keys]

    @rule(keys=some_keys)
    def forget(self, keys: list[bytes]) -> None:
        self.recent.forget(stored(keys))
        for key in keys:
            self.kept.pop(key, None)
            assert not known(self.recent, key)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=12))
    def find(self, keys: list[bytes]) -> None:
        states, missing = self.recent.find(stored(keys))
        unknown = set(missing.tolist())
        assert len(unknown) == len(missing)
        for place, key in enumerate(keys):
            if place in unknown:
                assert states[place] == nothing_known(1)[0]
            else:
                assert states[place] == states_told([self.kept[key]])[0]

    @invariant()
    def never_tells_anything_else(self) -> None:
        found = {key for key in KEYS if known(self.recent, key)}
        assert len(found) <= self.most
        assert found <= set(self.kept)
        self.find(KEYS)

    @invariant()
    def knows_the_newest(self) -> None:
        """Half of what there is room for, but for what was forgotten."""
        for key in self.newest[-(self.most // 2) :]:
            assert key not in self.kept or known(self.recent, key)


def known(recent: Recent, key: bytes) -> bool:
    return not len(recent.find(stored([key]))[1])


TestRemembering = Remembering.TestCase


def test_the_oldest_are_forgotten_together() -> None:
    recent = Recent(4)
    for number, key in enumerate(KEYS[:5]):
        recent.keep(stored([key]), states_told([number]))
    assert [known(recent, key) for key in KEYS[:5]] == [False, False, True, True, True]
    assert recent.find(stored(KEYS[2:5]))[0]["content_hash"].tolist() == [2, 3, 4]


def test_what_is_met_again_is_not_old() -> None:
    recent = Recent(4)
    for number, place in enumerate([0, 1, 0, 2, 3]):
        recent.keep(stored([KEYS[place]]), states_told([number]))
    assert [known(recent, key) for key in KEYS[:4]] == [True, False, True, True]
    assert recent.find(stored(KEYS[:1]))[0]["content_hash"].tolist() == [2]


@given(st.integers(2, 9))
def test_of_more_than_there_is_room_for_the_last_are_kept(most: int) -> None:
    recent, kept = Recent(most), most // 2
    recent.keep(stored(KEYS), states_told(list(range(len(KEYS)))))
    assert [known(recent, key) for key in KEYS] == [False] * (len(KEYS) - kept) + [True] * kept


def test_a_known_key_that_there_is_no_room_for_is_not_known_as_it_was() -> None:
    recent = Recent(4)
    recent.keep(stored(KEYS[:2]), states_told([0, 1]))
    recent.keep(stored([KEYS[1], KEYS[0], KEYS[2]]), states_told([2, 3, 4]))
    assert [known(recent, key) for key in KEYS[:3]] == [True, False, True]
    assert recent.find(stored(KEYS[:1]))[0]["content_hash"].tolist() == [3]


def test_what_is_found_is_a_copy() -> None:
    recent = Recent(2)
    kept = states_told([1])
    recent.keep(stored(KEYS[:1]), kept)
    kept["content_hash"] = 2
    recent.find(stored(KEYS[:1]))[0]["content_hash"] = 3
    assert recent.find(stored(KEYS[:1]))[0]["content_hash"].tolist() == [1]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_of_nothing_known_an_entity_is_plain_and_that_is_all(count: int) -> None:
    states = nothing_known(count)
    assert states["plain"].tolist() == [True] * count
    others = [name for name in STATE.names or () if name != "plain"]
    assert not any(np.any(states[name]) for name in others)
    assert set(PREDICTION_FIELDS) < set(others)


@given(st.lists(st.integers(0, 4), max_size=6), st.lists(st.booleans(), min_size=5, max_size=5))
def test_what_is_copied_whole_is_copied_right(places: list[int], mask: list[bool]) -> None:
    states, taken = states_told([1, 2, 3, 4, 5]), np.array(places, dtype=np.int64)
    assert chosen(states, taken).tolist() == states[taken].tolist()
    assert chosen(states, np.array(mask)).tolist() == states[np.array(mask)].tolist()
    assert strung_together([states, states[:2]]).tolist() == [*states.tolist(), *states[:2].tolist()]
    others = states_told(list(range(10, 10 + len(set(places)))))
    expected = states.copy()
    expected[np.unique(taken)] = others
    put(states, np.unique(taken), others)
    assert states.tolist() == expected.tolist()
