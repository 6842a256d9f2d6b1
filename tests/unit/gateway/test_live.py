"""The event stream's bookkeeping: what a client is owed, whatever its pace."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from services.gateway.page import live
from services.gateway.page.live import Client, Live, message
from services.gateway.settings import GatewaySettings


@pytest.fixture
def stream() -> Live:
    return Live(GatewaySettings())


def parsed(text: str) -> tuple[str | None, str, Any]:
    fields = dict(line.split(": ", 1) for line in text.strip().split("\n"))
    return fields.get("id"), fields["event"], json.loads(fields["data"])


async def joined(live_: Live, model: str | None = None, last: str | None = None) -> AsyncIterator[str]:
    events = live_.stream(model, last)
    opening = await anext(events)
    assert opening.startswith("retry: ")
    return events


async def test_what_happens_reaches_every_client_whom_it_concerns(stream: Live) -> None:
    everything = await joined(stream)
    mine = await joined(stream, "b")
    stream.publish("alert", "a", {"model": "a", "n": 1})
    stream.publish("alert", "b", {"model": "b", "n": 2})
    assert [parsed(await anext(everything))[2]["n"] for _ in range(2)] == [1, 2]
    assert parsed(await anext(mine))[2]["n"] == 2


async def test_of_snapshots_only_the_newest_is_owed_and_order_is_kept(stream: Live) -> None:
    events = await joined(stream)
    for number in range(3):
        stream.publish("snapshot", "a", {"model": "a", "n": number})
        stream.publish("alert", "a", {"model": "a", "n": number})
    told = [parsed(await anext(events)) for _ in range(4)]
    assert [(kind, data["n"]) for _, kind, data in told] == [
        ("alert", 0),
        ("alert", 1),
        ("snapshot", 2),
        ("alert", 2),
    ]


async def test_a_client_that_is_too_slow_is_told_to_read_again(
    stream: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_WAITING", 3)
    events = await joined(stream)
    for number in range(5):
        stream.publish("alert", "a", {"model": "a", "n": number})
    assert parsed(await anext(events))[1:] == ("resync", {"why": "slow"})
    assert parsed(await anext(events))[2]["n"] == 4


async def test_a_client_that_comes_back_gets_what_it_missed(stream: Live) -> None:
    events = await joined(stream)
    for number in range(3):
        stream.publish("job", "a", {"model": "a", "n": number})
    seen, _, _ = parsed(await anext(events))
    again = await joined(stream, None, seen)
    assert [parsed(await anext(again))[2]["n"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("last", ["another-process-7", "7", "", "x-", "{boot}-notanumber"])
async def test_a_client_whose_place_is_unknown_reads_again(stream: Live, last: str) -> None:
    stream.publish("job", "a", {"model": "a"})
    again = await joined(stream, None, last.format(boot=stream._boot))
    assert parsed(await anext(again))[1:] == ("resync", {"why": "gone"})


async def test_a_client_that_missed_more_than_is_remembered_reads_again(stream: Live) -> None:
    for _ in range(live.REMEMBERED + 2):
        stream.publish("job", "a", {"model": "a"})
    again = await joined(stream, None, f"{stream._boot}-1")
    assert parsed(await anext(again))[1] == "resync"


async def test_a_client_that_goes_is_forgotten(stream: Live) -> None:
    async with aclosing(stream.stream(None, None)) as events:
        await anext(events)
        assert len(stream._clients) == 1
    assert not stream._clients


async def test_silence_is_kept_open_by_comments(stream: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.01)
    events = await joined(stream)
    assert (await anext(events)).startswith(":")


def test_data_is_one_line_whatever_it_holds() -> None:
    text = message("alert", {"model": "a\nb\r\u2028", "reason": "x\n\ny"}, "1")
    assert text.count("\n") == 4
    assert text.endswith("\n\n")
    assert parsed(text)[2] == {"model": "a\nb\r\u2028", "reason": "x\n\ny"}


@pytest.mark.parametrize("value", [None, b"", b"no json", b"[]", b"{}", b"1", b'{"metrics": 1}'])
def test_what_is_no_event_is_passed_over(stream: Live, value: bytes | None) -> None:
    client = Client(None)
    stream._clients.add(client)
    for kind, shorten in live.SOURCES.values():
        stream._take(kind, shorten, value)
    assert client.drain() == []
