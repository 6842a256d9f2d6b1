"""``trueward dead-letters``: look at what was refused, and send it again once the cause is mended."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import typer
from aiokafka import AIOKafkaProducer

from shared.broker import create_missing_topics
from shared.contracts.dead_letters import DeadLetter, DeadLetterReplay
from shared.errors import UsageError
from shared.settings import Settings
from shared.topics import DEAD_LETTER_REPLAYS, DEAD_LETTERS, topic_named
from trueward.cli import broker, output
from trueward.cli.connection import Connection
from trueward.cli.letters import Filter, Plan, Replay, letter_in, replay_in, replay_of, summary, whole

IN_FLIGHT_BYTES = 32 * 1024 * 1024
"""Sent at once, at most: letters are of any size."""
IN_FLIGHT_RECORDS = 1_000
DETAIL_SHOWN = 100
Replays = Mapping[str, list[DeadLetterReplay]]


def show_all(wanted: Filter, connection: Connection, *, most: int, as_json: bool) -> None:
    """List letters, oldest first; of more than ``most`` the newest.

    Raises ``UsageError`` for a missing topic, ``AwayError`` without a broker.
    """
    settings = connection.settings()
    found, counts = asyncio.run(_listed(settings, wanted, most, hidden=as_json))
    if as_json:
        output.answer(
            {"dead_letters": found, "matching": counts.total(), "by_reason": dict(sorted(counts.items()))}
        )
        return
    rows = [
        [
            each["letter_id"],
            each["received_at"],
            each["reason"],
            f"{each['field']}: {each['detail']}"[:DETAIL_SHOWN]
            if each["field"]
            else each["detail"][:DETAIL_SHOWN],
            each["replays"][-1]["replayed_at"] if each["replays"] else "",
        ]
        for each in found
    ]
    output.show(output.table("Dead letters", ["letter", "received", "reason", "detail", "replayed"], rows))
    by_reason = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
    output.say(f"{len(found):,} of {counts.total():,} shown" + (f" ({by_reason})" if by_reason else ""))


def show_one(letter_id: str, connection: Connection) -> None:
    """Print a letter with all that it carries, as JSON. Raises ``UsageError`` where there is none of that id."""
    settings = connection.settings()
    output.answer(asyncio.run(_one(settings, letter_id)))


def replay(
    wanted: Filter, connection: Connection, *, again: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Send letters' records to their topics again, as they came.

    Raises ``UsageError`` for an id or a topic that is not there (nothing is sent), ``AwayError`` without a broker.
    """
    settings = connection.settings()
    plan = asyncio.run(_planned(settings, wanted, again=again, hidden=as_json))
    missing = plan.missing(wanted.ids)
    if missing:
        raise UsageError(f"no dead letter {', '.join(missing)}; nothing was sent")
    if plan.chosen and not dry_run and not yes:
        typer.confirm(f"Send {_counted(plan)} again?", abort=True, err=True)
    sent = 0
    if plan.chosen and not dry_run:
        sent = asyncio.run(_replayed(settings, wanted, plan, hidden=as_json))
    if as_json:
        output.answer(
            {
                "dry_run": dry_run,
                "to_send": len(plan.chosen),
                "by_topic": dict(sorted(plan.by_topic.items())),
                "sent": sent,
                "replayed_before": plan.replayed_before,
                "incomplete": plan.incomplete,
                "refused_twice": plan.refused_twice,
            }
        )
        return
    output.say(f"would send {_counted(plan)}" if dry_run else f"sent {sent:,} records again")
    for count, why in (
        (plan.replayed_before, "were replayed before (--again sends them once more)"),
        (plan.incomplete, "were too large to be carried whole: they stand in their topic only"),
        (plan.refused_twice, "are of records that another letter stands for"),
    ):
        if count:
            output.say(f"left out: {count:,} that {why}")


def _counted(plan: Plan) -> str:
    topics = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(plan.by_topic.items()))
    return f"{len(plan.chosen):,} records ({topics})" if topics else "0 records"


async def _letters(settings: Settings, wanted: Filter, *, hidden: bool) -> AsyncGenerator[DeadLetter]:
    """The letters that are there now, oldest first."""
    with output.progress("reading", None, as_bytes=False, hidden=hidden) as step:
        records = broker.read_through(settings, DEAD_LETTERS)
        async with aclosing(records):
            async for record in records:
                step(1)
                letter = letter_in(record.value)
                if letter is None:
                    output.note(f"note: passed over a record that is no dead letter, at offset {record.offset}")
                elif wanted.fits(letter):
                    yield letter


async def _replays(settings: Settings) -> Replays:
    """What was replayed before, by the letter's id; nothing where the topic was never made."""
    found: dict[str, list[DeadLetterReplay]] = defaultdict(list)
    if DEAD_LETTER_REPLAYS.name not in await broker.partitions_of(settings, [DEAD_LETTER_REPLAYS]):
        return found
    records = broker.read_through(settings, DEAD_LETTER_REPLAYS)
    async with aclosing(records):
        async for record in records:
            noted = replay_in(record.value)
            if noted is not None:
                found[noted.letter_id].append(noted)
    return found


async def _listed(
    settings: Settings, wanted: Filter, most: int, *, hidden: bool
) -> tuple[list[dict[str, Any]], Counter[str]]:
    broker.quiet()
    with broker.one_line(settings):
        replays = await _replays(settings)
        newest: deque[dict[str, Any]] = deque(maxlen=most)
        counts: Counter[str] = Counter()
        seen: set[str] = set()
        letters = _letters(settings, wanted, hidden=hidden)
        async with aclosing(letters):
            async for letter in letters:
                letter_id = letter.event_id()
                if letter_id not in seen:
                    seen.add(letter_id)
                    counts[letter.reason] += 1
                    newest.append(summary(letter, replays.get(letter_id, [])))
    return list(newest), counts


async def _one(settings: Settings, letter_id: str) -> dict[str, Any]:
    broker.quiet()
    with broker.one_line(settings):
        replays = await _replays(settings)
        letters = _letters(settings, Filter(ids=frozenset([letter_id])), hidden=False)
        async with aclosing(letters):
            async for letter in letters:
                return whole(letter, replays.get(letter_id, []))
    raise UsageError(f"no dead letter {letter_id}; `trueward dead-letters list` names those that there are")


async def _planned(settings: Settings, wanted: Filter, *, again: bool, hidden: bool) -> Plan:
    broker.quiet()
    plan = Plan()
    with broker.one_line(settings):
        replays = await _replays(settings)
        letters = _letters(settings, wanted, hidden=hidden)
        async with aclosing(letters):
            async for letter in letters:
                plan.consider(letter, replays, again=again)
        await broker.existing(settings, [topic_named(name) for name in plan.by_topic])
    return plan


async def _replayed(settings: Settings, wanted: Filter, plan: Plan, *, hidden: bool) -> int:
    """Send what was planned, in the order of the letters. Returns how many records were acknowledged."""
    to_send = set(plan.chosen)
    sent = 0

    def so_far() -> str:
        return f"{sent:,} of {len(plan.chosen):,} records were sent again; the command can be given once more"

    with (
        output.progress("sending", len(plan.chosen), as_bytes=False, hidden=hidden) as step,
        broker.one_line(settings, so_far),
    ):
        await create_missing_topics(settings, [DEAD_LETTER_REPLAYS])
        partitions = await broker.existing(settings, [topic_named(name) for name in plan.by_topic])
        async with broker.producing(settings) as producer:
            portion: list[Replay] = []
            size = 0
            letters = _letters(settings, wanted, hidden=True)
            async with aclosing(letters):
                async for letter in letters:
                    if letter.event_id() not in to_send:
                        continue
                    to_send.discard(letter.event_id())
                    portion.append(replay_of(letter))
                    size += len(portion[-1].value or b"")
                    if len(portion) == IN_FLIGHT_RECORDS or size >= IN_FLIGHT_BYTES:
                        sent += await _send(producer, settings, portion, partitions)
                        step(len(portion))
                        portion, size = [], 0
            sent += await _send(producer, settings, portion, partitions)
            step(len(portion))
    return sent


async def _send(
    producer: AIOKafkaProducer, settings: Settings, portion: list[Replay], partitions: Mapping[str, list[int]]
) -> int:
    """Send records, each to its partition; then note that they were sent.

    A crash in between leaves replays that are not noted: sending them once more changes nothing.
    """
    sending = [
        await producer.send(
            settings.topic_prefix + each.topic,
            each.value,
            key=each.key,
            headers=list(each.headers),
            # Where the sender's partitioner put it, so that it stays with the others of its key.
            partition=each.partition if each.partition in partitions[each.topic] else None,
        )
        for each in portion
    ]
    stands = await asyncio.gather(*sending)
    now = datetime.now(UTC)
    notes = [
        DeadLetterReplay(
            letter_id=each.letter_id, topic=each.topic, partition=at.partition, offset=at.offset, replayed_at=now
        )
        for each, at in zip(portion, stands, strict=True)
    ]
    name = settings.topic_prefix + DEAD_LETTER_REPLAYS.name
    noting = [await producer.send(name, note.to_json(), key=note.letter_id.encode()) for note in notes]
    await asyncio.gather(*noting)
    return len(portion)
