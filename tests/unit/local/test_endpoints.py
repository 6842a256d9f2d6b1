from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from deploy.local import endpoints


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / endpoints.FILE_NAME
    endpoints.write(path, {"number": 0})
    done = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(json.loads(path.read_text())["number"])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        endpoints.write(path, {"number": number, "filler": "x" * 20_000})
    done.set()
    reader.join()
    assert seen <= set(range(300))
    assert list(tmp_path.iterdir()) == [path]


def test_only_its_owner_may_read_the_password_in_it(tmp_path: Path) -> None:
    path = tmp_path / endpoints.FILE_NAME
    endpoints.write(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / endpoints.FILE_NAME
    endpoints.write(path, {"kept": True})
    with pytest.raises(TypeError):
        endpoints.write(path, {"bad": object()})
    assert json.loads(path.read_text()) == {"kept": True}
    assert list(tmp_path.iterdir()) == [path]
