import shutil
from pathlib import Path

import pytest

from examples.flights.__main__ import DemoError, StackError, folder_for, kills_of


@pytest.mark.parametrize(
    ("wanted", "days", "kills"),
    [
        ([], 10, {}),
        (["metrics"], 10, {6: ["metrics"]}),
        (["metrics", "trainer"], 9, {4: ["metrics"], 7: ["trainer"]}),
        (["metrics", "trainer"], 1, {1: ["metrics", "trainer"]}),
        (["retrain@3", "trainer@3", "gateway@10"], 10, {3: ["retrain", "trainer"], 10: ["gateway"]}),
    ],
)
def test_kills_have_their_days(wanted: list[str], days: int, kills: dict[int, list[str]]) -> None:
    assert kills_of(wanted, days) == kills


@pytest.mark.parametrize("wanted", ["postgres", "", "metrics@0", "metrics@11", "metrics@soon", "metrics@-1"])
def test_what_cannot_be_killed_is_refused(wanted: str) -> None:
    with pytest.raises(DemoError, match="a day from 1 to 10"):
        kills_of([wanted], 10)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(DemoError, match="is not empty"), folder_for(tmp_path):
        pass


def test_a_folder_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    with folder_for(tmp_path / "story") as folder:
        (folder / "something").touch()
    assert (tmp_path / "story" / "something").exists()


def test_a_folder_of_its_own_goes_at_the_end() -> None:
    with folder_for(None) as folder:
        (folder / "something").touch()
    assert not folder.exists()


def test_a_folder_of_its_own_is_kept_where_something_failed() -> None:
    with (
        pytest.raises(DemoError, match=r"up has ended\nThe logs are kept in ") as failure,
        folder_for(None) as folder,
    ):
        raise StackError("up has ended")
    assert str(folder) in str(failure.value)
    assert folder.exists()
    shutil.rmtree(folder)
