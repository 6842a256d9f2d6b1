"""What is read in columns is what the contract reads from the same bytes; what is usual is read in columns."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.metrics.hot.combinations import Combinations
from services.metrics.hot.decoding import Decoded, decode
from shared.records import Record, Run
from shared.topics import LABELS, MAX_RECORD_BYTES, PREDICTIONS
from tests.contracts.strategies import as_bytes, events
from tests.fuzz.mutation import NAMES, SEEDS, SPELLINGS, WIDE, mutated
from tests.fuzz.plain import taken_as_plain

RECEIVED_AT = datetime(2030, 1, 1, tzinfo=UTC)
TOPICS = {"prediction.v1": PREDICTIONS.name, "label.v1": LABELS.name}
PREDICTION: dict[str, Any] = {
    "prediction_id": "p",
    "model": "m",
    "model_version": "1",
    "predicted_at": "2026-01-31T12:00:00Z",
    "probability": 0.25,
}
LABEL: dict[str, Any] = {"entity_id": "p", "outcome": 1, "observed_at": "2026-01-31T12:00:00Z"}
GOOD = {PREDICTIONS.name: PREDICTION, LABELS.name: LABEL}

kinds = st.sampled_from(list(TOPICS))
names = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), min_size=1, max_size=128)
short_names = st.sampled_from(["a", "b", "é", WIDE, "it's", "None", "x" * 128, WIDE * 128]) | names


@st.composite
def usual_times(draw: st.DrawFn) -> str:
    moment = draw(st.datetimes(max_value=datetime(2030, 1, 1, 0, 5), timezones=st.just(UTC)))  # noqa: DTZ001 (Hypothesis wants the bounds naive)
    decimals = draw(st.integers(0, 6))
    fraction = f".{moment.microsecond:06}"[: decimals + 1] if decimals else ""
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{fraction}" + draw(st.sampled_from(["Z", "+00:00"]))


def optional(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A prediction's other fields, each left out, null or given."""
    return st.fixed_dictionaries(
        {},
        optional={
            "entity_id": st.sampled_from([None, document["prediction_id"]]),
            "predicted": st.sampled_from([None, 0, 1]),
            "segment": st.dictionaries(short_names, short_names, max_size=3),
            "data_as_of": st.none() | usual_times(),
        },
    ).map(lambda more: document | more)


usual_predictions = st.fixed_dictionaries(
    {
        "prediction_id": short_names,
        "model": short_names,
        "model_version": short_names,
        "predicted_at": usual_times(),
        "probability": st.floats(0, 1) | st.sampled_from([0, 1, -0.0, 0.5, 1e-15, 1e-16, 5e-324]),
    }
).flatmap(optional)
usual_labels = st.fixed_dictionaries(
    {"entity_id": short_names, "outcome": st.sampled_from([0, 1]), "observed_at": usual_times()},
    optional={"source": st.none() | short_names},
)
usual = {PREDICTIONS.name: usual_predictions, LABELS.name: usual_labels}


@given(st.data(), st.sampled_from(list(usual)))
def test_every_usual_event_is_taken(data: st.DataObject, topic: str) -> None:
    documents = data.draw(st.lists(usual[topic], min_size=1, max_size=4))
    values = [as_bytes(document) for document in documents]
    assert taken_as_plain(topic, values, RECEIVED_AT) == list(range(len(values)))


@given(st.data(), kinds)
def test_what_the_contract_admits_is_taken_as_it_reads_it(data: st.DataObject, kind: str) -> None:
    values = [as_bytes(document) for document in data.draw(st.lists(events(kind), min_size=1, max_size=4))]
    taken_as_plain(TOPICS[kind], values, RECEIVED_AT)


@given(st.data(), st.sampled_from(list(usual)), st.integers(0, 2**64))
def test_what_is_spoilt_is_taken_only_as_the_contract_reads_it(data: st.DataObject, topic: str, seed: int) -> None:
    random = Random(seed)
    good = [as_bytes(document) for document in data.draw(st.lists(usual[topic], min_size=1, max_size=3))]
    values = [*good, *(mutated(value, random) for value in good), None, b""]
    assert taken_as_plain(topic, values, RECEIVED_AT)[: len(good)] == list(range(len(good)))


@pytest.mark.parametrize("kind", TOPICS)
def test_the_examples_of_every_version_are_taken_as_the_contract_reads_them(kind: str) -> None:
    random = Random(kind)
    spoilt = [mutated(value, random) for value in SEEDS[kind] for _ in range(300)]
    assert taken_as_plain(TOPICS[kind], SEEDS[kind] + spoilt, RECEIVED_AT)


def strings(text: str) -> st.SearchStrategy[str]:
    """A JSON string, its characters escaped or not."""
    return st.sampled_from([json.dumps(text), json.dumps(text, ensure_ascii=False)]) | st.just(
        '"' + "".join(f"\\u{ord(one):04x}" if ord(one) < 0x10000 else one for one in text) + '"'
    )


spelled_times = st.sampled_from(
    [
        *("2026-01-31T12:00:00", "2026-01-31T12:00:00z", "2026-01-31t12:00:00Z", "2026-01-31 12:00:00Z"),
        *("2026-01-31T12:00Z", "2026-02-29T12:00:00Z", "2026-06-30T23:59:60Z", "2026-01-31T24:00:00Z"),
        *("2026-01-31T12:00:00.1234567Z", "2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00-00:00"),
        *("2030-01-01T00:05:00Z", "2030-01-01T00:05:00.000001Z", "2099-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1769860800", "\uff12026-01-31T12:00:00Z", ""),
        *("2030-01-01T01:05:00+01:00", "2030-01-01T00:06:00+00:01", "2026-W05-6T12:00:00Z"),
    ]
)
texts = spelled_times | usual_times() | short_names | st.text(max_size=4)
numbers = st.sampled_from(
    [
        *("0", "-0", "-0.0", "1", "1.0", "1e0", "0.0e-0", "10E-1", "1.0000000000000001", "1.0000000000000002"),
        *("0.1e1", "5e-325", "1e-400", "0." + "3" * 800, "0.5" + "0" * 400, "1e400", "-1e-400", "true", "false"),
        *("NaN", "Infinity", "01", "+1", "1.", ".5", "9" * 400, "18446744073709551616", "0e99999999999", "1E+0"),
        *("0.1000000000000000055511151231257827021181583404541015625", "0.30000000000000004", "null"),
    ]
) | st.floats(0, 1).flatmap(lambda one: st.sampled_from([f"{one:.30f}", f"{one:.25e}", repr(one), f"{one:E}"]))
spaces = st.text(" \t\r\n", max_size=2) | st.sampled_from(["", "", "", "\x0b", "\x00", "\ufeff", "\xa0", "/**/"])
segments = st.lists(st.tuples(texts.flatmap(strings), texts.flatmap(strings) | numbers), max_size=3).map(
    lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"
)


def spelled(value: object) -> st.SearchStrategy[str]:
    """A value that a field had, spelled somehow, or another one in its place."""
    usually = strings(value) if isinstance(value, str) else st.just(json.dumps(value, ensure_ascii=False))
    unusually = texts.flatmap(strings) | numbers | segments | st.sampled_from(SPELLINGS)
    return st.one_of(usually, usually, usually, usually, unusually)


@st.composite
def spelled_events(draw: st.DrawFn, topic: str) -> bytes:
    """A usual event in unusual words: fields in any order, doubled or unknown, numbers and texts in any form."""
    document = draw(usual[topic])
    fields = draw(st.permutations(list(document.items())))
    fields += draw(st.lists(st.sampled_from(fields), max_size=1))
    fields += [(draw(st.sampled_from(NAMES)), None)] if draw(st.integers(0, 4)) == 0 else []
    parts = []
    for name, value in fields:
        said = draw(numbers) if name in ("probability", "outcome", "predicted") else draw(spelled(value))
        if name.endswith(("_at", "_of")) and draw(st.booleans()):
            said = draw(spelled_times.flatmap(strings))
        spelled_name = draw(strings(name)) if draw(st.integers(0, 9)) == 0 else json.dumps(name)
        parts.append(f"{spelled_name}{draw(spaces)}:{draw(spaces)}{said}")
    text = draw(spaces) + "{" + ",".join(parts) + "}" + draw(spaces)
    return text.encode("utf-8", "surrogatepass")


@given(st.data(), st.sampled_from(list(usual)))
def test_unusual_words_are_taken_only_as_the_contract_reads_them(data: st.DataObject, topic: str) -> None:
    taken_as_plain(topic, data.draw(st.lists(spelled_events(topic), min_size=1, max_size=4)), RECEIVED_AT)


@given(st.sampled_from(list(GOOD)), st.data())
def test_any_spelling_of_one_field_is_taken_only_as_the_contract_reads_it(topic: str, data: st.DataObject) -> None:
    good = GOOD[topic]
    name = data.draw(st.sampled_from([*good, "entity_id", "predicted", "segment", "data_as_of", "source"]))
    said = data.draw(st.sampled_from(SPELLINGS) | numbers | texts.flatmap(strings) | segments)
    value = (
        json.dumps({**good, name: "@"}, ensure_ascii=False).replace('"@"', said).encode("utf-8", "surrogatepass")
    )
    taken_as_plain(topic, [value], RECEIVED_AT)


@pytest.mark.parametrize("topic", GOOD)
@given(st.binary(max_size=3), st.integers(0, 200), st.booleans())
@example(b"\x00", 19, False)
@example(b"\x1f", 19, False)
@example(b"\xed\xa0\x80", 19, False)
@example(b"\xc0\xaf", 19, False)
@example(b"\xf4\x90\x80", 19, False)
def test_any_bytes_in_an_event_are_taken_only_as_the_contract_reads_them(
    topic: str, piece: bytes, place: int, instead: bool
) -> None:
    value = json.dumps(GOOD[topic]).encode()
    value = value[:place] + piece + value[place + len(piece) * instead :]
    taken_as_plain(topic, [value], RECEIVED_AT)


@pytest.mark.parametrize("topic", GOOD)
def test_what_is_too_long_is_left_to_the_contract(topic: str) -> None:
    value = json.dumps(GOOD[topic]).encode()
    longest, longer = value.ljust(MAX_RECORD_BYTES), value.ljust(MAX_RECORD_BYTES + 1)
    assert taken_as_plain(topic, [longest, longer, value], RECEIVED_AT) == [0, 2]


def test_a_prediction_about_another_entity_is_left() -> None:
    values = [as_bytes({**PREDICTION, "entity_id": entity}) for entity in ("p", "q", None)]
    assert taken_as_plain(PREDICTIONS.name, values, RECEIVED_AT) == [0, 2]


def test_a_time_ahead_of_the_first_receipt_in_the_batch_is_left() -> None:
    ahead = as_bytes({**PREDICTION, "predicted_at": "2030-01-01T00:05:00.000001Z"})
    assert taken_as_plain(PREDICTIONS.name, [ahead], RECEIVED_AT) == []
    assert taken_as_plain(PREDICTIONS.name, [ahead], RECEIVED_AT + timedelta(microseconds=1)) == [0]


@pytest.mark.parametrize("topics", [(PREDICTIONS.name, PREDICTIONS.name), (PREDICTIONS.name, LABELS.name)])
def test_how_far_a_time_may_lie_ahead_runs_from_the_first_receipt(topics: tuple[str, str]) -> None:
    value = as_bytes({**PREDICTION, "predicted_at": "2030-01-01T00:05:00.000001Z"})
    received = [RECEIVED_AT, RECEIVED_AT + timedelta(microseconds=1)]
    records = [
        Record(topic, number, 0, at, None, value)
        for number, (topic, at) in enumerate(zip(topics, received, strict=True))
    ]
    for order in (records, records[::-1]):
        runs = [Run.of((record.topic, record.partition), [record]) for record in order]
        assert not len(decode(runs, Combinations()).predictions.keys)
    late = replace(records[0], received_at=received[1])
    assert len(decode([Run.of((late.topic, 0), [late])], Combinations()).predictions.keys) == 1


def test_predictions_of_too_many_combinations_are_left() -> None:
    values = [as_bytes({**PREDICTION, "model": model}) for model in "abcab"]
    run = Run.of(
        (PREDICTIONS.name, 0),
        [Record(PREDICTIONS.name, 0, place, RECEIVED_AT, None, value) for place, value in enumerate(values)],
    )
    found = decode([run], Combinations(most=2))
    assert found.others([run]) == [(0, 2)]
    states = found.predictions.states
    assert [found.combinations[number].model for number in states["combination"].tolist()] == list("abab")


def runs_of(*batches: tuple[str, list[dict[str, Any]]]) -> list[Run]:
    return [
        Run.of(
            (topic, 0),
            [Record(topic, 0, at, RECEIVED_AT, None, as_bytes(one)) for at, one in enumerate(documents)],
        )
        for topic, documents in batches
    ]


def facts(decoded: Decoded) -> list[tuple[object, ...]]:
    """All that is said of each event."""
    first, second = decoded.predictions, decoded.labels
    columns = (first.origins.tolist(), first.keys.tolist(), first.states.tolist(), first.data_as_of.tolist())
    others = (second.origins.tolist(), second.keys.tolist(), second.observed_at.tolist(), second.positive.tolist())
    return [
        *zip(*columns, first.has_data_as_of.tolist(), strict=True),
        *zip(*others, strict=True),
    ]


@given(st.data(), st.sets(st.integers(0, 3)))
def test_parts_together_are_as_one_and_runs_can_be_left_out(data: st.DataObject, left_out: set[int]) -> None:
    some = [(topic, data.draw(st.lists(usual[topic], min_size=1, max_size=3))) for topic in (*usual, *usual)]
    runs, combinations = runs_of(*some), Combinations()
    parts = [decode(runs[:1], combinations), decode(runs[1:3], combinations), decode(runs[3:], combinations)]
    whole = decode(runs, combinations)
    assert facts(Decoded.together(parts, [1, 2, 1])) == facts(whole)
    rest = whole.without(left_out)
    assert facts(rest) == [fact for fact in facts(whole) if fact[0][0] not in left_out]  # type: ignore[index]  # a list
    assert {number for number, _ in rest.others(runs)} == left_out


@given(st.data())
def test_the_runs_that_reach_a_moment_are_those_with_an_event_at_it_or_later(data: st.DataObject) -> None:
    some = [(topic, data.draw(st.lists(usual[topic], min_size=1, max_size=3))) for topic in (*usual, *usual)]
    found = decode(runs_of(*some), Combinations())
    predicted = zip(
        found.predictions.origins.tolist(), found.predictions.states["predicted_at"].tolist(), strict=True
    )
    observed = zip(found.labels.origins.tolist(), found.labels.observed_at.tolist(), strict=True)
    times = [(number, moment) for (number, _), moment in [*predicted, *observed]]
    for _, limit in times:
        assert found.reaching(limit) == {number for number, moment in times if moment >= limit}
        assert found.reaching(limit + 1) == {number for number, moment in times if moment > limit}
