"""Bad input made of good: what a broken client, a wrong encoding or an attacker makes of a document.

Everything is drawn from a ``Random`` that is given, so that Hypothesis, a seed and atheris can drive the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.contracts.examples import EXAMPLES

SEEDS: dict[str, list[bytes]] = {}
for _example in EXAMPLES:
    SEEDS.setdefault(_example.event, []).append(_example.sent)

WIDE = "\N{MATHEMATICAL SCRIPT CAPITAL X}"
"""A character of four bytes in UTF-8, and of two halves in UTF-16."""

SPELLINGS = (
    *("null", "true", "false", '""', "[]", "{}", "[[]]", '{"":{}}'),
    *("0", "-0", "-0.0", "1", "1.0", "1e0", "-1", "2", "0.5", "30.0", "1.0000000000000002", "1e-400", "5e-324"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *("1e308", "-1e308", "1e309", "1e400", "-1e400", "9e99999", "NaN", "Infinity", "-Infinity", "-NaN"),
    *("1" + "0" * 308, "1" + "0" * 309, "9" * 4300, "9" * 4301, "-" + "9" * 4300, "01", "+1", ".5", "1.", "0x1"),
    *('"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\t"', '"\\x00"', "'a'", '"'),
    *(f'"{"x" * 128}"', f'"{"x" * 129}"', f'"{WIDE * 128}"', f'"{WIDE * 129}"', f'"{"x" * 4096}"'),
    *(f'"{"x" * 4097}"', '"\\u202e\\ufeff"', '"\\n"', '"a:b"', '"other"', '"all"', '"__class__"'),
    *('"0001-01-01T00:00:00Z"', '"0001-01-01T00:00:00+00:01"', '"9999-12-31T23:59:59.999999Z"'),
    *('"9999-12-31T23:59:59-23:59"', '"2026-01-31T12:00:00"', '"2026-06-30T23:59:60Z"', '"1969-12-31T23:59:59Z"'),
    *(
        '"2026-01-31t12:00:00.1234567z"',
        '"2026-01-31 12:00:00-00:00"',
        '"2026-02-29T00:00:00Z"',
        '"20260131T120000Z"',
    ),
    *(
        '"2026-01-31T12:00:00+24:00"',
        '"2026-01-31T24:00:00Z"',
        '"-001-01-01T00:00:00Z"',
        '"10000-01-01T00:00:00Z"',
    ),
    *(
        '"2024-02-29T12:00:00+05:30"',
        '"2029-12-31T23:59:59Z"',
        '"2030-01-01T00:05:00Z"',
        '"2030-01-01T00:05:00.000001Z"',
    ),
    *("[" * depth + "]" * depth for depth in (50, 98, 101, 196, 198, 200, 2_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (99, 102, 197, 199)),
    *('{"a":1,"a":2}', '{"a":0.5,"b":0.5}', '{"a":1.0}', '{"\\u0000":1}', f'{{"{WIDE * 128}":"{WIDE * 128}"}}'),
)
"""Values as they may stand in JSON, or nearly."""

NAMES = (
    *(
        "occurred_at",
        "tick",
        "eventTime",
        "event_time",
        "model_extra",
        "__class__",
        "__dict__",
        "known",
        "to_json",
    ),
    *("", "x" * 129, WIDE * 128, "\x00", "model", "probability", "value", "predicted", "entity_id", "unknown"),
)
"""Names that fields may be given: of other contracts, of what a contract's class has, and of nothing."""

_MARK = "\N{SNOWMAN}"


def mutated(value: bytes, random: Random) -> bytes:
    """A document spoilt once or several times, in its fields or in its bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        spoil = random.choice((spoil_document, spoil_document, spoil_document, spoil_bytes, spoil_encoding))
        value = spoil(value, random)
    return value


def spoil_document(value: bytes, random: Random) -> bytes:
    """Another value, another name, one field less or one more, somewhere in the document."""
    try:
        return _spoilt(value, random)
    except (ValueError, RecursionError):
        # It is no document, or nested more deeply than can be copied.
        return spoil_bytes(value, random)


def _spoilt(value: bytes, random: Random) -> bytes:
    places = list(_places(json.loads(value)))
    if not places:
        return random.choice(SPELLINGS).encode()
    # Another copy of it: a donor's values stay as they are.
    document = json.loads(value)
    holder, key = random.choice(list(_places(document)))
    raw: list[str] = []
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice(NAMES)] = holder.pop(key)
        case 2 if isinstance(holder, dict):
            holder[random.choice(NAMES)] = _raw(raw, random.choice(SPELLINGS))
        case 3:
            donor, name = random.choice(places)
            holder[key] = copy.deepcopy(donor[name])
        case 4:
            # The same name twice: readers take the last.
            holder[key] = _raw(raw, f"{random.choice(SPELLINGS)},{json.dumps(key)}:{random.choice(SPELLINGS)}")
        case _:
            holder[key] = _raw(raw, random.choice(SPELLINGS))
    return _written(document, raw, random)


def spoil_bytes(value: bytes, random: Random) -> bytes:
    """Bytes changed, taken away, put in or doubled."""
    if not value:
        return random.randbytes(random.randrange(1, 16))
    since = random.randrange(len(value))
    until = min(len(value), since + random.choice((1, 1, 2, 8, 64)))
    made: tuple[Callable[[], bytes], ...] = (
        lambda: value[:since] + random.randbytes(until - since) + value[until:],
        lambda: value[:since] + value[until:],
        lambda: value[:since],
        lambda: value[:until] + value[since:],
        lambda: value[:since] + random.choice(SPELLINGS).encode() + value[until:],
        lambda: value[:since] + bytes([value[since] ^ (1 << random.randrange(8))]) + value[since + 1 :],
    )
    return random.choice(made)()


def spoil_encoding(value: bytes, random: Random) -> bytes:
    """The same text in another encoding, or with what editors and shells leave around it."""
    text = value.decode("utf-8", "replace")
    made: tuple[Callable[[], bytes], ...] = (
        lambda: b"\xef\xbb\xbf" + value,
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-16-le"),
        lambda: text.encode("utf-32"),
        lambda: text.encode("latin-1", "replace").replace(b"?", b"\xe9"),
        lambda: value + b"\x00",
        lambda: b"\x00" + value,
        lambda: b" \t\r\n" + value + b"\r\n\n ",
        lambda: b"\x0c\xa0" + value,
        lambda: value + value,
        lambda: value + b"\n" + value,
        lambda: b"[" + value + b"]",
        lambda: json.dumps(text).encode(),
        lambda: value.replace(b'"', b"'"),
        lambda: value.replace(b"e", b"\xc0\xa5"),
        lambda: value.replace(b"a", b"\xed\xa0\x80"),
        lambda: value.replace(b"}", b",}"),
        lambda: b"/* */" + value,
    )
    return random.choice(made)()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) of a document."""
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in list(keys):
            yield document, key
            yield from _places(document[key])


def _raw(raw: list[str], spelling: str) -> str:
    """A place for a spelling that no encoder would write."""
    raw.append(spelling)
    return f"{_MARK}{len(raw) - 1}{_MARK}"


def _written(document: object, raw: list[str], random: Random) -> bytes:
    text = json.dumps(document, ensure_ascii=False, indent=random.choice((None, None, 1)))
    for number, spelling in enumerate(raw):
        text = text.replace(f'"{_MARK}{number}{_MARK}"', spelling, 1)
    return text.encode("utf-8", "surrogatepass")
