"""Which dead letters are meant, and what is sent when one is replayed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.dead_letters import DeadLetter
from shared.dead_letters import letter_of
from shared.errors import Refusal, UsageError
from shared.records import Record
from trueward.cli import moments
from trueward.cli.letters import REPLAY_HEADER, Filter, Plan, letter_in, replay_of, wanted_by

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def record(offset: int = 0, *, topic: str = "predictions", **more: Any) -> Record:
    given = {"key": b"k", "value": b"v", "headers": (), "received_at": NOON, "partition": 2, **more}
    return Record(topic=topic, offset=offset, **given)


def letter(refused: Record, *, service: str = "metrics", reason: Any = "invalid") -> DeadLetter:
    return letter_of(service, refused, Refusal(reason, None, "why"))


BYTES = st.none() | st.binary(max_size=20)


@given(
    BYTES,
    BYTES,
    st.lists(st.tuples(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), BYTES)),
)
def test_a_replay_is_the_record_byte_for_byte_and_says_what_it_is(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    original = record(7, key=key, value=value, headers=tuple(headers))
    found = letter_in(letter(original).to_json())
    assert found is not None
    replay = replay_of(found)
    assert (replay.topic, replay.partition) == ("predictions", 2)
    assert (replay.key, replay.value) == (key, value)
    assert replay.headers[:-1] == tuple(pair for pair in headers if pair[0] != REPLAY_HEADER)
    assert replay.headers[-1] == (REPLAY_HEADER, b"metrics-predictions-2-7")


def test_a_replay_that_was_refused_again_names_its_own_letter() -> None:
    again = record(9, headers=((REPLAY_HEADER, b"metrics-predictions-2-7"), ("x", b"y")))
    assert replay_of(letter(again)).headers == (("x", b"y"), (REPLAY_HEADER, b"metrics-predictions-2-9"))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Filter(), True),
        (Filter(ids=frozenset(["metrics-predictions-2-0"])), True),
        (Filter(ids=frozenset(["metrics-predictions-2-1"])), False),
        (Filter(topic="predictions", reason="invalid", service="metrics"), True),
        (Filter(topic="labels"), False),
        (Filter(reason="conflict"), False),
        (Filter(service="retrain"), False),
        (Filter(since=NOON), True),
        (Filter(since=NOON + timedelta(microseconds=1)), False),
        (Filter(until=NOON + timedelta(microseconds=1)), True),
        (Filter(until=NOON), False),
    ],
)
def test_what_a_filter_means(wanted: Filter, *, fits: bool) -> None:
    assert wanted.fits(letter(record())) is fits


def test_what_there_is_none_of_is_an_error() -> None:
    nothing: dict[str, Any] = {"topic": None, "reason": None, "service": None, "since": None, "until": None}
    assert not wanted_by(**nothing).says_something
    assert wanted_by(**{**nothing, "topic": "labels"}).says_something
    with pytest.raises(UsageError, match=r"there is no topic 'trueward\.labels'"):
        wanted_by(**{**nothing, "topic": "trueward.labels"})
    with pytest.raises(UsageError, match="there is no reason 'bad'; there are undecodable, invalid"):
        wanted_by(**{**nothing, "reason": "bad"})


def test_a_plan_says_what_is_left_out_and_why() -> None:
    plan = Plan()
    replayed = {"metrics-predictions-2-1"}
    for each in (
        letter(record(0)),
        letter(record(0)),  # published twice by the relay
        letter(record(1)),
        letter(record(2, value=b"x" * 5_000_000)),
        letter(record(3, topic="snapshots"), service="alerting"),
        letter(record(3, topic="snapshots"), service="retrain"),
    ):
        plan.consider(each, replayed, again=False)
    assert plan.chosen == {"metrics-predictions-2-0", "alerting-snapshots-2-3"}
    assert plan.by_topic == {"predictions": 1, "snapshots": 1}
    assert (plan.replayed_before, plan.incomplete, plan.refused_twice) == (1, 1, 1)
    assert plan.missing(["metrics-predictions-2-0", "nobody"]) == ["nobody"]


def test_what_was_replayed_is_sent_once_more_if_asked_for() -> None:
    plan = Plan()
    plan.consider(letter(record(1)), {"metrics-predictions-2-1"}, again=True)
    assert plan.chosen == {"metrics-predictions-2-1"}


@pytest.mark.parametrize("value", [None, b"", b"{}", b"no JSON"])
def test_what_is_no_letter(value: bytes | None) -> None:
    assert letter_in(value) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("2026-01-01T13:00:00+01:00", NOON),
        ("2h", NOON - timedelta(hours=2)),
        ("30m", NOON - timedelta(minutes=30)),
    ],
)
def test_a_moment_is_given_or_told_by_how_long_ago(text: str | None, moment: datetime | None) -> None:
    assert moments.read(text, now=NOON) == moment


@pytest.mark.parametrize("text", ["", "noon", "2026-01-01", "2026-01-01T12:00:00", "99999999999d"])
def test_no_moment(text: str) -> None:
    with pytest.raises(UsageError, match="is no moment"):
        moments.read(text, now=NOON)


def test_how_long_to_let_pass() -> None:
    assert moments.ahead("1h", now=NOON) == NOON + timedelta(hours=1)
    assert moments.ahead(None) is None
    for text in ("", "1", "2026-01-01T12:00:00Z", "99999999999d"):
        with pytest.raises(UsageError, match="is no time to let pass"):
            moments.ahead(text, now=NOON)
