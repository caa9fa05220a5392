"""``python -m portmapd``."""

import sys

from portmapd.command import main

if __name__ == "__main__":
    sys.exit(main())
