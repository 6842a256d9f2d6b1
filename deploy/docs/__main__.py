"""``python -m deploy.docs`` writes the generated documents into docs/, as ``make docs`` does."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.docs.generated import incompatibilities, write

DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
    """Write every document that changed; refuse to overwrite a contract's schema with an incompatible one."""
    broken = incompatibilities(DOCS)
    for line in broken:
        sys.stderr.write(f"{line}\n")
    if broken:
        sys.stderr.write(
            "A published contract may only widen: give the change a new version beside the old one. "
            "Delete the stored schema only if it was never released.\n"
        )
        return 1
    for path in write(DOCS):
        sys.stdout.write(f"wrote {path.relative_to(DOCS.parent)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
