"""Garbage on every endpoint: the answer is a good one, or a problem that says what is wrong, no fault of ours."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from random import Random
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
import pytest

from deploy.local.broker import Broker
from services.gateway.app import create_app
from services.gateway.problems import ProblemDocument
from services.gateway.settings import GatewaySettings
from shared.broker import create_missing_topics
from tests.fuzz.mutation import SEEDS, SPELLINGS, WIDE, mutated
from tests.fuzz.turns import turns
from tests.gateway_world import FLIGHTS, STRANGE
from tests.integration.conftest import Start, free_port

FEW = 500
LARGEST_BODY = 100_000
METHODS = (
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "QUERY",
    "get",
    "X" * 50,
)
MEDIA_TYPES = (
    *(
        "application/json",
        "application/x-ndjson",
        "application/json; charset=utf-16",
        "text/plain",
        "",
        "/",
        ";;;",
    ),
    *("APPLICATION/JSON", "multipart/form-data", "application/x-www-form-urlencoded", "application/problem+json"),
)
HEADERS = (
    *("Idempotency-Key", "Sec-Fetch-Site", "Sec-Purpose", "Last-Event-ID", "If-None-Match", "Content-Encoding"),
    *("Accept", "Cookie", "Host", "X-Forwarded-For", "Origin", "Range", "Expect", "traceparent", "Authorization"),
)
TEXTS = (
    *(
        "",
        "a",
        "true",
        "false",
        "0",
        "-1",
        "1e3",
        "null",
        "٣",
        "9" * 30,
        "9" * 5_000,
        "x" * 200,
        "same-origin",
        "gzip",
    ),
    *(
        WIDE * 128,
        WIDE * 129,
        "\x00",
        "\x7f",
        "a:b",
        ":",
        "a:b:c",
        "other",
        "all",
        "7d",
        "1970-01-01",
        "%",
        "🦀",
        "../..",
    ),
    *(
        "00062a3f4c5d6e7f61",
        "00062a3f4c5d6e7f0000000000000001",
        "0" * 16 + "ff" * 512,
        "ed" * 3,
        "00" * 512,
        "ffff",
    ),
    *(FLIGHTS, STRANGE, "v1", "carrier:AA", "queued"),
)


@pytest.fixture
async def gateway(
    shared_world_dsn: str, kafka_broker: Broker, topic_prefix: str
) -> AsyncIterator[tuple[httpx.AsyncClient, list[tuple[str, dict[str, Any]]]]]:
    """A client of a gateway that has found its broker, and the operations that the API describes."""
    settings = GatewaySettings(
        postgres_dsn=shared_world_dsn,
        topic_prefix=topic_prefix,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        ingest_body_bytes=LARGEST_BODY,
        decision_wait_seconds=0,
    )
    await create_missing_topics(settings)
    app = create_app(settings)
    # What nobody expected comes through the transport as it is, and fails the test.
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as client,
    ):
        async with asyncio.timeout(30):
            while (await client.get("/health/ready")).json()["broker"] != "ok":  # noqa: ASYNC110 (only asking tells)
                await asyncio.sleep(0.02)
        yield client, list(app.openapi()["paths"].items())


async def test_garbage_on_every_endpoint(
    gateway: tuple[httpx.AsyncClient, list[tuple[str, dict[str, Any]]]],
) -> None:
    client, paths = gateway
    for name, random in turns("http", FEW):
        request = a_request(client, paths, random)
        answer = await client.send(request)
        check_answer(answer, f"{name}: {request.method} {request.url} {request.headers} {request.content[:300]!r}")


def a_request(client: httpx.AsyncClient, paths: list[tuple[str, dict[str, Any]]], random: Random) -> httpx.Request:
    """Any method, path, parameters, headers and body; often those of an operation that there is."""
    template, operations = random.choice(paths)
    method = random.choice(METHODS) if random.random() < 0.2 else random.choice(list(operations)).upper()
    path = re.sub(r"{\w+}", lambda _: quoted(random), template)
    if random.random() < 0.05:
        path += random.choice(("/", "//", "/x", "%2f", "%00", "%ff", ";x"))
    described = operations.get(method.lower(), next(iter(operations.values())))
    known = [parameter["name"] for parameter in described.get("parameters", ()) if parameter["in"] == "query"]
    asked = {random.choice([*known, "cursor", "x"]): quoted(random) for _ in range(random.randrange(4))}
    if "model" in known and random.random() < 0.7:
        asked["model"] = random.choice((FLIGHTS, quoted(random)))
    query = "&".join(f"{parameter}={value}" for parameter, value in asked.items())
    if random.random() < 0.1:
        query += random.choice(("&", "&model=a&model=b", "&=", "&%ff=%fe", "#", "&limit[]=1", "?"))
    headers = [(random.choice(HEADERS), header_value(random)) for _ in range(random.randrange(3))]
    if method == "POST" and random.random() < 0.8:
        headers.append((b"Idempotency-Key", b"key"))
    headers.append((b"Content-Type", random.choice(MEDIA_TYPES[:2] if random.random() < 0.8 else MEDIA_TYPES)))
    return client.build_request(method, f"{path}?{query}", headers=headers, content=a_body(random))


def quoted(random: Random) -> str:
    """A value in an address, sometimes of bytes that are no text."""
    if random.random() < 0.2:
        return quote_from_bytes(random.randbytes(random.randrange(1, 12)), safe="")
    return quote_from_bytes(random.choice(TEXTS).encode(), safe="")


def header_value(random: Random) -> bytes:
    """Anything that may stand in a header: no line ends."""
    text = random.choice(TEXTS).encode() if random.random() < 0.7 else random.randbytes(12)
    return re.sub(rb"[\x00\r\n]", b"", text)


def a_body(random: Random) -> bytes:
    """Events, a request for a retraining, several of them, lines of them, or none of it."""
    event = random.choice(
        ("prediction.v1", "label.v1", "pipeline-run.v1", "model-version.v1", "retrain-request.v1")
    )
    value = mutated(random.choice(SEEDS[event]), random)
    match random.randrange(8):
        case 0:
            return b"[" + b",".join([value, *SEEDS[event]]) + b"]"
        case 1:
            return b"\n".join([value, *(seed.replace(b"\n", b" ") for seed in SEEDS[event])])
        case 2:
            return random.choice(
                (b"", random.randbytes(64), b"[" * 50_000, b"{}" * 30_000, b"x" * (LARGEST_BODY + 1))
            )
        case 3:
            spelling = random.choice(SPELLINGS)
            return f'{{"model": {json.dumps(FLIGHTS)}, "requested_by": {spelling}, "dry_run": true}}'.encode(
                "utf-8", "surrogatepass"
            )
    return value


def check_answer(answer: httpx.Response, asked: str) -> None:
    """Fail unless it is no fault of ours, and a well-formed problem where it is an error."""
    assert answer.status_code < 500, (answer.status_code, answer.text, asked)
    if answer.status_code < 400:
        return
    assert answer.headers["content-type"] == "application/problem+json", (answer.text, asked)
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.request.method == "HEAD":
        assert not answer.content, asked
        return
    problem = ProblemDocument.model_validate_json(answer.content)
    assert problem.status == answer.status_code, asked
    assert problem.detail, asked
    assert problem.detail.isprintable() or "\n" not in problem.title
    if answer.status_code == 405:
        assert answer.headers["allow"], asked
    if answer.status_code == 422:
        assert problem.errors, asked


async def test_a_body_that_no_endpoint_wants_is_not_read_to_its_end(
    gateway: tuple[httpx.AsyncClient, list[tuple[str, dict[str, Any]]]],
) -> None:
    """A client that sends for ever must not fill the gateway's memory."""
    client, _ = gateway
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64_000_000:
            sent += 1_000_000
            yield b'"' + b"x" * 999_999

    headers = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    answer = await client.post("/api/v1/mlops/retrain/requests", content=endless(), headers=headers)
    assert answer.status_code == 413
    check_answer(answer, "endless")
    assert sent < 16_000_000


PUBLISHING = b"POST /api/v1/ingest/labels HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AA==\r\nSec-WebSocket-Version: 13\r\n"
)
RAW = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /api/v1/models?\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: [\r\n\r\n",
    b"GET /api/v1/models HTTP/9.9\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 1_000,
    b"A" * 100_000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    PUBLISHING + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
    PUBLISHING + b"Content-Length: -1\r\n\r\n",
    PUBLISHING + CHUNKED + b"ZZ\r\n{}\r\n0\r\n\r\n",
    PUBLISHING + b"Content-Length: 2\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: \xff\xfe\r\n" + WEBSOCKET + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
"""What no client of HTTP would send. What is no HTTP the server itself answers, in plain text, or hangs up."""


async def test_what_is_no_http_stops_nothing(start: Start, shared_world_dsn: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    served = start(
        *("service", "gateway", "--http-port", str(port), "--postgres", shared_world_dsn, "--kafka", "127.0.0.1:1")
    )
    served.wait_until_answers(url)
    random = Random("raw")
    for raw in (*RAW, *(spoilt(random) for _ in range(60))):
        status = await asyncio.to_thread(answered_status, port, raw)
        assert status is None or status < 500 or status == 503, (status, raw[:200])
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        assert (await client.get(f"{url}/api/v1/models")).status_code == 200
    assert "Traceback" not in served.said()


def spoilt(random: Random) -> bytes:
    """A good request, some of its bytes changed."""
    raw = bytearray(
        b"POST /api/v1/ingest/labels?x=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    for _ in range(random.randrange(1, 6)):
        raw[random.randrange(len(raw))] = random.randrange(256)
    return bytes(raw)


def answered_status(port: int, raw: bytes) -> int | None:
    """The status of the answer to raw bytes; None where the server hangs up, or waits for more."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            head = connection.recv(4_096)
        except OSError:
            return None
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
    return int(found[1]) if found else None
