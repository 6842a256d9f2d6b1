"""Asking: patience, pages, and errors told apart."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest

from tests.unit.client.gateways import client_of
from trueward.client import AwayError, NotDecidedError, RequestRefusedError

PROBLEM = {"detail": "No model named 'x' is known.", "status": 404}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client paused; no time passes but that."""
    taken: list[float] = []
    monkeypatch.setattr("trueward.client.transport.time.sleep", taken.append)
    monkeypatch.setattr("trueward.client.transport.time.monotonic", lambda: sum(taken))
    return taken


def test_a_gateway_that_comes_back_is_asked_again_and_not_sooner_than_it_says(pauses: list[float]) -> None:
    client = client_of(
        [
            httpx.ConnectError("refused"),
            httpx.Response(503, headers={"Retry-After": "7"}),
            httpx.Response(429, headers={"Retry-After": "2"}),
            httpx.Response(200, json={"status": "ok"}),
        ]
    )
    assert client.status()["status"] == "ok"
    assert 0.1 <= pauses[0] <= 0.2
    assert pauses[1:] == [7, 2]


def test_patience_has_an_end(pauses: list[float]) -> None:
    client = client_of(
        lambda _: httpx.Response(503, json={"detail": "Kafka does not answer."}), patience_seconds=20
    )
    with pytest.raises(AwayError, match="the gateway at http://gateway cannot answer: Kafka does not answer"):
        client.status()
    assert sum(pauses) <= 20
    assert len(pauses) > 3
    assert max(pauses) <= 10


def test_nobody_there_is_said_with_the_address(pauses: list[float]) -> None:
    client = client_of([httpx.ConnectError("refused")], patience_seconds=0)
    with pytest.raises(AwayError, match="the gateway at http://gateway does not answer \\(refused\\)"):
        client.status()
    assert pauses == []


@pytest.mark.parametrize("status", [404, 409, 413, 422])
def test_a_wrong_question_is_not_asked_again(pauses: list[float], status: int) -> None:
    client = client_of([httpx.Response(status, json=PROBLEM)])
    with pytest.raises(RequestRefusedError, match="No model named") as raised:
        client.monitoring("x")
    assert (raised.value.status, raised.value.problem) == (status, PROBLEM)
    assert pauses == []


def test_a_mistake_of_the_gateway_is_not_asked_for_again(pauses: list[float]) -> None:
    with pytest.raises(AwayError, match="cannot answer: HTTP 500"):
        client_of([httpx.Response(500, text="oops")]).status()
    assert pauses == []


def test_something_else_at_the_gateways_place_is_no_gateway() -> None:
    with pytest.raises(AwayError, match="no Trueward gateway"):
        client_of([httpx.Response(200, text="<html>")]).status()


def test_parameters_that_are_not_given_are_not_sent() -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, json={})

    client_of(answer).monitoring("späte Flüge/ü", window="30d")
    assert asked[0].path == "/api/v1/mlops/monitoring"
    assert dict(asked[0].params) == {"model": "späte Flüge/ü", "window": "30d"}


def test_pages_are_asked_for_as_they_are_needed() -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        asked.append(cursor)
        page = {None: ([1, 2], "b"), "b": ([3], None)}[cursor]
        return httpx.Response(200, json={"jobs": page[0], "next_cursor": page[1]})

    jobs = client_of(answer).jobs()
    assert next(jobs) == 1
    assert asked == [None]
    assert list(jobs) == [2, 3]
    assert asked == [None, "b"]


PENDING = httpx.Response(202, json={"request_id": "r", "location": "/api/v1/mlops/retrain/requests/r?model=m"})


def test_a_run_of_the_policy_is_waited_for_under_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trueward.client.gateway.PENDING_PAUSE_SECONDS", 0)
    seen: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, str(request.url)))
        if request.method == "POST":
            assert request.headers["Idempotency-Key"] == "night"
            assert json.loads(request.content) == {"model": "m", "dry_run": False, "requested_by": "cron"}
        return PENDING if len(seen) < 3 else httpx.Response(200, json={"action": "noop"})

    run = client_of(answer).run_policy("m", idempotency_key="night", requested_by="cron")
    assert run["action"] == "noop"
    assert [method for method, _ in seen] == ["POST", "GET", "GET"]
    assert seen[1][1] == "http://gateway/api/v1/mlops/retrain/requests/r?model=m"


def test_a_decision_that_does_not_come_names_its_key() -> None:
    with pytest.raises(NotDecidedError) as raised:
        client_of([PENDING]).run_policy("m", wait_seconds=0)
    assert raised.value.request_id == "r"
    assert len(raised.value.idempotency_key) == 32


def test_the_client_stands_alone() -> None:
    code = (
        "import sys\n"
        "class Nothing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top in {'shared', 'services', 'deploy', 'pydantic', 'aiokafka', 'numpy', 'typer', 'rich'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "from trueward.client import ClientError, Topics, Trueward\n"
        "Trueward().close()\n"
        "try:\n"
        "    Topics()\n"
        "except ClientError as error:\n"
        "    print(error)\n"
        "from trueward.cli import main\n"
        "print(main(['status']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["Topics needs aiokafka: pip install 'trueward[kafka]'", "2"]
    assert done.stderr == "trueward: the command line comes with the services: pip install 'trueward[server]'\n"
