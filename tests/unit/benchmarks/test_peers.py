"""The rule that peers follow, and the judgement of what they publish."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import drains, first_records
from benchmarks.dataset import Bucket, Event, Expected, events
from benchmarks.first_records import FIRST_BYTES, FirstRecords, drained_a_second
from benchmarks.peer import FOLDER, Standing

PREDICTION = {
    "prediction_id": "e",
    "model": "m",
    "predicted_at": "2026-01-01T00:00:10.000000Z",
    "probability": 0.9,
}
EXPECTED = {("m", "2026-01-01T00:00"): Bucket(evaluated=2, correct=1, squared_error=820_000 * 10**6)}


@pytest.fixture(scope="module")
def job() -> Any:
    """The peers' module, which lies where their own interpreters find it."""
    sys.path.insert(0, str(FOLDER))
    try:
        import job as module  # noqa: PLC0415 - found by the path of the line before
    finally:
        sys.path.remove(str(FOLDER))
    return module


def document(evaluated: int, correct: int, **more: int) -> dict[str, Any]:
    return {
        "model": "m",
        "minute": "2026-01-01T00:00",
        "evaluated": evaluated,
        "correct": correct,
        "squared_error": 0.82,
        **more,
    }


def test_a_peer_is_done_when_what_it_published_last_is_right() -> None:
    standing = Standing(EXPECTED)
    assert standing.wrong
    standing.take(document(1, 1))
    assert standing.wrong
    standing.take(document(2, 1))
    assert not standing.wrong
    assert standing.error_drift() == 0
    standing.take(document(3, 1))
    assert standing.wrong


def test_a_withdrawal_counts_only_while_nothing_has_taken_its_place() -> None:
    standing = Standing(EXPECTED)
    standing.take(document(1, 1, diff=1))
    standing.take(document(2, 1, diff=1))
    standing.take(document(1, 1, diff=-1))
    assert not standing.wrong
    standing.take(document(2, 1, diff=-1) | {"squared_error": 0.25})
    assert not standing.wrong, "what was withdrawn has the same counts"
    assert standing.error_drift() == 0
    standing.take(document(2, 1, diff=-1))
    assert standing.wrong


def test_a_peer_is_timed_from_its_first_records_to_its_last_publication() -> None:
    assert drained_a_second(1_000, fetched_at=20.0, ended_at=24.0) == 250


@pytest.mark.parametrize("ended_at", [20.0, 19.99])
def test_a_drain_between_two_looks_tells_no_speed(ended_at: float) -> None:
    with pytest.raises(RuntimeError, match="take more events"):
        drained_a_second(1_000, fetched_at=20.0, ended_at=ended_at)


def test_first_records_are_seen_by_what_the_broker_has_written_since(monkeypatch: pytest.MonkeyPatch) -> None:
    written = 7_000_000
    monkeypatch.setattr(first_records, "bytes_written", lambda _pid: written)
    seen = FirstRecords(broker_pid=1)
    written += FIRST_BYTES
    seen.look()
    assert seen.fetched_at is None
    written += 1
    seen.look()
    first = seen.fetched_at
    assert first is not None
    assert first >= seen.started_at
    written += FIRST_BYTES
    seen.look()
    assert seen.fetched_at == first


def test_every_peer_drains_a_part_of_the_data() -> None:
    assert set(drains.PEERS) == {folder.parent.name for folder in Path(FOLDER).glob("*/drain.py")}


def test_the_rule_that_python_peers_follow_gives_the_expected_sums(job: Any) -> None:
    states: dict[str, dict[str, Any]] = {}
    minutes: dict[tuple[str, str], dict[str, Any]] = {}
    expected = Expected()
    given: list[Event] = list(events(500, seed=3))
    for event in given:
        expected.add(event)
        for change in job.meet(states.setdefault(event.entity, {}), job_document(event)):
            key = (change["model"], change["minute"])
            minutes[key] = job.add(minutes.get(key), change)
    standing = Standing(expected.buckets())
    for minute in minutes.values():
        standing.take(minute)
    assert not standing.wrong
    assert standing.error_drift() < 1e-9


def job_document(event: Event) -> dict[str, Any]:
    import json  # noqa: PLC0415

    found: dict[str, Any] = json.loads(event.value())
    return found


def test_every_peer_has_its_program_and_a_lock_with_hashes() -> None:
    folders = [path.parent for path in Path(FOLDER).glob("*/drain.py")]
    assert len(folders) == 5
    for folder in folders:
        assert "--hash=sha256:" in (folder / "requirements.lock").read_text(encoding="utf-8")
