"""Documents that a published JSON Schema admits, for Hypothesis."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from deploy.docs.schemas import schema_documents
from shared.contracts.catalogue import CATALOGUE

Schema = dict[str, Any]
SCHEMAS: dict[str, Schema] = {name: schema_documents()[f"{name}.schema.json"] for name in CATALOGUE}

# NUL is refused everywhere; lone surrogates cannot be written in UTF-8.
CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\x00")
ZONES = st.builds(
    timezone,
    st.timedeltas(min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23)).map(
        lambda offset: timedelta(minutes=offset // timedelta(minutes=1))
    ),
)
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC) | ZONES)  # noqa: DTZ001 (Hypothesis wants the bounds naive)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(CHARACTERS, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def documents(schema: Schema) -> st.SearchStrategy[Schema]:
    """JSON documents that follow an object's schema, its optional fields present or not."""
    return _strategy(schema, schema.get("$defs", {}))


def _strategy(schema: Schema, definitions: dict[str, Schema]) -> st.SearchStrategy[Any]:
    made: st.SearchStrategy[Any] = JSON_VALUES
    match schema:
        case {"$ref": reference}:
            name = reference.removeprefix("#/$defs/")
            made = JSON_VALUES if name == "JsonValue" else _strategy(definitions[name], definitions)
        case {"anyOf": options}:
            made = st.one_of([_strategy(option, definitions) for option in options])
        case {"const": value}:
            made = st.just(value)
        case {"enum": values}:
            made = st.sampled_from(values)
        case {"type": "object"}:
            made = _objects(schema, definitions)
        case {"type": "array"}:
            made = _arrays(schema, definitions)
        case {"type": plain}:
            made = _plain(plain, schema)
    return made


def _plain(plain: str, schema: Schema) -> st.SearchStrategy[Any]:
    least, greatest = schema.get("minimum"), schema.get("maximum")
    match plain:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "number":
            return st.floats(least, greatest, allow_nan=False, allow_infinity=False)
        case "integer":
            if "exclusiveMinimum" in schema:
                least = schema["exclusiveMinimum"] + 1
            return st.integers(least, greatest)
    return _strings(schema)


def _strings(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return MOMENTS.map(datetime.isoformat).map(lambda text: text.replace("+00:00", "Z"))
    if schema.get("pattern") == "^[0-9a-f]{64}$":
        return st.text("0123456789abcdef", min_size=64, max_size=64)
    if schema.get("pattern", r"^[^\x00]*$") not in (r"^[^\x00]+$", r"^[^\x00]*$"):
        raise NotImplementedError(schema["pattern"])
    shortest = schema.get("minLength", 0)
    return st.text(CHARACTERS, min_size=shortest, max_size=min(schema.get("maxLength", 16), 16)) | st.text(
        CHARACTERS, min_size=shortest, max_size=schema.get("maxLength", 16)
    )


def _objects(schema: Schema, definitions: dict[str, Schema]) -> st.SearchStrategy[Schema]:
    if "properties" not in schema:
        return _maps(schema, definitions)
    required = set(schema.get("required", ()))
    fields = {name: _strategy(field, definitions) for name, field in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in required},
        optional={name: field for name, field in fields.items() if name not in required},
    )


def _maps(schema: Schema, definitions: dict[str, Schema]) -> st.SearchStrategy[Schema]:
    values = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties", True))
    names = schema.get("propertyNames", {})
    keys = _strategy({"type": "string", **names}, definitions)
    return st.dictionaries(
        keys,
        _strategy(values, definitions) if isinstance(values, dict) else JSON_VALUES,
        min_size=schema.get("minProperties", 0),
        max_size=min(schema.get("maxProperties", 3), 3),
    )


def _arrays(schema: Schema, definitions: dict[str, Schema]) -> st.SearchStrategy[list[Any]]:
    if "prefixItems" in schema:
        return st.tuples(*(_strategy(item, definitions) for item in schema["prefixItems"])).map(list)
    return st.lists(
        _strategy(schema["items"], definitions),
        min_size=schema.get("minItems", 0),
        max_size=min(schema.get("maxItems", 3), 3),
    )


def told_apart(event: str, document: dict[str, Any]) -> dict[str, Any]:
    """A prediction says exactly one thing: the rule between fields that JSON Schema does not hold."""
    if event != "prediction.v1":
        return document
    said = {name: document.get(name) for name in ("probability", "probabilities", "value")}
    kept = next((name for name, value in said.items() if value is not None), None)
    document = {name: value for name, value in document.items() if name not in said or name == kept}
    if kept is None:
        document["value"] = -0.5
    if kept == "probabilities":
        classes = list(document["probabilities"])
        document["probabilities"] = dict.fromkeys(classes, 1 / len(classes))
    if not (kept == "probability" and document.get("predicted") in (0, 1)):
        document.pop("predicted", None)
    return document


def events(event: str) -> st.SearchStrategy[dict[str, Any]]:
    """Documents that an event's schema and the rules beside it admit."""
    return documents(SCHEMAS[event]).map(lambda document: told_apart(event, document))


def as_bytes(document: object) -> bytes:
    """JSON as a client would write it."""
    return json.dumps(document, ensure_ascii=False).encode()
