"""Whatever the batching and duplication of snapshots, requests and updates: the same decisions and jobs."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrain.domain.coverage import COVERED_FOR
from services.retrain.domain.ids import decision_id_for_request, decision_id_for_snapshot, job_id_for
from services.retrain.domain.jobs import ACTIVE
from shared.contracts.base import Contract
from shared.contracts.retraining import Job, JobUpdate
from shared.contracts.snapshots import Snapshot, VersionMetrics
from tests.unit.retrain.builders import EPOCH, HOUR, make_alert, make_request, make_snapshot, make_update
from tests.unit.retrain.harness import MemoryRetrain, Told

# A busy machine is no counterexample.
unhurried = settings(deadline=None)

MODELS = st.sampled_from(["a", "b"])
SEQUENCES = st.integers(1, 8)
REQUESTS = st.sampled_from(["r-1", "r-2"])
UPDATES = st.sampled_from(["started", "heartbeat", "completed", "failed", "cancelled"])
EVALUATED = st.sampled_from([0, 29, 30, 100])


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Six hours apart, so that three of them reach beyond twelve hours. A sequence has one content only."""
    sequence = draw(SEQUENCES)
    choices = [draw(st.booleans()) for _ in range(3)]
    return make_snapshot(
        sequence,
        model=draw(MODELS),
        at=EPOCH + 6 * sequence * HOUR,
        champion=draw(st.sampled_from([None, "v1", "v2"])),
        policy={"mode": draw(st.sampled_from(["observe", "enforce"]))},
        versions={
            "v2": VersionMetrics(
                evaluated_predictions=draw(EVALUATED), accuracy=draw(st.floats(0, 1)), brier_score=0.1
            )
        },
        evaluated_predictions=draw(EVALUATED),
        accuracy=0.5 if choices[0] else 0.9,
        brier_score=0.3 if choices[1] else 0.1,
        new_labels=40 if choices[2] else None,
    )


@st.composite
def updates(draw: st.DrawFn) -> JobUpdate:
    """Of jobs that may exist: their ids follow from what they were made for."""
    model = draw(MODELS)
    of_snapshot = SEQUENCES.map(lambda sequence: decision_id_for_snapshot(model, sequence))
    of_request = REQUESTS.map(lambda request_id: decision_id_for_request(model, request_id))
    decision_id = draw(of_snapshot | of_request)
    version = draw(st.sampled_from([None, "v2", "v3"]))
    return make_update(job_id_for(decision_id), draw(UPDATES), model_version=version)


EVENTS = st.one_of(
    snapshots(),
    snapshots(),
    updates(),
    updates(),
    st.builds(make_request, REQUESTS, model=MODELS, dry_run=st.booleans()),
    st.builds(
        lambda sequence, transition, model: make_alert(sequence, transition, model=model),
        st.integers(1, 6),
        st.sampled_from(["opened", "escalated", "resolved"]),
        MODELS,
    ),
)


def run(batches: list[list[Contract]]) -> tuple[Told, list[Job]]:
    async def take_all() -> tuple[Told, list[Job]]:
        retrain, told = MemoryRetrain(), Told()
        for batch in batches:
            told.extend(await retrain.take(*batch))
        return told, await retrain.kept_jobs()

    return asyncio.run(take_all())


def facts(told: Told) -> tuple[Any, Any]:
    return told.decisions, told.jobs


@unhurried
@given(st.lists(EVENTS, max_size=25), st.data())
def test_batching_changes_nothing(events: list[Contract], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=6)))
    bounds = [0, *cuts, len(events)]
    one_by_one, kept = run([[event] for event in events])

    told, kept_in_batches = run([events[start:end] for start, end in pairwise(bounds)])

    assert facts(told) == facts(one_by_one)
    assert Counter(letter.detail for letter in told.letters) == Counter(
        letter.detail for letter in one_by_one.letters
    )
    assert kept_in_batches == kept


@unhurried
@given(st.lists(EVENTS.filter(lambda event: not isinstance(event, JobUpdate)), max_size=20), st.data())
def test_what_comes_again_later_changes_nothing(events: list[Contract], data: st.DataObject) -> None:
    """Snapshots and requests that were decided on, however much later and however often they come again."""
    first = EPOCH + 6 * HOUR
    events = [make_snapshot(1, model="a", at=first), make_snapshot(1, model="b", at=first), *events]
    once, kept = run([events])
    again = data.draw(st.lists(st.sampled_from(events), max_size=10))

    told, kept_after = run([events, again])

    assert told.letters == []
    assert facts(told) == facts(once)
    assert kept_after == kept


@unhurried
@given(st.lists(EVENTS, max_size=25), st.data())
def test_an_event_sent_twice_in_a_row_changes_nothing(events: list[Contract], data: st.DataObject) -> None:
    twice = [event for event in events for _ in range(data.draw(st.integers(1, 3), label=type(event).__name__))]
    once, kept = run([events])

    told, kept_after = run([twice])

    assert facts(told) == facts(once)
    assert kept_after == kept


@unhurried
@given(st.lists(EVENTS, max_size=40))
def test_one_active_job_a_model_and_one_job_a_cause(events: list[Contract]) -> None:
    retrain = MemoryRetrain()

    async def take_all() -> Told:
        told = Told()
        for event in events:
            told.extend(await retrain.take(event))
            kept = await retrain.kept_jobs()
            active = [job.model for job in kept if job.status in ACTIVE]
            assert len(active) == len(set(active))
        return told

    told = asyncio.run(take_all())

    for model in ("a", "b"):
        sequences = [each.decision_sequence for each in told.decisions if each.model == model]
        assert sequences == list(range(1, len(sequences) + 1))
    claims: dict[tuple[str, str | None, str], list[Any]] = {}
    for job in told.jobs:
        if job.job_sequence == 1:
            for trigger in job.triggers:
                champion = None if job.champion is None else job.champion.version
                claims.setdefault((job.model, champion, trigger), []).append(job.as_of)
    for moments in claims.values():
        assert all(later - earlier >= COVERED_FOR for earlier, later in pairwise(sorted(moments)))
    for job_id in {job.job_id for job in told.jobs}:
        changes = [job.job_sequence for job in told.jobs if job.job_id == job_id]
        assert changes == list(range(1, len(changes) + 1))
