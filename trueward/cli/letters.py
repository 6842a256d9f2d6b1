"""Dead letters as an operator works with them: which are meant, and what is sent when one is replayed."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from pydantic import ValidationError

from shared.contracts.dead_letters import DeadLetter, DeadLetterReplay, RefusalReason
from shared.errors import UsageError
from shared.topics import TOPICS

REPLAY_HEADER = "trueward-replay-of"
"""The header that tells a replayed record from one that was sent for the first time, and names its letter."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: those that everything said fits to. ``until`` is the first moment beyond."""

    ids: frozenset[str] = frozenset()
    topic: str | None = None
    reason: str | None = None
    service: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether this letter is meant; times are those when the broker received the refused record."""
        return (
            (not self.ids or letter.event_id() in self.ids)
            and self.topic in (None, letter.topic)
            and self.reason in (None, letter.reason)
            and self.service in (None, letter.service)
            and (self.since is None or letter.received_at >= self.since)
            and (self.until is None or letter.received_at < self.until)
        )

    @property
    def says_something(self) -> bool:
        """Whether anything narrows what is meant."""
        return self != Filter()


def wanted_by(
    *,
    ids: Collection[str] = (),
    topic: str | None,
    reason: str | None,
    service: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Filter:
    """A filter from what was said. Raises ``UsageError`` for a topic or a reason that there is none of."""
    if topic is not None and topic not in {known.name for known in TOPICS}:
        raise UsageError(f"there is no topic {topic!r}; names are without prefix, such as predictions")
    if reason is not None and reason not in get_args(RefusalReason):
        raise UsageError(f"there is no reason {reason!r}; there are {', '.join(get_args(RefusalReason))}")
    return Filter(frozenset(ids), topic, reason, service, since, until)


@dataclass(frozen=True, slots=True)
class Replay:
    """A record to be sent again, as it was: to its topic, and to its partition where there still is one."""

    letter_id: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass
class Plan:
    """What a replay comes to: ids to send, and why others are left out."""

    chosen: set[str] = field(default_factory=set)
    by_topic: dict[str, int] = field(default_factory=dict)
    replayed_before: int = 0
    incomplete: int = 0
    refused_twice: int = 0
    _places: set[tuple[str, int, int]] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def consider(self, letter: DeadLetter, replayed: Collection[str], *, again: bool) -> None:
        """Take a letter in, or count why it is not sent.

        A letter that the relay published twice is one; so is a record that two services refused.
        """
        letter_id, place = letter.event_id(), (letter.topic, letter.partition, letter.offset)
        if letter_id in self._seen:
            return
        self._seen.add(letter_id)
        if letter_id in replayed and not again:
            self.replayed_before += 1
        elif not letter.complete:
            self.incomplete += 1
        elif place in self._places:
            self.refused_twice += 1
        else:
            self._places.add(place)
            self.chosen.add(letter_id)
            self.by_topic[letter.topic] = self.by_topic.get(letter.topic, 0) + 1

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Letters that were asked for and that the topic does not hold."""
        return sorted(set(ids) - self._seen)


def letter_in(value: bytes | None) -> DeadLetter | None:
    """A dead letter from a record's value; None for anything else."""
    try:
        return DeadLetter.model_validate_json(value or b"")
    except ValidationError:
        return None


def replay_in(value: bytes | None) -> DeadLetterReplay | None:
    """The note of a replay from a record's value; None for anything else."""
    try:
        return DeadLetterReplay.model_validate_json(value or b"")
    except ValidationError:
        return None


def replay_of(letter: DeadLetter) -> Replay:
    """The letter's record as it came, byte for byte, with a header that says of which letter it is the replay.

    The header of an earlier replay, refused again, gives way: its letter names the one before.
    """
    kept = tuple((name, _bytes(value)) for name, value in letter.headers if name != REPLAY_HEADER)
    return Replay(
        letter_id=letter.event_id(),
        topic=letter.topic,
        partition=letter.partition,
        key=_bytes(letter.key_base64),
        value=letter.original_value(),
        headers=(*kept, (REPLAY_HEADER, letter.event_id().encode())),
    )


def _bytes(encoded: str | None) -> bytes | None:
    return None if encoded is None else base64.b64decode(encoded)


def summary(letter: DeadLetter, replays: Iterable[DeadLetterReplay]) -> dict[str, Any]:
    """A letter without what it carries."""
    document = letter.known()
    for carried in ("key_base64", "value_base64", "headers"):
        del document[carried]
    return {
        "letter_id": letter.event_id(),
        **document,
        "replays": [_replay(replay) for replay in replays],
    }


def whole(letter: DeadLetter, replays: Iterable[DeadLetterReplay]) -> dict[str, Any]:
    """A letter with all that it carries: as base64, and as text too where it is text."""
    return {
        "letter_id": letter.event_id(),
        **letter.known(),
        "key_text": _text(_bytes(letter.key_base64)),
        "value_text": _text(letter.original_value()),
        "replays": [_replay(replay) for replay in replays],
    }


def _replay(replay: DeadLetterReplay) -> dict[str, Any]:
    return {name: value for name, value in replay.known().items() if name != "letter_id"}


def _text(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None
