"""What every contract is made of: the base model and the field types with a rule."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the calendar when taken to UTC") from error


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _spelled_as_rfc_3339(moment: object) -> object:
    """Refuse what pydantic would also read: seconds since 1970 in a string, a time without seconds."""
    if isinstance(moment, str):
        if _RFC_3339.fullmatch(moment) is None:
            raise ValueError("must be RFC 3339 with a zone, such as 2026-01-31T12:00:00Z")
        return datetime.fromisoformat(moment.upper())
    return moment


DEEPEST_FREE_MAP = 100
"""Levels of a free map. JSON's readers have limits (pydantic's: 200), and an event that carries the map, or a list
of such events, is nested deeper than what brought it."""


def _storable(value: JsonValue, levels: int) -> None:
    """Refuse what jsonb cannot hold (NUL), what JSON cannot say (infinite numbers), and what nests too deep."""
    if isinstance(value, dict | list) and not levels:
        raise ValueError(f"must not nest deeper than {DEEPEST_FREE_MAP} levels")
    if isinstance(value, str) and "\x00" in value:
        raise ValueError("must not hold the NUL character")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must hold finite numbers only")
    if isinstance(value, dict):
        for name, item in value.items():
            _storable(name, levels)
            _storable(item, levels - 1)
    if isinstance(value, list):
        for item in value:
            _storable(item, levels - 1)


def _storable_map(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _storable(value, DEEPEST_FREE_MAP)
    return value


def _no_boolean(value: object) -> object:
    """Python takes true for 1; JSON does not."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 (pydantic reads ValueError)
    return value


def only_a_boolean(value: object) -> object:
    """Python takes 1 for true; JSON does not. Raises ``ValueError`` for what is no boolean."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 (pydantic reads ValueError)
    return value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_spelled_as_rfc_3339), AfterValidator(_to_utc)]
"""A moment, RFC 3339 with a zone; kept in UTC to the microsecond (further digits are cut off)."""

NAME_LENGTH = 128

Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH, pattern=r"^[^\x00]+$")]
"""An identifier: 1 to 128 characters, no NUL."""

Text = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
"""Words for people: at most 4096 characters, no NUL."""

ZeroOrOne = Annotated[Literal[0, 1], BeforeValidator(_no_boolean)]
"""A binary decision."""

LARGEST_INT64 = 2**63 - 1

Int64 = Annotated[int, Field(ge=0, le=LARGEST_INT64)]
"""A count that a 64-bit integer holds, as databases and most readers of JSON need it."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number."""

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A number from 0 to 1."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal."""

FreeMap = Annotated[dict[str, JsonValue], AfterValidator(_storable_map)]
"""A JSON object whose content is the sender's own affair."""


class Contract(BaseModel):
    """Plain, frozen data. JSON types are taken strictly: "0.5" is no number and true is no 1."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="allow", strict=True, allow_inf_nan=False, ser_json_timedelta="float"
    )

    def known(self) -> dict[str, Any]:
        """The fields that the contract knows, as JSON-ready values; at any depth the unknown are left out."""
        return self.model_dump(mode="json", exclude=_unknown(self))

    def to_json(self, told: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
        """The known fields as canonical JSON: sorted keys, no spaces, UTF-8.

        ``told``: fields whose canonical JSON is known already, as many events have them alike.
        """
        if not told:
            return canonical_json(self.known())
        others = self.model_dump(mode="json", exclude=_unknown(self, without=told) | dict.fromkeys(told, True))
        parts: list[bytes] = []
        run: dict[str, Any] = {}
        for name in [*sorted(others.keys() | told.keys()), None]:
            if name is not None and name not in told:
                run[name] = others[name]
                continue
            if run:
                parts.append(canonical_json(run)[1:-1])
                run = {}
            if name is not None:
                parts.append(canonical_json(name) + b":" + told[name])
        return b"{" + b",".join(parts) + b"}"


class Event(Contract):
    """A fact that Trueward publishes: a CloudEvent whose id is a function of the fact."""

    event_type: ClassVar[str]
    """CloudEvents type, version included, such as ``trueward.snapshot.v1``."""

    def event_id(self) -> str:
        """The CloudEvents id: the same fact always has the same id."""
        raise NotImplementedError

    def subject(self) -> str:
        """The CloudEvents subject: the model that the fact is about."""
        raise NotImplementedError

    def event_time(self) -> datetime:
        """The moment that the fact is about (not when it was sent)."""
        raise NotImplementedError


def _unknown(value: Any, without: Collection[str] = ()) -> dict[Any, Any]:
    """Every unknown field below a value, in the form of pydantic's ``exclude``; below some fields nobody looks."""
    children: Iterable[tuple[Any, Any]] = ()
    unknown: dict[Any, Any] = {}
    # Most fields are plain values, and every record comes through here.
    names = _HOLDING_CONTRACTS[type(value)]
    if names is not None and isinstance(value, Contract):
        unknown = dict.fromkeys(value.__pydantic_extra__, True) if value.__pydantic_extra__ else {}
        fields = value.__dict__
        children = [(name, fields[name]) for name in names if name not in without]
    elif isinstance(value, dict):
        children = value.items()
    elif isinstance(value, tuple | list):
        children = enumerate(value)
    for key, child in children:
        if child is not None and (below := _unknown(child)):
            unknown[key] = below
    return unknown


class _HoldingContracts(dict[type, tuple[str, ...] | None]):
    """The fields of a contract that may hold another, at whatever depth; None for what is no contract."""

    def __missing__(self, kind: type) -> tuple[str, ...] | None:
        found = None
        if issubclass(kind, Contract):
            fields = kind.model_fields.items()
            found = tuple(name for name, field in fields if _may_hold_contract(field.annotation))
        self[kind] = found
        return found


_HOLDING_CONTRACTS = _HoldingContracts()


def _may_hold_contract(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Contract):
        return True
    return annotation is Any or any(map(_may_hold_contract, get_args(annotation)))


def unknown_fields(event: Contract) -> tuple[str, ...]:
    """The fields that the sender wrote and the contract does not know, such as ``rules.no_such_rule``."""

    def paths(unknown: dict[Any, Any], above: str) -> Iterator[str]:
        for key, below in unknown.items():
            if below is True:
                yield f"{above}{key}"
            else:
                yield from paths(below, f"{above}{key}.")

    return tuple(paths(_unknown(event), ""))


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(document: object) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8: equal documents give equal bytes.

    Raises ``ValueError`` for a number that JSON cannot say (NaN, infinity).
    """
    return _CANONICAL.encode(document).encode()


def sha256_of(document: object) -> str:
    """SHA-256 of a document's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
