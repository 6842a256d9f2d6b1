"""Other stream processors on the same job: each runs its own program, in its own virtual environment.

A peer joins predictions and labels by entity, takes repeats once and corrections at their word, and keeps per
model and minute how many were evaluated, how many were correct, and the sum of squared errors. It publishes each
change of a minute as JSON to a topic. It is done when everything that it published last is what was to come.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.dataset import Bucket, BucketKey
from benchmarks.first_records import FirstRecords, drained_a_second
from benchmarks.parts import PARTITIONS, DataSet, Parts
from benchmarks.usage import peak_rss_mb_of_family
from deploy.local.processes import ManagedProcess, ProcessSpec
from shared.topics import LABELS, PREDICTIONS

FOLDER = Path(__file__).with_name("peers")
SILENCE_SECONDS = 90.0
"""After which a peer that has not come to the right sums is taken to have finished with wrong ones."""
START_SECONDS = 240.0
"""How long it may be silent before it has published anything."""
QUIET_SECONDS = 6.0
"""Of silence, after which it may have published everything: longer than between two of its checkpoints."""
LOOK_SECONDS = 0.05
READ_MS = 2_000
"""How long there must be nothing more to read."""
SQUARED_ERROR_UNIT = 1e-12
ERROR_TOLERANCE = 1e-3
"""By which a minute's sum may have drifted and still be what was to come, not what was before a correction."""


@dataclass(frozen=True, slots=True)
class Run:
    """One life of a peer's process; its moments in seconds since 1970.

    ``fetched_at``: when it was first seen to have been sent records. ``published_at``: when it published last.
    ``wrong_minutes``: minutes of models whose counts are not the right ones. ``error_drift``: the largest
    relative difference of a sum of squared errors.
    """

    started_at: float
    fetched_at: float
    published_at: float
    wrong_minutes: int
    error_drift: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class PeerDrained:
    """One drain by a peer, its start not counted; the rest as in ``Run``.

    ``start_seconds``: from its start to its first records.
    """

    events_per_second: float
    start_seconds: float
    wrong_minutes: int
    error_drift: float
    peak_rss_mb: float


@dataclass(slots=True)
class Standing:
    """What a peer has published so far, against what is to come of it."""

    expected: Mapping[BucketKey, Bucket]
    counts: dict[BucketKey, tuple[int, int]] = field(default_factory=dict)
    errors: dict[BucketKey, float] = field(default_factory=dict)
    wrong: set[BucketKey] = field(init=False)

    def __post_init__(self) -> None:
        self.wrong = {key for key, bucket in self.expected.items() if bucket.evaluated}

    def take(self, document: Mapping[str, Any]) -> None:
        """A minute as it now is; with a ``diff`` below 0, one that no longer is as it was."""
        key = (document["model"], document["minute"])
        counts = (document["evaluated"], document["correct"])
        standing = self.counts.get(key, (0, 0))
        error = document["squared_error"]
        if document.get("diff", 1) < 0:
            if standing != counts or not _near(error, self.errors.get(key, 0.0)):
                return  # what took its place came first
            counts, error = (0, 0), 0.0
        self.counts[key] = counts
        self.errors[key] = error
        bucket = self.expected.get(key)
        right = (bucket.evaluated, bucket.correct) if bucket else (0, 0)
        right_error = bucket.squared_error * SQUARED_ERROR_UNIT if bucket else 0.0
        if counts == right and _near(error, right_error):
            self.wrong.discard(key)
        else:
            self.wrong.add(key)

    def error_drift(self) -> float:
        return max(
            (
                abs(self.errors[key] - bucket.squared_error * SQUARED_ERROR_UNIT)
                / (bucket.squared_error * SQUARED_ERROR_UNIT)
                for key, bucket in self.expected.items()
                if bucket.squared_error and key in self.errors
            ),
            default=math.inf,
        )


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=ERROR_TOLERANCE, abs_tol=ERROR_TOLERANCE)


def python_of(name: str) -> Path:
    """The interpreter of a peer's own virtual environment."""
    return FOLDER / name / ".venv" / "bin" / "python"


def is_installed(name: str) -> bool:
    """Whether ``make bench-peers`` has installed it, to the end."""
    return (FOLDER / name / ".venv" / ".installed").exists()


async def peer_drain(parts: Parts, data: DataSet, name: str) -> PeerDrained:
    """Drain the topics with a peer, from the first records that it is sent to the last that it publishes.

    Raises ``RuntimeError`` where the peer ends or says nothing.
    """
    run = await _run(parts, data, name)
    return PeerDrained(
        events_per_second=drained_a_second(data.records, run.fetched_at, run.published_at),
        start_seconds=run.fetched_at - run.started_at,
        wrong_minutes=run.wrong_minutes,
        error_drift=run.error_drift,
        peak_rss_mb=run.peak_rss_mb,
    )


async def _run(parts: Parts, data: DataSet, name: str) -> Run:
    """One life of the peer's process."""
    output = f"{data.prefix}{name}-{uuid.uuid4().hex[:8]}"
    folder = parts.folder / output
    await asyncio.to_thread(folder.mkdir)
    partitions = [TopicPartition(output, number) for number in range(PARTITIONS)]
    await asyncio.to_thread(_create_topic, parts, output)
    argv = (
        str(python_of(name)),
        str(FOLDER / name / "drain.py"),
        f"--servers={parts.broker.bootstrap_servers}",
        f"--predictions={data.prefix}{PREDICTIONS.name}",
        f"--labels={data.prefix}{LABELS.name}",
        f"--output={output}",
        f"--state={folder}",
    )
    spec = ProcessSpec(name=name, argv=argv, env={"PYTHONPATH": str(FOLDER)}, cwd=folder)
    process = ManagedProcess(spec, parts.folder / f"{name}.log")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=parts.broker.bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        consumer.pause(*partitions)
        # Answered only once every partition has its leader: from then on what is published is heard at once.
        await consumer.end_offsets(partitions)
        first_records = FirstRecords(parts.broker_process.pid)
        process.start()
        return await _listen(consumer, process, data, first_records)
    finally:
        await asyncio.to_thread(process.stop)
        await consumer.stop()


def _create_topic(parts: Parts, name: str) -> None:
    """Records are stamped by the broker: a peer's time does not depend on how soon they are looked at."""
    admin = AdminClient({"bootstrap.servers": parts.broker.bootstrap_servers})
    topic = NewTopic(name, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
    for created in admin.create_topics([topic]).values():
        created.result()


async def _listen(
    consumer: AIOKafkaConsumer, process: ManagedProcess, data: DataSet, first_records: FirstRecords
) -> Run:
    """Read what the peer has published when it publishes no more, until all is right or it is silent for long.

    Not before: whoever reads takes the processor that the peer works with.
    """
    standing = Standing(data.buckets)
    partitions = list(consumer.assignment())
    ends: dict[TopicPartition, int] = {}
    last, read, heard = 0, 0, time.monotonic()
    while standing.wrong:
        first_records.look()
        found = await consumer.end_offsets(partitions)
        if found != ends:
            ends, heard = found, time.monotonic()
        silence = time.monotonic() - heard
        if sum(ends.values()) > read and silence > QUIET_SECONDS:
            last, read = max(last, await _read(consumer, standing)), sum(ends.values())
        elif silence > (SILENCE_SECONDS if last else START_SECONDS):
            break
        await asyncio.sleep(LOOK_SECONDS)
    if not last:
        raise RuntimeError(f"{process.spec.name} published nothing: {process.last_words()}")
    return Run(
        started_at=first_records.started_at,
        fetched_at=first_records.begun_at,
        published_at=last / 1000,
        wrong_minutes=len(standing.wrong),
        error_drift=standing.error_drift(),
        peak_rss_mb=peak_rss_mb_of_family(process.pid),
    )


async def _read(consumer: AIOKafkaConsumer, standing: Standing) -> int:
    """Take what was published since the last time; returns when the last of it was, in milliseconds since 1970."""
    last = 0
    consumer.resume(*consumer.assignment())
    while batches := await consumer.getmany(timeout_ms=READ_MS, max_records=20_000):
        for batch in batches.values():
            for record in batch:
                standing.take(_document(record))
                last = max(last, record.timestamp)
    consumer.pause(*consumer.assignment())
    return last


def _document(record: Any) -> Mapping[str, Any]:
    if record.value is None:  # a minute that is no more, named by its key
        return {**json.loads(record.key), "evaluated": 0, "correct": 0, "squared_error": 0.0}
    document: Mapping[str, Any] = json.loads(record.value)
    return document
