"""JSON Schemas as tables that people read: a field a row, its type in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from deploy.docs.tables import table

Schema = dict[str, Any]

_FORMATS = {"date-time": "time (RFC 3339)", "uri": "URI"}
_KINDS = {"number": "number", "integer": "whole number", "boolean": "true or false", "null": "null"}
_ANYTHING = ("anything", "object")
_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)
# Bounds that only say what fits in the field's own kind of number tell nobody anything.
_TELLING = 2**53


def section(name: str, schema: Schema) -> str:
    """A heading, what the schema says of itself, and its fields."""
    parts = [f"### {name}", (schema.get("description") or "").strip()]
    if "properties" in schema:
        parts.append(table(("field", "type", "default", "what"), _rows(schema)).rstrip())
    else:
        parts.append(f"{_capital(in_words(schema))}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def in_words(schema: Schema) -> str:
    """A type in a few words; a part that has a name is a link to its section on the same page."""
    if "$ref" in schema:
        name = name_in(schema["$ref"])
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            options = list(dict.fromkeys(in_words(option) for option in schema[union]))
            # "Or any object": left open so that one event's fault is told in the answer, not by the schema.
            if any(option not in (*_ANYTHING, "null") for option in options):
                options = [option for option in options if option not in _ANYTHING]
            return " or ".join(options)
    if "const" in schema:
        return _code(schema["const"])
    if "enum" in schema:
        values = [_code(value) for value in schema["enum"]]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    return _plain(schema)


def name_in(reference: str) -> str:
    """The name of the part that a ``$ref`` leads to."""
    return reference.rpartition("/")[2]


def reached(start: Schema, schemas: dict[str, Schema]) -> dict[str, Schema]:
    """The named parts that a schema leads to, directly or not, by name."""
    found: dict[str, Schema] = {}
    waiting = list(_references(start))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schemas[name]
            waiting += _references(schemas[name])
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield name_in(value["$ref"])
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def _rows(schema: Schema) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        default = "required" if name in required else _code(field["default"]) if "default" in field else ""
        # What a named part says of itself stands in its own section.
        what = " ".join((field.get("description") or "").split())
        yield f"`{name}`", in_words(field), default, what


def _plain(schema: Schema) -> str:
    kind = schema.get("type")
    if kind == "array":
        return _list(schema)
    if kind == "object":
        values = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
        named = next((value for value in values if isinstance(value, dict)), None)
        return "object" if named is None else f"map of text to {in_words(named)}"
    if kind == "string":
        return _FORMATS.get(schema.get("format", "")) or "text" + _lengths(schema)
    if kind in ("number", "integer"):
        said = [f"{words} {_number(schema[keyword])}" for keyword, words in _BOUNDS if _tells(schema, keyword)]
        return _KINDS[kind] + (f" ({', '.join(said)})" if said else "")
    return _KINDS.get(str(kind), "anything")


def _list(schema: Schema) -> str:
    inner = schema.get("prefixItems") or schema.get("items")
    most = f" (at most {schema['maxItems']})" if "maxItems" in schema and not isinstance(inner, list) else ""
    if isinstance(inner, list):
        return f"list of {', '.join(in_words(item) for item in inner)}"
    return (f"list of {in_words(inner)}" if inner else "list") + most


def _lengths(schema: Schema) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if most is None:
        return ""
    return f" ({least} to {most} characters)" if least else f" (at most {most} characters)"


def _tells(schema: Schema, keyword: str) -> bool:
    return keyword in schema and abs(schema[keyword]) < _TELLING


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _code(value: Any) -> str:
    said = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`{said}`"


def _capital(text: str) -> str:
    return re.sub(r"^[a-z]", lambda first: first[0].upper(), text)
