"""Waits for a descriptor to be readable."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
@define(eq=False)
class Readable:
    """A descriptor that becomes readable once.

    :param number: the descriptor.
    :param reactor: watches it.
    """

    _number: int
    _reactor: IReactorFDSet
    _waiting: Deferred[None] | None = field(default=None, init=False)

    def wait(self) -> Deferred[None]:
        """Wait.

        :return: fires when it is readable; it may be cancelled.
        """
        self._waiting = waiting = Deferred[None](lambda _: self._stop())
        self._reactor.addReader(self)
        return waiting

    def _stop(self) -> None:
        self._reactor.removeReader(self)
        self._waiting = None

    # IReadDescriptor, for the reactor

    def fileno(self) -> int:
        return self._number

    def doRead(self) -> None:
        waiting = self._waiting
        self._stop()
        if waiting is not None:
            waiting.callback(None)

    def logPrefix(self) -> str:
        return "portmapd"

    def connectionLost(self, reason: Failure) -> None:
        """The other end is closed, which the reactor saw first."""
        self.doRead()
