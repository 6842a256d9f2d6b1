"""The event clock without Kafka: logs read by hand, in any interleaving, give the same snapshots."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.metrics import clocks, handlers
from services.metrics.domain.clock import Gate
from shared.contracts.snapshots import Snapshot
from shared.database import connect_pool
from shared.instruments import UNKNOWN_FIELDS_TOTAL
from shared.records import Place, Record
from shared.topics import LABELS, PIPELINE_RUNS, POLICIES, PREDICTIONS, Topic
from tests.metrics_world import (
    HOUR,
    START,
    START_SECONDS,
    Fact,
    MetricsWorld,
    at,
    classified,
    label,
    policy,
    prediction,
    run,
    valued,
    version,
)
from tests.plain_metrics import Plain
from tests.support import Feed, drain_outbox, make_consumer

OBSERVED = [("predictions", 0), ("predictions", 1), ("labels", 0), ("labels", 1), ("pipeline-runs", 0)]
OPERATORS = [("policies", 0), ("model-versions", 0)]


class Replay:
    """Logs of every partition, and instances that read them as far as the event clock lets them."""

    def __init__(self, pool: Any, instances: int = 1) -> None:
        self.pool = pool
        self.instances = [MetricsWorld(pool, clock="event", interval=HOUR) for _ in range(instances)]
        self.logs: dict[Place, list[Record]] = {place: [] for place in (*OBSERVED, *OPERATORS)}
        self.facts: dict[Place, list[Fact]] = defaultdict(list)
        self.feed = Feed()
        for instance in self.instances:
            instance.input.partitions = set(self.logs)

    def write(self, fact: Fact, partition: int = 0) -> None:
        topic, value = fact
        place = (topic.name, partition)
        self.logs[place].append(self.feed.record(topic, value, partition=partition))
        self.facts[place].append(fact)
        for instance in self.instances:
            instance.input.ends = {place: len(log) for place, log in self.logs.items()}

    def tick(self, seconds: float, places: Iterable[Place] = OBSERVED) -> None:
        """``trueward publish tick`` writes one to every input partition."""
        topics = {topic.name: topic for topic in (PREDICTIONS, LABELS, PIPELINE_RUNS)}
        for topic, partition in places:
            self.write((topics[topic], {"tick": at(seconds)}), partition)

    async def begin(self) -> None:
        await self.instances[0].forget()
        await self.instances[0].begin()

    async def offsets(self) -> dict[Place, int]:
        rows = await self.pool.fetch("SELECT topic, partition, next_offset FROM inbox")
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    async def read(self, instance: MetricsWorld, places: Iterable[Place], most: int = 10**6) -> bool:
        """One batch of what comes next in the partitions. Returns whether any record was taken."""
        before = await self.offsets()
        batch = [
            record
            for place in places
            for record in self.logs[place][before.get(place, 0) : before.get(place, 0) + most]
        ]
        if not batch:
            return False
        await make_consumer(instance.handler, self.pool, service="metrics").take(batch, {})
        return await self.offsets() != before

    async def until_it_rests(self, chance: Random | None = None) -> None:
        """Read all there is and advance until nothing moves; by chance also in any other way in between."""
        instance, places = self.instances[0], list(self.logs)
        moves = True
        while moves:
            for _ in range(chance.randrange(5) if chance else 0):
                await self._something(chance or Random())
            moves = await self.read(instance, places)
            while await clocks.advance_event_clock(instance.context):
                moves = True

    async def _something(self, chance: Random) -> None:
        """Any instance advances, or reads any number of records of any partitions."""
        instance = chance.choice(self.instances)
        if chance.random() < 0.4:
            await clocks.advance_event_clock(instance.context)
        else:
            places = chance.sample(list(self.logs), chance.randrange(1, len(self.logs) + 1))
            await self.read(instance, places, chance.choice([1, 2, 5]))

    async def snapshots(self) -> list[Snapshot]:
        found = [Snapshot.model_validate_json(message.value) for message in await drain_outbox(self.pool)]
        return sorted(found, key=lambda one: (one.as_of, one.model))

    def before(self, as_of: datetime) -> list[Fact]:
        """What may be known at a boundary: every partition up to its first record that has reached it."""
        seen: list[Fact] = []
        for place, facts in self.facts.items():
            for topic, event in facts:
                if place in OBSERVED:
                    said = event.get("tick") or event[TIME_FIELD[topic.name]]
                    if datetime.fromisoformat(said) >= as_of:
                        break
                if "tick" not in event:
                    seen.append((topic, event))
        return [fact for fact in seen if fact[1].get("registered_at", "") <= as_of.isoformat()]


TIME_FIELD = {"predictions": "predicted_at", "labels": "observed_at", "pipeline-runs": "completed_at"}


@pytest.fixture
async def pool(module_database_dsn: str) -> AsyncIterator[Any]:
    """Connections to the module's database."""
    found = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=8)
    yield found
    await found.close()


@pytest.fixture
async def replay(pool: Any) -> Replay:
    found = Replay(pool, instances=2)
    await found.begin()
    return found


MOMENTS = st.floats(0, 4 * HOUR).map(lambda seconds: round(seconds, 1)) | st.sampled_from(
    [0, HOUR, 2 * HOUR, 7199.9]
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Fact, int]]:
    """A few hours of events: mostly in order within a partition, some late, some of tomorrow."""
    facts: list[tuple[Fact, int]] = []
    for number in range(draw(st.integers(1, 8))):
        entity = draw(st.sampled_from([f"p{number}", "shared"]))
        name, seconds = f"p{number}", draw(MOMENTS)
        made = draw(
            st.sampled_from(
                [
                    prediction(name, seconds, 0.2, entity_id=entity),
                    prediction(name, seconds, 0.7, entity_id=entity),
                    classified(name, seconds, {"a": 0.5, "b": 0.25, "1": 0.25}, entity_id=entity),
                    valued(name, seconds, 1e300 if number % 2 else 0.1, entity_id=entity),
                ]
            )
        )
        facts.append((made, draw(st.integers(0, 1))))
    for _ in range(draw(st.integers(0, 8))):
        entity = draw(st.sampled_from(["shared", "p0", "p1", "p2", "p3"]))
        facts.append(
            (label(entity, draw(MOMENTS), draw(st.sampled_from([0, 1, None, "a"]))), draw(st.integers(0, 1)))
        )
    facts += [(run(draw(MOMENTS)), 0) for _ in range(draw(st.integers(0, 2)))]
    if draw(st.integers(0, 3)):
        facts.sort(key=lambda fact: str(next(v for k, v in fact[0][1].items() if k in TIME_FIELD.values())))
    for number in range(draw(st.integers(0, 2))):
        facts.append((version(str(number), draw(MOMENTS), trained_through=at(draw(MOMENTS))), 0))
    if draw(st.booleans()):
        facts.append((policy(window=draw(st.sampled_from(["1h", "7d"]))), 0))
    return facts


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), chance=st.randoms(use_true_random=True), instances=st.integers(1, 3))
async def test_the_same_logs_give_the_same_snapshots_however_they_are_read(
    history: list[tuple[Fact, int]], chance: Random, instances: int, pool: Any
) -> None:
    documents = []
    for schedule in (None, chance):
        replay = Replay(pool, instances)
        await replay.begin()
        for fact, partition in history:
            replay.write(fact, partition)
        replay.tick(0, [place for place in OBSERVED if not replay.logs[place]])
        replay.tick(5 * HOUR)
        await replay.until_it_rests(schedule)
        documents.append(await replay.snapshots())
    assert [one.to_json() for one in documents[0]] == [one.to_json() for one in documents[1]]
    assert_told_by_the_logs(replay, documents[1])


def assert_told_by_the_logs(replay: Replay, snapshots: list[Snapshot]) -> None:
    """Every boundary is there, in order, and holds what the logs say up to it, computed again plainly."""
    boundaries = sorted({one.as_of for one in snapshots})
    assert all((one - START) % timedelta(hours=1) == timedelta(0) for one in boundaries)
    assert [one.sequence for one in snapshots] == list(range(1, len(snapshots) + 1))
    if boundaries:
        assert boundaries[-1] == START + timedelta(hours=5)
        assert len(boundaries) == (boundaries[-1] - boundaries[0]) // timedelta(hours=1) + 1
    for snapshot in snapshots:
        plain = Plain(replay.before(snapshot.as_of), interval=HOUR)
        as_of = int(snapshot.as_of.timestamp())
        champion = plain.champion("m", as_of)
        judged = champion[1] if champion else ""
        expected = plain.figures(as_of)["m", judged, "", snapshot.window]
        known = snapshot.metrics.known()
        assert {name: known[name] for name in expected} == expected
        assert (snapshot.missed_boundaries, snapshot.catching_up, snapshot.clock) == (0, False, "event")


async def test_a_partition_is_not_read_past_a_record_that_has_reached_the_boundary(replay: Replay) -> None:
    one = replay.instances[0]
    for seconds in (10, HOUR - 0.1, HOUR, 20, 2 * HOUR):
        replay.write(prediction(f"p{seconds}", seconds))
    await replay.read(one, [("predictions", 0)])
    # While the clock has not started, the first record waits: boundaries begin after the earliest of all.
    assert await replay.offsets() == {("predictions", 0): 0}
    replay.tick(10, [place for place in OBSERVED if place != ("predictions", 0)])
    await replay.read(one, OBSERVED)
    assert await clocks.advance_event_clock(one.context)
    await replay.read(one, OBSERVED)
    offsets = await replay.offsets()
    assert offsets["predictions", 0] == 2
    assert offsets["labels", 1] == 1
    assert not await clocks.advance_event_clock(one.context), "the others have not reached the hour"
    replay.tick(HOUR, [place for place in OBSERVED if place != ("predictions", 0)])
    await replay.until_it_rests(Random(1))
    # At the hour the late record behind it counts too; the one of the second hour waits.
    assert (await replay.offsets())["predictions", 0] == 4
    assert [one.metrics.predictions for one in await replay.snapshots()] == [2]


async def test_every_boundary_of_a_gap_is_cut_in_order(replay: Replay) -> None:
    replay.write(prediction("p", 10))
    replay.tick(10, OBSERVED[1:])
    replay.tick(30 * HOUR + 1)
    await replay.until_it_rests(Random(2))
    snapshots = await replay.snapshots()
    assert [one.as_of for one in snapshots] == [START + timedelta(hours=hour) for hour in range(1, 31)]
    assert [one.metrics.predictions for one in snapshots] == [1] * 30


async def holding(replay: Replay) -> tuple[str | None, int | None, datetime | None]:
    row = await replay.pool.fetchrow("SELECT * FROM published_clock")
    assert (row["clock"], row["interval_seconds"]) == ("event", HOUR)
    return row["held_by_topic"], row["held_by_partition"], row["held_at"]


async def test_the_view_names_the_partition_that_holds_the_clock(replay: Replay) -> None:
    """Above all one that nothing was ever read from: it is the usual reason why a clock stands still."""
    one, two = replay.instances

    async def turn() -> None:
        for place in OBSERVED:
            await replay.read(one, [place])
        while await clocks.advance_event_clock(two.context):
            pass

    replay.tick(10, [place for place in OBSERVED if place != ("labels", 1)])
    await turn()
    assert await holding(replay) == ("labels", 1, None)
    replay.tick(20, [("labels", 1)])
    await turn()
    assert (await replay.pool.fetchval("SELECT next_boundary FROM published_clock")) == START + timedelta(hours=1)
    assert await holding(replay) == ("labels", 0, START + timedelta(seconds=10))
    for place in OBSERVED:
        assert await holding(replay) != (None, None, None)
        replay.tick(HOUR if place != ("predictions", 1) else 1800, [place])
    await turn()
    assert (await holding(replay))[:2] == ("predictions", 1)
    replay.tick(5 * HOUR, [("predictions", 1)])
    await turn()
    row = await replay.pool.fetchrow("SELECT * FROM published_clock")
    assert (row["last_as_of"], row["next_boundary"]) == (START + timedelta(hours=1), START + timedelta(hours=2))
    assert await holding(replay) == ("labels", 0, START + timedelta(hours=1))


async def test_a_boundary_waits_for_what_operators_have_published(replay: Replay) -> None:
    one, two = replay.instances
    replay.write(prediction("p", 10))
    replay.tick(10, OBSERVED[1:])
    replay.tick(HOUR)
    replay.write(policy(window="1h"))
    replay.write(version("1", 5))
    for _ in range(3):
        await replay.read(one, OBSERVED)
        await clocks.advance_event_clock(two.context)
    assert await replay.snapshots() == []
    await replay.read(one, [("policies", 0)])
    assert not await clocks.advance_event_clock(two.context)
    await replay.read(one, [("model-versions", 0)])
    assert await clocks.advance_event_clock(two.context)
    (snapshot,) = await replay.snapshots()
    assert snapshot.champion is not None
    assert (snapshot.window, snapshot.champion.version) == ("1h", "1")
    assert snapshot.offsets["policies"] == snapshot.offsets["model-versions"] == {"0": 1}


async def test_instances_that_race_cut_a_boundary_once(pool: Any) -> None:
    replay = Replay(pool, instances=4)
    await replay.begin()
    replay.write(prediction("p", 10))
    replay.tick(10, OBSERVED[1:])
    for hour in range(1, 11):
        replay.tick(hour * HOUR)
    while True:
        await replay.read(replay.instances[0], OBSERVED)
        found = await asyncio.gather(*(clocks.advance_event_clock(one.context) for one in replay.instances))
        if not any(found):
            break
    assert [one.sequence for one in await replay.snapshots()] == list(range(1, 11))


async def test_an_instance_that_read_the_boundary_before_it_was_cut_holds_too_much_never_too_little(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replay.instances
    replay.write(prediction("p", 10))
    replay.tick(10, OBSERVED[1:])
    replay.tick(HOUR)
    for _ in range(2):
        await replay.read(one, OBSERVED)
        await clocks.advance_event_clock(one.context)
    replay.write(prediction("q", HOUR + 5))
    replay.write(prediction("r", 2 * HOUR + 5))
    stale = await two.pool.fetchval("SELECT next_boundary FROM clock") - HOUR
    assert stale == START_SECONDS + HOUR
    with monkeypatch.context() as patch:

        def old_gate(*_: object) -> Gate:
            return Gate(stale)

        patch.setattr(handlers, "_gate", old_gate)
        await replay.read(two, OBSERVED)
    assert (await replay.offsets())["predictions", 0] == 1
    assert not await clocks.advance_event_clock(two.context)
    replay.tick(2 * HOUR, OBSERVED[1:])
    await replay.until_it_rests(Random(3))
    assert [one.metrics.predictions for one in await replay.snapshots()] == [1, 2]


async def test_a_record_that_waits_is_read_again_and_counted_once(replay: Replay) -> None:
    counter = UNKNOWN_FIELDS_TOTAL.labels(topic="predictions")
    before = counter._value.get()
    one = replay.instances[0]
    replay.write((PREDICTIONS, {"no": "prediction"}))
    replay.write(prediction("p", 10, colour="red"))
    replay.tick(10, OBSERVED[1:])
    for _ in range(3):
        await replay.read(one, OBSERVED)
    letters = [message.topic for message in await drain_outbox(replay.pool)]
    assert (letters, await replay.offsets()) == (
        ["dead-letters"],
        {place: int(place == OBSERVED[0]) for place in OBSERVED},
    )
    await clocks.advance_event_clock(one.context)
    await replay.read(one, OBSERVED)
    assert counter._value.get() - before == 1


async def test_what_was_held_is_released_for_the_next_boundary(replay: Replay) -> None:
    one = replay.instances[0]
    replay.write(prediction("p", 10))
    replay.tick(10, OBSERVED[1:])
    await replay.read(one, OBSERVED)
    await clocks.advance_event_clock(one.context)
    assert one.input.released == []
    await clocks.advance_event_clock(one.context)
    assert one.input.released == [START_SECONDS + HOUR]


@pytest.mark.parametrize("topic", [POLICIES])
async def test_what_operators_say_does_not_wait_for_the_clock(topic: Topic, replay: Replay) -> None:
    replay.write(policy(effective_at=at(100 * HOUR)))
    await replay.read(replay.instances[0], [(topic.name, 0)])
    assert await replay.offsets() == {(topic.name, 0): 1}
