"""The site, built as ``make docs`` builds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 240


def build(folder: Path, pages: Path = ROOT / "docs") -> Path:
    """Build into ``folder``; returns where index.html is. Fails with what Sphinx said of the pages."""
    options = ("--quiet", "--fail-on-warning", "--keep-going", "--fresh-env")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-M", "html", str(pages), str(folder), *options],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"
