from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.gateway.cursors import (
    MOMENT_NAME_CURSOR,
    MOMENT_NUMBER_CURSOR,
    NAME_CURSOR,
    MomentName,
    MomentNumber,
    read_moment_name,
    read_moment_number,
    read_name,
    write_moment_name,
    write_moment_number,
    write_name,
)
from services.gateway.parameters import JobsParameters, ModelsParameters, TrendParameters

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=128)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 6_000 * 365 * 86_400 * 10**6).map(
    lambda microseconds: EPOCH + timedelta(microseconds=microseconds)
)
NUMBERS = st.integers(1, 2**60 - 1)


@given(NAMES)
def test_a_name_comes_back(name: str) -> None:
    cursor = write_name(name)
    assert re.fullmatch(NAME_CURSOR, cursor)
    assert read_name(cursor) == name


@given(MOMENTS, NAMES)
def test_a_moment_and_a_name_come_back(moment: datetime, name: str) -> None:
    cursor = write_moment_name(MomentName(moment, name))
    assert re.fullmatch(MOMENT_NAME_CURSOR, cursor)
    assert read_moment_name(cursor) == MomentName(moment, name)


@given(MOMENTS, NUMBERS)
def test_a_moment_and_a_number_come_back(moment: datetime, number: int) -> None:
    cursor = write_moment_number(MomentNumber(moment, number))
    assert re.fullmatch(MOMENT_NUMBER_CURSOR, cursor)
    assert read_moment_number(cursor) == MomentNumber(moment, number)


@given(st.from_regex(MOMENT_NAME_CURSOR, fullmatch=True))
def test_whatever_follows_the_pattern_is_a_place_that_postgresql_can_be_asked_for(cursor: str) -> None:
    place = read_moment_name(cursor)
    place.name.encode()
    assert "\x00" not in place.name
    assert place.moment.year < 9999


@pytest.mark.parametrize(
    ("parameters", "cursor"),
    [
        (ModelsParameters, ""),
        (ModelsParameters, "0"),
        (ModelsParameters, "zz"),
        (ModelsParameters, "00" * 513),
        (ModelsParameters, "00\n"),
        (JobsParameters, "0" * 16),
        (JobsParameters, "f" * 18),
        (TrendParameters, "0" * 31),
        (TrendParameters, "0" * 16 + "f" * 16),
        (TrendParameters, "0" * 33),
    ],
)
def test_whatever_does_not_follow_it_is_refused(
    parameters: type[ModelsParameters | JobsParameters | TrendParameters], cursor: str
) -> None:
    known = {"model": "m"} if "model" in parameters.model_fields else {}
    parameters.model_validate(known)
    with pytest.raises(ValidationError):
        parameters.model_validate({**known, "cursor": cursor})
