"""Keys that every instance computes alike."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.identity import id_of, key_of, shard_of

names = st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=4)


def test_keys_are_fixed_for_ever() -> None:
    """They are stored: other ones would make every known id unknown."""
    assert key_of("flight-1") == UUID("e70185ac-5723-79ea-20c9-cff0a40fe711")
    assert id_of("model", "1") == -6165869476552844217


@given(names, names)
def test_sequences_of_names_that_differ_have_ids_that_differ(one: list[str], two: list[str]) -> None:
    assert (id_of(*one) == id_of(*two)) is (one == two)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_identifiers_that_differ_have_keys_that_differ(one: str, two: str) -> None:
    assert (key_of(one) == key_of(two)) is (one == two)


@given(names)
def test_ids_fit_a_signed_64_bit_column(found: list[str]) -> None:
    assert -(2**63) <= id_of(*found) < 2**63


def test_shards_are_all_used() -> None:
    assert {shard_of(key_of(str(number)), 64) for number in range(1000)} == set(range(64))
