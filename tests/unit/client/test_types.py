"""The client's types are those of the API: held against its own description."""

from __future__ import annotations

from typing import Any, get_type_hints, is_typeddict

import pytest

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from trueward.client import types

SCHEMAS: dict[str, Any] = create_app(GatewaySettings()).openapi()["components"]["schemas"]
PUBLISHED = {"Prediction", "Label", "PipelineRun", "OpenLineageRunEvent", "ModelVersion"}
INNER = {
    "OpenLineageRun": "OpenLineageRunEventOpenLineageRun",
    "OpenLineageJob": "OpenLineageRunEventOpenLineageJob",
}
NAMES = [name for name, found in vars(types).items() if is_typeddict(found)]


def schema_of(name: str) -> dict[str, Any]:
    if name in PUBLISHED:
        name = name if name.endswith("Event") else f"{name}Event"
    found: dict[str, Any] = SCHEMAS[INNER.get(name, name)]
    return found


def test_there_is_something_to_compare() -> None:
    assert len(NAMES) > 25


@pytest.mark.parametrize("name", NAMES)
def test_a_type_has_the_fields_that_the_api_names(name: str) -> None:
    assert set(get_type_hints(vars(types)[name])) == set(schema_of(name)["properties"])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_what_must_be_published_is_what_the_contract_requires(name: str) -> None:
    assert vars(types)[name].__required_keys__ == set(schema_of(name)["required"]), name
