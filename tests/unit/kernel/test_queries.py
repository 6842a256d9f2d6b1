"""Named SQL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shared.database import Queries

SQL = """-- What stands before the first name belongs to none.

-- name: find_all
-- Everything there is.
SELECT 1
FROM things

-- name: remove_one
DELETE FROM things WHERE id = $1
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package with a queries.sql."""
    folder = tmp_path / "package_of_queries"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "queries.sql").write_text(SQL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "package_of_queries", raising=False)
    return folder


@pytest.mark.usefixtures("package")
def test_blocks_are_found_by_name() -> None:
    queries = Queries.load("package_of_queries")
    assert list(queries) == ["find_all", "remove_one"]
    assert len(queries) == 2
    assert queries.find_all == "-- Everything there is.\nSELECT 1\nFROM things"
    assert queries["remove_one"] == "DELETE FROM things WHERE id = $1"


@pytest.mark.usefixtures("package")
def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    queries = Queries.load("package_of_queries")
    with pytest.raises(AttributeError, match="no_such"):
        _ = queries.no_such
    with pytest.raises(KeyError):
        queries["no_such"]


def test_a_name_given_twice_is_refused(package: Path) -> None:
    (package / "queries.sql").write_text(SQL + "\n-- name: find_all\nSELECT 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="twice"):
        Queries.load("package_of_queries")


@pytest.mark.usefixtures("package")
def test_a_missing_file_says_so() -> None:
    with pytest.raises(FileNotFoundError):
        Queries.load("package_of_queries", "other.sql")
