"""What keeps the benchmark from measuring."""


class MeasureError(Exception):
    """Something could not be measured; the message is one line that says why."""
