"""The histograms of a bucket: where things fall, and that their sums are exact."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain import histogram
from services.metrics.domain.histogram import DELAY_EDGES, VECTOR_LENGTH

INT64 = st.integers(-(2**63), 2**63 - 1)
BINS = st.integers(0, VECTOR_LENGTH - 1)
COUNTS = st.dictionaries(BINS, INT64)


@given(COUNTS)
def test_what_is_encoded_is_decoded_and_zeros_are_left_out(counts: dict[int, int]) -> None:
    assert histogram.decode(histogram.encode(counts)) == {place: n for place, n in counts.items() if n}


@given(COUNTS)
def test_the_stored_form_is_little_endian_pairs_in_order(counts: dict[int, int]) -> None:
    pairs = sorted((place, count) for place, count in counts.items() if count)
    assert histogram.encode(counts) == b"".join(struct.pack("<Hq", *pair) for pair in pairs)


@given(st.permutations(range(VECTOR_LENGTH)), st.integers(0, VECTOR_LENGTH))
def test_equal_vectors_have_equal_bytes_whatever_the_order(order: list[int], length: int) -> None:
    counts = {place: place * 7 - 100 for place in order[:length]}
    assert histogram.encode(counts) == histogram.encode(dict(sorted(counts.items())))


@pytest.mark.parametrize("count", [2**63, -(2**63) - 1])
def test_a_count_beyond_64_bits_is_refused_not_wrapped(count: int) -> None:
    with pytest.raises(OverflowError):
        histogram.encode({0: count})


@given(st.lists(COUNTS, max_size=8))
def test_a_total_is_exact_beyond_64_bits_and_below_zero(vectors: list[dict[int, int]]) -> None:
    total = histogram.total(map(histogram.encode, vectors))
    assert len(total) == VECTOR_LENGTH
    for place in range(VECTOR_LENGTH):
        assert total[place] == sum(counts.get(place, 0) for counts in vectors)
        assert isinstance(total[place], int)


@given(st.lists(COUNTS, max_size=5))
def test_stored_vectors_may_be_strung_together(vectors: list[dict[int, int]]) -> None:
    """What ``string_agg`` does in the database."""
    stored = [histogram.encode(counts) for counts in vectors]
    assert list(histogram.total([b"".join(stored)])) == list(histogram.total(stored))


@given(st.lists(COUNTS, max_size=5))
def test_few_and_many_come_to_the_same(vectors: list[dict[int, int]]) -> None:
    joined = b"".join(map(histogram.encode, vectors))
    assert histogram.total_of_few(joined) == histogram.total_of_many(joined)


@given(COUNTS, COUNTS)
def test_two_vectors_add_up_as_their_stored_forms_do(one: dict[int, int], two: dict[int, int]) -> None:
    stored = [histogram.encode(counts) for counts in (one, two)]
    assert histogram.plus(*(histogram.total([each]) for each in stored)) == histogram.total(stored)


def test_many_extreme_counts_do_not_overflow() -> None:
    total = histogram.total([histogram.encode({3: 2**63 - 1, 4: -(2**63)})] * 1000)
    assert (total[3], total[4]) == (1000 * (2**63 - 1), 1000 * -(2**63))


def test_the_total_of_nothing_is_zero() -> None:
    assert list(histogram.total(())) == [0] * VECTOR_LENGTH


@pytest.mark.parametrize(
    ("probability", "place"),
    [(0.0, 0), (0.019999999999999997, 0), (0.02, 1), (0.5, 25), (0.98, 49), (0.9999999999999999, 49), (1.0, 49)],
)
def test_the_bin_of_a_probability(probability: float, place: int) -> None:
    assert histogram.probability_bin(probability) == place


@pytest.mark.parametrize("tenth", range(10))
def test_bins_begin_at_every_tenth_so_that_the_reliability_table_is_whole_bins(tenth: int) -> None:
    assert histogram.probability_bin(tenth / 10) == 5 * tenth
    assert histogram.probability_bin((tenth + 1) / 10 - 1e-12) == 5 * tenth + 4


@pytest.mark.parametrize(
    ("delay_seconds", "place"),
    [(0.0, 0), (0.999999, 0), (1.0, 1), (59.999999, 6), (60.0, 7), (7_776_000.0, 31), (7_775_999.999999, 30)],
)
def test_a_delay_falls_in_the_bin_whose_lower_edge_it_has_reached(delay_seconds: float, place: int) -> None:
    assert histogram.entries(0.0, positive=False, delay_seconds=delay_seconds)[2] == (150 + place, 1)


def test_what_one_evaluation_adds() -> None:
    assert histogram.entries(0.3, positive=True, delay_seconds=45.0) == ((31, 1), (115, 300_000_000), (156, 1))
    assert histogram.entries(1.0, positive=False, delay_seconds=0.0) == ((98, 1), (149, 10**9), (150, 1))


@given(st.floats(0, 1), st.booleans(), st.floats(0, 1e12))
def test_an_evaluation_counts_once_in_each_histogram(probability: float, positive: bool, delay: float) -> None:
    counts = dict(histogram.entries(probability, positive=positive, delay_seconds=delay))
    vector = histogram.total([histogram.encode(counts)])
    assert sum(histogram.negatives(vector)) == (not positive)
    assert sum(histogram.positives(vector)) == positive
    assert sum(histogram.delays(vector)) == 1
    assert sum(histogram.probability_sums(vector)) == round(probability * 1e9)


def test_delay_edges_ascend_and_end_at_ninety_days() -> None:
    assert list(DELAY_EDGES) == sorted(set(DELAY_EDGES))
    assert (DELAY_EDGES[0], DELAY_EDGES[-1]) == (1, 90 * 86_400)
    assert len(histogram.delays(histogram.total(()))) == len(DELAY_EDGES) + 1
