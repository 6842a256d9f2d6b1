"""The same fact always has the same CloudEvents id, and different facts have different ones."""

from __future__ import annotations

from itertools import combinations

import pytest

from shared.contracts.base import Event, canonical_json
from shared.contracts.catalogue import CATALOGUE
from shared.contracts.snapshots import snapshot_id
from shared.effects import cloud_event_headers
from tests.contracts.examples import EXAMPLES, Example

PUBLISHED = tuple(one for one in EXAMPLES if issubclass(one.contract, Event))

# Written out, so that no change of how ids are made goes unnoticed: readers hold the old ones.
IDS = {
    "alert-transition.v1/de-escalated": "snapshot-ea85fc5794cbef19-8-brier_breach-de_escalated",
    "alert-transition.v1/escalated": "snapshot-ea85fc5794cbef19-8-accuracy_breach-escalated",
    "alert-transition.v1/mae-opened": "snapshot-4b11e110b63bf52c-40-mae_breach-opened",
    "alert-transition.v1/opened": "snapshot-ea85fc5794cbef19-7-accuracy_breach-opened",
    "alert-transition.v1/resolved-for-want-of-data": "snapshot-ea85fc5794cbef19-8-accuracy_breach-resolved",
    "alert-transition.v1/state-changed": "snapshot-ea85fc5794cbef19-8-state-state_changed",
    "dead-letter.v1/garbage-without-a-key": "metrics-predictions-2-0",
    "dead-letter.v1/invalid": "metrics-predictions-2-2276",
    "dead-letter.v1/tombstone": "metrics-predictions-2-9223372036854775806",
    "dead-letter.v1/too-late": "metrics-predictions-1-41",
    "retrain-decision.v1/already-queued": "decision-02",
    "retrain-decision.v1/noop-on-request": "decision-04",
    "retrain-decision.v1/observed-noop-on-nothing-known": "decision-03",
    "retrain-decision.v1/queued-retrain": "decision-01",
    "retrain-decision.v1/queued-retrain-for-mae": "decision-40",
    "retrain-job.v1/completed": "job-01-4",
    "retrain-job.v1/expired-without-a-champion": "job-01-3",
    "retrain-job.v1/judged-revert": "job-01-5",
    "retrain-job.v1/judged-revert-by-mae": "job-40-5",
    "retrain-job.v1/queued": "job-01-1",
    "retrain-job.v1/running": "job-01-3",
    "snapshot.v1/event-clock-full": "snapshot-ea85fc5794cbef19-8",
    "snapshot.v1/first-nothing-known": "snapshot-80270e39ab5a8e50-1",
    "snapshot.v1/multiclass": "snapshot-5a39e06ec7baa5d5-7",
    "snapshot.v1/regression": "snapshot-4b11e110b63bf52c-40",
    "snapshot.v1/required-fields-alone": "snapshot-ea85fc5794cbef19-2",
    "snapshot.v1/wall-clock-after-an-outage": "snapshot-ea85fc5794cbef19-9",
}


def decoded(golden: Example) -> Event:
    event = golden.decode()
    assert isinstance(event, Event)
    return event


def test_the_ids_of_stored_events_never_change() -> None:
    assert {str(golden): decoded(golden).event_id() for golden in PUBLISHED} == IDS


@pytest.mark.parametrize("golden", PUBLISHED, ids=str)
def test_an_id_survives_encoding(golden: Example) -> None:
    event = decoded(golden)
    again = type(event).model_validate_json(event.to_json())
    assert (again.event_id(), again.subject(), again.event_time()) == (
        event.event_id(),
        event.subject(),
        event.event_time(),
    )


@pytest.mark.parametrize("golden", PUBLISHED, ids=str)
def test_an_unknown_field_does_not_change_an_id(golden: Example) -> None:
    document = {**golden.canonical, "learnt_later": 1}
    later = golden.contract.model_validate_json(canonical_json(document))
    assert isinstance(later, Event)
    assert later.event_id() == decoded(golden).event_id()


def test_different_snapshots_have_different_ids_of_at_most_128_characters() -> None:
    models = ("a", "a-1", "a-1-1", "m" * 128, "字" * 128)
    ids = [snapshot_id(model, sequence) for model in models for sequence in (1, 11, 2**62)]
    assert all(one != other for one, other in combinations(ids, 2))
    assert max(map(len, ids)) <= 128


@pytest.mark.parametrize("golden", PUBLISHED, ids=str)
def test_an_event_travels_with_the_attributes_of_cloud_events(golden: Example) -> None:
    event = decoded(golden)
    headers = dict(cloud_event_headers("retrain", event))
    assert headers.pop("ce_time").endswith("Z")
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": event.event_id(),
        "ce_source": "/trueward/retrain",
        "ce_type": f"trueward.{golden.event}",
        "ce_subject": event.subject(),
        "content-type": "application/json",
    }


def test_a_cloud_events_type_is_the_contracts_name_in_the_catalogue() -> None:
    for name, contract in CATALOGUE.items():
        if issubclass(contract, Event):
            assert contract.event_type == f"trueward.{name}"
