"""How types are put into words in the generated references."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.docs.fields import in_words, reached, section


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 1, "maxLength": 128, "pattern": "x"}, "text (1 to 128 characters)"),
        ({"type": "string", "maxLength": 9}, "text (at most 9 characters)"),
        ({"type": "string", "format": "date-time"}, "time (RFC 3339)"),
        ({"type": "number", "minimum": 0, "maximum": 1.5}, "number (at least 0, at most 1.5)"),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 2**63 - 1}, "whole number (above 0)"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        ({"anyOf": [{"$ref": "#/components/schemas/Event"}, {"type": "object"}, {}]}, "[Event](#event)"),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, "object or null"),
        ({"enum": ["wall", 1]}, "one of `wall`, `1`"),
        ({"const": None}, "`null`"),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 3}, "list of true or false (at most 3)"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}]}, "list of number, text"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "map of text to whole number"),
        ({"type": "object", "patternProperties": {".": {"type": "string"}}}, "map of text to text"),
        ({"type": "object", "additionalProperties": False}, "object"),
        ({}, "anything"),
    ],
)
def test_a_type_in_words(schema: dict[str, Any], words: str) -> None:
    assert in_words(schema) == words


def test_a_section_has_a_row_a_field() -> None:
    schema = {
        "description": "A thing.",
        "properties": {
            "name": {"type": "string"},
            "size": {"type": "integer", "default": 3, "description": "In\ncm."},
        },
        "required": ["name"],
    }
    assert section("Thing", schema).splitlines() == [
        "### Thing",
        "",
        "A thing.",
        "",
        "| field | type | default | what |",
        "| --- | --- | --- | --- |",
        "| `name` | text | required |  |",
        "| `size` | whole number | `3` | In cm. |",
    ]


def test_parts_are_followed_to_the_end_and_round_in_circles() -> None:
    schemas = {
        "B": {"properties": {"a": {"$ref": "#/x/A"}}},
        "A": {"items": {"$ref": "#/x/B"}},
        "Unreached": {},
    }
    assert list(reached({"$ref": "#/x/B"}, schemas)) == ["A", "B"]
