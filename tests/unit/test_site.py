"""The site is whole: it builds without a warning, no link is broken, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests import site

LOADED_BY = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
CSS_ADDRESS = re.compile(r"(?:url\(|@import\s+)[\s'\"]*([^'\")\s;]+)")


class Page(HTMLParser):
    """A page's anchors, where its links lead, and what a browser loads with it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors.update(found[name] for name in ("id", "name") if name in found)
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        if (attribute := LOADED_BY.get(tag)) and attribute in found:
            self.loaded.add(found[attribute])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    html = site.build(tmp_path_factory.mktemp("site"))
    return {file: Page(file) for file in html.rglob("*.html")}


def test_every_page_of_the_docs_is_there(pages: dict[Path, Page]) -> None:
    written = {page.relative_to(site.ROOT / "docs") for page in (site.ROOT / "docs").rglob("*.md")}
    html = next(iter(pages)).parent
    while not (html / "index.html").exists():
        html = html.parent
    assert written
    for page in written:
        assert html / page.with_suffix(".html") in pages


def test_every_link_leads_to_a_page_and_to_a_place_on_it(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            exists = target.is_file()
            anchored = (
                not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            )
            # Furo and Sphinx write an empty fragment for "the top of this page".
            if not (exists and anchored):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_another_host(pages: dict[Path, Page]) -> None:
    loaded = {(file.name, address) for file, page in pages.items() for address in page.loaded}
    assert loaded
    assert [found for found in loaded if urlsplit(found[1]).netloc] == []
    for sheet in {file for page in pages for file in (page.parent / "_static").rglob("*.css")}:
        addresses = CSS_ADDRESS.findall(sheet.read_text(encoding="utf-8"))
        assert [address for address in addresses if urlsplit(address).netloc] == [], sheet.name


def test_a_page_that_nobody_listed_is_found_all_the_same_and_a_broken_link_is_an_error(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(site.ROOT / "docs" / "conf.py", docs)
    (docs / "index.md").write_text(
        "# Home\n\n```mermaid\nflowchart LR\n  drawn --> elsewhere\n```\n", encoding="utf-8"
    )
    (docs / "new.md").write_text("# New\n\n[home](index.md)\n", encoding="utf-8")
    home = (site.build(tmp_path / "good", docs) / "index.html").read_text(encoding="utf-8")
    assert "new.html" in home
    assert "flowchart" not in home
    (docs / "new.md").write_text("# New\n\n[nowhere](gone.md)\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"gone\.md"):
        site.build(tmp_path / "bad", docs)
