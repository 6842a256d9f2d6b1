"""Whatever a published schema admits is decoded, and says the same after any number of encodings."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from shared.contracts.base import Contract, Event, canonical_json, unknown_fields
from shared.contracts.catalogue import CATALOGUE
from tests.contracts.strategies import JSON_VALUES, MOMENTS, SCHEMAS, as_bytes, events

FEWER_BUT_LARGE = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


@pytest.mark.parametrize("event", CATALOGUE)
def test_any_event_round_trips(event: str) -> None:
    contract: type[Contract] = CATALOGUE[event]
    validator = Draft202012Validator(SCHEMAS[event])

    @FEWER_BUT_LARGE
    @given(events(event))
    def round_trips(document: dict[str, Any]) -> None:
        first = contract.model_validate_json(as_bytes(document))
        encoded = first.to_json()
        again = contract.model_validate_json(encoded)
        assert again == first
        assert again.to_json() == encoded
        assert unknown_fields(again) == ()
        validator.validate(json.loads(encoded))
        if isinstance(first, Event):
            assert isinstance(again, Event)
            assert again.event_id() == first.event_id()
            assert again.event_time() == first.event_time()
            assert first.event_time().tzinfo is UTC

    round_trips()


@pytest.mark.parametrize("event", CATALOGUE)
def test_unknown_fields_change_nothing_that_is_known(event: str) -> None:
    contract: type[Contract] = CATALOGUE[event]
    names = st.text(min_size=1, max_size=12).filter(lambda name: name not in contract.model_fields)

    @FEWER_BUT_LARGE
    @given(events(event), st.dictionaries(names, JSON_VALUES, min_size=1, max_size=3))
    def are_ignored_and_counted(document: dict[str, Any], unknown: dict[str, Any]) -> None:
        plain = contract.model_validate_json(as_bytes(document))
        richer = contract.model_validate_json(json.dumps({**document, **unknown}))
        assert richer.to_json() == plain.to_json()
        assert set(unknown_fields(richer)) - set(unknown_fields(plain)) == set(unknown)

    are_ignored_and_counted()


@given(MOMENTS)
def test_a_moment_is_the_same_in_every_zone(moment: datetime) -> None:
    contract = CATALOGUE["tick.v1"]
    taken = contract.model_validate_json(as_bytes({"tick": moment.isoformat()}))
    assert (
        taken.known()
        == contract.model_validate_json(as_bytes({"tick": moment.astimezone(UTC).isoformat()})).known()
    )


@pytest.mark.parametrize("event", CATALOGUE)
def test_fields_whose_json_is_known_already_make_the_same_bytes(event: str) -> None:
    contract: type[Contract] = CATALOGUE[event]

    @FEWER_BUT_LARGE
    @given(events(event), st.sets(st.sampled_from(sorted(contract.model_fields))))
    def the_same(document: dict[str, Any], names: set[str]) -> None:
        found = contract.model_validate_json(as_bytes(document))
        known = found.known()
        assert found.to_json({name: canonical_json(known[name]) for name in names}) == found.to_json()

    the_same()
