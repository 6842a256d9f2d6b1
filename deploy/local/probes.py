"""Questions put to a running part: does it do its work yet? Answered with True or False, never with an error."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final
from urllib.parse import urlsplit

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

TIMEOUT_S: Final = 3.0


async def accepts(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
    return False


async def http_answers_ok(url: str) -> bool:
    """Whether a plain GET of ``url`` is answered with 200."""
    parts = urlsplit(url)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(request.encode())
                status = (await reader.readline()).split()
            finally:
                writer.close()
            return len(status) > 1 and status[1] == b"200"
    return False


async def broker_answers(bootstrap_servers: str, *, nodes: int = 1) -> bool:
    """Whether a Kafka protocol broker there names a controller and at least ``nodes`` brokers."""
    host, _, port = bootstrap_servers.split(",", maxsplit=1)[0].rpartition(":")
    # Asked first, because the client logs every refused connection as an error.
    if not await accepts(host, int(port)):
        return False
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=int(TIMEOUT_S * 1000))
    try:
        with contextlib.suppress(OSError, TimeoutError, KafkaError):
            async with asyncio.timeout(TIMEOUT_S):
                await client.start()
                cluster = await client.describe_cluster()
                return len(cluster["brokers"]) >= nodes and cluster["controller_id"] >= 0
    finally:
        await client.close()
    return False


async def postgres_answers(dsn: str) -> bool:
    """Whether a PostgreSQL server there runs a query."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection = await asyncpg.connect(dsn, timeout=TIMEOUT_S)
        try:
            return bool(await connection.fetchval("SELECT 1", timeout=TIMEOUT_S) == 1)
        finally:
            await connection.close(timeout=TIMEOUT_S)
    return False
