"""Asking the gateway: a problem document, or a gateway that is away, becomes one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from shared.errors import UsageError
from trueward.cli.connection import AwayError, Connection
from trueward.client import AwayError as GatewayAwayError
from trueward.client import RequestRefusedError, Trueward

ANSWER_SECONDS = 15.0
Parameters = Mapping[str, str | int | None]


def ask(connection: Connection, path: str, parameters: Parameters | None = None) -> Any:
    """The answer to a GET. Parameters that are None are left out.

    Raises ``UsageError`` where the question was wrong, ``AwayError`` where nobody can answer it now.
    """
    with _gateway(connection) as gateway:
        return gateway.get(path, parameters)


def pages(
    connection: Connection, path: str, items: str, parameters: Parameters, most: int | None
) -> Iterator[Any]:
    """The items of a list, page after page, up to ``most`` (None: all). Raises as ``ask`` does."""
    with _gateway(connection) as gateway:
        yield from islice(gateway.pages(path, items, parameters), most)


@contextmanager
def _gateway(connection: Connection) -> Iterator[Trueward]:
    """The gateway, asked once: who waits at a terminal is told at once that nobody answers."""
    with Trueward(connection.url(), patience_seconds=0, timeout_seconds=ANSWER_SECONDS) as gateway:
        try:
            yield gateway
        except RequestRefusedError as error:
            raise UsageError(str(error)) from error
        except GatewayAwayError as error:
            raise AwayError(str(error)) from error
