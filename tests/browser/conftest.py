"""A browser and the real stack. Chromium comes from Debian where it is missing; else the tests skip."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from deploy.local.broker import Broker
from shared.contracts.models import MaeRule, ModelVersion, Policy, Rules
from shared.contracts.observations import Label, PipelineRun, Prediction
from tests import parts

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
INSTALL_SECONDS = 240
START_SECONDS = 90
FLIGHTS, STEADY = "flights", "steady"
MAIL, PRICES = "mail-topics", "house-prices"
NASTY = "<img src=x onerror=alert(1)> & co/ä"
ADMIN_DATABASE = f"trueward_browser_{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path."""
    if found := next(filter(None, map(shutil.which, CHROMIUM)), None):
        return found
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("no Chromium here: install Debian's package chromium (only root may, and apt-get is needed)")
    for command in (("update",), ("install", "-y", "--no-install-recommends", "chromium")):
        done = subprocess.run(
            ["apt-get", "-q", *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no Chromium here, and apt-get {command[0]} failed: {done.stderr.strip()[-300:]}")
    return shutil.which("chromium") or pytest.fail("apt-get installed chromium, and it is not on the path")


@dataclass
class World:
    """A running stack and models that live on it."""

    url: str
    bootstrap_servers: str
    prefix: str
    idempotent: bool
    endpoints: Path
    numbers: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stopped(self, service: str) -> Iterator[None]:
        """A service's process stands still for as long as this lasts."""
        process = json.loads(self.endpoints.read_text(encoding="utf-8"))["processes"][service]
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    async def publish(self, *events: tuple[str, str, Any]) -> None:
        """Send (topic, key, contract) to the input topics, acknowledged."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers, acks="all", enable_idempotence=self.idempotent
        )
        await producer.start()
        try:
            for topic, key, event in events:
                await producer.send(self.prefix + topic, event.to_json(), key=key.encode())
            await producer.flush()
        finally:
            await producer.stop()

    async def live_through(self, model: str, count: int, *, right: bool) -> None:
        """The model predicts, and is soon told the truth: as it said, or the contrary."""
        now = datetime.now(UTC)
        events: list[tuple[str, str, Any]] = []
        first = self.numbers.get(model, 0)
        self.numbers[model] = first + count
        for number in range(first, first + count):
            identity = f"{model}-{number}"
            positive = number % 2 == 1
            prediction = Prediction(
                prediction_id=identity,
                model=model,
                model_version="v1",
                predicted_at=now - timedelta(seconds=60),
                probability=0.8 if positive else 0.2,
                segment={"carrier": ("AA", "UA", "ZZ")[number % 3]},
            )
            label = Label(
                entity_id=identity, outcome=int(positive is right), observed_at=now - timedelta(seconds=30)
            )
            events += [("predictions", identity, prediction), ("labels", identity, label)]
        await self.publish(*events)


async def of_other_kinds(world: World) -> None:
    """A multiclass model that is good, and a regression model that is off by 30 where 20 would do."""
    now = datetime.now(UTC)
    rules = Rules(mae_breach=MaeRule(baseline=16.0, above_ratio=1.25, high_above_ratio=3.0))
    segments = {"carrier": ["AA"]}
    for model in (MAIL, PRICES):
        policy = Policy(model=model, window="1h", min_evaluated=5, rules=rules, segments=segments)
        await world.publish(("policies", model, policy))
    events: list[tuple[str, str, Any]] = []
    for number in range(20):
        answers: dict[str, tuple[dict[str, Any], Any]] = {
            MAIL: ({"probabilities": {"invoice": 0.75, "spam": 0.25}}, "spam" if number % 5 == 0 else "invoice"),
            PRICES: ({"value": 230.0}, 200.0),
        }
        for model, (answer, outcome) in answers.items():
            identity = f"{model}-{number}"
            common = {
                "prediction_id": identity,
                "model": model,
                "model_version": "v1",
                "segment": {"carrier": "AA"},
            }
            made = Prediction(predicted_at=now - timedelta(seconds=60), **common, **answer)
            label = Label(entity_id=identity, outcome=outcome, observed_at=now - timedelta(seconds=30))
            events += [("predictions", identity, made), ("labels", identity, label)]
    await world.publish(*events)


async def populate(world: World) -> None:
    """Models that are good, one of them to go bad later, and one whose name tries to be more than a name."""
    now = datetime.now(UTC)
    for model in (FLIGHTS, STEADY, NASTY):
        version = ModelVersion(
            model=model, version="v1", registered_at=now - timedelta(days=3), stage="champion", artifact=None
        )
        policy = Policy(
            model=model, mode="observe", window="1h", min_evaluated=5, segments={"carrier": ["AA", "UA"]}
        )
        await world.publish(("model-versions", model, version), ("policies", model, policy))
    await world.publish(("pipeline-runs", "p", PipelineRun(pipeline="p", completed_at=now, status="success")))
    for model in (FLIGHTS, STEADY):
        await world.live_through(model, 40, right=True)
    await of_other_kinds(world)


@pytest.fixture(scope="module")
def world(kafka_broker: Broker, postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """``trueward up`` on the session's broker and server, a snapshot a second, and models on it."""
    data = tmp_path_factory.mktemp("browser")
    prefix = f"browser-{uuid.uuid4().hex[:8]}."
    base, mark, options = postgres_server.partition("?")
    dsn = f"{base.rpartition('/')[0]}/{ADMIN_DATABASE}{mark}{options}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{ADMIN_DATABASE}"'.encode())
    log = data / "up.log"
    arguments = ["--data-dir", str(data), "--http-port", "0", "--snapshot-interval", "1s", "--postgres", dsn]
    arguments += ["--kafka", kafka_broker.bootstrap_servers, "--topic-prefix", prefix]
    with log.open("wb") as output:
        command = [sys.executable, "-m", "trueward", "up", *arguments]
        up = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        environment = kafka_broker.service_environment()
        idempotent = environment.get("TRUEWARD_KAFKA_IDEMPOTENT_PRODUCER", "true").lower() == "true"
        endpoints = data / "endpoints.json"
        url = _url(up, endpoints, log)
        found = World(url, kafka_broker.bootstrap_servers, prefix, idempotent, endpoints)
        asyncio.run(populate(found))
        yield found
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(timeout=30)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
        asyncio.run(parts.delete_topics(kafka_broker.bootstrap_servers, prefix))
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{ADMIN_DATABASE}" WITH (FORCE)'.encode())


def _url(up: subprocess.Popen[bytes], endpoints: Path, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and up.poll() is None:
        if endpoints.exists():
            return str(json.loads(endpoints.read_text(encoding="utf-8"))["http"])
        time.sleep(0.1)
    return pytest.fail(f"the stack did not come up; it said:\n{log.read_text(encoding='utf-8')[-3000:]}")


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield launched
        await launched.close()


@dataclass
class Window:
    """Pages of one reader, and what their consoles complained of."""

    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    async def open(self, address: str) -> Page:
        page = await self.context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(address)
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


Opened = Callable[..., Awaitable[Window]]


@pytest.fixture
async def opened(browser: Browser) -> AsyncIterator[Opened]:
    """Open a window; none may have complained when the test ends, but of what the test says it provokes."""
    windows: list[tuple[Window, str | None]] = []

    async def begin(*, provokes: str | None = None, width: int = 1360, **options: Any) -> Window:
        context = await browser.new_context(viewport={"width": width, "height": 900}, **options)
        window = Window(context)
        windows.append((window, provokes))
        return window

    yield begin
    for window, provokes in windows:
        await window.context.close()
        unexpected = [text for text in window.complaints if provokes is None or provokes not in text]
        assert unexpected == []


@asynccontextmanager
async def no_reload(page: Page) -> AsyncIterator[None]:
    """What happens within arrives in the page as it stands: it is not loaded again."""
    await page.evaluate("window.sameOne = true")
    yield
    assert await page.evaluate("window.sameOne") is True
