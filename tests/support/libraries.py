"""Which versions of libraries the tests run with."""

from importlib.metadata import version

#: Twisted's year and month.
TWISTED = tuple(map(int, version("Twisted").split(".")[:2]))
#: The oldest that portmapd runs with, and that Debian 12 has.
OLDEST_TWISTED = 22, 4
