"""A descriptor that ends an operation once it is readable."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class Readable:
    """Calls once, when a descriptor becomes readable.

    The descriptor is duplicated, so that the application may have it in its reactor, too.
    """

    def __init__(self, reactor: IReactorFDSet, descriptor: int, call: Callable[[], object]) -> None:
        self._reactor = reactor
        self._call = call
        self._descriptor = os.dup(descriptor)
        reactor.addReader(self)

    def fileno(self) -> int:
        """Return the duplicate; -1 once it is closed."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Return its name in log lines."""
        return "terminator"

    def doRead(self) -> None:
        """It is readable."""
        if self._descriptor >= 0:
            self.cancel()
            self._call()

    def cancel(self) -> None:
        """Wait no longer."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or the descriptor broke, which counts as its being readable."""
        self.doRead()
