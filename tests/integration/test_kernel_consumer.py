"""The consumer's side of Kafka: seeks, proofs, waits and commits. The database is real, the broker is scripted."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalGenerationError
from structlog.testing import capture_logs

from shared.broker import AssignmentWatch
from shared.consumer import Consumer
from shared.database import connect_pool
from shared.effects import Effects, Handler
from shared.errors import InputLostError
from shared.instruments import LOST_RECORDS_TOTAL
from shared.reading import Fetched
from shared.records import Place, Record
from shared.settings import Settings
from tests.kernel_world import INPUT, SERVICE, as_value, change, make_tables, query, taken, tally
from tests.support import FixedClock

PREFIX = "world."
LOG_APPEND_TIME = 1


def partition(number: int) -> TopicPartition:
    return TopicPartition(PREFIX + INPUT.name, number)


class ScriptedKafka:
    """A log with one reader, as aiokafka's consumer shows it. What happens when is the test's to say."""

    def __init__(self, partitions: int = 1) -> None:
        self.logs: dict[TopicPartition, dict[int, bytes]] = {partition(number): {} for number in range(partitions)}
        self.ends: dict[TopicPartition, int] = dict.fromkeys(self.logs, 0)
        self.beginnings: dict[TopicPartition, int] = dict.fromkeys(self.logs, 0)
        self.commits: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = dict.fromkeys(self.logs, 0)
        self.paused: set[TopicPartition] = set()
        self.assigned: set[TopicPartition] = set(self.logs)
        self.fenced = False

    def write(self, numbers: Iterable[int], where: int = 0) -> None:
        for n in numbers:
            self.logs[partition(where)][self.ends[partition(where)]] = as_value(n)
            self.ends[partition(where)] += 1

    def skip(self, count: int, where: int = 0) -> None:
        """Offsets that hold no record: transaction markers, or what compaction took."""
        self.ends[partition(where)] += count

    def rebalance(self, assigned: set[TopicPartition]) -> None:
        """Nothing of the reader's own is left: it goes on from what was committed."""
        self.assigned = set(assigned)
        self.paused.clear()
        for each in assigned:
            self.positions[each] = max(self.commits.get(each, 0), self.beginnings[each])

    def fetch(self, size: int = 100) -> Fetched:
        """The next batch: of every partition that is read, what it holds from the position on."""
        batch = []
        for each in sorted(self.assigned - self.paused):
            position = self.positions[each]
            if not self.beginnings[each] <= position <= self.ends[each]:
                position = self.beginnings[each]  # auto_offset_reset="earliest"
            found = [offset for offset in sorted(self.logs[each]) if offset >= position][:size]
            batch += [self._record(each, offset) for offset in found]
            if found:
                self.positions[each] = found[-1] + 1
        return Fetched.of(batch)

    def _record(self, where: TopicPartition, offset: int) -> ConsumerRecord[bytes, bytes]:
        value = self.logs[where][offset]
        return ConsumerRecord(
            *where, offset, 1_767_225_600_000, LOG_APPEND_TIME, b"k", value, None, 1, len(value), ()
        )

    # What the consumer asks of aiokafka:

    def assignment(self) -> set[TopicPartition]:
        return set(self.assigned)

    def seek(self, where: TopicPartition, offset: int) -> None:
        assert where in self.assigned
        self.positions[where] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused -= set(partitions)

    def highwater(self, where: TopicPartition) -> int:
        assert where in self.assigned
        return self.ends[where]

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {each: self.ends[each] for each in partitions}

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {each: self.beginnings[each] for each in partitions}

    async def committed(self, where: TopicPartition) -> int | None:
        return self.commits.get(where)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self.fenced:
            raise IllegalGenerationError
        self.commits.update(offsets)


@dataclass
class World:
    """One service instance between the scripted broker and the real database."""

    dsn: str
    consumer: Consumer
    watch: AssignmentWatch
    kafka: ScriptedKafka

    async def turn(self, size: int = 100) -> None:
        """Fetch once and take it in."""
        batch = self.kafka.fetch(size)
        if batch:
            await self.consumer.consume(batch, self.kafka)

    async def rebalance(self, *numbers: int) -> None:
        """The group decides anew, and gives this instance these partitions."""
        await self.watch.on_partitions_revoked(self.kafka.assignment())
        self.kafka.rebalance({partition(number) for number in numbers})
        await self.watch.on_partitions_assigned(self.kafka.assignment())

    def taken(self) -> Counter[int]:
        return taken(self.dsn)

    def next_offset(self, where: int = 0) -> int:
        rows = query(self.dsn, "SELECT next_offset FROM alerting.inbox WHERE partition = %s", where)
        return int(rows[0][0]) if rows else 0


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[asyncpg.Pool[Any]]:
    make_tables(database_dsn)
    pool = await connect_pool(database_dsn, role=SERVICE, application_name="test", max_size=2)
    yield pool
    await pool.close()


def make_world(dsn: str, pool: asyncpg.Pool[Any], kafka: ScriptedKafka, handler: Handler = tally) -> World:
    consumer = Consumer(
        service=SERVICE, settings=Settings(topic_prefix=PREFIX), pool=pool, clock=FixedClock(), handler=handler
    )
    watch = AssignmentWatch(consumer.assignment_changed)
    return World(dsn, consumer, watch, kafka)


@pytest.fixture
def world(database_dsn: str, pool: asyncpg.Pool[Any]) -> World:
    return make_world(database_dsn, pool, ScriptedKafka())


async def test_kafkas_offsets_follow_the_inbox(world: World) -> None:
    world.kafka.write(range(5))
    await world.turn(3)
    assert world.kafka.commits == {partition(0): 3}
    await world.turn()
    assert world.kafka.commits == {partition(0): 5} == {partition(0): world.next_offset()}


async def test_a_commit_that_fails_costs_nothing(world: World) -> None:
    world.kafka.write(range(5))
    world.kafka.fenced = True
    await world.turn(3)
    world.kafka.fenced = False
    await world.rebalance(0)
    await world.turn()
    assert world.taken() == Counter(range(5))
    assert world.kafka.commits == {partition(0): 5}


async def test_a_partition_that_went_away_meanwhile_is_left_alone(world: World) -> None:
    """The batch in hand is good: the inbox took it. Its offsets are no longer ours to commit."""
    world.kafka.write(range(3))
    batch = world.kafka.fetch()
    await world.rebalance()
    await world.consumer.consume(batch, world.kafka)
    assert world.taken() == Counter(range(3))
    assert world.kafka.commits == {}


async def test_kafka_ahead_of_the_database_is_read_again(world: World) -> None:
    """The database lost more than Kafka did: it was restored, or the inbox was reset while the service ran."""
    world.kafka.write(range(10))
    await world.turn(6)
    change(world.dsn, "UPDATE alerting.inbox SET next_offset = 2")
    change(world.dsn, "DELETE FROM alerting.taken WHERE n >= 2")
    await world.turn()
    assert world.next_offset() == 2
    assert world.kafka.positions[partition(0)] == 2
    await world.turn()
    assert world.taken() == Counter(range(10))


async def test_an_inbox_that_was_reset_under_a_running_service_reads_from_the_beginning(world: World) -> None:
    world.kafka.write(range(10))
    await world.turn(6)
    change(world.dsn, "DELETE FROM alerting.inbox")
    change(world.dsn, "DELETE FROM alerting.taken")
    await world.turn()
    await world.turn()
    assert world.taken() == Counter(range(10))


async def test_kafka_ahead_of_the_database_is_noticed_where_nothing_new_comes(world: World) -> None:
    world.kafka.write(range(10))
    await world.turn()
    change(world.dsn, "UPDATE alerting.inbox SET next_offset = 2")
    change(world.dsn, "DELETE FROM alerting.taken WHERE n >= 2")
    await world.rebalance(0)
    assert not world.kafka.fetch()
    assert world.watch.new_assignment.is_set()
    await world.consumer._align()
    await world.turn()
    assert world.taken() == Counter(range(10))


async def test_a_batch_taken_in_meanwhile_is_no_reason_to_seek_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.kafka.write(range(10))
    await world.turn(4)
    ask = world.kafka.committed

    async def ask_late(where: TopicPartition) -> int | None:
        await world.turn(3)
        return await ask(where)

    monkeypatch.setattr(world.kafka, "committed", ask_late)
    with capture_logs() as logs:
        await world.consumer._align()
    assert logs == []
    assert world.kafka.positions[partition(0)] == 7


async def test_a_gap_of_the_brokers_own_is_passed_at_the_second_sight(world: World) -> None:
    world.kafka.write(range(3))
    await world.turn()
    world.kafka.skip(4)
    world.kafka.write(range(3, 5))
    world.kafka.positions[partition(0)] = 7
    await world.turn()
    assert world.next_offset() == 3
    await world.turn()
    assert world.taken() == Counter(range(5))
    assert world.next_offset() == 9


async def test_what_retention_removed_unread_is_lost_aloud(world: World) -> None:
    counted = LOST_RECORDS_TOTAL.labels(topic=INPUT.name)
    before = counted._value.get()
    world.kafka.write(range(10))
    await world.turn(4)
    for offset in range(7):
        del world.kafka.logs[partition(0)][offset]
    world.kafka.beginnings[partition(0)] = 7
    with capture_logs() as logs:
        await world.turn()
        await world.turn()
    assert world.taken() == Counter([0, 1, 2, 3, 7, 8, 9])
    assert [line["count"] for line in logs if line["log_level"] == "error"] == [3]
    assert counted._value.get() == before + 3
    assert query(world.dsn, "SELECT lost_records FROM alerting.published_inbox") == [(3,)]


async def test_a_log_that_begins_late_has_lost_a_new_service_nothing(world: World) -> None:
    world.kafka.write(range(10))
    for offset in range(7):
        del world.kafka.logs[partition(0)][offset]
    world.kafka.beginnings[partition(0)] = 7
    await world.turn()
    await world.turn()
    assert world.taken() == Counter([7, 8, 9])
    assert query(world.dsn, "SELECT lost_records FROM alerting.published_inbox") == [(0,)]


async def test_a_gap_is_not_proven_by_seeing_it_from_the_same_start_again(world: World) -> None:
    """Seen above what comes next, sought back, and taken away before the fetch: the group starts above again.

    That it begins at the same record says nothing of what lies before, which nobody has asked for.
    """
    world.kafka.write(range(10))
    await world.turn(4)
    world.kafka.commits[partition(0)] = 7  # somebody committed more than this database holds
    world.kafka.fenced = True
    await world.rebalance(0)
    await world.turn()
    await world.rebalance(0)
    await world.turn()
    assert world.next_offset() == 4
    world.kafka.fenced = False
    await world.turn()
    assert world.taken() == Counter(range(10))


async def test_a_gap_is_not_proven_where_nobody_could_seek(world: World) -> None:
    world.kafka.write(range(10))
    await world.turn(4)
    world.kafka.positions[partition(0)] = 7
    batch = world.kafka.fetch()
    await world.rebalance()
    await world.consumer.consume(batch, world.kafka)
    world.kafka.commits[partition(0)] = 7
    world.kafka.rebalance({partition(0)})  # the listener is told a moment after fetching may have begun
    await world.turn()
    assert world.next_offset() == 4
    await world.turn()
    assert world.taken() == Counter(range(10))


async def test_a_log_that_ends_below_what_was_read_is_refused(world: World) -> None:
    world.kafka.write(range(10))
    await world.turn()
    world.kafka.logs[partition(0)].clear()
    world.kafka.ends[partition(0)] = 0
    world.kafka.write([100, 101])
    with pytest.raises(InputLostError, match=r"ends at 2, but 10 records .* inbox reset --service alerting"):
        await world.turn()
    assert world.kafka.commits == {partition(0): 10}


def holding(limit: list[int]) -> Handler:
    """A handler that takes no ``n`` from ``limit[0]`` on."""

    async def handle(records: Sequence[Record], effects: Effects) -> None:
        free: list[Record] = []
        held: set[Place] = set()
        for record in records:
            place = (record.topic, record.partition)
            if place not in held and int((record.value or b"")[6:-1]) >= limit[0]:
                effects.hold(record, until=limit[0])
                held.add(place)
            if place not in held:
                free.append(record)
        await tally(free, effects)

    return handle


async def test_a_held_partition_waits_and_reads_on(database_dsn: str, pool: asyncpg.Pool[Any]) -> None:
    limit = [3]
    world = make_world(database_dsn, pool, ScriptedKafka(2), holding(limit))
    world.kafka.write(range(10))
    world.kafka.write([20, 21], where=1)
    await world.turn()
    assert world.taken() == Counter(range(3))
    assert world.kafka.paused == {partition(0), partition(1)}
    assert world.kafka.commits == {partition(0): 3, partition(1): 0}
    assert world.consumer.held_changed.is_set()
    await world.turn()
    world.consumer.release(3)
    assert world.kafka.paused == {partition(0), partition(1)}  # they wait for more than 3
    limit[0] = 6
    world.consumer.release(6)
    assert world.kafka.paused == set()
    await world.turn()
    assert world.taken() == Counter(range(6))
    limit[0] = 100
    world.consumer.release(100)
    await world.turn()
    assert world.taken() == Counter([*range(10), 20, 21])


async def test_a_held_partition_that_moves_is_held_by_its_next_reader(
    database_dsn: str, pool: asyncpg.Pool[Any]
) -> None:
    limit = [3]
    kafka = ScriptedKafka(2)
    world = make_world(database_dsn, pool, kafka, holding(limit))
    kafka.write(range(10))
    await world.turn()
    await world.rebalance(1)
    limit[0] = 5
    world.consumer.release(5)  # nothing of ours waits any more; nothing raises
    await world.rebalance(0, 1)
    await world.turn()
    assert world.taken() == Counter(range(5))
    assert kafka.paused == {partition(0)}


async def test_a_batch_that_is_halved_holds_its_partition_as_a_whole(
    database_dsn: str, pool: asyncpg.Pool[Any]
) -> None:
    """The poison stands before the hold, in the other half: what is held stays behind all that is taken."""
    limit = [100]
    world = make_world(database_dsn, pool, ScriptedKafka(), holding(limit))
    world.kafka.write([0, -(2**40), 1, 100, 2, 3, 4, 5])
    await world.turn()
    assert world.taken() == Counter([0, 1])
    assert world.next_offset() == 3
    limit[0] = 1_000
    world.consumer.release(1_000)
    await world.turn()
    assert world.taken() == Counter([0, 1, 100, 2, 3, 4, 5])


STEPS = ["write", "write", "turn", "turn", "turn", "skip", "fence", "rebalance", "rewind", "jump", "align"]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_each_record_is_taken_once(  # noqa: C901 - one step a case
    seed: int, database_dsn: str, pool: asyncpg.Pool[Any]
) -> None:
    """A world that redelivers, rebalances, fences, fails and jumps ahead, between any two steps."""
    chance = random.Random(seed)

    async def failing(records: Sequence[Record], effects: Effects) -> None:
        await tally(records, effects)
        if chance.random() < 0.1:
            raise ConnectionResetError("seeded")

    kafka = ScriptedKafka(3)
    world = make_world(database_dsn, pool, kafka, failing)
    written: list[int] = []
    for _step in range(60):
        match chance.choice(
            ["write", "write", "turn", "turn", "turn", "skip", "fence", "rebalance", "rewind", "jump"]
        ):
            case "write":
                numbers = range(len(written), len(written) + chance.randrange(1, 6))
                kafka.write(numbers, where=chance.randrange(3))
                written += numbers
            case "turn":
                await world.turn(chance.randrange(1, 8))
            case "skip":
                kafka.skip(chance.randrange(1, 3), where=chance.randrange(3))
            case "fence":
                kafka.fenced = not kafka.fenced
            case "rebalance":
                await world.rebalance(*(number for number in range(3) if chance.random() < 0.7))
            case "rewind":
                kafka.commits = {each: chance.randrange(offset + 1) for each, offset in kafka.commits.items()}
                await world.rebalance(0, 1, 2)
            case "jump":
                kafka.commits = {each: chance.randrange(end + 1) for each, end in kafka.ends.items()}
                await world.rebalance(0, 1, 2)
            case "align":
                await world.consumer._align()
    kafka.fenced = False
    await world.rebalance(0, 1, 2)
    while any(kafka.positions[each] < max(kafka.logs[each], default=-1) + 1 for each in kafka.logs):
        await world.turn()
    kafka.positions = dict.fromkeys(kafka.logs, 0)
    while any(kafka.positions[each] < max(kafka.logs[each], default=-1) + 1 for each in kafka.logs):
        await world.turn()
    assert world.taken() == Counter(written)
    assert_taken_in_order(world)


def assert_taken_in_order(world: World) -> None:
    order: dict[int, list[int]] = defaultdict(list)
    for where, offset in query(world.dsn, 'SELECT partition, "offset" FROM alerting.taken ORDER BY id'):
        order[where].append(offset)
    for offsets in order.values():
        assert offsets == sorted(offsets)
