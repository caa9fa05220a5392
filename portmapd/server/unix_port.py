"""A listening UNIX socket, on any reactor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import main, tcp, unix
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.failure import Failure

from portmapd.server.socket_file import identity, listen_at, remove_own

_CLOSED = Failure(main.CONNECTION_DONE)
#: The most connections that are accepted in one turn of the reactor; Twisted adapts it.
ACCEPTS = 100


class UnixPort(unix.Port):
    """A listening UNIX socket that everyone may connect to.

    A stale socket at its path is replaced. Its file is removed in the end, unless it is another's
    by then. Twisted's own port changes the mode of whatever is at the path after it is bound.

    :param path: its absolute path.
    :param backlog: the most connections that wait to be accepted.
    :param listening: a socket that listens there already; its file is its owner's. None: it is
        made.
    """

    factory: Any

    def __init__(
        self,
        path: str,
        factory: IProtocolFactory,
        backlog: int,
        reactor: object,
        listening: socket.socket | None = None,
    ) -> None:
        super().__init__(path.encode(), factory, backlog, reactor=reactor)
        self._path = path
        self._listening = listening
        self._identity: tuple[int, int] | None = None

    def startListening(self) -> None:
        if self._listening is None:
            self.socket = listen_at(self._path, self.backlog)
            self._identity = identity(self._path)
        else:
            self.socket = self._listening
            # That would end it for the others that have it, too.
            self._shouldShutdown = False
        tcp._reservedFD.reserve()
        self.fileno = self.socket.fileno  # type: ignore[method-assign] # as the base class does
        self.numberAccepts = ACCEPTS
        self.connected = True
        self.factory.doStart()
        self.startReading()

    def loseConnection(self, connDone: Any = _CLOSED) -> Any:
        # At once: if the start fails, the reactor may have no later turn.
        self._remove()
        return super().loseConnection(connDone)

    stopListening = loseConnection

    def take_file(self) -> None:
        """Remove its file in the end, as the process would have done that had the socket before."""
        self._identity = identity(self._path)

    def connectionLost(self, reason: Any) -> None:
        self._remove()
        tcp.Port.connectionLost(self, reason)

    def _remove(self) -> None:
        """Remove the file, once: a later one may have the same name and the same inode."""
        remove_own(self._path, self._identity)
        self._identity = None
