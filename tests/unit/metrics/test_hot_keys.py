"""Keys are numbered as a dict would number them, whatever their bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.hot.keys import Keys, KeyTable, Places, among, as_keys, one_by_one

# With the factor 1 the highest bits decide: few begin in different slots, so that they meet.
colliding = st.builds(
    lambda first, second: (first << 60 & 2**64 - 1).to_bytes(8, "little") + second.to_bytes(8, "little"),
    st.sampled_from([0, 1, 7, 14, 15]),
    st.integers(0, 3),
)
some = st.lists(colliding | st.binary(min_size=16, max_size=16), max_size=40)


def keys_of(stored: list[bytes]) -> Keys:
    return as_keys(b"".join(stored))


@given(st.lists(some, min_size=1, max_size=4), some)
def test_a_key_has_one_number_and_no_other_has_it(batches: list[list[bytes]], asked: list[bytes]) -> None:
    distinct = {key for batch in batches for key in batch}
    table = KeyTable(len(distinct), factor=1)
    numbers: dict[bytes, int] = {}
    for batch in batches:
        for key, number in zip(batch, table.add(keys_of(batch)).tolist(), strict=True):
            assert numbers.setdefault(key, number) == number
        assert sorted(numbers.values()) == list(range(len(table)))
    assert one_by_one(table.keys) == sorted(distinct, key=numbers.__getitem__)
    assert table.find(keys_of(asked)).tolist() == [numbers.get(key, -1) for key in asked]


@given(some, some)
def test_what_is_among_others_is_told(keys: list[bytes], others: list[bytes]) -> None:
    assert among(keys_of(keys), keys_of(others)).tolist() == [key in others for key in keys]


@given(some)
def test_bytes_are_what_they_were(keys: list[bytes]) -> None:
    assert one_by_one(keys_of(keys)) == keys


def test_a_full_table_refuses_and_finds_what_it_had() -> None:
    keys = keys_of([bytes([number]) * 16 for number in range(5)])
    table = KeyTable(3)
    table.add(keys[:3])
    with pytest.raises(IndexError):
        table.add(keys[2:])
    assert sorted(table.find(keys[:3]).tolist()) == [0, 1, 2]
    assert table.find(keys[3:]).tolist() == [-1, -1]


def test_many_keys_at_once() -> None:
    keys = np.random.default_rng(1).integers(0, 2**63, (50_000, 2)).astype(np.uint64)
    table = KeyTable(len(keys))
    numbers = table.add(np.concatenate([keys, keys[::-1]]))
    assert (numbers[: len(keys)] == numbers[len(keys) :][::-1]).all()
    assert (table.keys[numbers[: len(keys)]] == keys).all()


def test_whoever_chooses_identifiers_does_not_choose_where_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys with the same lowest, or the same highest, bits."""
    rounds = 0
    behind = KeyTable._behind

    def counted(table: KeyTable, slots: Places) -> Places:
        nonlocal rounds
        rounds += 1
        return behind(table, slots)

    monkeypatch.setattr(KeyTable, "_behind", counted)
    varied = np.random.default_rng(2).integers(0, 2**40, 5_000).astype(np.uint64)
    for alike in (varied << np.uint64(20), varied):
        keys = np.stack([alike, varied], axis=1)
        table = KeyTable(len(keys))
        table.add(keys)
        table.find(keys)
    assert rounds < 200
