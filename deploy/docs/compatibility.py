"""Whether a changed JSON Schema still admits everything that its stored form admits.

Records of an old schema lie in topics and tables for years, so a version of a contract may only ever widen:
a field may be added if it is optional; none may be removed, become required or take fewer values. Anything
else is a new version beside the old one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_WIDENED_TYPES = {("integer", "number")}


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What ``new`` refuses or has lost although ``old`` had it: one line each; empty if compatible.

    Understands the part of JSON Schema that pydantic writes. Raises ``KeyError`` for a ``$ref`` that leads
    out of its document.
    """
    return list(_Comparison(old, new).compare(old, new, "$"))


class _Comparison:
    def __init__(self, old: Schema, new: Schema) -> None:
        self._old_definitions: dict[str, Schema] = old.get("$defs", {})
        self._new_definitions: dict[str, Schema] = new.get("$defs", {})
        self._under_way: set[tuple[str, str]] = set()

    def compare(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if all(pair):
            if pair in self._under_way:  # a recursive definition: being compared further up
                return
            self._under_way.add(pair)
        yield from self._compare_unions(
            _alternatives(old, self._old_definitions), _alternatives(new, self._new_definitions), path
        )
        self._under_way.discard(pair)

    def _compare_unions(self, old: list[Schema], new: list[Schema], path: str) -> Iterator[str]:
        if len(old) == 1 and len(new) == 1:
            yield from self._compare_plain(old[0], new[0], path)
            return
        for alternative in old:
            found = [list(self._compare_plain(alternative, candidate, path)) for candidate in new]
            if all(found):
                # The candidate of the same type says best what is wrong.
                same_type = [
                    breaks
                    for breaks, candidate in zip(found, new, strict=True)
                    if candidate.get("type") == alternative.get("type")
                ]
                yield from same_type[0] if same_type else [f"{path}: no longer takes {_spoken(alternative)}"]

    def _compare_plain(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        yield from _compare_types(old, new, path)
        yield from _compare_values(old, new, path)
        yield from _compare_bounds(old, new, path)
        yield from self._compare_fields(old, new, path)
        yield from self._compare_further_fields(old, new, path)
        yield from self._compare_items(old, new, path)

    def _compare_fields(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
        for name, field in old_fields.items():
            if name not in new_fields:
                yield f"{path}.{name}: removed"
            else:
                yield from self.compare(field, new_fields[name], f"{path}.{name}")
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            what = "became required" if name in old_fields else "is new and required"
            yield f"{path}.{name}: {what}"

    def _compare_further_fields(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        """Free keys: additionalProperties, patternProperties and the names that keys may have."""
        for keyword in ("additionalProperties", "propertyNames"):
            before, after = old.get(keyword, True), new.get(keyword, True)
            if after is True:
                continue
            if isinstance(before, dict) and isinstance(after, dict):
                yield from self.compare(before, after, f"{path}.*")
            elif before is not after:
                yield f"{path}: {keyword} narrowed"
        before, after = old.get("patternProperties", {}), new.get("patternProperties", {})
        for pattern, schema in after.items():
            if pattern in before:
                yield from self.compare(before[pattern], schema, f"{path}.*")
            else:
                yield f"{path}: patternProperties narrowed"

    def _compare_items(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        if "items" in new:
            if "items" in old:
                yield from self.compare(old["items"], new["items"], f"{path}[]")
            else:
                yield f"{path}: items narrowed"
        before, after = old.get("prefixItems", []), new.get("prefixItems", [])
        if len(after) > len(before):
            yield f"{path}: prefixItems narrowed"
        for index, (item_before, item_after) in enumerate(zip(before, after, strict=False)):
            yield from self.compare(item_before, item_after, f"{path}[{index}]")


def _alternatives(schema: Schema, definitions: dict[str, Schema]) -> list[Schema]:
    """A schema as the plain schemas of which one must hold, its references followed."""
    if "$ref" in schema:
        return _alternatives(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if "anyOf" in schema:
        return [plain for option in schema["anyOf"] for plain in _alternatives(option, definitions)]
    return [schema]


def _compare_types(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = old.get("type"), new.get("type")
    if after is not None and before != after and (before, after) not in _WIDENED_TYPES:
        yield f"{path}: type narrowed from {before or 'anything'} to {after}"
    for keyword in ("pattern", "format"):
        if new.get(keyword) is not None and old.get(keyword) != new[keyword]:
            yield f"{path}: {keyword} narrowed"


def _compare_values(old: Schema, new: Schema, path: str) -> Iterator[str]:
    before, after = _values(old), _values(new)
    if after is None:
        return
    if before is None:
        yield f"{path}: values narrowed to {after}"
        return
    for value in before:
        if value not in after:
            yield f"{path}: no longer takes {value!r}"


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _compare_bounds(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for keyword in _LOWER_BOUNDS:
        if keyword in new and (keyword not in old or new[keyword] > old[keyword]):
            yield f"{path}: {keyword} narrowed from {old.get(keyword, 'none')} to {new[keyword]}"
    for keyword in _UPPER_BOUNDS:
        if keyword in new and (keyword not in old or new[keyword] < old[keyword]):
            yield f"{path}: {keyword} narrowed from {old.get(keyword, 'none')} to {new[keyword]}"


def _spoken(schema: Schema) -> str:
    values = _values(schema)
    return str(values) if values is not None else str(schema.get("type", "anything"))
