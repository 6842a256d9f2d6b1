"""``trueward publish``: events from JSON lines, and ticks of the event clock, to the input topics."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from shared.contracts.observations import Tick
from shared.decoding import decode
from shared.errors import Refusal, UsageError
from shared.records import Record
from shared.settings import Settings
from shared.topics import LABELS, PIPELINE_RUNS, PREDICTIONS, Topic, topic_named
from trueward.cli import broker, output
from trueward.cli.connection import Connection
from trueward.cli.lines import Checked, Keyed, check

IN_MEMORY_BYTES = 64 * 1024 * 1024
UNKNOWN_FIELDS_SHOWN = 5
CLOCK_TOPICS = (PREDICTIONS, LABELS, PIPELINE_RUNS)


@dataclass
class _Count:
    sent: int = 0


def lines(topic_name: str, source: Path, connection: Connection, *, as_json: bool) -> None:
    """Check every line of a source, then send them all.

    Raises ``UsageError`` for a bad line (nothing is sent) or a missing topic, ``AwayError`` without a broker.
    """
    topic = topic_named(topic_name)
    settings = connection.settings()
    found = Checked()
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as spool:
        _check(source, topic, spool, found, hidden=as_json)
        spool.seek(0)
        sent = asyncio.run(_send(settings, topic, _unspool(spool, found.lines), found.lines, hidden=as_json))
    full_name = settings.topic_prefix + topic.name
    _note_unknown_fields(found)
    if as_json:
        unknown = dict(sorted(found.unknown.items()))
        output.answer({"topic": full_name, "sent": sent, "unknown_fields": unknown})
    else:
        output.say(f"sent {sent:,} records to {full_name}")


def tick(time: str, connection: Connection, *, as_json: bool) -> None:
    """Send one tick to every partition that the event clock waits for.

    Raises ``UsageError`` for a bad time or a missing topic, ``AwayError`` without a broker.
    """
    value = json.dumps({"tick": time}).encode()
    ticking = decode(Record(PREDICTIONS.name, 0, 0, datetime.now(UTC), None, value), Tick)
    if isinstance(ticking, Refusal):
        raise UsageError(f"TIME {ticking.detail}")
    sent = asyncio.run(_tick(connection.settings(), ticking))
    if as_json:
        output.answer({"tick": ticking.known()["tick"], "sent": sent})
    else:
        output.say(f"sent a tick of {ticking.known()['tick']} to {sent} partitions")


async def _tick(settings: Settings, ticking: Tick) -> int:
    broker.quiet()
    with broker.one_line(settings, lambda: "not every partition has its tick: send it again"):
        partitions = await broker.existing(settings, CLOCK_TOPICS)
        async with broker.producing(settings) as producer:
            sending = [
                await producer.send(settings.topic_prefix + name, ticking.to_json(), partition=number)
                for name, numbers in partitions.items()
                for number in numbers
            ]
            await asyncio.gather(*sending)
    return len(sending)


def _check(source: Path, topic: Topic, spool: IO[bytes], found: Checked, *, hidden: bool) -> None:
    """Check every line and keep the records: the source may be a pipe, or change while we send."""
    name = "standard input" if str(source) == "-" else str(source)
    with (
        _opened(source) as (stream, size),
        output.progress("checking", size, as_bytes=True, hidden=hidden) as step,
    ):

        def watched() -> Iterator[bytes]:
            try:
                for line in stream:
                    yield line
                    step(len(line))
            except OSError as error:
                raise UsageError(f"{name} cannot be read: {error.strerror}") from error

        for record in check(watched(), topic, source=name, now=datetime.now(UTC), found=found):
            for part in (record.key, record.value):
                spool.write(len(part).to_bytes(4, "big"))
                spool.write(part)


def _unspool(spool: IO[bytes], count: int) -> Iterator[Keyed]:
    def part() -> bytes:
        return spool.read(int.from_bytes(spool.read(4), "big"))

    for _ in range(count):
        yield Keyed(key=part(), value=part())


async def _send(settings: Settings, topic: Topic, records: Iterable[Keyed], total: int, *, hidden: bool) -> int:
    broker.quiet()
    count = _Count()
    with output.progress("sending", total, as_bytes=False, hidden=hidden) as step:

        def sent(more: int) -> None:
            count.sent += more
            step(more)

        def so_far() -> str:
            return (
                f"{count.sent:,} of {total:,} records were acknowledged; sending all again changes nothing twice"
            )

        with broker.one_line(settings, so_far):
            await broker.existing(settings, [topic])
            async with broker.producing(settings) as producer:
                await broker.send_all(producer, settings.topic_prefix + topic.name, records, sent)
    return count.sent


@contextmanager
def _opened(source: Path) -> Iterator[tuple[IO[bytes], int | None]]:
    """The source's lines, and its size in bytes where it has one."""
    if str(source) == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed")
        yield sys.stdin.buffer, None
        return
    try:
        stream = source.open("rb")
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from error
    with stream:
        yield stream, (source.stat().st_size if source.is_file() else None)


def _note_unknown_fields(found: Checked) -> None:
    if not found.unknown:
        return
    most = found.unknown.most_common(UNKNOWN_FIELDS_SHOWN)
    shown = ", ".join(f"{name} ({count:,} times)" for name, count in most)
    more = len(found.unknown) - len(most)
    others = f" and {more} more" if more else ""
    output.note(f"note: the contract does not know these fields, and nothing will read them: {shown}{others}")
