"""What a deployment may tell a service."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.settings import DAY_SECONDS, Settings, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("60s", timedelta(seconds=60)),
        ("5m", timedelta(minutes=5)),
        ("1h", timedelta(hours=1)),
        ("1d", timedelta(days=1)),
        ("0s", timedelta(0)),
        (" 10 s ", timedelta(seconds=10)),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "s", "1w", "-1s", "1.5h", "1h30m", "1 0s", "60S", "sixty"])
def test_anything_else_is_no_duration(text: str) -> None:
    assert parse_duration(text) == text
    with pytest.raises(ValidationError):
        Settings(snapshot_interval=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["99999999999d", "9" * 20 + "s"])
def test_a_duration_that_no_calendar_holds_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValidationError, match=r"snapshot_interval\n.*three million years"):
        Settings(snapshot_interval=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1s", "12s", "60s", "5m", "1h", "6h", "1d", "86400s", "2d", "30d"])
def test_an_interval_divides_a_day_or_is_whole_days(text: str) -> None:
    assert Settings(snapshot_interval=text).snapshot_interval == parse_duration(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0s", "7s", "7m", "5h", "25h", "36h", "90000s"])
def test_an_interval_that_does_not_divide_a_day_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="divide a day"):
        Settings(snapshot_interval=text)  # type: ignore[arg-type]


@given(seconds=st.integers(1, 10 * DAY_SECONDS))
def test_the_boundaries_of_an_accepted_interval_meet_every_midnight_that_they_pass(seconds: int) -> None:
    try:
        interval = Settings(snapshot_interval=timedelta(seconds=seconds)).snapshot_interval
    except ValidationError:
        assert DAY_SECONDS % seconds
        assert seconds % DAY_SECONDS
    else:
        step = int(interval.total_seconds())
        assert step % DAY_SECONDS == 0 or DAY_SECONDS % step == 0


def test_half_a_second_is_no_interval() -> None:
    for seconds in (0.5, 1.5):
        with pytest.raises(ValidationError, match="divide a day"):
            Settings(snapshot_interval=timedelta(seconds=seconds))


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEWARD_SNAPSHOT_INTERVAL", "1d")
    monkeypatch.setenv("TRUEWARD_TOPIC_PREFIX", "elsewhere.")
    monkeypatch.setenv("TRUEWARD_POSTGRES_DSN", "postgresql://me:secret@there/db")
    settings = Settings()
    assert settings.snapshot_interval == timedelta(days=1)
    assert settings.topic_prefix == "elsewhere."
    assert settings.postgres_dsn.get_secret_value() == "postgresql://me:secret@there/db"


def test_a_password_is_not_told() -> None:
    settings = Settings(postgres_dsn="postgresql://me:secret@there/db")  # type: ignore[arg-type]
    assert "secret" not in repr(settings)
    assert "secret" not in settings.model_dump_json()


@pytest.mark.parametrize(
    "wrong",
    [
        {"clock": "sundial"},
        {"http_port": 65_536},
        {"http_port": -1},
        {"max_batch_records": 0},
        {"session_timeout_seconds": 0},
        {"topic_replication_factor": -1},
        {"log_level": "LOUD"},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().http_port = 1  # type: ignore[misc]
