"""Asking the gateway: a problem document, or a gateway that is away, becomes one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from shared.errors import UsageError
from trueward.cli.connection import AwayError, Connection

ANSWER_SECONDS = 15.0


def ask(connection: Connection, path: str, parameters: Mapping[str, str | int | None] | None = None) -> Any:
    """The answer to a GET. Parameters that are None are left out.

    Raises ``UsageError`` where the question was wrong, ``AwayError`` where nobody can answer it now.
    """
    url = connection.url()
    asked = {name: value for name, value in (parameters or {}).items() if value is not None}
    try:
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False) as client:
            answer = client.get(f"{url}{path}", params=asked)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = str(error) or type(error).__name__
        raise AwayError(f"the gateway at {url} does not answer ({said})") from error
    if answer.is_success:
        return _document(answer, url)
    detail = _detail(answer)
    if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
        raise UsageError(detail)
    raise AwayError(f"the gateway at {url} cannot answer: {detail}")


def pages(
    connection: Connection, path: str, items: str, parameters: Mapping[str, str | int | None], most: int | None
) -> Iterator[Any]:
    """The items of a list, page after page, up to ``most`` (None: all). Raises as ``ask`` does."""
    cursor: str | None = None
    left = most
    while left is None or left > 0:
        asked = {**parameters, "cursor": cursor}
        page = ask(connection, path, asked)
        found = page[items] if left is None else page[items][:left]
        yield from found
        left = None if left is None else left - len(found)
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _document(answer: httpx.Response, url: str) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise AwayError(f"what answers at {url} is no Trueward gateway") from error


def _detail(answer: httpx.Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        document = None
    detail = document.get("detail") if isinstance(document, dict) else None
    return str(detail or f"HTTP {answer.status_code}").replace("\n", " ")
