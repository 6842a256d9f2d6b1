"""Times read in columns are those that the contract reads, and nothing else is read."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.metrics.domain.hot.times import read_times
from services.metrics.intake import microseconds
from shared.contracts.base import Timestamp

CONTRACT = TypeAdapter(Timestamp)


def by_contract(text: str) -> int | None:
    """Microseconds since 1970 as the contract has them; None where it refuses the text."""
    try:
        return microseconds(CONTRACT.validate_python(text))
    except ValidationError:
        return None


moments = st.datetimes(timezones=st.just(UTC)) | st.integers(1_767_225_600, 1_798_761_600).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)


@st.composite
def spelled(draw: st.DrawFn) -> str:
    moment = draw(moments)
    decimals = draw(st.integers(0, 9))
    fraction = f".{moment.microsecond:06}"[: decimals + 1].ljust(decimals + 1, "0") if decimals else ""
    text = f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{fraction}" + draw(
        st.sampled_from(["Z", "+00:00", "+01:00", "z"])
    )
    if draw(st.booleans()):
        place = draw(st.integers(0, len(text) - 1))
        text = text[:place] + draw(st.characters() | st.sampled_from("0123456789-:TZ+. ")) + text[place + 1 :]
    return text


@given(st.lists(spelled(), max_size=20))
@example(["0000-01-01T00:00:00Z", "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z"])
@example(["2000-02-29T23:59:59.999999Z", "2026-12-31T24:00:00Z", "2026-06-30T23:59:60Z", "2026-00-10T00:00:00Z"])
@example(["2026-13-10T00:00:00Z", "2026-01-00T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+00:00"])
@example(["2026-01-31T12:00:00.1234567Z", "2026-01-31T12:00:00.Z", "", "Z", "2026-01-31T12:00:00.12Z"])
@example(["\uff12026-01-31T12:00:00Z", "2026-01-31T12:00:00.1\U0001f600Z"])
def test_what_is_read_is_what_the_contract_reads(texts: list[str]) -> None:
    moments, known = read_times(texts)
    for text, moment, read in zip(texts, moments.tolist(), known.tolist(), strict=True):
        if read:
            assert by_contract(text) == moment, text


@given(st.lists(moments, min_size=1), st.integers(0, 6), st.sampled_from(["Z", "+00:00"]))
def test_the_usual_spelling_is_always_read(times: list[datetime], decimals: int, zone: str) -> None:
    texts = []
    for moment in times:
        fraction = f".{moment.microsecond:06}"[: decimals + 1] if decimals else ""
        texts.append(f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{fraction}{zone}")
    found, known = read_times(texts)
    assert known.all()
    assert found.tolist() == [by_contract(text) for text in texts]
