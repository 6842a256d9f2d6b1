"""What predictions name together has a number, which never comes to mean anything else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.identity import id_of
from services.metrics.hot.combinations import Combination, Combinations, Named

short = st.sampled_from(["a", "b", "it's"])
named = st.tuples(short, short, st.dictionaries(short, short, max_size=2).map(lambda one: tuple(one.items())))


def ids_of(names: Named) -> tuple[int, int, int]:
    model, version, segments = names
    return id_of(model), id_of(model, version), id_of(*(part for pair in sorted(segments) for part in pair))


def by_ids(names: Named) -> Combination:
    """The same as the store knows it: without the names of model and version."""
    return Combination(*ids_of(names), tuple(sorted(names[2])))


def is_meant(combinations: Combinations, number: int, names: Named) -> bool:
    known = combinations[number]
    by_names = known.model is None or (known.model, known.version) == names[:2]
    same_ids = (known.model_id, known.version_id, known.segment_id) == ids_of(names)
    return by_names and same_ids and tuple(known.segments) == tuple(sorted(names[2]))


@given(st.lists(st.tuples(st.booleans(), st.lists(named, min_size=1, max_size=5)), max_size=8), st.integers(1, 40))
def test_a_number_never_changes_its_meaning(turns: list[tuple[bool, list[Named]]], most: int) -> None:
    combinations = Combinations(most)
    meant: dict[int, tuple[int, int, int]] = {}
    for read_from_store, said in turns:
        if read_from_store:
            numbers: list[int | None] = [combinations.add(by_ids(names)) for names in said]
        else:
            numbers = combinations.numbers_of(said)
            assert combinations.numbers_of(said) == numbers
        for number, names in zip(numbers, said, strict=True):
            if number is not None:
                assert is_meant(combinations, number, names)
                assert meant.setdefault(number, ids_of(names)) == ids_of(names)
                assert combinations.with_ids(*ids_of(names)[1:]) == number
    # What is equal has one number, so that there are as many as there are meanings.
    assert len(set(meant.values())) == len(meant)


@given(st.lists(named, min_size=1, max_size=20))
def test_the_words_of_a_combination_are_those_that_its_names_are_written_in(said: list[Named]) -> None:
    combinations = Combinations()
    for number, (model, version, segments) in zip(combinations.numbers_of(said), said, strict=True):
        assert number is not None
        before, behind = combinations.spelled[number]
        assert f"{before}7{behind}8)" == repr((model, version, 7, tuple(sorted(segments)), 8))


def test_segments_in_another_order_are_the_same_combination() -> None:
    combinations = Combinations()
    one, other = (("a", "1"), ("b", "2")), (("b", "2"), ("a", "1"))
    assert combinations.numbers_of([("m", "1", one), ("m", "1", other)]) == [0, 0]


def test_names_are_learned_of_a_combination_that_was_known_by_its_ids() -> None:
    combinations = Combinations()
    names: Named = ("m", "1", (("a", "b"),))
    number = combinations.add(by_ids(names))
    assert combinations[number].model is None
    assert combinations.numbers_of([names]) == [number]
    assert (combinations[number].model, combinations[number].version) == ("m", "1")
    assert combinations.add(by_ids(names)) == number
    assert combinations[number].model == "m"


def test_a_new_one_is_refused_where_there_are_too_many() -> None:
    combinations = Combinations(most=2)
    first: list[Named] = [("a", "1", ()), ("b", "1", ())]
    assert not combinations.is_full
    assert combinations.numbers_of([*first, ("c", "1", ()), first[0]]) == [0, 1, None, 0]
    assert combinations.is_full
    assert combinations.with_ids(*ids_of(("c", "1", ()))[1:]) is None


def test_the_same_written_in_too_many_orders_is_refused_as_well() -> None:
    combinations = Combinations(most=2)
    pairs = [("a", "1"), ("b", "2"), ("c", "3")]
    orders = [tuple(pairs[start:] + pairs[:start]) for start in range(3)]
    assert combinations.numbers_of([("m", "1", order) for order in orders]) == [0, 0, None]
