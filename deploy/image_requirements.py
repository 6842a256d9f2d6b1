"""What the container image installs: of ``requirements.lock``, the entries that the services need.

Without the tests' tools, the demo's models and the local stack's parts the image is a quarter of the size. A lock
file says after each entry which packages asked for it: this needs nothing but the file, and can run in a build.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

EXTRA = "server"
_VIA = re.compile(r"^\s+#\s+(?:via\s*)?(?P<name>[A-Za-z0-9][\w.-]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """A package of a lock file: its lines as they are, and the packages that asked for it."""

    name: str
    text: str
    asked_for_by: frozenset[str]


def canonical(name: str) -> str:
    """A package's name, or a requirement's, as the registry compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name.strip())[0]).lower()


def entries(lock: str) -> list[Entry]:
    """A lock file's entries, in order. Raises ``ValueError`` when it does not begin with one."""
    starts = [match.start() for match in re.finditer(r"^[A-Za-z0-9]", lock, re.MULTILINE)]
    if not starts:
        raise ValueError("this is no lock file")
    texts = [lock[start:end] for start, end in zip(starts, [*starts[1:], len(lock)], strict=True)]
    return [
        Entry(
            name=canonical(text),
            text=text,
            asked_for_by=frozenset(
                canonical(match["name"]) for line in text.splitlines() if (match := _VIA.match(line))
            ),
        )
        for text in texts
    ]


def direct(project: str) -> list[str]:
    """What a project (pyproject.toml's text) asks for itself: its own, the extra's, the build's requirements."""
    settings = tomllib.loads(project)
    requirements: list[str] = [
        *settings["project"]["dependencies"],
        *settings["project"].get("optional-dependencies", {}).get(EXTRA, ()),
        *settings["build-system"]["requires"],
    ]
    return requirements


def needed(project: str, lock: str) -> list[Entry]:
    """The entries without which a project's services can be neither built nor run."""
    names = {canonical(requirement) for requirement in direct(project)}
    found = entries(lock)
    while True:
        more = {entry.name for entry in found if entry.asked_for_by & names} - names
        if not more:
            return [entry for entry in found if entry.name in names]
        names |= more


def main(project: Path, lock: Path) -> None:
    """Write the entries to standard output."""
    kept = needed(project.read_text(encoding="utf-8"), lock.read_text(encoding="utf-8"))
    sys.stdout.write("".join(entry.text for entry in kept))


if __name__ == "__main__":
    main(Path("pyproject.toml"), Path("requirements.lock"))
