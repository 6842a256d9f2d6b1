"""Every contract against a second judge: nothing invalid is accepted, nothing valid is refused, nothing raises."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.contracts.catalogue import CATALOGUE
from tests.contracts.strategies import as_bytes, events
from tests.fuzz.mutation import NAMES, SEEDS, mutated
from tests.fuzz.targets import EVENTS, contracts

FEW = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY_MUTATIONS = 150

each_event = pytest.mark.parametrize("event", CATALOGUE)


def agree(event: str, value: bytes | None) -> None:
    """Fail where the contract and the second judge disagree, on the verdict or on its reason."""
    contracts(bytes([EVENTS.index(event)]) + (value or b""))


@each_event
def test_what_a_schema_and_the_rules_admit_is_accepted(event: str) -> None:
    @FEW
    @given(events(event))
    def is_accepted(document: dict[str, Any]) -> None:
        agree(event, as_bytes(document))

    is_accepted()


@each_event
def test_a_good_example_spoilt_is_judged_alike(event: str) -> None:
    random = Random(event)
    for _ in range(MANY_MUTATIONS):
        agree(event, mutated(random.choice(SEEDS[event]), random))


@each_event
def test_an_example_of_one_contract_is_judged_by_another_alike(event: str) -> None:
    for seeds in SEEDS.values():
        for value in seeds:
            agree(event, value)


@each_event
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_an_unknown_field_changes_no_verdict(event: str, name: str) -> None:
    """Whatever its name is, to Python or to other contracts."""
    agree(event, SEEDS[event][0].rstrip()[:-1] + b", " + as_bytes({name: "x"}).strip()[1:-1] + b"}")


@each_event
def test_garbage_is_refused(event: str) -> None:
    @FEW
    @given(
        st.none()
        | st.binary(max_size=200)
        | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    )
    def is_refused(value: bytes | None) -> None:
        agree(event, value)

    is_refused()
