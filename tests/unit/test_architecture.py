"""The architecture's lint must be able to fail: its own contract is tried on graphs made by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from grimp import ImportGraph

from shared.topics import Service
from tests.architecture import AllowedImports

ROOT = Path(__file__).parents[2]
LINT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]


def graph_of(*imports: tuple[str, str]) -> ImportGraph:
    graph = ImportGraph()
    for module in ("house", "house.domain", "house.domain.rules", "house.store"):
        graph.add_module(module)
    for importer, imported in imports:
        if imported not in graph.modules:
            graph.add_module(imported, is_squashed=True)
        graph.add_import(importer=importer, imported=imported)
    return graph


def contract(**options: Any) -> AllowedImports:
    options = {"source_modules": ["house.domain"], "allowed": ["numpy"], "pure": "true", **options}
    return AllowedImports(name="pure", session_options={"root_packages": ["house"]}, contract_options=options)


@pytest.mark.parametrize("imported", ["dataclasses", "datetime", "math", "numpy", "house.domain"])
def test_a_domain_may_import_itself_numpy_and_what_is_pure(imported: str) -> None:
    assert contract().check(graph_of(("house.domain.rules", imported)), verbose=False).kept


@pytest.mark.parametrize(
    "imported", ["pydantic", "asyncpg", "numpydoc", "asyncio", "time", "random", "os", "pathlib", "house.store"]
)
def test_a_domain_may_import_nothing_else(imported: str) -> None:
    check = contract().check(graph_of(("house.domain.rules", imported)), verbose=False)
    assert not check.kept
    assert check.metadata["imports"] == [("house.domain.rules", imported)]


def test_the_whole_standard_library_is_open_to_what_need_not_be_pure() -> None:
    assert contract(pure="false").check(graph_of(("house.domain", "time")), verbose=False).kept


def test_a_contract_that_guards_nothing_is_broken() -> None:
    assert not contract(source_modules=["house.*.rooms"]).check(graph_of(), verbose=False).kept


def test_every_service_is_layered() -> None:
    (layers,) = [one for one in LINT["contracts"] if one["type"] == "layers"]
    assert layers["containers"] == sorted(f"services.{service}" for service in get_args(Service))
    folders = {folder.parent.name for folder in ROOT.glob("services/*/__init__.py")}
    assert folders == set(get_args(Service))
