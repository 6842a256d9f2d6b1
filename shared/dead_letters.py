"""A refused record as the letter that tells of it: byte for byte, as far as a topic can carry it."""

from __future__ import annotations

import base64
from typing import NamedTuple

from shared.contracts.dead_letters import DeadLetter
from shared.errors import Refusal
from shared.records import Record

# In base64 and with the key a second time, all of it stays below what a topic takes: MAX_MESSAGE_BYTES.
# A record may be larger than that, since it may have come compressed.
VALUE_BYTES_KEPT = 4 * 1_048_576
KEY_BYTES_KEPT = 256 * 1024
HEADERS_BYTES_KEPT = 512 * 1024
TEXT_CHARACTERS_KEPT = 4_096

Headers = tuple[tuple[str, str | None], ...]


class _Kept(NamedTuple):
    """What of the headers goes into the letter, and whether that is all of them."""

    headers: Headers
    complete: bool


def letter_of(service: str, record: Record, refusal: Refusal) -> DeadLetter:
    """The letter of a refused record. What is too large for a topic is cut, and the letter says so."""
    headers = _headers(record)
    return DeadLetter(
        service=service,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        received_at=record.received_at,
        key_base64=_base64(kept_key(record)),
        value_base64=_base64(None if record.value is None else record.value[:VALUE_BYTES_KEPT]),
        headers=headers.headers,
        complete=(
            headers.complete
            and len(record.value or b"") <= VALUE_BYTES_KEPT
            and len(record.key or b"") <= KEY_BYTES_KEPT
        ),
        reason=refusal.reason,
        field=None if refusal.field is None else _printable(refusal.field),
        detail=_printable(refusal.detail),
    )


def kept_key(record: Record) -> bytes | None:
    """The record's key, cut where no topic could carry it."""
    return None if record.key is None else record.key[:KEY_BYTES_KEPT]


def _headers(record: Record) -> _Kept:
    """The first headers, as many as fit."""
    kept: list[tuple[str, str | None]] = []
    size = 0
    for name, value in record.headers:
        # JSON spells a character with at most 6 bytes for each of its own in UTF-8.
        size += 16 + 6 * len(name.encode()) + 2 * len(value or b"")
        if size > HEADERS_BYTES_KEPT:
            return _Kept(tuple(kept), complete=False)
        kept.append((_without_nul(name), _base64(value)))
    return _Kept(tuple(kept), complete=True)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _printable(text: str) -> str:
    return _without_nul(text)[:TEXT_CHARACTERS_KEPT]


def _without_nul(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
