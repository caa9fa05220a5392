"""``python -m portmapd.cli``: the same as ``portmapctl``."""

from portmapd.cli import main

main()
