"""The fence's rule: which records of a batch may be taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shared.inbox import Advance, Gap, admit
from shared.records import Place, Record, Records

HERE: Place = ("snapshots", 0)
THERE: Place = ("snapshots", 1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def records(offsets: Iterable[int], place: Place = HERE) -> list[Record]:
    return [Record(*place, offset, NOW, None, b"{}") for offset in offsets]


def offsets(found: Iterable[Record]) -> list[int]:
    return [record.offset for record in found]


def test_an_empty_batch_takes_nothing() -> None:
    admission = admit([], {}, {})
    assert (len(admission.records), admission.repeats, admission.gaps) == (0, {}, ())


def test_what_comes_next_is_taken() -> None:
    admission = admit(records([5, 6, 7]), {HERE: 5}, {})
    assert offsets(admission.records) == [5, 6, 7]
    assert (admission.repeats, admission.gaps) == ({}, ())


def test_what_was_taken_is_dropped_and_counted() -> None:
    admission = admit(records([3, 4, 5]), {HERE: 5}, {})
    assert offsets(admission.records) == [5]
    assert (admission.repeats, admission.gaps) == ({HERE: 2}, ())


def test_a_batch_of_repeats_takes_nothing() -> None:
    admission = admit(records([3, 4]), {HERE: 5}, {})
    assert not admission.records
    assert (admission.repeats, admission.gaps) == ({HERE: 2}, ())


def test_a_batch_that_begins_above_what_comes_next_is_refused() -> None:
    admission = admit(records([6, 7]), {HERE: 5}, {})
    assert not admission.records
    assert (admission.repeats, admission.gaps) == ({}, (Gap(HERE, 5, 6),))


def test_a_gap_is_taken_once_it_is_proven() -> None:
    admission = admit(records([6, 7]), {HERE: 5}, {HERE: Gap(HERE, 5, 6)})
    assert offsets(admission.records) == [6, 7]
    assert admission.gaps == ()


def test_the_proof_of_one_gap_proves_no_other() -> None:
    for other in (Gap(HERE, 5, 7), Gap(HERE, 4, 6), Gap(THERE, 5, 6)):
        assert admit(records([6, 7]), {HERE: 5}, {HERE: other}).gaps == (Gap(HERE, 5, 6),)


def test_a_hole_inside_what_was_fetched_is_the_brokers_own() -> None:
    admission = admit(records([4, 5, 8]), {HERE: 5}, {})
    assert offsets(admission.records) == [5, 8]
    assert admission.gaps == ()


def test_a_hole_right_behind_the_repeats_of_one_fetch_is_the_brokers_own() -> None:
    assert offsets(admit(records([4, 8]), {HERE: 5}, {}).records) == [8]


def test_one_partitions_gap_holds_up_no_other() -> None:
    admission = admit(records([6], HERE) + records([2], THERE), {HERE: 5, THERE: 2}, {})
    assert [(record.partition, record.offset) for record in admission.records] == [(1, 2)]
    assert admission.gaps == (Gap(HERE, 5, 6),)


def test_records_are_taken_in_the_order_of_their_offsets() -> None:
    admission = admit(records([7, 5, 6]), {HERE: 5}, {})
    assert offsets(admission.records) == [5, 6, 7]


def test_a_jump_from_one_fetch_to_the_next_is_a_gap() -> None:
    fetches = [Records.of(records([5, 6])), Records.of(records([9])), Records.of(records([10]))]
    admission = admit(Records.together(fetches), {HERE: 5}, {})
    assert offsets(admission.records) == [5, 6]
    assert admission.gaps == (Gap(HERE, 7, 9),)
    proven = admit(Records.together(fetches), {HERE: 5}, {HERE: Gap(HERE, 7, 9)})
    assert offsets(proven.records) == [5, 6, 9, 10]


def test_fetches_of_one_partition_go_on_where_the_one_before_ends() -> None:
    fetches = [Records.of(records([3, 4, 5])), Records.of(records([6, 7]))]
    admission = admit(Records.together(fetches), {HERE: 5}, {})
    assert offsets(admission.records) == [5, 6, 7]
    assert (admission.repeats, admission.gaps) == ({HERE: 2}, ())


def test_an_advance_says_nothing_that_is_not_known() -> None:
    assert Advance(HERE, 5) == Advance(HERE, 5, None, None, 0)


class Reader:
    """A partition's log and one reader of it, under the rules that the consumer follows."""

    def __init__(self, log: list[int]) -> None:
        self.log = log
        self.next_offset = 0
        self.position = 0
        self.proven: dict[Place, Gap] = {}
        self.taken: list[int] = []

    def fetch(self, size: int, *, fails: bool) -> bool:
        """Take one batch in. ``fails``: its transaction is rolled back and it is delivered again."""
        batch = [offset for offset in self.log if offset >= self.position][:size]
        if not batch:
            return False
        admission = admit(records(batch), {HERE: self.next_offset}, self.proven)
        if fails:
            return True
        self.position = batch[-1] + 1
        self.taken += offsets(admission.records)
        if admission.records:
            self.next_offset = admission.records[-1].offset + 1
        for gap in admission.gaps:
            self.proven[gap.place] = gap
            self.position = gap.expected
        return True

    def move(self, position: int) -> None:
        """The group decides anew: reading goes on from anywhere, and what was proven is forgotten."""
        self.position = position
        self.proven.clear()


steps = st.one_of(
    st.tuples(st.just("fetch"), st.integers(1, 8)),
    st.tuples(st.just("fails"), st.integers(1, 8)),
    st.tuples(st.just("move"), st.integers(0, 60)),
)


@given(
    log=st.sets(st.integers(0, 50), max_size=40).map(sorted),
    script=st.lists(steps, max_size=60),
)
def test_any_interleaving_of_redelivered_batches_takes_each_record_once_and_in_order(
    log: list[int], script: list[tuple[str, int]]
) -> None:
    reader = Reader(log)
    for what, number in script:
        if what == "move":
            reader.move(number)
        else:
            reader.fetch(number, fails=what == "fails")
        assert reader.taken == [offset for offset in log if offset < reader.next_offset]
    reader.move(0)
    while reader.fetch(5, fails=False):
        pass
    assert reader.taken == log


@given(
    batches=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), min_size=1, max_size=30),
    places=st.sets(st.sampled_from([HERE, THERE]), min_size=1),
)
def test_without_gaps_two_readers_together_take_each_record_once(
    batches: list[tuple[int, int]], places: set[Place]
) -> None:
    """The inbox is one, the readers are many: whose batch it was does not matter."""
    next_offsets: Mapping[Place, int] = dict.fromkeys(places, 0)
    taken: dict[Place, list[int]] = {place: [] for place in places}
    for start, size in batches:
        batch = [record for place in sorted(places) for record in records(range(start, start + size), place)]
        admission = admit(batch, next_offsets, {})
        advanced = dict(next_offsets)
        for run in admission.records.runs:
            place, found = run.place, list(run)
            taken[place] += offsets(found)
            advanced[place] = found[-1].offset + 1
        next_offsets = advanced
    for place in places:
        assert taken[place] == list(range(next_offsets[place]))
