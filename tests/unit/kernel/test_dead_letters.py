"""A letter holds the record byte for byte, as far as a topic can carry it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.dead_letters import DeadLetter
from shared.dead_letters import HEADERS_BYTES_KEPT, KEY_BYTES_KEPT, VALUE_BYTES_KEPT, kept_key, letter_of
from shared.effects import cloud_event_headers
from shared.errors import Refusal
from shared.records import Record
from shared.topics import MAX_MESSAGE_BYTES

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OVERHEAD_BYTES = 4_096
"""What a record has beside key, value and headers, generously."""

Headers = tuple[tuple[str, bytes | None], ...]


def record(key: bytes | None = None, value: bytes | None = None, headers: Headers = ()) -> Record:
    return Record("predictions", 3, 7, NOW, key, value, headers)


def letter(found: Record, refusal: Refusal | None = None) -> DeadLetter:
    made = letter_of("metrics", found, refusal or Refusal("undecodable", None, "no JSON"))
    return DeadLetter.model_validate_json(made.to_json())


def unpacked(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


@given(
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=50),
    headers=st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=4),
)
def test_what_fits_is_kept_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    found = letter(record(key, value, tuple(headers)))
    assert (unpacked(found.key_base64), found.original_value(), found.complete) == (key, value, True)
    assert [(name, unpacked(content)) for name, content in found.headers] == [
        (name.replace("\x00", "\N{REPLACEMENT CHARACTER}"), content) for name, content in headers
    ]
    assert kept_key(record(key)) == key


@pytest.mark.parametrize(
    ("found", "complete"),
    [
        (record(value=b"x" * VALUE_BYTES_KEPT), True),
        (record(value=b"x" * (VALUE_BYTES_KEPT + 1)), False),
        (record(key=b"x" * KEY_BYTES_KEPT), True),
        (record(key=b"x" * (KEY_BYTES_KEPT + 1)), False),
        (record(headers=(("name", b"x" * HEADERS_BYTES_KEPT),)), False),
        (record(headers=(("\x01" * 1_000_000, None),)), False),
        (record(headers=(("", None),) * 1_000_000), False),
        (record(headers=(("\U0001f600" * 20, b"\xff" * 20),) * 100_000), False),
        (
            record(
                b"k" * 7_000_000,
                b"v" * 60_000_000,
                (("small", b"x"), ("large", b"h" * 2_000_000), ("after", b"x")),
            ),
            False,
        ),
    ],
    ids=lambda given: "" if isinstance(given, Record) else None,
)
def test_whatever_its_size_the_letter_fits_its_topic(found: Record, complete: bool) -> None:
    made = letter(found)
    headers = cloud_event_headers("metrics", made)
    size = len(kept_key(found) or b"") + len(made.to_json()) + sum(len(name) + len(text) for name, text in headers)
    assert size + OVERHEAD_BYTES <= MAX_MESSAGE_BYTES
    assert made.complete is complete
    original = made.original_value()
    assert (original is None) is (found.value is None)
    assert original is None or (found.value or b"").startswith(original)


def test_the_headers_before_the_one_too_large_are_kept() -> None:
    made = letter(record(headers=(("first", b"1"), ("large", b"x" * HEADERS_BYTES_KEPT), ("last", b"3"))))
    assert [name for name, _ in made.headers] == ["first"]


def test_the_reason_is_printable_and_short() -> None:
    made = letter(record(), Refusal("invalid", "a\x00" + "b" * 10_000, "c\x00" + "d" * 10_000))
    assert made.field is not None
    assert len(made.field) == len(made.detail) == 4_096
    assert "\x00" not in made.field + made.detail


def test_the_same_record_refused_by_the_same_service_is_the_same_fact() -> None:
    assert letter(record(b"k", b"v")) == letter(record(b"k", b"v"))
    assert letter(record()).event_id() == "metrics-predictions-3-7"
