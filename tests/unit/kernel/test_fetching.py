"""How a service waits for records: without a pause in which it looks away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from aiokafka import TopicPartition

from shared.broker import AssignmentWatch, make_broker, subscribe
from shared.settings import Settings
from shared.topics import SNAPSHOTS

PLACES = [TopicPartition("trueward.snapshots", number) for number in (0, 1)]


class Consumer:
    """Has nothing for a while, then records of two partitions."""

    def __init__(self, *answers: dict[TopicPartition, list[Any]]) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, int]] = []

    async def getmany(self, **asked: int) -> dict[TopicPartition, list[Any]]:
        self.asked.append(asked)
        return self._answers.pop(0)


async def test_a_look_in_vain_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slept(seconds: float) -> None:
        raise AssertionError(f"looked away for {seconds} s")

    async def consume(_records: Any, _kafka: Any) -> None:
        raise AssertionError("nothing is consumed here")

    monkeypatch.setattr(anyio, "sleep", slept)
    settings = Settings(max_batch_records=7)
    subscriber = subscribe(
        make_broker(settings, "test"),
        settings,
        group="alerting",
        topics=[SNAPSHOTS],
        watch=AssignmentWatch(),
        consume=consume,
    )
    one, two, three = (SimpleNamespace(offset=offset) for offset in range(3))
    consumer: Any = Consumer({}, {}, {PLACES[0]: [one, two], PLACES[1]: [three]})
    found = [await subscriber.get_msg(consumer) for _ in range(3)]
    assert found == [(), (), (one, two, three)]
    assert {asked["max_records"] for asked in consumer.asked} == {7}
    assert all(asked["timeout_ms"] > 0 for asked in consumer.asked), "it would never wait"
