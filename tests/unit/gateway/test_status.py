from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest

from services.gateway.kafka import Kafka
from services.gateway.problems import Problem
from services.gateway.settings import GatewaySettings
from services.gateway.status import Status, partition_lags
from services.gateway.store import Store
from shared.records import Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SNAPSHOTS = ("snapshots", 0)


def inbox(next_offset: int) -> dict[str, Any]:
    return {"next_offset": next_offset, "lost_records": 0, "updated_at": NOW}


@pytest.mark.parametrize(
    ("next_offset", "log", "lag"),
    [
        (10, (0, 10), 0),
        (7, (0, 10), 3),
        (None, (0, 10), 10),
        (None, (4, 10), 6),
        (2, (4, 10), 6),
        (12, (0, 10), 0),
        (7, None, None),
    ],
)
def test_lag_is_what_is_still_to_take(
    next_offset: int | None, log: tuple[int, int] | None, lag: int | None
) -> None:
    inboxes = {} if next_offset is None else {("alerting", SNAPSHOTS): inbox(next_offset)}
    ranges: dict[Place, tuple[int, int]] = {} if log is None else {SNAPSHOTS: log}
    (found,) = (lag for lag in partition_lags(inboxes, ranges) if lag.service == "alerting")
    assert (found.topic, found.partition, found.next_offset, found.lag) == ("snapshots", 0, next_offset, lag)
    assert found.end_offset == (log and log[1])


def test_every_reader_of_a_partition_has_its_own_lag() -> None:
    lags = partition_lags({("alerting", SNAPSHOTS): inbox(3)}, {SNAPSHOTS: (0, 5)})
    assert [(lag.service, lag.lag) for lag in lags] == [("alerting", 2), ("retrain", 5)]


class FakeStore:
    def __init__(self, *, away: bool = False) -> None:
        self._away = away

    async def ping(self) -> None:
        if self._away:
            raise Problem(503, "database-away", "PostgreSQL does not answer")

    async def inboxes(self) -> list[Any]:
        return [{"service": "alerting", "topic": "snapshots", "partition": 0, **inbox(3)}]

    async def outboxes(self) -> dict[str, Any]:
        return {}

    async def clock(self) -> None:
        return None

    async def artifacts(self) -> list[Any]:
        return []


class FakeKafka:
    def __init__(self, why: str | None = None) -> None:
        self._why = why

    async def obstacle(self) -> str | None:
        return self._why

    async def log_ranges(self, topics: set[str]) -> dict[Place, tuple[int, int]]:
        assert {"predictions", "snapshots", "retrain-requests"} <= topics
        return {SNAPSHOTS: (0, 5)}


def services(request: httpx.Request) -> httpx.Response:
    """Four kinds of services, by host."""
    assert request.url.path == "/health/ready"
    match request.url.host:
        case "ready":
            return httpx.Response(200, json={"status": "ready"})
        case "waiting":
            return httpx.Response(503, json={"status": "not ready", "detail": "waiting for Kafka"})
        case "strange":
            return httpx.Response(500, text="oops")
    raise httpx.ConnectError("refused")


async def status_of(
    *, store: FakeStore | None = None, kafka: FakeKafka | None = None, **settings: Any
) -> dict[str, Any]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(services)) as http:
        status = Status(
            GatewaySettings(**settings),
            cast("Store", store or FakeStore()),
            cast("Kafka", kafka or FakeKafka()),
            http,
        )
        return (await status.system()).model_dump(mode="json")


@pytest.mark.parametrize(
    ("url", "ready", "detail", "overall"),
    [
        ("http://ready/", True, "ready", "ok"),
        ("http://waiting", False, "waiting for Kafka", "degraded"),
        ("http://strange", False, "HTTP 500", "degraded"),
        ("http://gone", False, "does not answer at http://gone (ConnectError: refused)", "degraded"),
        (None, None, "the gateway was not told where it answers", "ok"),
    ],
)
async def test_a_service_is_as_it_says_itself(
    url: str | None, ready: bool | None, detail: str, overall: str
) -> None:
    found = await status_of(alerting_url=url)
    assert found["services"]["alerting"] == {"ready": ready, "detail": detail}
    assert found["services"]["gateway"]["ready"] is True
    assert found["status"] == overall


async def test_everything_works() -> None:
    found = await status_of()
    assert found["dependencies"] == {
        "postgresql": {"ok": True, "detail": "answers"},
        "kafka": {"ok": True, "detail": "answers"},
    }
    assert [lag["lag"] for lag in found["consumer_lag"]] == [2, 5]


async def test_without_a_database_the_rest_is_still_told() -> None:
    found = await status_of(store=FakeStore(away=True))
    assert found["status"] == "degraded"
    assert found["dependencies"]["postgresql"] == {"ok": False, "detail": "PostgreSQL does not answer"}
    assert found["dependencies"]["kafka"]["ok"] is True
    assert [lag["next_offset"] for lag in found["consumer_lag"]] == [None, None]


async def test_without_a_broker_offsets_are_told_and_ends_unknown() -> None:
    found = await status_of(kafka=FakeKafka("KafkaConnectionError"))
    assert found["status"] == "degraded"
    (lag,) = found["consumer_lag"]
    assert (lag["next_offset"], lag["end_offset"], lag["lag"]) == (3, None, None)


async def test_a_broker_whose_log_ends_cannot_be_believed_is_not_asked_for_them() -> None:
    found = await status_of(kafka_true_end_offsets=False)
    (lag,) = found["consumer_lag"]
    assert (lag["next_offset"], lag["end_offset"], lag["lag"]) == (3, None, None)
    assert found["status"] == "ok"
