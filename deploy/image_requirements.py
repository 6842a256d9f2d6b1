"""What the container image installs: of ``requirements.lock``, the entries that the services need.

``python -m deploy.image_requirements`` writes ``deploy/requirements.lock``: the same versions and hashes, without
the tests' tools, the demo's models and the local stack's parts.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
IMAGE_LOCK = ROOT / "deploy" / "requirements.lock"


def entries(lock: str) -> list[tuple[str, str]]:
    """A lock file's entries in order: the package's name, and its lines without the comments."""
    found: list[tuple[str, str]] = []
    for line in lock.splitlines(keepends=True):
        if line.lstrip().startswith("#"):
            continue
        if line[0].isspace():
            name, text = found.pop()
            found.append((name, text + line))
        else:
            found.append((canonicalize_name(re.split(r"[=\s]", line)[0]), line))
    return found


def needed(project: dict[str, Any]) -> set[str]:
    """The packages that the project needs to be built and to run, and all that those need in their turn."""
    waiting = [
        Requirement(text) for text in project["project"]["dependencies"] + project["build-system"]["requires"]
    ]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting.extend(_requirements_of(name, extra))
    return {name for name, _ in seen}


def _requirements_of(name: str, extra: str) -> list[Requirement]:
    """What an installed package requires, with one of its extras or with none ("")."""
    try:
        found = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        return []  # for another platform than this one
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": extra})]


def main() -> None:
    """Write the file."""
    names = needed(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    kept = [text for name, text in entries(LOCK.read_text(encoding="utf-8")) if name in names]
    IMAGE_LOCK.write_text("".join(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
