"""The benchmark: portmapd beside its peers, or beside another checkout of itself. See README.md."""


class MeasureError(Exception):
    """Something could not be measured; the message is one line that says why."""
