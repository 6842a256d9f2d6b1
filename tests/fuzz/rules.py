"""A second judge of events, written from the design alone: the published JSON Schema, and what it cannot say.

Each rule beside the schema has a name and stands here once: it is a documented difference between a contract and
its published schema. Where this judge and ``shared.decoding`` disagree, one of them is wrong.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

SCHEMAS = Path(__file__).parents[2] / "docs" / "contracts"
MOST_BYTES = 1_048_576
MOST_DIGITS = 4_300
DEEPEST = 200
"""How deep JSON may nest, an innermost empty object or array not counted."""
DEEPEST_FREE_MAP = 100

EVENT_TIMES = {
    "prediction.v1": ("predicted_at",),
    "label.v1": ("observed_at",),
    "pipeline-run.v1": ("completed_at",),
    "openlineage-run-event.v1": ("eventTime",),
    "tick.v1": ("tick",),
    "model-version.v1": ("registered_at", "changed_at"),
    "retrain-request.v1": ("requested_at",),
    "retrain-job-update.v1": ("at",),
}
"""The field that says when an event happened; of several the latest counts."""
FREE_MAPS = {
    "model-version.v1": (("training",),),
    "retrain-job-update.v1": (("details",),),
    "retrain-job.v1": (("run", "details"),),
}
Rule = Literal[
    "integers are spelled as integers",
    "names in a map hold no NUL",
    "times are RFC 3339, on the calendar in UTC",
    "a prediction says exactly one thing",
    "probabilities sum to 1",
    "predicted fits what was predicted",
    "a free map can be stored",
    "no two dimensions of a policy spell a segment alike",
]
Reason = Literal["undecodable", "too_large", "invalid", "from_the_future"]


_SURROGATE = re.compile("[\ud800-\udfff]")


class NotFinite:
    """NaN, infinity, or a number too large to be one: of no JSON type, so that no known field takes it."""


def verdict(event: str, value: bytes | None, received_at: datetime) -> Reason | None:
    """Why an event must be refused; None where it must be accepted."""
    if not value:
        return "undecodable"
    if len(value) > MOST_BYTES:
        return "too_large"
    try:
        document = parsed(value)
    except ValueError:
        return "undecodable"
    if not validator(event).is_valid(document) or any(broken_rules(event, document)):
        return "invalid"
    times = [moment for name in EVENT_TIMES.get(event, ()) if (moment := moment_of(document.get(name)))]
    return "from_the_future" if times and max(times) - received_at > timedelta(minutes=5) else None


def parsed(value: bytes) -> Any:
    """What JSON says. Raises ``ValueError`` for what is no JSON in UTF-8.

    NaN and Infinity are read (and refused where a contract knows the field): some clients write them into fields
    of their own, and an unknown field is never an error.
    """
    text = value.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("a byte-order mark is no JSON")
    if _depth(text) > DEEPEST:
        raise ValueError("nests too deeply")
    return _whole(
        json.loads(
            text,
            parse_float=_float,
            parse_int=_int,
            parse_constant=lambda _: NotFinite(),
            # Of a name that stands twice the last counts, but the first must be JSON as well.
            object_pairs_hook=lambda pairs: dict(_whole(pairs)),
        )
    )


def _whole(part: Any) -> Any:
    """A part of a document, whose strings hold no half of a surrogate pair. Raises ``ValueError`` otherwise."""
    if any(_SURROGATE.search(string) for string in _strings(part)):
        raise ValueError("half of a surrogate pair")
    return part


def _depth(text: str) -> int:
    depth = deepest = 0
    for token in re.findall(r'"(?:[^"\\]|\\.)*"?|\[\s*\]|{\s*}|[\[\]{}]', text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token, 0)
        deepest = max(deepest, depth)
    return deepest


def _float(spelling: str) -> float | NotFinite:
    _int(re.split("[.eE]", spelling)[0])
    number = float(spelling)
    return number if math.isfinite(number) else NotFinite()


def _int(spelling: str) -> int:
    if len(spelling.lstrip("-")) > MOST_DIGITS:
        raise ValueError("too many digits")
    return int(spelling)


def _strings(document: Any) -> Iterator[str]:
    match document:
        case str():
            yield document
        case list() | tuple():
            for item in document:
                yield from _strings(item)
        case dict():
            for name, item in document.items():
                yield name
                yield from _strings(item)


def _is_number(_checker: object, value: object) -> bool:
    """An integer beyond the greatest double is no number that a double holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**1024


def _bound(holds: Callable[[Any, Any], bool]) -> Callable[..., Iterator[ValidationError]]:
    """The bounds of integers too, whatever their size."""

    def check(_validator: object, bound: object, value: object, _schema: object) -> Iterator[ValidationError]:
        if isinstance(value, int | float) and not isinstance(value, bool) and not holds(value, bound):
            yield ValidationError("out of bounds")

    return check


def _whole_match(_validator: object, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    # In ECMA 262, which JSON Schema means, $ is the very end; in Python it also is before a last line feed.
    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield ValidationError("does not match")


_Validator = extend(
    Draft202012Validator,
    validators={
        "pattern": _whole_match,
        "minimum": _bound(operator.ge),
        "maximum": _bound(operator.le),
        "exclusiveMinimum": _bound(operator.gt),
    },
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number),
)


@cache
def schema(event: str) -> dict[str, Any]:
    """The published schema of an event."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{event}.schema.json").read_text(encoding="utf-8"))
    return found


@cache
def validator(event: str) -> Any:
    """The published schema of an event, as JSON Schema has it."""
    return _Validator(schema(event))


def broken_rules(event: str, document: dict[str, Any]) -> Iterator[Rule]:
    """The rules beside the schema that a document breaks; the document follows the schema."""
    if not _strict(event).is_valid(document):
        yield "integers are spelled as integers"
    if not _exact_about_names(event).is_valid(document):
        yield "names in a map hold no NUL"
    if not _exact_about_times(event).is_valid(document):
        yield "times are RFC 3339, on the calendar in UTC"
    if event == "prediction.v1":
        yield from _prediction_rules(document)
    if event == "policy.v1":
        spelled = [
            {f"{dimension}:{value}" for value in (*values, "other")}
            for dimension, values in document.get("segments", {}).items()
        ]
        if sum(map(len, spelled)) > len(set().union(*spelled)):
            yield "no two dimensions of a policy spell a segment alike"
    for path in FREE_MAPS.get(event, ()):
        found: Any = document
        for name in path:
            found = found.get(name, {})
        if not _storable(found, DEEPEST_FREE_MAP):
            yield "a free map can be stored"


@cache
def _strict(event: str) -> Any:
    """JSON Schema takes 30.0 for an integer; a contract does not (but 0.0 and 1.0 are a decision, as 0 and 1)."""
    checker = _Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    return extend(_Validator, type_checker=checker)(_without_types_of_enums(schema(event)))


@cache
def _exact_about_times(event: str) -> Any:
    """In JSON Schema a format is a remark, unless somebody checks it."""
    checker = FormatChecker(())
    checker.checks("date-time")(lambda text: not isinstance(text, str) or moment_of(text) is not None)
    return _Validator(schema(event), format_checker=checker)


@cache
def _exact_about_names(event: str) -> Any:
    """The published schemas describe a map's names as patternProperties, which let others pass."""
    return extend(_Validator, validators={"patternProperties": _names_match})(schema(event))


def _names_match(
    _validator: object, patterns: dict[str, Any], value: object, _schema: object
) -> Iterator[ValidationError]:
    names = value if isinstance(value, dict) else {}
    if not all(any(re.search(pattern, name) for pattern in patterns) for name in names):
        yield ValidationError("a name that no pattern knows")


def _without_types_of_enums(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_types_of_enums(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = part if "enum" not in part else {name: item for name, item in part.items() if name != "type"}
    return {name: _without_types_of_enums(item) for name, item in kept.items()}


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


def moment_of(text: object) -> datetime | None:
    """The moment that RFC 3339 says, to the microsecond; None for none, for a leap second, or off the calendar."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    fraction, sign = (found[7] or "0")[:6].ljust(6, "0"), -1 if found[8] == "-" else 1
    hours, minutes = int(found[9] or 0), int(found[10] or 0)
    if hours > 23 or minutes > 59:
        return None
    try:
        year, month, day, hour, minute, second = (int(found[part]) for part in range(1, 7))
        local = datetime(year, month, day, hour, minute, second, int(fraction), UTC)
        return local - sign * timedelta(hours=hours, minutes=minutes)
    except (ValueError, OverflowError):
        return None


def _prediction_rules(document: dict[str, Any]) -> Iterator[Rule]:
    said = [name for name in ("probability", "probabilities", "value") if document.get(name) is not None]
    if len(said) != 1:
        yield "a prediction says exactly one thing"
        return
    predicted = document.get("predicted")
    probabilities = document.get("probabilities")
    if probabilities is not None:
        off = abs(sum(map(Fraction, probabilities.values())) - 1)
        # Decimals are no doubles: by a hair around the limit either verdict is right, and the schema's stands.
        if off > Fraction(1, 10**6) + Fraction(1, 10**12):
            yield "probabilities sum to 1"
        if predicted is not None and (not isinstance(predicted, str) or predicted not in probabilities):
            yield "predicted fits what was predicted"
    elif predicted is not None and (said == ["value"] or isinstance(predicted, str)):
        yield "predicted fits what was predicted"


def _storable(value: Any, levels: int) -> bool:
    """Whether PostgreSQL's jsonb holds it (no NUL, finite numbers), and whoever embeds it can read it again."""
    match value:
        case NotFinite():
            return False
        case str():
            return "\x00" not in value
        case list():
            return levels > 0 and all(_storable(item, levels - 1) for item in value)
        case dict():
            return levels > 0 and all(
                "\x00" not in name and _storable(item, levels - 1) for name, item in value.items()
            )
    return True
