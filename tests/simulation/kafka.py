"""A broker in memory: partitions, offsets, and groups with generations; consumers as aiokafka's behave.

What matters for exactly-once effects is kept as it is there. A member starts at the committed offsets of its new
partitions. It keeps its old ones, and may be in the middle of a batch of them, until it is given new ones. A
member that was silent for a session is put out, and finds that out late: meanwhile it may run transactions, but
its commits are refused. A sender may never learn that its record was appended.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaConnectionError, KafkaTimeoutError
from aiokafka.structs import OffsetAndTimestamp

from shared.broker import LOG_APPEND_TIME
from shared.reading import Fetched
from tests.simulation.scheduler import Actor, Kind, LostError, Scheduler
from tests.simulation.virtual import VirtualLoop

SESSION_SECONDS = 10.0
Log = list[ConsumerRecord[bytes, bytes]]


@dataclass(eq=False)
class Group:
    """One consumer group. ``joined`` are those of the members that answered the rebalance which is under way."""

    members: dict[Member, None] = field(default_factory=dict)
    generation: int = 0
    rebalancing: bool = False
    joined: set[Member] = field(default_factory=set)
    shares: dict[Member, set[TopicPartition]] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)


class Broker:
    """Topics and groups. ``chance`` decides what Kafka leaves open: who gets which partition, what a fetch has."""

    def __init__(
        self, loop: VirtualLoop, scheduler: Scheduler, chance: Random, partitions: Mapping[str, int]
    ) -> None:
        self.loop = loop
        self.scheduler = scheduler
        self.chance = chance
        self.logs: dict[TopicPartition, Log] = {
            TopicPartition(topic, number): [] for topic, count in partitions.items() for number in range(count)
        }
        self.partitions = dict(partitions)
        self.groups: dict[str, Group] = defaultdict(Group)

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> tuple[int, int]:
        """The broker has the record. Returns its partition and offset."""
        if partition is None:
            partition = zlib.crc32(key or b"") % self.partitions[topic]
        log = self.logs[TopicPartition(topic, partition)]
        log.append(
            ConsumerRecord(
                topic=topic,
                partition=partition,
                offset=len(log),
                timestamp=int(self.loop.now().timestamp() * 1000),
                timestamp_type=LOG_APPEND_TIME,
                key=key,
                value=value,
                checksum=None,
                serialized_key_size=len(key or b""),
                serialized_value_size=len(value or b""),
                headers=tuple(headers),
            )
        )
        return partition, len(log) - 1

    def rebalance(self, group: Group) -> None:
        """Every member must join again; who has not by the end of its session is put out."""
        group.rebalancing = True
        group.joined.clear()
        self._complete(group)

    def join(self, group: Group, member: Member) -> None:
        """A member that is new, or has noticed the rebalance."""
        if member not in group.members:
            group.members[member] = None
            if not group.rebalancing:
                self.rebalance(group)
        group.joined.add(member)
        self._complete(group)

    def put_out(self, group: Group, member: Member) -> None:
        """A member was silent for a session."""
        if group.members.pop(member, 0) is None:
            group.joined.discard(member)
            self.rebalance(group)

    def _complete(self, group: Group) -> None:
        if not group.members or not group.joined.issuperset(group.members):
            return
        group.rebalancing = False
        group.generation += 1
        members = list(group.members)
        self.chance.shuffle(members)
        group.shares = {member: set() for member in members}
        for number, partition in enumerate(sorted({p for one in members for p in one.subscribed})):
            group.shares[members[number % len(members)]].add(partition)

    def holding_records(self, spans: Mapping[TopicPartition, tuple[int, int]]) -> set[TopicPartition]:
        """As ``shared.broker.holding_records``: here a log holds nothing but records."""
        return {
            partition for partition, (since, end) in spans.items() if since < min(end, len(self.logs[partition]))
        }


class Asking:
    """Who asks the broker; the answer may never come."""

    def __init__(self, broker: Broker, actor: Actor) -> None:
        self._broker = broker
        self._actor = actor

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await self._ask("log ends?")
        return {partition: len(self._broker.logs[partition]) for partition in partitions}

    async def offsets_for_times(
        self, times: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        await self._ask("offsets of times?")
        found: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        for partition, moment in times.items():
            later = (record for record in self._broker.logs[partition] if record.timestamp >= moment)
            first = next(later, None)
            found[partition] = None if first is None else OffsetAndTimestamp(first.offset, first.timestamp)
        return found

    async def _ask(
        self,
        label: str,
        enabled: Callable[[], bool] = lambda: True,
        *,
        kind: Kind = "ask",
        changes_nothing: bool = False,
    ) -> None:
        try:
            await self._broker.scheduler.point(self._actor, kind, label, enabled, changes_nothing=changes_nothing)
        except LostError:
            raise KafkaConnectionError(f"connection lost at: {label}") from None


class Member(Asking):
    """A consumer in a group, with what the services use of ``AIOKafkaConsumer``."""

    def __init__(self, broker: Broker, actor: Actor, group: str, topics: Iterable[str], max_records: int) -> None:
        super().__init__(broker, actor)
        self._group = broker.groups[group]
        self._max_records = max_records
        self.subscribed = {
            TopicPartition(topic, number) for topic in topics for number in range(broker.partitions[topic])
        }
        self._assigned: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._generation = -1
        self._joining = False

    # What the group asks of it.

    async def coordinate(self, watch: Any) -> None:
        """Take part in the group, as aiokafka's coordinator does beside the reading."""
        while True:
            await self._ask("rejoin", self._must_join, kind="group")
            await watch.on_partitions_revoked(set(self._assigned))
            self._joining = True
            self._broker.join(self._group, self)
            await self._ask("sync", self._may_sync, kind="group")
            self._joining = self._must_join()
            if self._joining:
                continue
            self._generation = self._group.generation
            self._assigned = set(self._group.shares[self])
            self._paused.clear()
            self._positions = {partition: self._group.committed.get(partition, 0) for partition in self._assigned}
            self._broker.scheduler.tell(
                f"        {self._actor.name:<11} has generation {self._generation}: "
                + " ".join(f"{p.topic}/{p.partition}@{self._positions[p]}" for p in sorted(self._assigned))
            )
            await watch.on_partitions_assigned(set(self._assigned))

    def _must_join(self) -> bool:
        group = self._group
        if self not in group.members:
            return True
        if group.rebalancing:
            return self not in group.joined
        return self._generation != group.generation and not self._joining

    def _may_sync(self) -> bool:
        return not self._group.rebalancing or self not in self._group.joined

    def leave_when_silent(self) -> None:
        """The session ends some time after the instance has died or stood still, unless it moves again."""

        def end() -> None:
            if self._actor.dead or self._actor.paused:
                self._broker.put_out(self._group, self)

        self._broker.loop.call_later(SESSION_SECONDS, end)

    # Reading.

    async def fetch(self) -> Fetched:
        """Some records of some partitions, as they happened to arrive."""
        await self._ask("fetch", lambda: not self._joining and bool(self._fetchable()), kind="fetch")
        chance, found = self._broker.chance, self._fetchable()
        chosen = found if chance.random() < 0.5 else chance.sample(found, chance.randint(1, len(found)))
        batch: Log = []
        for partition in chosen:
            position = self._positions[partition]
            available = self._broker.logs[partition][position : position + self._max_records - len(batch)]
            taken = available if chance.random() < 0.8 else available[: chance.randint(1, max(1, len(available)))]
            batch += taken
            self._positions[partition] = position + len(taken)
        self._broker.scheduler.tell(
            f"        {self._actor.name:<11} fetched "
            + " ".join(f"{r.topic}/{r.partition}@{r.offset}" for r in batch)
        )
        return Fetched.of(batch)

    def _fetchable(self) -> list[TopicPartition]:
        return [
            partition
            for partition in sorted(self._assigned - self._paused)
            if self._positions[partition] < len(self._broker.logs[partition])
        ]

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    def highwater(self, partition: TopicPartition) -> int:
        self._check(partition)
        return len(self._broker.logs[partition])

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._check(partition)
        self._positions[partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self._check(partition)
            self._paused.add(partition)

    def resume(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self._check(partition)
            self._paused.discard(partition)

    def _check(self, partition: TopicPartition) -> None:
        if partition not in self._assigned:
            raise IllegalStateError(f"No current assignment for partition {partition}")

    # Asking the broker.

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        for partition in offsets:
            self._check(partition)
        told = " ".join(f"{p.topic}/{p.partition}@{offset}" for p, offset in sorted(offsets.items()))
        await self._ask(f"commit offsets {told}", kind="offsets")
        group = self._group
        if self not in group.members or group.rebalancing or self._generation != group.generation:
            self._broker.scheduler.tell(f"        {self._actor.name:<11} commit refused, its generation is over")
            raise CommitFailedError
        group.committed.update(offsets)
        await self._ask("commit offsets (answer)", kind="offsets", changes_nothing=True)

    async def committed(self, partition: TopicPartition) -> int | None:
        await self._ask("committed offset?")
        return self._group.committed.get(partition)

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await self._ask("log beginnings?")
        return dict.fromkeys(partitions, 0)

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._broker.partitions[topic]))


class Reader(Asking):
    """A consumer without a group, which has all partitions of a topic, with what metrics uses of aiokafka's."""

    def __init__(self, broker: Broker, actor: Actor, topic: str) -> None:
        super().__init__(broker, actor)
        self._positions = {partition: 0 for partition in broker.logs if partition.topic == topic}

    async def start(self) -> None:
        await self._ask("start to read")

    async def stop(self) -> None:
        """It holds nothing."""

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    async def seek_to_beginning(self) -> None:
        self._positions = dict.fromkeys(self._positions, 0)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, Log]:
        """What there is, at once: in a world nobody waits for records that he knows of."""
        assert timeout_ms
        await self._ask("read on")
        found = {}
        for partition, position in self._positions.items():
            if records := self._broker.logs[partition][position : position + max_records]:
                found[partition] = records
                self._positions[partition] += len(records)
        return found


class Sender:
    """How an instance's relay publishes."""

    def __init__(self, broker: Broker, actor: Actor, topic_prefix: str) -> None:
        self._broker = broker
        self._actor = actor
        self._prefix = topic_prefix

    async def __call__(self, message: Any) -> None:
        event = dict(message.headers)["ce_id"].decode()
        label = f"publish {message.topic} {event}"
        try:
            await self._broker.scheduler.point(self._actor, "publish", label)
            self._broker.append(
                self._prefix + message.topic, message.value, key=message.key, headers=message.headers
            )
            await self._broker.scheduler.point(self._actor, "publish", f"{label} (answer)", changes_nothing=True)
        except LostError:
            raise KafkaTimeoutError(f"not acknowledged: {label}") from None
