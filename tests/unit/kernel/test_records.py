"""A fetched record in the kernel's terms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import ConsumerRecord

from shared.broker import as_record

CREATE_TIME, LOG_APPEND_TIME = 0, 1
MOMENT = datetime(2026, 6, 1, 12, 0, 0, 123_000, tzinfo=UTC)
MILLISECONDS = int(MOMENT.timestamp() * 1000)


def fetched(timestamp: int, timestamp_type: int) -> ConsumerRecord[bytes, bytes]:
    headers = (("name", b"\xff"),)
    return ConsumerRecord("prefix.labels", 2, 9, timestamp, timestamp_type, None, b"v", None, -1, 1, headers)


def test_a_record_keeps_everything_but_the_prefix() -> None:
    record = as_record(fetched(MILLISECONDS, LOG_APPEND_TIME), "prefix.")
    assert (record.topic, record.partition, record.offset) == ("labels", 2, 9)
    assert (record.key, record.value, record.headers) == (None, b"v", (("name", b"\xff"),))
    assert record.received_at == MOMENT


@pytest.mark.parametrize("timestamp_type", [CREATE_TIME, LOG_APPEND_TIME])
def test_a_time_of_receipt_is_believed(timestamp_type: int) -> None:
    assert as_record(fetched(MILLISECONDS, timestamp_type), "prefix.").received_at == MOMENT


@pytest.mark.parametrize("timestamp", [-1, -(10**15), 10**14, 10**17, 2**63 - 1])
def test_a_senders_time_that_cannot_be_one_of_receipt_is_now(timestamp: int) -> None:
    now = datetime.now(UTC)
    received_at = as_record(fetched(timestamp, CREATE_TIME), "prefix.").received_at
    assert now <= received_at <= now + timedelta(minutes=1)


def test_a_brokers_clock_may_run_ahead_of_ours() -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    received_at = as_record(fetched(int(ahead.timestamp() * 1000), LOG_APPEND_TIME), "prefix.").received_at
    assert abs(received_at - ahead) < timedelta(milliseconds=2)
