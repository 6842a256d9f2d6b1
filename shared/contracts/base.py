"""What every contract is made of: the base model and the field types with a rule."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

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


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _spelled_as_rfc_3339(moment: object) -> object:
    """Refuse what pydantic would also read: seconds since 1970 in a string, a time without seconds."""
    if isinstance(moment, str):
        if _RFC_3339.fullmatch(moment) is None:
            raise ValueError("must be RFC 3339 with a zone, such as 2026-01-31T12:00:00Z")
        return datetime.fromisoformat(moment.upper())
    return moment


def _without_nul(value: JsonValue) -> JsonValue:
    """PostgreSQL's text holds every character but NUL, so no contract lets one in."""
    if "\\u0000" in json.dumps(value):
        raise ValueError("must not hold the NUL character")
    return value


Timestamp = Annotated[AwareDatetime, BeforeValidator(_spelled_as_rfc_3339), AfterValidator(_to_utc)]
"""A moment, RFC 3339 with a zone; kept in UTC to the microsecond (further digits are cut off)."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
"""An identifier: 1 to 128 characters, no NUL."""

Text = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00]*$")]
"""Words for people: at most 4096 characters, no NUL."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A finite number."""

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A number from 0 to 1."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal."""

FreeMap = Annotated[dict[str, JsonValue], AfterValidator(_without_nul)]
"""A JSON object whose content is the sender's own affair."""


class Contract(BaseModel):
    """Plain, frozen data. JSON types are taken strictly: "0.5" is no number and true is no 1."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="allow", strict=True, allow_inf_nan=False, ser_json_timedelta="float"
    )

    def known(self) -> dict[str, Any]:
        """The fields that the contract knows, as JSON-ready values; unknown ones are left out."""
        return self.model_dump(mode="json", include=set(type(self).model_fields))

    def to_json(self) -> bytes:
        """The known fields as canonical JSON: sorted keys, no spaces, UTF-8."""
        return canonical_json(self.known())


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


def unknown_fields(event: Contract) -> tuple[str, ...]:
    """Names of the top-level fields that the sender wrote and the contract does not know."""
    return tuple(event.model_extra or ())


def canonical_json(document: object) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8: equal documents give equal bytes.

    Raises ``ValueError`` for a number that JSON cannot say (NaN, infinity).
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256_of(document: object) -> str:
    """SHA-256 of a document's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
