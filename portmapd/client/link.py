"""One connection to the daemon's local channel."""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol

from portmapd.channel import command as c
from portmapd.channel.box import Box, BoxReader
from portmapd.errors import BadArguments, BrokenStream, DaemonUnreachable, PortmapdError


class Link(Protocol):
    """Asks commands, and matches their answers.

    :param path: the daemon's socket, for messages.
    :param event: is given every box that is no answer.
    :param lost: is called with this link once it is broken.
    """

    transport: Any

    def __init__(
        self, path: str, event: Callable[[Box], object], lost: Callable[["Link"], object]
    ) -> None:
        self._path = path
        self._event = event
        self._lost = lost
        self._reader = BoxReader()
        self._pending: dict[bytes, tuple[c.Command, Deferred[dict[str, Any]]]] = {}
        self._count = 0
        self.is_open = True

    def ask(self, command: c.Command, values: Mapping[str, Any]) -> "Deferred[dict[str, Any]]":
        """Ask *command* with these arguments; fires with its answer, by name.

        Fails with the :exc:`~portmapd.errors.Refusal` that the daemon answers, or with
        :exc:`~portmapd.errors.DaemonUnreachable` if the connection breaks before it does.
        """
        if not self.is_open:
            return fail(self._unreachable())
        self._count += 1
        tag = b"%x" % self._count
        try:
            box = command.ask(tag, values)
        except ValueError as error:
            return fail(BadArguments(f"that is too much for one message: {error}"))
        answer: Deferred[dict[str, Any]] = Deferred(lambda _: self._forget(tag))
        self._pending[tag] = command, answer
        self.transport.write(box)
        return answer

    def _forget(self, tag: bytes) -> None:
        self._pending.pop(tag, None)

    def dataReceived(self, data: bytes) -> None:
        try:
            for box in self._reader.feed(data):
                self._take(box)
        except (BrokenStream, BadArguments):
            # Whatever serves there, it does not speak the channel's language.
            self.transport.abortConnection()

    def _take(self, box: Box) -> None:
        tag = box.get(c.ANSWER, box.get(c.ERROR))
        if tag is None:
            self._event(box)
            return
        command, answer = self._pending.pop(tag, (None, None))
        if command is None or answer is None:
            return
        if c.ERROR in box:
            answer.errback(c.read_refusal(box))
            return
        try:
            values = command.read_answer(box)
        except PortmapdError as error:
            answer.errback(error)
        else:
            answer.callback(values)

    def close(self) -> None:
        """Break the connection; what was registered through it is gone."""
        self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.is_open = False
        self._lost(self)
        pending, self._pending = self._pending, {}
        for _, answer in pending.values():
            answer.errback(self._unreachable())

    def _unreachable(self) -> DaemonUnreachable:
        return DaemonUnreachable(f"the connection to the daemon at {self._path} was lost")
