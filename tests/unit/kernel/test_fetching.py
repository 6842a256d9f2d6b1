"""How a service takes records: its partitions abreast, and without a pause in which it looks away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from shared.broker import AssignmentWatch, make_broker, subscribe
from shared.fetching import take_abreast
from shared.settings import Settings
from shared.topics import SNAPSHOTS

PLACES = [TopicPartition("trueward.snapshots", number) for number in (0, 1)]


class Consumer:
    """Has nothing for so many looks, then records of some partitions, of each in order."""

    def __init__(self, logs: dict[TopicPartition, list[Any]], in_vain: int = 0) -> None:
        self._logs = logs
        self._in_vain = in_vain
        self.waited: list[int] = []
        self.broken: set[TopicPartition] = set()

    def assignment(self) -> set[TopicPartition]:
        return set(self._logs)

    async def getmany(
        self, *partitions: TopicPartition, max_records: int, timeout_ms: int = 0
    ) -> dict[TopicPartition, list[Any]]:
        self.waited.append(timeout_ms)
        if self.broken.intersection(partitions):
            raise KafkaConnectionError("away")
        if self._in_vain:
            self._in_vain -= 1
            return {}
        found: dict[TopicPartition, list[Any]] = {}
        for partition in partitions or self._logs:
            taken = self._logs[partition][:max_records]
            if taken:
                found[partition] = taken
                del self._logs[partition][: len(taken)]
                max_records -= len(taken)
            if not max_records:
                break
        return found


def log_of(partition: TopicPartition, count: int) -> list[Any]:
    return [SimpleNamespace(partition=partition.partition, offset=offset) for offset in range(count)]


def told(records: Any) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record.offset)
    return found


async def test_partitions_are_taken_in_equal_shares() -> None:
    consumer: Any = Consumer({PLACES[0]: log_of(PLACES[0], 100), PLACES[1]: log_of(PLACES[1], 100)})
    taken = await take_abreast(consumer, 10, 50)
    assert told(taken) == {0: [0, 1, 2, 3, 4], 1: [0, 1, 2, 3, 4]}
    assert told(await take_abreast(consumer, 4, 50)) == {0: [5, 6], 1: [5, 6]}


async def test_a_partition_that_is_alone_takes_the_share_of_those_that_have_nothing() -> None:
    consumer: Any = Consumer({PLACES[0]: [], PLACES[1]: log_of(PLACES[1], 100)})
    taken: list[Any] = []
    for _ in range(3):
        taken += await take_abreast(consumer, 10, 50)
    assert told(taken)[1] == list(range(len(taken)))
    assert len(taken) >= 15


async def test_what_is_taken_is_kept_where_another_partition_cannot_be_read() -> None:
    consumer: Any = Consumer({PLACES[0]: log_of(PLACES[0], 3), PLACES[1]: log_of(PLACES[1], 3)})
    consumer.broken = {PLACES[1]}
    assert told(await take_abreast(consumer, 10, 50)) == {0: [0, 1, 2], 1: [0, 1]}


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
        most_at_once=7,
    )
    consumer: Any = Consumer({PLACES[0]: log_of(PLACES[0], 2), PLACES[1]: log_of(PLACES[1], 1)}, in_vain=2)
    found = [await subscriber.get_msg(consumer) for _ in range(3)]
    assert list(map(told, found)) == [{}, {}, {0: [0, 1], 1: [0]}]
    assert all(waited > 0 for waited in consumer.waited[:3]), "it would never wait"
