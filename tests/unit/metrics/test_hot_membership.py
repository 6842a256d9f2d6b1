"""A key that was added is never denied; one that was not is seldom affirmed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.metrics.domain.hot import membership
from services.metrics.domain.hot.keys import Keys
from services.metrics.domain.hot.membership import FIRST_PART_KEYS, Membership

any_keys = arrays.arrays(
    np.uint64, st.tuples(st.integers(0, 40), st.just(2)), elements=st.integers(0, 2**64 - 1) | st.integers(0, 3)
)


def keys_of(seed: int, count: int) -> Keys:
    return np.random.default_rng(seed).integers(0, 2**64, size=(count, 2), dtype=np.uint64)


@given(st.lists(any_keys, max_size=5))
def test_a_key_that_was_added_is_never_denied(portions: list[Keys]) -> None:
    found = Membership()
    for number, portion in enumerate(portions):
        found.add(portion)
        assert all(found.may_hold(one).all() for one in portions[: number + 1])


@given(st.lists(any_keys, min_size=1, max_size=6), st.integers(1, 8))
def test_none_is_denied_as_parts_are_added(portions: list[Keys], first: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "FIRST_PART_KEYS", first)
        patch.setattr(membership, "BITS_A_KEY", 64)
        found = Membership()
        for number, portion in enumerate(portions):
            found.add(portion)
            assert all(found.may_hold(one).all() for one in portions[: number + 1])


@given(any_keys)
def test_where_nothing_was_added_every_key_is_denied(keys: Keys) -> None:
    assert not Membership().may_hold(keys).any()


def test_few_of_other_keys_are_affirmed_also_over_several_parts() -> None:
    added, others = keys_of(1, 300_000), keys_of(2, 300_000)
    found = Membership()
    for begin in range(0, len(added), 70_000):
        found.add(added[begin : begin + 70_000])
    assert len(found._parts) == 2
    assert len(added) > FIRST_PART_KEYS
    assert len(found._parts[1]) == 2 * len(found._parts[0])
    assert found.may_hold(added).all()
    assert 0 < found.may_hold(others).mean() < 0.02


def test_keys_that_are_added_again_take_no_room() -> None:
    keys = keys_of(3, 1_000)
    found = Membership()
    for _ in range(3):
        found.add(keys)
    assert 990 <= found._keys <= 1_000


def test_every_key_may_be_stored_once_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MOST_KEYS", 1_000)
    found, others = Membership(), keys_of(5, 100)
    found.add(keys_of(4, 900))
    assert not found.is_full
    assert not found.may_hold(others).all()
    found.add(keys_of(6, 200))
    assert found.is_full
    assert found.may_hold(others).all()
    words = [part.copy() for part in found._parts]
    found.add(others)
    assert all((now == before).all() for now, before in zip(found._parts, words, strict=True))
