"""The site of the docs in a real browser: it loads its own files and nothing else, and finds words."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Request, expect

from tests import site
from tests.browser.conftest import Opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_is_read_without_a_network(opened: Opened, tmp_path: Path, theme: str) -> None:
    html = site.build(tmp_path)
    window = await opened(color_scheme=theme, offline=True)
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    window.context.on("request", note)
    page = await window.open((html / "index.html").as_uri())
    await page.locator(".sidebar-tree").get_by_role("link", name="Concepts").click()
    await expect(page.get_by_role("heading", name="Concepts", level=1)).to_be_visible()
    await page.goto(f"{(html / 'search.html').as_uri()}?q=wilson")
    await expect(page.locator("#search-results li a").first).to_be_visible()
    assert asked
    assert [url for url in asked if not url.startswith(html.as_uri())] == []
