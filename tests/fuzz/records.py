"""Records as nobody should send them: any bytes in value, key and headers, at any time, to every topic."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from services.retrain.domain.ids import decision_id_for_snapshot, job_id_for
from shared.contracts.catalogue import name_of
from shared.records import Record
from shared.topics import RETRAIN_JOB_UPDATES, RETRAIN_REQUESTS, SNAPSHOTS, Topic
from tests.fuzz.mutation import SEEDS, WIDE, mutated
from tests.fuzz.rules import parsed, verdict
from tests.fuzz.targets import RECEIVED_AT, names_twice
from tests.support import Emitted, Feed

TIMES = (RECEIVED_AT, RECEIVED_AT, RECEIVED_AT, datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Sent:
    """A record, and whether the rules of its topic's contracts admit it."""

    record: Record
    reason: str | None


def seeds_of(topic: Topic) -> list[bytes]:
    """Good records of a topic; those that speak of jobs speak of one that a golden snapshot makes."""
    found = [value for contract in topic.contracts for value in SEEDS[name_of(contract)]]
    if topic in (RETRAIN_JOB_UPDATES, RETRAIN_REQUESTS):
        golden = json.loads(SEEDS[name_of(SNAPSHOTS.contract)][0])
        job_id = job_id_for(decision_id_for_snapshot(golden["model"], golden["sequence"]))
        known = {"job_id": job_id} if topic is RETRAIN_JOB_UPDATES else {"model": golden["model"]}
        found += [json.dumps({**json.loads(value), **known}).encode() for value in found]
    return found


def hostile(topic: Topic, feed: Feed, random: Random) -> Sent:
    """A record that may be good, nearly good, or garbage."""
    value: bytes | None = random.choice(seeds_of(topic))
    match random.randrange(10):
        case 0:
            value = random.choice((None, b"", random.randbytes(random.randrange(64)), b"[" * 100_000))
        case 1 | 2:
            pass
        case _:
            value = mutated(value or b"", random)
    record = feed.record(
        topic,
        value,
        partition=random.randrange(2),
        key=random.choice((None, b"", b"key", b"\x00\xff", random.randbytes(300), WIDE.encode() * 128)),
        headers=_headers(random),
        received_at=random.choice(TIMES),
    )
    return Sent(record, reason_of(topic, record))


def _headers(random: Random) -> Sequence[tuple[str, bytes | None]]:
    """Names as the consumer reads them: what is no UTF-8 has been replaced."""
    names = (
        "",
        "traceparent",
        "ce_id",
        "\x00",
        "a\x00b",
        "\N{REPLACEMENT CHARACTER}",
        WIDE * 50,
        "x" * 3_000,
        "\n",
    )
    values = (None, b"", b"\xff\x00", b"00-garbage", random.randbytes(40), b"x" * 300_000)
    return [(random.choice(names), random.choice(values)) for _ in range(random.choice((0, 0, 1, 3)))]


def reason_of(topic: Topic, record: Record) -> str | None:
    """Why a topic's contracts must refuse a record; None where one of them must accept it."""
    first, *others = map(name_of, topic.contracts)
    reason = verdict(first, record.value, record.received_at)
    if reason != "invalid":
        return reason
    document = parsed(record.value or b"")
    for other, mark in (("tick.v1", "tick"), ("openlineage-run-event.v1", "eventTime")):
        if other in others and isinstance(document, dict) and mark in document:
            return verdict(other, record.value, record.received_at)
    return reason


def check_letters(sent: Sequence[Sent], letters: Sequence[Emitted], further: Mapping[str, Sequence[str]]) -> None:
    """Fail unless every record was either taken or became one dead letter, byte for byte, for the right reason.

    ``further`` are the reasons for which a topic's good records may be refused too: what they say is not so.
    """
    found: dict[tuple[str, int, int], list[Any]] = {}
    for letter in letters:
        told = json.loads(letter.value)
        found.setdefault((told["topic"], told["partition"], told["offset"]), []).append(told)
    for one in sent:
        record = one.record
        told = found.pop((record.topic, record.partition, record.offset), [])
        reasons = [letter["reason"] for letter in told]
        allowed = [[one.reason]] if one.reason else [[], *([reason] for reason in further.get(record.topic, ()))]
        if record.value and names_twice(record.value):
            allowed.append(["invalid"])
        assert reasons in allowed, (reasons, allowed, told and told[0]["detail"], record)
        for letter in told:
            assert letter["value_base64"] == _base64(record.value), record
            assert letter["key_base64"] == _base64(record.key), record
    assert not found


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
