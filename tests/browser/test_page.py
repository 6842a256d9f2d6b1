"""The page in a real browser, on the real stack."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.conftest import FLIGHTS, MAIL, NASTY, PRICES, STEADY, Opened, World, no_reload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
PATIENCE_MS = 45_000


def row(page: Page, model: str) -> Any:
    return page.locator("table.models tbody tr").filter(has=page.get_by_role("link", name=model, exact=True))


async def faults(page: Page) -> list[str]:
    """What axe-core finds that keeps people out."""
    found = await Axe().run(page)
    return [
        f"{violation['impact']} {violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in found.response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


async def is_good(page: Page, world: World, model: str = STEADY) -> None:
    await page.goto(world.url)
    await expect(row(page, model)).to_have_attribute("data-standing", "good", timeout=PATIENCE_MS)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
async def test_everybody_can_use_it(world: World, opened: Opened, theme: str, width: int) -> None:
    window = await opened(width=width, color_scheme=theme)
    page = await window.open(world.url)
    await is_good(page, world)
    assert await faults(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.goto(f"{world.url}/?model={STEADY}")
    await expect(page.locator(".verdict .answer")).to_contain_text("Yes.", timeout=PATIENCE_MS)
    await expect(page.locator("canvas").first).to_be_visible()
    assert await faults(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_role("button", name="Run the policy").click()
    await expect(page.get_by_role("dialog")).to_contain_text("Dry run:")
    assert await faults(page) == []


async def test_a_change_of_state_arrives_by_itself(world: World, opened: Opened) -> None:
    window = await opened()
    overview = await window.open(world.url)
    await is_good(overview, world, FLIGHTS)
    model = await window.open(f"{world.url}/?model={FLIGHTS}")
    await expect(model.locator("h1 + .badge")).to_have_text("Good", timeout=PATIENCE_MS)
    await expect(model.locator("#live")).to_have_attribute("data-live", "live")
    async with no_reload(overview), no_reload(model):
        await world.live_through(FLIGHTS, 200, right=False)
        await expect(row(overview, FLIGHTS)).to_have_attribute("data-standing", "incident", timeout=PATIENCE_MS)
        await expect(model.locator("h1 + .badge")).to_have_text("Incident", timeout=PATIENCE_MS)
        alert = model.locator('[data-alert="accuracy_breach"]')
        await expect(alert).to_contain_text("Open an incident", timeout=PATIENCE_MS)
        await expect(model.locator(".verdict .answer")).to_contain_text("No.")
        await expect(overview.locator("table.models tbody tr").first).to_have_attribute("data-model", FLIGHTS)
    assert "Incident" in await model.title()


async def test_a_link_restores_what_was_chosen(world: World, opened: Opened) -> None:
    window = await opened()
    page = await window.open(f"{world.url}/?model={STEADY}")
    segment = page.get_by_label("Segment", exact=True)
    await expect(segment).to_be_visible(timeout=PATIENCE_MS)
    await page.get_by_role("group", name="Window").get_by_role("button", name="1d").click()
    await page.get_by_role("group", name="Range").get_by_role("button", name="90d").click()
    await segment.select_option("carrier:AA")
    await page.get_by_label("Version", exact=True).select_option("all")
    sent = page.url
    other = await (await opened()).open(sent)
    note = other.locator(".part-tiles .note")
    await expect(note).to_have_text("Figures of all versions, carrier: AA, the last 1d.", timeout=PATIENCE_MS)
    chosen = other.locator('[aria-pressed="true"]')
    await expect(chosen).to_have_text(["1d", "90d"])
    await expect(other.get_by_label("Segment", exact=True)).to_have_value("carrier:AA")
    await expect(other.get_by_label("Version", exact=True)).to_have_value("all")


async def test_the_overview_is_searched_sorted_and_filtered_by_its_address(world: World, opened: Opened) -> None:
    page = await (await opened()).open(f"{world.url}/?q=STEA&sort=name&state=good")
    await expect(row(page, STEADY)).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.locator("table.models tbody tr")).to_have_count(1)
    await expect(page.get_by_label("Sort by")).to_have_value("name")
    await expect(page.get_by_role("button", name="Good")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("/")
    await expect(page.get_by_label("Find a model by name")).to_be_focused()
    await page.keyboard.type("-and-nothing-else")
    await expect(page.get_by_role("heading", name="No model matches")).to_be_visible()
    await page.get_by_role("button", name="Show all models").click()
    await expect(row(page, FLIGHTS)).to_be_visible()


async def test_the_keyboard_is_enough(world: World, opened: Opened) -> None:
    page = await (await opened()).open(world.url)
    await is_good(page, world)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.get_by_role("link", name=STEADY, exact=True).focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name=STEADY, level=1)).to_be_visible()
    await expect(page.locator("main")).to_be_focused()
    run = page.get_by_role("button", name="Run the policy")
    await expect(run).to_be_visible(timeout=PATIENCE_MS)
    await run.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.go_back()
    await expect(page.get_by_role("heading", name="Models", level=1)).to_be_visible()


async def test_the_policy_is_run_after_a_dry_run(world: World, opened: Opened) -> None:
    page = await (await opened()).open(f"{world.url}/?model={STEADY}")
    # Forty labels are enough for new_labels to fire; the policy only observes, so nothing was queued by itself.
    await page.get_by_role("button", name="Run the policy").click(timeout=PATIENCE_MS)
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Dry run: the policy would queue a retraining job.")
    await expect(dialog.locator(".reasons")).to_contain_text("40 new labels")
    await dialog.get_by_role("button", name="Run it now").click()
    await expect(dialog.locator("[data-outcome]")).to_have_attribute("data-outcome", "queued-retrain")
    await dialog.get_by_role("button", name="Done").click()
    job = page.locator('[data-job="queued"]')
    await expect(job).to_contain_text("New labels", ignore_case=True, timeout=PATIENCE_MS)
    await expect(page.locator(".verdict .doing")).to_contain_text("waits for a trainer")
    await page.get_by_role("button", name="Run the policy").click()
    await expect(dialog).to_contain_text("already covers the cause")


async def test_a_name_stays_a_name(world: World, opened: Opened) -> None:
    page = await (await opened()).open(world.url)
    link = page.get_by_role("link", name=NASTY, exact=True)
    await expect(link).to_be_visible(timeout=PATIENCE_MS)
    assert await page.locator("main img").count() == 0
    await link.click()
    await expect(page.get_by_role("heading", name=NASTY, level=1)).to_be_visible()
    await expect(page.locator(".verdict .answer")).to_contain_text("Not known yet", timeout=PATIENCE_MS)
    assert page.url.endswith(f"?model={quote(NASTY, safe='').replace('%20', '+')}") or "model=%3Cimg" in page.url
    assert await page.locator("main img").count() == 0


async def test_a_lost_stream_is_said_and_comes_back(world: World, opened: Opened) -> None:
    window = await opened(provokes="ERR_FAILED")
    await window.context.route("**/api/v1/events*", lambda route: route.abort())
    page = await window.open(world.url)
    banner = page.locator("#banner")
    await expect(banner).to_contain_text("Live updates are lost", timeout=PATIENCE_MS)
    await expect(page.locator("#live")).to_have_text("Stream lost")
    await window.context.unroute("**/api/v1/events*")
    await expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE_MS)
    await expect(banner).to_be_hidden()


async def test_snapshots_that_do_not_come_are_said(world: World, opened: Opened) -> None:
    page = await (await opened()).open(world.url)
    await is_good(page, world)
    banner = page.locator("#banner")
    await expect(banner).to_be_hidden()
    with world.stopped("metrics"):
        await expect(banner).to_contain_text("No snapshot since", timeout=PATIENCE_MS)
        await expect(banner).to_contain_text("Is the metrics service running")
        assert await faults(page) == []
    await expect(banner).to_be_hidden(timeout=PATIENCE_MS)


async def test_errors_say_what_to_do(world: World, opened: Opened) -> None:
    window = await opened(provokes="Failed to load resource")
    page = await window.open(f"{world.url}/?model=nobody-knows-it")
    problem = page.get_by_role("alert")
    await expect(problem).to_contain_text("Unknown model")
    await expect(problem).to_contain_text("the spelling")
    assert await faults(page) == []
    await page.goto(f"{world.url}/?model={STEADY}&version=never-seen&window=1y")
    await expect(problem).to_contain_text("window")
    await problem.get_by_role("button", name="Show the champion, all segments").click()
    await expect(page.locator(".verdict .answer")).to_contain_text("Yes.", timeout=PATIENCE_MS)
    await page.goto(f"{world.url}/?model=nobody-knows-it")
    await window.context.route("**/api/v1/overview*", lambda route: route.abort())
    await problem.get_by_role("link", name="All models").click()
    await expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer")
    await window.context.unroute("**/api/v1/overview*")
    await page.get_by_role("button", name="Try again").click()
    await expect(row(page, STEADY)).to_be_visible()


async def test_a_multiclass_model_shows_the_recall_of_its_classes(world: World, opened: Opened) -> None:
    page = await (await opened()).open(world.url)
    await expect(row(page, MAIL)).to_have_attribute("data-standing", "good", timeout=PATIENCE_MS)
    await expect(row(page, MAIL)).to_contain_text("80.0 %")
    await page.get_by_role("link", name=MAIL, exact=True).click()
    recall = page.get_by_role("region", name="Recall by class", exact=True)
    await expect(recall.get_by_role("row")).to_have_count(3, timeout=PATIENCE_MS)
    await expect(recall.get_by_role("row").nth(1)).to_contain_text("invoice100.0 %16")
    await expect(recall.get_by_role("img", name="Recall of spam: 0.0 %")).to_be_visible()
    await expect(page.locator(".tiles")).to_contain_text("over all classes, 0 to 2")
    await expect(page.locator(".tiles")).not_to_contain_text("AUC")
    assert await faults(page) == []


@pytest.mark.parametrize("width", [1360, 390])
async def test_a_regression_model_shows_its_errors(world: World, opened: Opened, width: int) -> None:
    page = await (await opened(width=width)).open(world.url)
    prices = row(page, PRICES)
    # Thirty is above 1.25 times 16, three snapshots in a row: medium, so a watch.
    await expect(prices).to_have_attribute("data-standing", "watch", timeout=PATIENCE_MS)
    await expect(prices).to_contain_text("MAE 30 (in breach)")
    await expect(prices).to_contain_text("\u2264 20")
    await page.get_by_role("link", name=PRICES, exact=True).click()
    tiles = page.locator(".tiles")
    await expect(tiles).to_contain_text("Mean absolute error", timeout=PATIENCE_MS)
    await expect(tiles).to_contain_text("too high, on average")
    await expect(tiles).not_to_contain_text("Accuracy")
    await expect(page.locator('[data-alert="mae_breach"]')).to_contain_text("MAE 30.0 is above 20.0")
    await expect(page.get_by_role("img", name="Mean absolute error over time")).to_be_visible()
    await expect(page.get_by_role("img", name="Bias over time")).to_be_visible()
    await expect(page.locator("canvas").first).to_be_visible()
    segments = page.get_by_role("region", name="Figures by segment")
    await expect(segments).to_contain_text("RMSE")
    await expect(segments).to_contain_text("30 (above the threshold)")
    assert await faults(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
