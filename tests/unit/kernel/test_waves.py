"""The relay's order: within a key nothing overtakes, whatever fails."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.outbox import Message, send_in_order, waves


def message(number: int, key: bytes | None, topic: str = "alerts") -> Message:
    return Message(number, topic, key, b"{}", ())


keys = st.one_of(st.none(), st.sampled_from([b"a", b"b", b"c"]))
outboxes = st.lists(st.tuples(st.sampled_from(["alerts", "snapshots"]), keys), max_size=25).map(
    lambda places: [message(number, key, topic) for number, (topic, key) in enumerate(places, start=1)]
)


class Broker:
    """Acknowledges in any order, and refuses what it is told to refuse."""

    def __init__(self, refused: set[int], delays: dict[int, int] | None = None) -> None:
        self.refused = refused
        self.delays = delays or {}
        self.got: list[Message] = []

    async def send(self, sent: Message) -> None:
        for _ in range(self.delays.get(sent.id, 0)):
            await asyncio.sleep(0)
        if sent.id in self.refused:
            raise ConnectionError(f"{sent.id} refused")
        self.got.append(sent)


def test_messages_of_different_keys_go_at_once() -> None:
    assert [len(wave) for wave in waves([message(1, b"a"), message(2, b"b"), message(3, None)])] == [3]


def test_messages_of_one_key_go_one_after_the_other() -> None:
    assert [[each.id for each in wave] for wave in waves([message(n, b"a") for n in (1, 2, 3)])] == [[1], [2], [3]]


def test_the_same_key_in_two_topics_is_two_keys() -> None:
    assert len(waves([message(1, b"a", "alerts"), message(2, b"a", "snapshots")])) == 1


def test_messages_without_a_key_promise_no_order() -> None:
    assert len(waves([message(1, None), message(2, None)])) == 1


@given(outbox=outboxes)
def test_waves_hold_every_message_once_and_no_key_twice(outbox: list[Message]) -> None:
    split = waves(outbox)
    assert sorted(each.id for wave in split for each in wave) == [each.id for each in outbox]
    for wave in split:
        keyed = [(each.topic, each.key) for each in wave if each.key is not None]
        assert len(set(keyed)) == len(keyed)


@given(
    outbox=outboxes,
    refused=st.sets(st.integers(1, 25), max_size=5),
    delays=st.dictionaries(st.integers(1, 25), st.integers(0, 4), max_size=25),
)
def test_within_a_key_the_broker_gets_an_unbroken_beginning_in_order(
    outbox: list[Message], refused: set[int], delays: dict[int, int]
) -> None:
    broker = Broker(refused, delays)
    sent, failure = asyncio.run(send_in_order(outbox, broker.send))
    assert sorted(sent) == sorted(each.id for each in broker.got)
    assert (failure is not None) == bool(refused & {each.id for each in outbox} - _behind(outbox, refused))
    for place in {(each.topic, each.key) for each in outbox if each.key is not None}:
        wanted = [each.id for each in outbox if (each.topic, each.key) == place]
        got = [each.id for each in broker.got if (each.topic, each.key) == place]
        assert got == wanted[: len(got)]
    unkeyed = {each.id for each in outbox if each.key is None}
    assert unkeyed - refused <= set(sent)


def _behind(outbox: list[Message], refused: set[int]) -> set[int]:
    """Refused messages that are never tried, since one before them in their key was refused."""
    blocked: set[tuple[str, bytes]] = set()
    behind = set()
    for each in outbox:
        if each.key is None:
            continue
        if (each.topic, each.key) in blocked:
            behind.add(each.id)
        elif each.id in refused:
            blocked.add((each.topic, each.key))
    return behind


async def test_cancellation_is_no_failure_of_the_broker() -> None:
    async def never(_message: Message) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(send_in_order([message(1, b"a")], never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
