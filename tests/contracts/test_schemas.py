"""The published JSON Schemas are those of the code, and may only widen."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deploy.docs import __main__ as make_docs
from deploy.docs.compatibility import breaking_changes
from deploy.docs.generated import incompatibilities, stale, write
from deploy.docs.schemas import schema_documents

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = schema_documents()
Schema = dict[str, Any]


def test_the_generated_documents_are_not_stale() -> None:
    assert stale(DOCS) == [], "run `make docs` and commit what it writes"


def test_no_contract_breaks_with_its_published_schema() -> None:
    assert incompatibilities(DOCS) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_a_valid_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert Draft202012Validator(SCHEMAS[name]).is_valid({}) is False


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_compatible_with_itself(name: str) -> None:
    assert breaking_changes(SCHEMAS[name], copy.deepcopy(SCHEMAS[name])) == []


def test_stale_names_what_is_missing_different_or_orphaned(tmp_path: Path) -> None:
    written = write(tmp_path)
    assert stale(tmp_path) == []
    assert write(tmp_path) == []
    (tmp_path / "contracts" / "gone.v1.schema.json").write_text("{}", encoding="utf-8")
    (tmp_path / "topics.md").write_text("# Topics\n", encoding="utf-8")
    (tmp_path / "asyncapi.yaml").unlink()
    assert len(written) == len(SCHEMAS) + 6
    assert stale(tmp_path) == ["asyncapi.yaml", "topics.md", "contracts/gone.v1.schema.json"]


def test_docs_are_not_written_over_a_schema_that_the_code_breaks_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = tmp_path / "docs"
    write(docs)
    file = docs / "contracts" / "label.v1.schema.json"
    published = json.loads(file.read_text(encoding="utf-8"))
    published["properties"]["confidence"] = {"type": "number"}
    file.write_text(json.dumps(published), encoding="utf-8")
    before = file.read_bytes()
    monkeypatch.setattr(make_docs, "DOCS", docs)
    assert make_docs.main() == 1
    assert "label.v1.schema.json: $.confidence: removed" in capsys.readouterr().err
    assert file.read_bytes() == before
    file.unlink()
    assert make_docs.main() == 0
    assert stale(docs) == []


def test_a_contract_that_was_removed_is_a_break(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "gone.v1.schema.json").write_text("{}", encoding="utf-8")
    assert incompatibilities(tmp_path) == ["gone.v1.schema.json: the contract was removed"]


NODE: Schema = {"properties": {"next": {"$ref": "#/$defs/Node"}, "n": {"type": "integer"}}, "type": "object"}
BASE: Schema = {
    "$defs": {
        "Part": {"properties": {"a": {"type": "integer"}}, "required": ["a"], "type": "object"},
        "Node": NODE,
    },
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^x"},
        "at": {"type": "string", "format": "date-time"},
        "mode": {"enum": ["observe", "enforce"], "type": "string"},
        "on": {"const": True, "type": "boolean"},
        "count": {"type": "integer", "minimum": 0, "maximum": 10},
        "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "part": {"$ref": "#/$defs/Part"},
        "maybe": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]},
        "list": {"items": {"type": "integer"}, "type": "array", "maxItems": 3},
        "pair": {
            "prefixItems": [{"type": "number"}, {"type": "number"}],
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
        },
        "map": {"additionalProperties": {"type": "number"}, "type": "object"},
        "named": {
            "patternProperties": {"^x": {"type": "number"}},
            "propertyNames": {"maxLength": 5},
            "type": "object",
        },
        "free": {"additionalProperties": True, "type": "object"},
        "anything": {},
        "tree": {"$ref": "#/$defs/Node"},
    },
    "required": ["id"],
    "type": "object",
}

Change = Callable[[Schema], object]


def fields(schema: Schema) -> Schema:
    found: Schema = schema["properties"]
    return found


COMPATIBLE: list[tuple[str, Change]] = [
    ("a new optional field", lambda new: fields(new).update(extra={"type": "string"})),
    ("a required field became optional", lambda new: new.update(required=[])),
    ("a longer string", lambda new: fields(new)["id"].update(maxLength=256, minLength=0)),
    ("no bound at all", lambda new: fields(new)["count"].pop("maximum")),
    ("no pattern", lambda new: fields(new)["id"].pop("pattern")),
    ("no format", lambda new: fields(new)["at"].pop("format")),
    ("one more value", lambda new: fields(new)["mode"]["enum"].append("shadow")),
    ("any value", lambda new: fields(new)["mode"].pop("enum")),
    ("any number for an integer", lambda new: fields(new)["count"].update(type="number")),
    ("null as well", lambda new: fields(new).update(at={"anyOf": [fields(new)["at"], {"type": "null"}]})),
    ("another type as well", lambda new: fields(new)["score"]["anyOf"].append({"type": "string"})),
    ("a reference written out", lambda new: fields(new).update(part=new["$defs"]["Part"])),
    ("a new optional field in a part", lambda new: new["$defs"]["Part"]["properties"].update(b={})),
    ("anything in a map", lambda new: fields(new)["map"].update(additionalProperties=True)),
    ("any name in a map", lambda new: fields(new)["named"].pop("propertyNames")),
    ("another description", lambda new: fields(new)["id"].update(description="An id.", title="Id")),
    ("a wider recursive part", lambda new: new["$defs"]["Node"]["properties"]["n"].update(type="number")),
]

BREAKING: list[tuple[str, Change, str]] = [
    ("a removed field", lambda new: fields(new).pop("count"), "$.count: removed"),
    ("a removed field of a part", lambda new: new["$defs"]["Part"]["properties"].pop("a"), "$.part.a: removed"),
    (
        "a new required field",
        lambda new: (fields(new).update(extra={}), new["required"].append("extra")),
        "$.extra: is new and required",
    ),
    ("a field became required", lambda new: new["required"].append("count"), "$.count: became required"),
    (
        "another type",
        lambda new: fields(new)["at"].update(type="integer"),
        "$.at: type narrowed from string to integer",
    ),
    (
        "an integer for a number",
        lambda new: fields(new)["score"]["anyOf"][0].update(type="integer"),
        "$.score: no longer takes number",
    ),
    ("null no longer", lambda new: fields(new)["score"]["anyOf"].pop(), "$.score: no longer takes null"),
    (
        "null no longer beside a reference",
        lambda new: fields(new).update(maybe={"$ref": "#/$defs/Part"}),
        "$.maybe: no longer takes null",
    ),
    (
        "a narrower part of a union",
        lambda new: fields(new)["maybe"]["anyOf"][0].update({"$ref": "#/$defs/Node"}),
        "$.maybe.a: removed",
    ),
    (
        "a shorter string",
        lambda new: fields(new)["id"].update(maxLength=64),
        "$.id: maxLength narrowed from 128 to 64",
    ),
    (
        "a bound where none was",
        lambda new: fields(new)["at"].update(minLength=20),
        "$.at: minLength narrowed from none to 20",
    ),
    (
        "a greater minimum",
        lambda new: fields(new)["count"].update(minimum=1),
        "$.count: minimum narrowed from 0 to 1",
    ),
    ("another pattern", lambda new: fields(new)["id"].update(pattern="^y"), "$.id: pattern narrowed"),
    ("a format where none was", lambda new: fields(new)["id"].update(format="uuid"), "$.id: format narrowed"),
    ("a value less", lambda new: fields(new)["mode"]["enum"].pop(), "$.mode: no longer takes 'enforce'"),
    ("another constant", lambda new: fields(new)["on"].update(const=False), "$.on: no longer takes True"),
    (
        "an enum where none was",
        lambda new: fields(new)["id"].update(enum=["x"]),
        "$.id: values narrowed to ['x']",
    ),
    (
        "narrower items",
        lambda new: fields(new)["list"]["items"].update(type="string"),
        "$.list[]: type narrowed from integer to string",
    ),
    (
        "fewer items",
        lambda new: fields(new)["list"].update(maxItems=2),
        "$.list: maxItems narrowed from 3 to 2",
    ),
    (
        "a narrower place in a tuple",
        lambda new: fields(new)["pair"]["prefixItems"][1].update(type="integer"),
        "$.pair[1]: type narrowed from number to integer",
    ),
    (
        "a narrower map",
        lambda new: fields(new)["map"]["additionalProperties"].update(type="integer"),
        "$.map.*: type narrowed from number to integer",
    ),
    (
        "shorter names in a map",
        lambda new: fields(new)["named"]["propertyNames"].update(maxLength=4),
        "$.named.*: maxLength narrowed from 5 to 4",
    ),
    (
        "other names in a map",
        lambda new: fields(new)["named"].update(patternProperties={"^y": {}}),
        "$.named: patternProperties narrowed",
    ),
    (
        "a free map no longer free",
        lambda new: fields(new)["free"].update(additionalProperties=False),
        "$.free: additionalProperties narrowed",
    ),
    (
        "unknown fields no longer ignored",
        lambda new: new.update(additionalProperties=False),
        "$: additionalProperties narrowed",
    ),
    (
        "a type where anything was",
        lambda new: fields(new)["anything"].update(type="string"),
        "$.anything: type narrowed from anything to string",
    ),
    (
        "a narrower recursive part",
        lambda new: new["$defs"]["Node"]["properties"]["n"].update(type="string"),
        "$.tree.n: type narrowed from integer to string",
    ),
]


@pytest.mark.parametrize(("what", "change"), COMPATIBLE, ids=[case[0] for case in COMPATIBLE])
def test_a_schema_may_widen(what: str, change: Change) -> None:
    new = copy.deepcopy(BASE)
    change(new)
    assert breaking_changes(BASE, new) == [], what


@pytest.mark.parametrize(("what", "change", "said"), BREAKING, ids=[case[0] for case in BREAKING])
def test_a_schema_may_not_narrow(what: str, change: Change, said: str) -> None:
    new = copy.deepcopy(BASE)
    change(new)
    assert said in breaking_changes(BASE, new), what
