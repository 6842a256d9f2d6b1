"""The consumer: fetched records become transactions, and only durable ones are committed to Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared import breaker, inbox
from shared.breaker import FloodError, TrippedError
from shared.broker import as_records
from shared.clock import Clock
from shared.effects import Effects, Handler, Held, Prepare
from shared.errors import InputLostError, Refusal, TruewardError, is_refused_by_database
from shared.inbox import Advance, Gap
from shared.instruments import BATCH_SECONDS, BREAKER_TRIPPED, LOST_RECORDS_TOTAL, RECORDS_TOTAL, REPEATS_TOTAL
from shared.reading import Fetched
from shared.records import Place, Record, Records
from shared.retries import until_done
from shared.settings import Settings
from shared.topics import Service

PATIENCE_SECONDS = 5.0
"""How long PostgreSQL waits for a transaction that holds locks and says nothing."""
PREPARED_SHARE = 1 / 8
"""Of a batch so much is prepared wherever the transaction before it waits; the rest while it waits for much."""
BREAKER_POLL_SECONDS = 2.0
"""Between two looks whether an operator has reset the breaker."""
GIVING_UP_SECONDS = 5.0
"""For what is cancelled: even that may wait for a database that does not answer."""
log = structlog.get_logger()


class Consumer:
    """Takes batches in for one service instance, exactly once in their effects."""

    def __init__(
        self,
        *,
        service: Service,
        settings: Settings,
        pool: asyncpg.Pool[Any],
        clock: Clock,
        handler: Handler,
        prepare: Prepare | None = None,
    ) -> None:
        self._service = service
        self._prefix = settings.topic_prefix
        self._true_end_offsets = settings.kafka_true_end_offsets
        self._breaker_policy = breaker.policy_of(settings)
        self._pool = pool
        self._clock = clock
        self._handler = handler
        self._prepare = prepare
        self._most_records = settings.max_batch_records
        self._prepared_at_once = max(1, int(self._most_records * PREPARED_SHARE))
        self._buffered: list[Records] = []
        self._context = copy_context()
        self._leisure = asyncio.Event()
        self._seeks = 0
        self._fetching_since = 0
        self._sought: dict[Place, tuple[int, int]] = {}
        self._in_flight: asyncio.Task[None] | None = None
        self._finishing = False
        self._failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] = lambda _: None
        """Called once, when a transaction fails for good that nobody waits for."""
        self._proven: dict[Place, Gap] = {}
        self._beginnings: dict[Place, int] = {}
        self._held: dict[Place, Held] = {}
        self.held_changed = asyncio.Event()
        self.kafka: AIOKafkaConsumer | None = None

    async def consume(self, fetched: Fetched, kafka: AIOKafkaConsumer) -> None:
        """Take a fetched batch in, trying again until it is durable; then commit its offsets.

        Where the handler can prepare, it does so for one batch while the one before is in its transaction; what is
        fetched meanwhile goes into the next transaction together. Then this returns earlier: see :meth:`finish`.
        Raises ``InputLostError`` when the topic is not the one that the inbox has read.
        """
        self.kafka = kafka
        records = as_records(fetched, self._prefix)
        if self._prepare is None:
            await self._take_in(records, kafka)
            return
        if self._in_flight is not None and self._buffered_records() >= self._prepared_at_once:
            # Where the transaction's questions are short it goes first: each answer would wait meanwhile.
            await self._leisure.wait()
        self._prepare(records)
        # PostgreSQL's answers to the transaction that is under way are heard in between.
        await asyncio.sleep(0)
        while self._in_flight is not None and self._buffered_records() + len(records) > self._most_records:
            await asyncio.wait([self._in_flight])
        if self._failure is not None:
            raise self._failure
        records = self._without_what_is_sought(records, kafka)
        if records and not self._finishing:
            self._buffered.append(records)
            # With the trace of what was fetched last, not of a batch that has long ended.
            self._context = copy_context()
            if self._in_flight is None:
                self._begin(kafka)
        self._fetching_since = self._seeks

    async def finish(self, patience_seconds: float) -> None:
        """Begin no transaction any more, and wait for the one that is under way; after so long it is given up."""
        self._finishing = True
        self._buffered.clear()
        if self._in_flight is not None:
            task = self._in_flight
            await asyncio.wait([task], timeout=patience_seconds)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=GIVING_UP_SECONDS)

    def _begin(self, kafka: AIOKafkaConsumer) -> None:
        records = Records.together(self._buffered)
        self._buffered = []
        self._in_flight = asyncio.create_task(self._take_in(records, kafka), context=self._context)
        self._in_flight.add_done_callback(partial(self._ended, kafka))

    def _ended(self, kafka: AIOKafkaConsumer, task: asyncio.Task[None]) -> None:
        self._in_flight = None
        self._leisure.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._failure = error
            self.on_failure(error)
        elif self._buffered:
            self._begin(kafka)

    def _buffered_records(self) -> int:
        return sum(map(len, self._buffered))

    async def _take_in(self, records: Records, kafka: AIOKafkaConsumer) -> None:
        started = time.perf_counter()
        await self.take(records, self._log_ends(kafka, records))
        BATCH_SECONDS.observe(time.perf_counter() - started)

    def assignment_changed(self) -> None:
        """Reading starts anew from what Kafka has committed: nothing that was seen before proves anything."""
        self._proven.clear()

    async def take(self, records: Sequence[Record], log_ends: Mapping[Place, int]) -> None:
        """Take records in; what the database itself refuses is found by halving and becomes a dead letter.

        A batch that fails late is halved as well: whole, it might never be quick enough. A flood of dead letters
        is not taken in: it trips the breaker, and waits here until an operator has reset it.
        """
        pending = [records if isinstance(records, Records) else Records.of(records)]
        held: set[Place] = set()
        while pending:
            portion = pending.pop().outside(held)
            if not portion:
                continue
            try:
                turn = await until_done("batch", partial(self._attempt, portion, log_ends))
            except (FloodError, TrippedError) as stopped:
                await self._wait_for_reset(stopped)
                pending.append(portion)
                continue
            except (_RefusedByDatabaseError, _TooSlowError) as refused:
                if len(portion) > 1:
                    first, second = portion.halves()
                    pending += [second, first]
                    continue
                turn = await self._refuse(portion, log_ends, str(refused))
            held |= set(turn.effects.held)
            await self._after(turn)

    async def _refuse(self, records: Records, log_ends: Mapping[Place, int], refusal: str) -> _Turn:
        """Make dead letters of records, once the breaker lets them pass."""
        while True:
            try:
                return await until_done("dead letter", partial(self._attempt, records, log_ends, refusal=refusal))
            except (FloodError, TrippedError) as stopped:
                await self._wait_for_reset(stopped)

    async def _wait_for_reset(self, stopped: FloodError | TrippedError) -> None:
        """Trip the breaker where it has not yet, and wait until an operator has reset it."""
        BREAKER_TRIPPED.set(1)
        log.critical("intake stopped", reason=str(stopped))
        if isinstance(stopped, FloodError):
            await until_done("breaker", partial(self._trip, str(stopped)))
        while True:
            state = await until_done("breaker", partial(breaker.read_by, self._pool))
            if state.reason is None:
                break
            await asyncio.sleep(BREAKER_POLL_SECONDS)
        BREAKER_TRIPPED.set(0)
        log.warning("the breaker was reset, intake goes on")

    async def _trip(self, reason: str) -> None:
        async with self._pool.acquire() as connection:
            await breaker.trip(connection, self._clock.now(), reason)

    async def _attempt(self, records: Records, log_ends: Mapping[Place, int], refusal: str | None = None) -> _Turn:
        """One transaction. With ``refusal`` the records become dead letters instead of being handled."""
        places = sorted({run.place for run in records.runs})
        begun = time.monotonic()
        self._leisure.clear()
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await breaker.refuse_when_tripped(connection)
                next_offsets = await inbox.lock(connection, places)
                admission = inbox.admit(records, next_offsets, self._proven)
                effects = Effects(self._service, connection, self._clock.now(), self._leisure)
                if refusal is not None:
                    for record in admission.records:
                        effects.refuse(record, Refusal("unprocessable", None, refusal))
                elif admission.records:
                    await self._handler(admission.records, effects)
                taken = without_held(admission.records, effects.held)
                advances = _advances(taken, next_offsets, log_ends, self._beginnings)
                await inbox.advance(connection, advances)
                await breaker.check(
                    connection,
                    self._service,
                    self._breaker_policy,
                    effects.now,
                    taken=taken,
                    refused=effects.refused,
                )
                await effects.flush()
                # All that is left waits for a disk, or for Kafka.
                self._leisure.set()
        except Exception as error:
            self._leisure.set()
            if is_refused_by_database(error):
                raise _RefusedByDatabaseError(str(error)) from error
            if len(records) > 1 and time.monotonic() - begun > PATIENCE_SECONDS:
                log.warning("batch failed late, trying its halves", records=len(records), error=str(error))
                raise _TooSlowError(str(error)) from error
            raise
        positions = {place: next_offsets[place] for place in places}
        positions.update({moved.place: moved.next_offset for moved in advances})
        return _Turn(taken, admission, effects, positions, advances)

    async def _after(self, turn: _Turn) -> None:
        """What follows once the transaction is durable: seeks, counts, Kafka's committed offsets."""
        turn.effects.committed()
        for run in turn.taken.runs:
            RECORDS_TOTAL.labels(topic=run.place[0]).inc(len(run))
        for moved in turn.advances:
            if moved.lost_records:
                LOST_RECORDS_TOTAL.labels(topic=moved.place[0]).inc(moved.lost_records)
                log.error(
                    "records lost: retention removed them unread", place=moved.place, count=moved.lost_records
                )
        for (topic, _), count in turn.admission.repeats.items():
            REPEATS_TOTAL.labels(topic=topic).inc(count)
        if self.kafka is None:
            return
        await self._refuse_foreign_log(self.kafka, turn)
        await self._seek_to_gaps(self.kafka, turn.admission.gaps)
        self._wait_at_held(self.kafka, turn.effects.held)
        await self._commit(self.kafka, turn.positions)

    async def _refuse_foreign_log(self, kafka: AIOKafkaConsumer, turn: _Turn) -> None:
        """A log that ends below what was read from it is not the log that was read: say so and stop."""
        if not turn.admission.repeats or not self._true_end_offsets:
            return
        repeated = {self._partition(place): place for place in turn.admission.repeats}
        ends = await until_done("log ends", lambda: kafka.end_offsets(list(repeated)))
        for partition, end in ends.items():
            expected = turn.positions[repeated[partition]]
            if end < expected:
                raise InputLostError(
                    f"topic {partition.topic} partition {partition.partition} ends at {end}, but {expected} "
                    f"records were read from it: was it recreated? If so: "
                    f"trueward inbox reset --service {self._service} --topic {repeated[partition][0]}"
                )

    async def _seek_to_gaps(self, kafka: AIOKafkaConsumer, gaps: Iterable[Gap]) -> None:
        for gap in gaps:
            partition = self._partition(gap.place)
            found = await until_done("log beginnings", partial(kafka.beginning_offsets, [partition]))
            self._beginnings[gap.place] = found[partition]
            log.warning("batch refused, seeking back", place=gap.place, expected=gap.expected, found=gap.found)
            # Only what was asked for and not given is proven.
            if self._seek(kafka, gap.place, max(gap.expected, found[partition])):
                self._proven[gap.place] = gap

    def _wait_at_held(self, kafka: AIOKafkaConsumer, held: Mapping[Place, Held]) -> None:
        for place, waiting in held.items():
            if self._seek(kafka, place, waiting.offset):
                kafka.pause(self._partition(place))
                self._held[place] = waiting
        if held:
            # What the partition waits for may have come between the transaction and the pause.
            self.held_changed.set()

    def _without_what_is_sought(self, records: Records, kafka: AIOKafkaConsumer) -> Records:
        """Of what was fetched just now, without partitions that were sought since its fetch began.

        It may be from before the seek, and must not be taken for what the seek has brought: that proves gaps. So
        they are sought once more.
        """
        again = {place: offset for place, (seek, offset) in self._sought.items() if seek > self._fetching_since}
        for run in records.runs:
            if run.place in again and self._partition(run.place) in kafka.assignment():
                kafka.seek(self._partition(run.place), again[run.place])
        return records.outside(again)

    def _seek(self, kafka: AIOKafkaConsumer, place: Place, offset: int) -> bool:
        """Seek where the partition still is ours; one that was taken away needs none."""
        partition = self._partition(place)
        if partition not in kafka.assignment():
            return False
        self._seeks += 1
        self._sought[place] = self._seeks, offset
        self._buffered = [rest for records in self._buffered if (rest := records.outside([place]))]
        kafka.seek(partition, offset)
        return True

    def release(self, reached: int) -> None:
        """Read on in every partition that was held until less than ``reached``."""
        freed = [place for place, waiting in self._held.items() if waiting.until < reached]
        for place in freed:
            del self._held[place]
        if self.kafka is not None:
            assigned = self.kafka.assignment()
            partitions = [partition for place in freed if (partition := self._partition(place)) in assigned]
            if partitions:
                self.kafka.resume(*partitions)

    async def keep_aligned(self, assigned: asyncio.Event) -> None:
        """After each assignment, until cancelled, seek back where Kafka's offset has run ahead of the inbox.

        So it is after a database was restored or begun anew. A batch would show it as a gap, but where nothing
        new is published no batch comes.
        """
        while True:
            await assigned.wait()
            assigned.clear()
            await until_done("alignment", self._align)

    async def _align(self) -> None:
        kafka = self.kafka
        if kafka is None:
            raise ConnectionError("the consumer has not started yet")
        # Kafka first: what a batch commits meanwhile is in the inbox before it is there.
        offsets = {partition: await kafka.committed(partition) for partition in kafka.assignment()}
        async with self._pool.acquire() as connection:
            next_offsets = await inbox.next_offsets(connection)
        for partition, committed in offsets.items():
            expected = next_offsets.get((partition.topic.removeprefix(self._prefix), partition.partition), 0)
            if committed is not None and committed > expected:
                log.warning("Kafka is ahead of the inbox, seeking back", partition=partition, expected=expected)
                beginnings = await kafka.beginning_offsets([partition])
                place = partition.topic.removeprefix(self._prefix), partition.partition
                self._seek(kafka, place, max(expected, beginnings[partition]))

    async def _commit(self, kafka: AIOKafkaConsumer, positions: Mapping[Place, int]) -> None:
        """Tell Kafka where to start next time. The inbox is the authority, so a failure costs only repeats."""
        assigned = kafka.assignment()
        offsets = {
            partition: offset
            for place, offset in positions.items()
            if (partition := self._partition(place)) in assigned
        }
        try:
            if offsets:
                await kafka.commit(offsets)
        except KafkaError as error:
            log.info("offsets not committed, the inbox has them", error=repr(error))

    def _partition(self, place: Place) -> TopicPartition:
        return TopicPartition(self._prefix + place[0], place[1])

    def _log_ends(self, kafka: AIOKafkaConsumer, records: Records) -> dict[Place, int]:
        """Where the logs end, as the fetch told; unknown for a partition that was taken away meanwhile."""
        assigned = kafka.assignment()
        ends = {}
        for place in {run.place for run in records.runs}:
            partition = self._partition(place)
            end = kafka.highwater(partition) if partition in assigned else None
            if end is not None:
                ends[place] = end
        return ends


class _RefusedByDatabaseError(TruewardError):
    """PostgreSQL refuses what a record says; not retried, told apart by the consumer."""


class _TooSlowError(TruewardError):
    """An attempt failed so late that PostgreSQL may have given it up for its slowness: fewer records take less."""


class _Turn:
    """What one transaction did."""

    def __init__(
        self,
        taken: Records,
        admission: inbox.Admission,
        effects: Effects,
        positions: Mapping[Place, int],
        advances: Sequence[Advance],
    ) -> None:
        self.taken = taken
        self.admission = admission
        self.effects = effects
        self.positions = positions
        self.advances = advances


def without_held(records: Records, held: Mapping[Place, Held]) -> Records:
    """The records before those that their partition waits at."""
    return records.before({place: waiting.offset for place, waiting in held.items()})


def _advances(
    taken: Records,
    next_offsets: Mapping[Place, int],
    log_ends: Mapping[Place, int],
    beginnings: Mapping[Place, int],
) -> list[Advance]:
    advances: dict[Place, Advance] = {}
    for run in taken.runs:
        place = run.place
        expected, beginning = next_offsets[place], beginnings.get(place, 0)
        # An inbox that has read nothing yet has lost nothing: it starts where the log begins.
        lost = max(0, min(beginning, run.first_offset) - expected) if expected else 0
        _, newest = run.received_between()
        before = advances.get(place)
        if before is not None:
            lost, newest = before.lost_records, max(newest, before.received_at or newest)
        advances[place] = Advance(place, run.next_offset, log_ends.get(place), newest, lost)
    return list(advances.values())
