"""``python -m trueward``."""

import sys

from trueward.cli import main

sys.exit(main())
