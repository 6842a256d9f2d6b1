"""What a reader of the repository should never meet."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 500
MOST_LINES_OF_A_FUNCTION = 70
GENERATED_OR_GIVEN = re.compile(
    r"LICENSE$|(?:.*/)?requirements\.lock$|docs/(?:asyncapi\.yaml|events\.md|http\.md)$|docs/contracts/"
)

MACHINE_PATHS = re.compile(r"(?<![\w.~$}/-])/(?:work|root|home|Users)/[\w.-]")
# Put together from parts, so that this file holds none of them itself.
REGISTRIES = re.compile(
    r"\b(?:"
    + "|".join(
        re.escape(".".join(parts))
        for parts in (
            ("pypi", "org"),
            ("files", "pythonhosted", "org"),
            ("registry", "npmjs", "org"),
            ("repo", "maven", "apache", "org"),
            ("repo1", "maven", "org"),
            ("crates", "io"),
            ("proxy", "golang", "org"),
        )
    )
    + r")\b|"
    + "--(?:extra-)?index"
    + "-url"
)


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [name for name in names if (ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    for name in tracked():
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture


FILES = dict(texts())
PYTHON = {name: text for name, text in FILES.items() if name.endswith(".py")}


def places(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in FILES.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def test_there_is_something_to_look_at() -> None:
    assert len(PYTHON) > 50


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert places(MACHINE_PATHS) == []


def test_no_file_names_a_package_registry() -> None:
    assert places(REGISTRIES) == []


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("data in /" + "root/data", True),
        ("open('/" + "home/me/x')", True),
        ("/" + "work/main", True),
        ("GET /api/v1/" + "work/x", False),
        ("~/" + "work/x", False),
        ("https://example.org/" + "home/x", False),
    ],
)
def test_a_machines_path_is_told_from_others(line: str, caught: bool) -> None:
    assert bool(MACHINE_PATHS.search(line)) is caught


def test_files_are_short_enough_to_read() -> None:
    long = {
        name: lines
        for name, text in FILES.items()
        if not GENERATED_OR_GIVEN.match(name) and (lines := len(text.splitlines())) > MOST_LINES
    }
    assert long == {}


def test_functions_fit_a_screen() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}: {length} lines"
        for name, text in PYTHON.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []


def test_sql_stands_in_sql_files() -> None:
    """A statement in a string is one that nobody finds, plans or reviews; a bare probe is none."""
    statement = re.compile(r"(?is)^\s*(?:insert\s+into|update\s+\w+\s+set|delete\s+from|select\b.+\bfrom\b)")
    found = [
        f"{name}:{node.lineno}"
        for name, text in PYTHON.items()
        if name.startswith(("services/", "shared/"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and statement.match(node.value)
    ]
    assert found == []
