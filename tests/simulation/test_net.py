"""Does the net catch anything? Worlds with a part that breaks its promise must fail."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import shared.inbox
from shared.broker import as_records
from shared.consumer import Consumer
from shared.inbox import Admission
from shared.outbox import QUERIES, Relay, _message, send_in_order
from shared.records import Records
from tests.simulation.campaign import (
    COMPACT_SEED,
    KINDS_OF_MODELS,
    WORLDS_OF_A_HISTORY,
    Laboratory,
    Verdict,
    compact,
    history_of,
)

SEEDS_TO_CATCH = range(2 * WORLDS_OF_A_HISTORY)
pytestmark = pytest.mark.timeout(1_500)


@pytest.fixture
def laboratory(postgres_server: str) -> Iterator[Laboratory]:
    with Laboratory(postgres_server, f"simulation_{os.getpid()}") as found:
        yield found


def test_the_compact_world_has_all_that_can_be_interrupted(laboratory: Laboratory) -> None:
    outcome, _ = laboratory.expected(compact(COMPACT_SEED).history, "event")
    assert [job["status"] for job in outcome.documents("jobs")] == ["completed"]
    assert outcome.documents("transitions")
    assert outcome.letters


def test_the_worlds_have_models_of_every_kind_that_are_alerted_on_and_retrained(laboratory: Laboratory) -> None:
    found: Counter[str] = Counter()
    for number in range(len(KINDS_OF_MODELS)):
        history, clock = history_of(number * WORLDS_OF_A_HISTORY)
        outcome, _ = laboratory.expected(history, clock)
        found.update(each["metrics"]["kind"] for each in outcome.documents("snapshots"))
        found.update(each["alert_id"] for each in outcome.documents("transitions") if each["alert_id"])
        found.update(
            f"retrained for {trigger}" for job in outcome.documents("jobs") for trigger in job["triggers"]
        )
    for kind, rule in (
        ("binary", "brier_breach"),
        ("multiclass", "multiclass_brier_breach"),
        ("regression", "mae_breach"),
    ):
        assert found[kind]
        assert found[rule]
        assert found[f"retrained for {rule}"]


def first_failure(laboratory: Laboratory, saying: str = "") -> Verdict:
    for seed in SEEDS_TO_CATCH:
        verdict = laboratory.world(seed)
        if verdict.failure is not None and saying in verdict.failure:
            return verdict
    raise AssertionError(f"not noticed in {len(SEEDS_TO_CATCH)} worlds")


def without_fence(records: Any, next_offsets: Any, proven: Any) -> Admission:  # noqa: ARG001 (admit's signature)
    """As ``admit``, but it takes whatever it is given."""
    return Admission(records, {}, ())


async def remove_before_sending(self: Relay) -> bool:
    """As ``relay_once``, but what is unsent is removed before it is published."""
    epoch = await self._pool.fetchval(QUERIES.take_lease, self._holder, 10.0)
    if epoch is None:
        return False
    rows = await self._pool.fetch(QUERIES.read_unsent, 1_000, 1_000_000, self._holder, epoch)
    await self._pool.execute(QUERIES.remove_sent, [row["id"] for row in rows], self._holder, epoch)
    _, failure = await send_in_order(map(_message, rows), self._send)
    if failure is not None:
        raise failure
    return False


def commit_first(consume: Callable[..., Any]) -> Callable[..., Any]:
    """As ``consume``, but Kafka is told of the records before they are taken in."""

    async def committed(self: Consumer, raw: Any, kafka: Any) -> None:
        ends = {run.place: run.next_offset for run in as_records(raw, self._prefix).runs}
        await self._commit(kafka, ends)
        await consume(self, raw, kafka)

    return committed


async def look_away(*_arguments: Any) -> None:
    """What would have healed it, does not."""


def take_gaps(records: Any, next_offsets: Any, proven: Any) -> Admission:  # noqa: ARG001 (admit's signature)
    """As ``admit``, but records may be missing."""
    new = (record for record in records if record.offset >= next_offsets[record.topic, record.partition])
    return Admission(Records.of(new), {}, ())


def test_a_missing_fence_is_noticed(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.inbox, "admit", without_fence)
    assert first_failure(laboratory, "records taken").failure is not None


def test_an_outbox_emptied_before_it_is_published_is_noticed(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Relay, "relay_once", remove_before_sending)
    assert first_failure(laboratory).failure is not None


def test_offsets_committed_before_the_transaction_are_noticed(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Consumer, "consume", commit_first(Consumer.consume))
    monkeypatch.setattr(Consumer, "_align", look_away)
    monkeypatch.setattr(shared.inbox, "admit", take_gaps)
    assert first_failure(laboratory).failure is not None


def test_a_failure_is_shrunk_to_a_world_that_still_fails(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.inbox, "admit", without_fence)
    found = first_failure(laboratory, "records taken")
    smallest = laboratory.shrink(found)
    assert smallest.failure is not None
    assert len(smallest.plan.faults) <= len(found.plan.faults)
    assert len(smallest.history) <= len(found.history)
