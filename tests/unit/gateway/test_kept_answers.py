"""What is kept is bounded, whatever is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.kept.answers import OVERHEAD_BYTES, KeptAnswer, KeptAnswers, Key

ROOM = 16 * OVERHEAD_BYTES
questions = st.tuples(st.just("/monitoring"), st.binary(min_size=1, max_size=2))
steps = st.lists(st.tuples(questions, st.integers(0, 3 * OVERHEAD_BYTES), st.booleans()), max_size=80)


def answer(size: int, revision: str = "1") -> KeptAnswer:
    return KeptAnswer("m", revision, b"x" * size)


@given(steps)
def test_it_holds_no_more_than_it_may_and_the_lately_used(taken: list[tuple[Key, int, bool]]) -> None:
    kept = KeptAnswers(ROOM, most_entries=7)
    model: dict[Key, KeptAnswer] = {}  # in order of use
    for key, size, only_read in taken:
        if only_read:
            assert kept.get(key) == model.get(key)
            if key in model:
                model[key] = model.pop(key)
            continue
        kept.keep(key, answer(size))
        model.pop(key, None)
        if (size + len(key[1]) + OVERHEAD_BYTES) * 8 <= ROOM:
            model[key] = answer(size)
        while len(model) > 7 or sizes(model) > ROOM:
            del model[next(iter(model))]
        assert (len(kept), kept.bytes) == (len(model), sizes(model))
    assert {key: kept.get(key) for key in model} == model


def sizes(model: dict[Key, KeptAnswer]) -> int:
    return sum(len(key[1]) + len(kept.content) + OVERHEAD_BYTES for key, kept in model.items())


def test_an_answer_that_is_too_large_takes_its_predecessor_with_it_and_nobody_elses() -> None:
    kept = KeptAnswers(ROOM)
    kept.keep(("/", b"a"), answer(10))
    kept.keep(("/", b"b"), answer(10))
    kept.keep(("/", b"a"), answer(ROOM // 8))
    assert kept.get(("/", b"a")) is None
    assert kept.get(("/", b"b")) == answer(10)


def test_without_room_nothing_is_kept() -> None:
    kept = KeptAnswers(0)
    kept.keep(("/", b"a"), answer(0))
    assert (len(kept), kept.bytes, kept.get(("/", b"a"))) == (0, 0, None)


def test_ten_thousand_models_in_every_window_stay_within_the_room() -> None:
    most = 4 * 1024 * 1024
    kept = KeptAnswers(most, most_entries=2_000)
    for model in range(10_000):
        for window in ("1h", "1d", "7d"):
            kept.keep(("/monitoring", f"model={model}&window={window}".encode()), answer(2_000))
    assert len(kept) <= 2_000
    assert 0.9 * most < kept.bytes <= most
    assert kept.get(("/monitoring", b"model=9999&window=7d")) is not None
    assert kept.get(("/monitoring", b"model=0&window=1h")) is None
