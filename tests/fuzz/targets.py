"""What is attacked, one function a target: bytes in, nothing out, and whatever it raises is a finding."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self, TypeVar, get_args

from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from services.gateway import cursors
from services.gateway.problems import Problem
from services.gateway.published import judge
from services.metrics.domain.clock import Gate
from services.metrics.intake import read
from shared.contracts.base import Contract, unknown_fields
from shared.contracts.catalogue import CATALOGUE
from shared.contracts.dead_letters import DeadLetter, RefusalReason
from shared.dead_letters import letter_of
from shared.decoding import decode
from shared.errors import Refusal, UsageError
from shared.reading import ForgivingRecords
from shared.records import Record
from shared.topics import LABELS, MODEL_VERSIONS, PIPELINE_RUNS, PREDICTIONS, Topic, read_by, topic_named
from tests.fuzz.plain import taken_as_plain
from tests.fuzz.rules import verdict
from trueward.cli.lines import Checked, check
from trueward.cli.policy import policies_of

RECEIVED_AT = datetime(2030, 1, 1, tzinfo=UTC)
E = TypeVar("E", bound=Exception)
T = TypeVar("T")
EVENTS = tuple(CATALOGUE)
INGESTED = (PREDICTIONS, LABELS, PIPELINE_RUNS, MODEL_VERSIONS)
PLAIN = (
    (
        PREDICTIONS,
        b'{"prediction_id":"p","model":"m","model_version":"1","predicted_at":"2026-01-31T12:00:00Z","probability":1}',
    ),
    (LABELS, b'{"entity_id":"p","outcome":1,"observed_at":"2026-01-31T12:00:00Z"}'),
)
"""Topics of events that may be plain, each with one that is."""
REASONS = frozenset(get_args(RefusalReason))


def contracts(data: bytes) -> None:
    """The first byte chooses the contract, the rest is a record's value: both judges agree on it."""
    event, value = EVENTS[data[0] % len(EVENTS)] if data else EVENTS[0], data[1:]
    decoded = decode(Record("any", 0, 0, RECEIVED_AT, None, value), CATALOGUE[event])
    found = decoded.reason if isinstance(decoded, Refusal) else None
    expected = verdict(event, value, RECEIVED_AT)
    if found != expected and expected in (None, "from_the_future") and names_twice(value):
        expected = "invalid"
    assert found == expected, (event, found, expected, decoded)
    if isinstance(decoded, Contract):
        encoded = decoded.to_json()
        again = CATALOGUE[event].model_validate_json(encoded)
        assert again.to_json() == encoded
        unknown_fields(decoded)


def names_twice(value: bytes) -> bool:
    """Of a field that stands twice the last counts, but of a name in a map both are judged: either is right."""
    found: list[bool] = []
    try:
        json.loads(value, object_pairs_hook=lambda pairs: found.append(len(pairs) > len(dict(pairs))))
    except (ValueError, RecursionError):
        return False
    return any(found)


class Letters:
    """Stands where a batch's effects would: keeps the letters of what is refused."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.held = 0

    def refuse(self, record: Record, refusal: Refusal) -> None:
        """Make the letter, as the transaction would."""
        assert refusal.reason in REASONS
        letter = letter_of("metrics", record, refusal)
        assert DeadLetter.model_validate_json(letter.to_json()).original_value() == record.value
        self.letters.append(letter)

    def hold(self, _record: Record, *, until: int) -> None:
        """Count it."""
        self.held += 1 + 0 * until

    def count(self, *_: object, **__: object) -> None:
        """Nothing is counted here."""


def intake(data: bytes) -> None:
    """The first byte chooses the topic and the clock: a record is taken in, held or refused, one of them."""
    topics = read_by("metrics")
    choice, value = (data[0], data[1:]) if data else (0, b"")
    topic = topics[choice % len(topics)]
    effects = Letters()
    gate = Gate(20_000 * 86_400) if choice & 128 else None
    record = Record(topic.name, 0, 0, RECEIVED_AT, value[:8], value, (("traceparent", value[:40]),))
    batch = read([record], effects, gate)  # type: ignore[arg-type]  # what it uses of the effects
    taken = (
        len(batch.predictions) + len(batch.labels) + len(batch.runs) + len(batch.versions) + len(batch.policies)
    )
    assert taken + len(effects.letters) + effects.held <= 1


def plain(data: bytes) -> None:
    """The first byte chooses the topic: what is taken as plain is what the contract reads, in whatever company."""
    choice, value = (data[0], data[1:]) if data else (0, b"")
    topic, good = PLAIN[choice % len(PLAIN)]
    alone = taken_as_plain(topic.name, [value], RECEIVED_AT)
    assert taken_as_plain(topic.name, [good, value, good], RECEIVED_AT) == [0, *(1 for _ in alone), 2]


def headers(data: bytes) -> None:
    """Bytes as the names and values of headers: every record comes through, its other bytes unchanged."""
    pairs = [(part[: len(part) // 2], part[len(part) // 2 :]) for part in data.split(b"\xfe")]
    builder = _DefaultRecordBatchBuilderPy(2, 0, False, -1, -1, -1, 1 << 24)
    for offset in range(3):
        named = [(_Name(name), value) for name, value in (pairs if offset == 1 else pairs[:1])]
        assert builder.append(offset, 1, b"key", data, named) is not None
    read_back = []
    batches = ForgivingRecords(bytes(builder.build()))
    while batches.has_next():
        read_back += [record for portion in batches.next_batch() for record in portion.records]
    assert [(one.key, one.value) for one in read_back] == [(b"key", data)] * 3
    assert [value for _, value in read_back[1].headers] == [value for _, value in pairs]
    assert all(isinstance(name, str) for one in read_back for name, _ in one.headers)
    for one in read_back:
        record = Record("labels", 0, one.offset, RECEIVED_AT, one.key, one.value, tuple(one.headers))
        letter_of("metrics", record, Refusal("undecodable", None, "no JSON")).to_json()


class _Name(str):
    """A header's name that is any bytes, as a client in another language would send it."""

    __slots__ = ("_bytes",)

    def __new__(cls, data: bytes) -> Self:
        made = super().__new__(cls, data.decode("utf-8", "replace"))
        made._bytes = data
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The bytes."""
        del encoding, errors
        return self._bytes


def cursor(data: bytes) -> None:
    """Every text that follows a cursor's pattern is a place, and a place that PostgreSQL can be asked for."""
    text = data.hex()
    for pattern, parse in (
        (cursors.NAME_CURSOR, cursors.read_name),
        (cursors.MOMENT_NAME_CURSOR, cursors.read_moment_name),
        (cursors.MOMENT_NUMBER_CURSOR, cursors.read_moment_number),
    ):
        for candidate in (text, data.decode("latin-1"), "0" + text[:15] + text[16:]):
            if _follows(pattern, candidate):
                place: Any = parse(candidate)
                name = place if isinstance(place, str) else getattr(place, "name", "")
                assert "\x00" not in name
                name.encode()
                assert getattr(place, "number", 0) < 2**63


def _follows(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern.removeprefix("^").removesuffix("$"), text, re.ASCII) is not None


def ingest(data: bytes) -> None:
    """The first byte chooses the topic and the form: a body is judged event by event, or refused as a whole."""
    choice, body = (data[0], data[1:]) if data else (0, b"")
    topic = INGESTED[choice % len(INGESTED)]
    judged = _refused(Problem, lambda: judge(body, topic, as_lines=bool(choice & 128), now=RECEIVED_AT))
    if isinstance(judged, Problem):
        assert 400 <= judged.status < 500
        json.dumps(judged.document("/x"))
        return
    judged.answer().model_dump_json()
    for key, value in judged.records:
        key.decode()
        _would_be_taken(topic, value)


def _would_be_taken(topic: Topic, value: bytes) -> None:
    """What the gateway accepts, the service that reads the topic accepts."""
    effects = Letters()
    read([Record(topic.name, 0, 0, RECEIVED_AT, None, value)], effects, None)  # type: ignore[arg-type]
    assert not effects.letters, (value, effects.letters)


def lines(data: bytes) -> None:
    """The first byte chooses the topic: a file for ``trueward publish`` is sent whole, or refused in one line."""
    choice, content = (data[0], data[1:]) if data else (0, b"")
    topic = topic_named(INGESTED[choice % len(INGESTED)].name)
    read_lines = content.splitlines(keepends=True)
    checked = partial(check, read_lines, topic, source="file", now=RECEIVED_AT, found=Checked())
    assert _refused(UsageError, lambda: list(checked())) is not None


def policy_file(data: bytes) -> None:
    """A file for ``trueward policy apply`` is taken, or refused for a reason."""
    assert _refused(UsageError, lambda: [policy.sha256() for policy in policies_of(data, "file")])


def _refused(expected: type[E], attempt: Callable[[], T]) -> T | E:
    """What an attempt returns, or the error that is expected of it, which says something."""
    try:
        return attempt()
    except expected as error:
        if not str(error):
            raise AssertionError("an error without words") from error
        return error


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (contracts, intake, plain, headers, cursor, ingest, lines, policy_file)
}


def run(name: str, data: bytes) -> None:
    """One execution of a target."""
    TARGETS[name](data)
