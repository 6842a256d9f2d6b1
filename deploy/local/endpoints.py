"""``endpoints.json``: where a running stack is found. It exists exactly while everything answers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "endpoints.json"


def write(path: Path, document: Mapping[str, object]) -> None:
    """Write the file so that a reader sees the old one or the new one, never a part.

    For its owner alone, because the database's address has a password in it.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
