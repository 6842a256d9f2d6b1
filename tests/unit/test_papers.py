"""What the papers say of the repository is so: links lead somewhere, settings and endpoints exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """A page's headings as GitHub makes anchors of them."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: str(paper.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(paper: Path) -> None:
    for target in LINK.findall(paper.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        page = (paper.parent / name).resolve() if name else paper
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_settings_in_the_readme_exist_and_have_the_defaults_that_it_names() -> None:
    fields = {f"TRUEWARD_{name.upper()}" for name in Settings.model_fields}
    table = [line for line in README.splitlines() if line.startswith("| `TRUEWARD_")]
    assert table
    for row in table:
        names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[1:3])
        assert set(names) <= fields
        for name, default in zip(names, defaults, strict=True):
            setting = name.removeprefix("TRUEWARD_").lower()
            # As the environment would say it: the same value must come out.
            assert Settings(**{setting: default}) == Settings(), name


def test_endpoints_in_the_readme_are_those_of_the_gateway() -> None:
    paths = create_app(GatewaySettings()).openapi()["paths"]
    named = re.findall(r"\| `(GET|POST) (/api/[^`?]+)", README)
    assert named
    for method, path in named:
        assert method.lower() in paths[path], f"{method} {path}"


def test_the_two_commands_stand_on_the_first_screen() -> None:
    first_screen = README.splitlines()[:40]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)


def test_every_target_that_the_papers_name_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        target
        for paper in PAPERS
        for target in re.findall(r"(?:^|`)make ([a-z]+)", paper.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named
    assert named <= targets
