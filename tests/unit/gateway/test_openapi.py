"""What the API says of itself, where schemathesis does not look."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from services.gateway import listing
from services.gateway.answers import AlertThresholds
from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.contracts.models import Policy, Rules

DOCUMENT = create_app(GatewaySettings()).openapi()
ENDPOINTS = {
    ("get", "/api/v1/mlops/monitoring"): ["model", "version", "segment", "window"],
    ("get", "/api/v1/mlops/monitoring/trend"): ["model", "days", "limit", "cursor"],
    ("get", "/api/v1/mlops/retrain/policy"): ["model", "dry_run"],
    ("post", "/api/v1/mlops/retrain/requests"): ["Idempotency-Key"],
    ("get", "/api/v1/mlops/retrain/requests/{request_id}"): ["request_id", "model"],
    ("get", "/api/v1/mlops/retrain/jobs"): ["model", "status", "limit", "cursor"],
    ("get", "/api/v1/mlops/policies"): ["model", "limit", "cursor"],
    ("post", "/api/v1/ingest/predictions"): [],
    ("post", "/api/v1/ingest/labels"): [],
    ("post", "/api/v1/ingest/pipeline-runs"): [],
    ("post", "/api/v1/ingest/model-versions"): [],
    ("get", "/api/v1/overview"): ["q", "state", "sort", "limit", "points", "cursor"],
    ("get", "/api/v1/mlops/monitoring/series"): ["model", "days", "points"],
    ("get", "/api/v1/mlops/monitoring/segments"): ["model", "version", "window"],
    ("get", "/api/v1/mlops/alerts/transitions"): ["model", "limit", "cursor"],
    ("get", "/api/v1/mlops/retrain/decisions"): ["model", "action", "limit", "cursor"],
    ("get", "/api/v1/system/status"): [],
    ("get", "/api/v1/models"): ["limit", "cursor"],
    ("get", "/health/live"): [],
    ("get", "/health/ready"): [],
    ("get", "/metrics"): [],
}


def operations() -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield (method, path), operation


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_the_endpoints_and_their_parameters() -> None:
    found = {
        place: [parameter["name"] for parameter in operation.get("parameters", [])]
        for place, operation in operations()
    }
    assert found == ENDPOINTS


def test_every_error_is_described_as_a_problem_and_nothing_else() -> None:
    for place, operation in operations():
        errors = {status: response for status, response in operation["responses"].items() if status >= "400"}
        assert "500" in errors, place
        for response in errors.values():
            assert list(response["content"]) == ["application/problem+json"], place
            assert response["content"]["application/problem+json"]["schema"] == {
                "$ref": "#/components/schemas/Problem"
            }


def test_every_reference_leads_somewhere() -> None:
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', _as_text()))
    assert references <= set(DOCUMENT["components"]["schemas"])
    assert "HTTPValidationError" not in DOCUMENT["components"]["schemas"]


def test_no_parameter_can_be_null() -> None:
    for place, operation in operations():
        for parameter in operation.get("parameters", []):
            assert "null" not in str(parameter["schema"]), place


def test_every_field_of_an_answer_is_always_there() -> None:
    for name in ("Monitoring", "FiguresWithReliability", "Trend", "PolicyRun", "Jobs", "Models", "SystemStatus"):
        schema = DOCUMENT["components"]["schemas"][name]
        assert set(schema["required"]) == set(schema["properties"]), name


def test_the_listing_loads_nothing_and_lists_every_endpoint() -> None:
    html = listing.render(DOCUMENT)
    assert not re.search(r"<(script|link|img|style|iframe)|https?:|url\(", html)
    for _, path in ENDPOINTS:
        assert path in html


def test_the_listing_escapes_what_it_shows() -> None:
    operation = {"description": "<b>", "parameters": [{"name": "<i>", "in": "query"}]}
    html = listing.render({"paths": {"/<u>": {"get": operation}}, "openapi": "3.1.0", "info": {"version": "<s>"}})
    assert not re.search(r"<[bius]>", html)


@pytest.mark.parametrize(
    "off",
    ["accuracy_breach", "brier_breach", "multiclass_brier_breach", "mae_breach", "data_stale", "pipeline_stale"],
)
def test_the_thresholds_of_a_rule_that_is_off_are_null(off: str) -> None:
    shown = AlertThresholds.of(Policy(model="m", rules=Rules(**{off: None}))).model_dump()
    begins = {
        "accuracy_breach": "accuracy",
        "brier_breach": "brier",
        "multiclass_brier_breach": "multiclass_brier",
        "mae_breach": "mae",
        "data_stale": "data",
        "pipeline_stale": "pipeline",
    }[off]
    assert {name for name, value in shown.items() if value is None} == {
        "mae_baseline",
        *(name for name in shown if name.startswith(begins)),
    }


def test_the_default_thresholds() -> None:
    assert AlertThresholds.of(Policy(model="m")).model_dump() == {
        "min_evaluated": 30,
        "accuracy_below": 0.55,
        "brier_above": 0.25,
        "brier_high_above": 0.33,
        "multiclass_brier_above": 0.5,
        "multiclass_brier_high_above": 0.66,
        "mae_baseline": None,
        "mae_above_ratio": 1.25,
        "mae_high_above_ratio": 1.5,
        "data_freshness_above_seconds": 172_800,
        "data_freshness_high_above_seconds": 345_600,
        "pipeline_freshness_above_seconds": 172_800,
        "pipeline_freshness_high_above_seconds": 345_600,
    }


def _as_text() -> str:
    return json.dumps(DOCUMENT)
