"""``python -m portmapd.cli``: the same as ``portmapctl``."""

import sys

from portmapd.cli import main

sys.exit(main())
