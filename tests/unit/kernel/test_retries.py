"""Trying again: what ends it, what does not."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import stamina
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from shared.errors import InputLostError, TruewardError, UsageError
from shared.instruments import RETRIES_TOTAL
from shared.retries import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, until_done


class Attempts:
    """Fails with what it is given, in turn; then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


@pytest.mark.parametrize(
    "fault",
    [
        ConnectionRefusedError("no"),
        TimeoutError(),
        KafkaConnectionError("away"),
        asyncpg.LockNotAvailableError("busy"),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.InterfaceError("closed"),
        asyncpg.SerializationError("again"),
        KeyError("a mistake of ours is no reason to lose a record"),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_fault_is_tried_again_and_said(fault: Exception) -> None:
    attempt = Attempts(fault, fault)
    counted = RETRIES_TOTAL.labels(fault=type(fault).__name__)
    before = counted._value.get()
    with stamina.set_testing(True, attempts=10), capture_logs() as logs:
        assert await until_done("the thing", attempt) == "done"
    assert attempt.made == 3
    assert counted._value.get() == before + 2
    assert [(line["what"], line["attempt"], line["fault"]) for line in logs] == [
        ("the thing", 1, type(fault).__name__),
        ("the thing", 2, type(fault).__name__),
    ]


@pytest.mark.parametrize("error", [TruewardError("no use"), UsageError("wrong"), InputLostError("lost")])
async def test_an_expected_error_ends_at_once(error: TruewardError) -> None:
    attempt = Attempts(error)
    with capture_logs() as logs, pytest.raises(type(error), match=str(error)):
        await until_done("the thing", attempt)
    assert attempt.made == 1
    assert logs == []


async def test_an_expected_error_after_faults_ends_too() -> None:
    attempt = Attempts(OSError(), TruewardError("no use"))
    with stamina.set_testing(True, attempts=10), pytest.raises(TruewardError, match="no use"):
        await until_done("the thing", attempt)
    assert attempt.made == 2


async def test_cancellation_ends_an_attempt() -> None:
    begun = asyncio.Event()

    async def attempt() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(until_done("the thing", attempt))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_ends_the_wait_between_attempts() -> None:
    failed = asyncio.Event()

    async def attempt() -> None:
        failed.set()
        raise OSError

    task = asyncio.create_task(until_done("the thing", attempt))
    await failed.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_waits_grow_and_stay_below_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    # stamina sleeps through asyncio; what it would wait is all that is asked here.
    monkeypatch.setattr("asyncio.sleep", sleep)
    await until_done("the thing", Attempts(*[OSError() for _ in range(1_100)]))
    assert len(waits) == 1_100
    assert FIRST_WAIT_SECONDS <= waits[0] <= 2 * FIRST_WAIT_SECONDS
    assert max(waits) == LONGEST_WAIT_SECONDS
    assert set(waits[10:]) == {LONGEST_WAIT_SECONDS}


async def test_a_fault_on_the_way_out_hides_no_cancellation() -> None:
    """As when a transaction is rolled back on a connection that is gone."""
    begun = asyncio.Event()

    async def attempt() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise asyncpg.InterfaceError("closed")

    waiting = asyncio.create_task(until_done("the thing", attempt))
    await begun.wait()
    waiting.cancel()
    await asyncio.wait([waiting], timeout=5)
    assert waiting.cancelled()
