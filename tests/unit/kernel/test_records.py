"""A fetched record in the kernel's terms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from shared.broker import as_record, as_records
from shared.reading import Fetched
from shared.records import Record, Records

CREATE_TIME, LOG_APPEND_TIME = 0, 1
PLACE = ("labels", 2)
MOMENT = datetime(2026, 6, 1, 12, 0, 0, 123_000, tzinfo=UTC)
MILLISECONDS = int(MOMENT.timestamp() * 1000)


def fetched(timestamp: int, timestamp_type: int) -> ConsumerRecord[bytes, bytes]:
    headers = (("name", b"\xff"),)
    return ConsumerRecord("prefix.labels", 2, 9, timestamp, timestamp_type, None, b"v", None, -1, 1, headers)


def test_a_record_keeps_everything() -> None:
    record = as_record(PLACE, fetched(MILLISECONDS, LOG_APPEND_TIME))
    assert (record.topic, record.partition, record.offset) == ("labels", 2, 9)
    assert (record.key, record.value, record.headers) == (None, b"v", (("name", b"\xff"),))
    assert record.received_at == MOMENT


@pytest.mark.parametrize("timestamp_type", [CREATE_TIME, LOG_APPEND_TIME])
def test_a_time_of_receipt_is_believed(timestamp_type: int) -> None:
    assert as_record(PLACE, fetched(MILLISECONDS, timestamp_type)).received_at == MOMENT


@pytest.mark.parametrize("timestamp", [-1, -(10**15), 10**14, 10**17, 2**63 - 1])
def test_a_senders_time_that_cannot_be_one_of_receipt_is_now(timestamp: int) -> None:
    now = datetime.now(UTC)
    received_at = as_record(PLACE, fetched(timestamp, CREATE_TIME)).received_at
    assert now <= received_at <= now + timedelta(minutes=1)


def test_a_brokers_clock_may_run_ahead_of_ours() -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    received_at = as_record(PLACE, fetched(int(ahead.timestamp() * 1000), LOG_APPEND_TIME)).received_at
    assert abs(received_at - ahead) < timedelta(milliseconds=2)


HERE, THERE = ("predictions", 0), ("labels", 3)


def records_of(**offsets: list[int]) -> Records:
    places = {"here": HERE, "there": THERE}
    return Records.of(
        Record(*places[name], offset, MOMENT, None, str(offset).encode())
        for name, found in offsets.items()
        for offset in found
    )


def told(records: Records) -> list[tuple[str, int]]:
    return [(record.topic, record.offset) for record in records]


def test_records_are_grouped_by_partition_in_the_order_of_their_offsets() -> None:
    records = records_of(here=[7, 5, 6], there=[9])
    assert [(run.place, run.first_offset, run.next_offset) for run in records.runs] == [
        (HERE, 5, 8),
        (THERE, 9, 10),
    ]
    assert told(records) == [("predictions", 5), ("predictions", 6), ("predictions", 7), ("labels", 9)]
    assert records[0].offset == 5
    assert records[-1].offset == 9
    with pytest.raises(IndexError):
        records[4]


@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.integers(0, 9), unique=True))
def test_halves_are_the_whole_and_each_is_smaller(here: list[int], there: list[int]) -> None:
    records = records_of(here=here, there=there)
    first, second = records.halves()
    assert told(first) + told(second) == told(records)
    if len(records) > 1:
        assert len(first) == len(records) // 2


@given(st.lists(st.integers(0, 9), unique=True, min_size=1), st.integers(0, 10))
def test_a_run_is_cut_at_an_offset(offsets: list[int], at: int) -> None:
    (run,) = records_of(here=offsets).runs
    assert [record.offset for record in run.since(at)] == [offset for offset in sorted(offsets) if offset >= at]
    assert [record.offset for record in run.before(at)] == [offset for offset in sorted(offsets) if offset < at]


def test_partitions_are_left_out_and_cut_by_their_place() -> None:
    records = records_of(here=[1, 2, 3], there=[1, 2])
    assert told(records.outside([THERE])) == [("predictions", 1), ("predictions", 2), ("predictions", 3)]
    assert told(records.before({HERE: 2})) == [("predictions", 1), ("labels", 1), ("labels", 2)]
    assert told(records.before({HERE: 1})) == [("labels", 1), ("labels", 2)]


def test_values_are_read_without_making_records() -> None:
    made: list[object] = []
    fetched_ones = [fetched(MILLISECONDS, LOG_APPEND_TIME), fetched(MILLISECONDS + 1000, LOG_APPEND_TIME)]
    (run,) = as_records(Fetched.of(fetched_ones), "prefix.").runs
    run._make = made.append  # type: ignore[assignment]  # says when one is made
    assert run.values() == [fetched_ones[0].value, fetched_ones[1].value]
    assert run.received_between() == (MOMENT, MOMENT + timedelta(seconds=1))
    assert made == []


def test_moments_that_a_sender_wrote_are_bounds_as_far_as_they_can_be_believed() -> None:
    before = datetime.now(UTC)
    fetched_ones = [fetched(MILLISECONDS, CREATE_TIME), fetched(-1, CREATE_TIME)]
    (run,) = as_records(Fetched.of(fetched_ones), "prefix.").runs
    first, last = run.received_between()
    assert first == MOMENT
    assert before <= last <= datetime.now(UTC)
