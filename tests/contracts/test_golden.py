from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deploy.docs.schemas import schema_documents
from shared.contracts.base import canonical_json, sha256_of, unknown_fields
from shared.contracts.catalogue import CATALOGUE
from shared.contracts.snapshots import Snapshot
from tests.contracts.examples import EXAMPLES, GOLDEN, Example, example

each_example = pytest.mark.parametrize("golden", EXAMPLES, ids=str)
SCHEMAS = schema_documents()


def as_far_as_stored(document: Any, stored: Any) -> Any:
    """A document without the fields that came later than the stored one: a contract may gain optional fields."""
    if isinstance(document, dict) and isinstance(stored, dict):
        return {name: as_far_as_stored(document[name], stored[name]) for name in document if name in stored}
    if isinstance(document, list) and isinstance(stored, list) and len(document) == len(stored):
        return [as_far_as_stored(*pair) for pair in zip(document, stored, strict=True)]
    return document


@pytest.mark.parametrize("event", CATALOGUE)
def test_every_event_has_several_examples(event: str) -> None:
    assert len([one for one in EXAMPLES if one.event == event]) >= 2


def test_every_folder_is_of_an_event_and_every_canonical_form_of_an_example() -> None:
    assert {folder.name for folder in GOLDEN.iterdir()} == set(CATALOGUE)
    for canonical in GOLDEN.glob("*/*.canonical.json"):
        assert canonical.with_name(canonical.name.replace(".canonical", "")).exists()


@each_example
def test_an_example_decodes_and_re_encodes_to_the_same_canonical_json(golden: Example) -> None:
    document = golden.decode().known()
    assert canonical_json(as_far_as_stored(document, golden.canonical)) == canonical_json(golden.canonical)


@each_example
def test_what_is_encoded_decodes_to_the_same_bytes(golden: Example) -> None:
    encoded = golden.decode().to_json()
    again = golden.contract.model_validate_json(encoded)
    assert again.to_json() == encoded
    assert unknown_fields(again) == ()


@each_example
def test_an_example_and_its_canonical_form_follow_the_json_schema(golden: Example) -> None:
    validator = Draft202012Validator(SCHEMAS[f"{golden.event}.schema.json"])
    validator.validate(golden.contract.model_validate_json(golden.sent).known())
    validator.validate(golden.canonical)


@pytest.mark.parametrize("golden", [one for one in EXAMPLES if one.event == "snapshot.v1"], ids=str)
def test_a_stored_snapshot_proves_its_policy(golden: Example) -> None:
    """An auditor recomputes the hash from the stored JSON alone, whatever the code has learnt since."""
    assert sha256_of(golden.canonical["policy"]) == golden.canonical["policy_sha256"]


def test_a_snapshots_policy_hash_is_that_of_the_policy_that_came_into_force() -> None:
    snapshot = example("snapshot.v1", "regression").decode()
    assert isinstance(snapshot, Snapshot)
    assert snapshot.policy.sha256() == snapshot.policy_sha256


def test_unknown_fields_are_ignored_and_counted_at_any_depth() -> None:
    golden = example("policy.v1", "everything-off-and-a-rule-from-tomorrow")
    policy = golden.decode()
    assert unknown_fields(policy) == ("rules.drift_breach",)
    assert b"drift_breach" not in policy.to_json()
    prediction = example("prediction.v1", "binary-other-zone-and-unknown-field").decode()
    assert unknown_fields(prediction) == ("feature_store",)
    assert b"feature_store" not in prediction.to_json()


def test_unknown_fields_inside_lists_and_maps_of_a_contract_are_named_by_their_place() -> None:
    document = dict(example("snapshot.v1", "event-clock-full").canonical)
    document["metrics"] = {
        **document["metrics"],
        "reliability": [{**document["metrics"]["reliability"][0], "median": 0.5}],
    }
    document["versions"] = {"v1": {"evaluated_predictions": 1, "f1_score": 0.5}}
    snapshot = Snapshot.model_validate_json(canonical_json(document))
    assert set(unknown_fields(snapshot)) == {"metrics.reliability.0.median", "versions.v1.f1_score"}
    assert b"median" not in snapshot.to_json()
    assert b"f1_score" not in snapshot.to_json()


def test_a_free_map_is_the_senders_own_affair() -> None:
    version = example("model-version.v1", "champion-full").decode()
    assert unknown_fields(version) == ()
    assert version.known()["training"]["nested"] == {"path": "C:\\u0000 is no NUL"}
