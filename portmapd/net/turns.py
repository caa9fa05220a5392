"""Turns for UDP while streams are busy."""

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

#: How long streams may keep UDP waiting, in seconds.
TURN = 0.001


class Turns:
    """Serves UDP in between the events of streams.

    The reactor hands out all events that it has before it looks for new ones: after ten thousand
    connections broke at once, a datagram would wait for all of them.

    :param clock: measures the turns.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._seconds = clock.seconds
        self._due = 0.0
        self._serve: list[Callable[[], object]] = []

    def add(self, serve: Callable[[], object]) -> None:
        """Give *serve*, which serves a batch of datagrams, its turns."""
        self._serve.append(serve)

    def clear(self) -> None:
        """Give nobody turns any more."""
        self._serve.clear()

    def breathe(self) -> None:
        """Whoever serves many events calls this at each; every now and then UDP is served."""
        now = self._seconds()
        if now >= self._due:
            for serve in self._serve:
                serve()
            self._due = self._seconds() + TURN
