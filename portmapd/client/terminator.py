"""Terminators: descriptors that end an operation when they become readable."""

import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.client.patience import Terminator, descriptor_of


@implementer(IReadDescriptor)
class Watch:
    """Watches a terminator while an operation waits.

    The descriptor is duplicated, so that the application may have it in its reactor, too.

    :param terminator: the descriptor, or what has it.
    :param fired: is called once it is readable.
    :raises BadArguments: it is no open descriptor.
    """

    def __init__(
        self, reactor: IReactorFDSet, terminator: Terminator, fired: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._fired = fired
        self._descriptor = os.dup(descriptor_of(terminator))
        reactor.addReader(self)

    def fileno(self) -> int:
        """The duplicate; -1 once it is closed."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Its name in log lines."""
        return "terminator"

    def doRead(self) -> None:
        """The terminator is readable."""
        if self._descriptor >= 0:
            self.stop()
            self._fired()

    def stop(self) -> None:
        """Watch no more."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or the terminator broke, which counts as its being readable."""
        self.doRead()
