"""Every error is a problem document, whoever raised it and whatever was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.gateway.app import create_app
from services.gateway.problems import Problem, unknown_model
from services.gateway.resources import resources
from services.gateway.settings import GatewaySettings

NOBODY = "127.0.0.1:1"
REQUESTS = "/api/v1/mlops/retrain/requests"
JSON = {"Content-Type": "application/json"}
KEY = {**JSON, "Idempotency-Key": "k"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway whose database and broker are away."""
    app = create_app(GatewaySettings(postgres_dsn=f"postgresql://{NOBODY}/x", kafka_bootstrap_servers=NOBODY))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        yield client


def problem_of(answer: httpx.Response, status: int, kind: str | None) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document: dict[str, Any] = answer.json()
    assert document["status"] == answer.status_code == status
    assert document["type"] == ("about:blank" if kind is None else f"urn:trueward:problem:{kind}")
    assert set(document) - {"errors", "check"} == {"type", "title", "status", "detail", "instance"}
    assert document["detail"]
    return document


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/models/", 404),
        ("GET", "/docs", 404),
        ("POST", "/api/v1/models", 405),
        ("TRACE", "/health/live", 405),
        ("GET", REQUESTS, 405),
    ],
)
async def test_routes_that_are_not(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    document = problem_of(await client.request(method, path), status, None)
    assert document["instance"] == path


async def test_405_says_what_is_allowed(client: httpx.AsyncClient) -> None:
    assert (await client.put("/health/live")).headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/mlops/monitoring", "model"),
        ("/api/v1/mlops/monitoring?model=", "model"),
        ("/api/v1/mlops/monitoring?model=%00", "model"),
        ("/api/v1/mlops/monitoring?model=" + "m" * 129, "model"),
        ("/api/v1/mlops/monitoring?model=m&window=2d", "window"),
        ("/api/v1/mlops/monitoring?model=m&window=", "window"),
        ("/api/v1/mlops/monitoring?model=m&segment=carrier", "segment"),
        ("/api/v1/mlops/monitoring?model=m&version=", "version"),
        ("/api/v1/mlops/monitoring?model=m&windw=1d", "windw"),
        ("/api/v1/mlops/monitoring/trend?model=m&days=0", "days"),
        ("/api/v1/mlops/monitoring/trend?model=m&days=36501", "days"),
        ("/api/v1/mlops/monitoring/trend?model=m&days=1.5", "days"),
        ("/api/v1/mlops/monitoring/trend?model=m&limit=1001", "limit"),
        ("/api/v1/mlops/monitoring/trend?model=m&cursor=x", "cursor"),
        ("/api/v1/mlops/retrain/policy?model=m&dry_run=perhaps", "dry_run"),
        ("/api/v1/mlops/retrain/jobs?status=lost", "status"),
        ("/api/v1/mlops/retrain/jobs?limit=201", "limit"),
        ("/api/v1/models?limit=0", "limit"),
        (f"{REQUESTS}/request-1", "model"),
    ],
)
async def test_parameters_that_break_a_rule_are_named(client: httpx.AsyncClient, path: str, field: str) -> None:
    document = problem_of(await client.get(path), 422, "invalid-request")
    assert [error["field"] for error in document["errors"]] == [field]
    assert all(error["rule"] for error in document["errors"])


@pytest.mark.parametrize(
    ("body", "headers", "field"),
    [
        (b'{"model": "m"}', JSON, "Idempotency-Key"),
        (b'{"model": "m"}', {**JSON, "Idempotency-Key": "k" * 256}, "Idempotency-Key"),
        (b'{"model": "m"}', {**JSON, "Idempotency-Key": "two words"}, "Idempotency-Key"),
        (b"", KEY, "body"),
        (b"\xff", KEY, "body"),
        (b"{", KEY, "body"),
        (b"[" * 60_000, KEY, "body"),
        (b"[]", KEY, "body"),
        (b"{}", KEY, "model"),
        (b'{"model": 1}', KEY, "model"),
        (b'{"model": "\\u0000"}', KEY, "model"),
        (b'{"model": "m", "dry_run": "true"}', KEY, "dry_run"),
        (b'{"model": "m", "dryrun": true}', KEY, "dryrun"),
        (b'{"model": "m"}', {"Content-Type": "text/plain", "Idempotency-Key": "k"}, "body"),
    ],
)
async def test_bodies_and_headers_that_break_a_rule_are_named(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str], field: str
) -> None:
    answer = await client.post(REQUESTS, content=body, headers=headers)
    document = problem_of(answer, 422, "invalid-request")
    assert [error["field"] for error in document["errors"]] == [field]


async def test_names_that_utf_8_cannot_say_are_answered_all_the_same(client: httpx.AsyncClient) -> None:
    answer = await client.post(REQUESTS, content=b'{"model": "\\ud800", "\\udc00": 1}', headers=KEY)
    assert problem_of(answer, 422, "invalid-request")["errors"]


async def test_a_parameter_in_a_posts_address_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{REQUESTS}?dry_run=true", content=b'{"model": "m"}', headers=KEY)
    assert problem_of(answer, 422, "invalid-request")["errors"][0]["field"] == "dry_run"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/mlops/monitoring?model=m",
        "/api/v1/mlops/monitoring/trend?model=m",
        "/api/v1/mlops/retrain/policy?model=m",
        "/api/v1/mlops/retrain/policy?model=m&dry_run=false",
        "/api/v1/mlops/retrain/jobs",
        "/api/v1/mlops/policies?model=m",
        f"{REQUESTS}/request-1?model=m",
        "/api/v1/models",
        "/health/ready",
    ],
)
async def test_a_database_that_is_away(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    document = problem_of(answer, 503, "database-away")
    assert "PostgreSQL does not answer (ConnectionRefusedError" in document["detail"]
    assert answer.headers["retry-after"] == "1"


async def test_what_needs_no_database_answers_without_one(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "live"}
    assert "trueward_http_requests_total" in (await client.get("/metrics")).text
    assert (await client.get("/")).status_code == 200
    status = (await client.get("/api/v1/system/status")).json()
    assert status["status"] == "degraded"
    assert status["dependencies"]["postgresql"]["ok"] is status["dependencies"]["kafka"]["ok"] is False


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_pages_of_others_run_no_policy(client: httpx.AsyncClient, site: str, method: str) -> None:
    headers = {**KEY, "Sec-Fetch-Site": site}
    if method == "GET":
        answer = await client.get("/api/v1/mlops/retrain/policy?model=m&dry_run=false", headers=headers)
    else:
        answer = await client.post(REQUESTS, content=b'{"model": "m"}', headers=headers)
    problem_of(answer, 403, "cross-site-request")


async def test_a_prefetch_runs_no_policy(client: httpx.AsyncClient) -> None:
    headers = {"Sec-Fetch-Site": "none", "Sec-Purpose": "prefetch;prerender"}
    answer = await client.get("/api/v1/mlops/retrain/policy?model=m&dry_run=false", headers=headers)
    problem_of(answer, 403, "prefetch")


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_our_own_page_and_people_may(client: httpx.AsyncClient, site: str) -> None:
    headers = {"Sec-Fetch-Site": site}
    answer = await client.get("/api/v1/mlops/retrain/policy?model=m&dry_run=false", headers=headers)
    problem_of(answer, 503, "database-away")


async def test_reading_is_open_to_every_page(client: httpx.AsyncClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    problem_of(await client.get("/api/v1/mlops/retrain/policy?model=m", headers=headers), 503, "database-away")


async def test_our_own_mistakes_are_problems_too() -> None:
    app = create_app(GatewaySettings())

    def mistaken() -> None:
        raise ZeroDivisionError("secret")

    app.dependency_overrides[resources] = mistaken
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        document = problem_of(await client.get("/api/v1/models"), 500, None)
    assert "ZeroDivisionError" in document["detail"]
    assert "secret" not in document["detail"]


def test_an_unknown_model_lists_what_to_check() -> None:
    document = unknown_model("flihgts", "test.").document("/path with ünicode")
    assert "'flihgts'" in document["detail"]
    assert len(document["check"]) == 4
    assert all(item in document["detail"] for item in document["check"])
    assert "test.predictions" in document["detail"]
    assert document["instance"] == "/path%20with%20%C3%BCnicode"


def test_a_problem_says_nothing_that_it_does_not_have() -> None:
    assert Problem(404, None, "gone").document("/x") == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "gone",
        "instance": "/x",
    }
