"""Clients of the local channel joined to a daemon without sockets: nothing travels unless let."""

from collections import deque
from typing import Any

from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from portmapd.channel.box import BoxReader, encode_box
from portmapd.local.watching import Watcher
from portmapd.registry.holder import Allowance, Holder
from tests.conversation import Host


class Wire:
    """The daemon's end of one connection.

    :param protocol: the client's end.
    :param host: where the daemon is.
    """

    def __init__(self, protocol: Any, host: Host, pid: int = 7) -> None:
        self.protocol = protocol
        self.transport = StringTransport()
        self.commands: list[bytes] = []
        self._out: deque[bytes] = deque()
        self._reader = BoxReader()
        self.watcher = Watcher(self._out.append)
        holder = Holder(104, pid, "/bin/a", Allowance(None))
        self.session = host.daemon.open(holder, self.watcher)
        self._is_up = True
        protocol.makeConnection(self.transport)

    def serve(self) -> bool:
        """Answer what the client has sent; whether there was anything."""
        data = self.transport.value()
        self.transport.clear()
        for box in self._reader.feed(data):
            self.commands.append(box[b"_command"])
            self._out.append(self.session.answer(box))
        return bool(data)

    def send(self, data: bytes) -> None:
        """Let these bytes come to the client."""
        self.protocol.dataReceived(data)

    def deliver(self) -> bool:
        """Let what the daemon sent first come to the client; whether there was anything."""
        if not self._out or not self._is_up:
            return False
        data = self._out.popleft()
        boxes = list(BoxReader().feed(data))
        for box in boxes[1:][::-1]:
            self._out.appendleft(encode_box(box))
        if boxes:
            self.send(encode_box(boxes[0]))
        return True

    def settle(self) -> None:
        """Let everything travel."""
        while self._is_up and (self.serve() or self.deliver()):
            if self.transport.disconnecting:
                self.lose()

    def lose(self) -> None:
        """The connection is gone."""
        if self._is_up:
            self._is_up = False
            self.session.end()
            kind = ConnectionAborted if self.transport.disconnecting else ConnectionDone
            self.protocol.connectionLost(Failure(kind()))


class Socket:
    """The daemon's socket, on a reactor in memory.

    :ivar wires: its connections so far.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.reactor: Any = MemoryReactorClock()
        self.wires: list[Wire] = []

    @property
    def asked(self) -> int:
        """How many connections the client has asked for so far."""
        return len(self.reactor.unixClients)

    def accept(self, pid: int = 7) -> Wire:
        """Let the connection that was asked for last be made."""
        factory = self.reactor.unixClients[-1][1]
        self.wires.append(Wire(factory.buildProtocol(None), self.host, pid))
        return self.wires[-1]

    def refuse(self) -> None:
        """Let it fail."""
        factory = self.reactor.unixClients[-1][1]
        factory.clientConnectionFailed(None, Failure(ConnectError(string="Nobody listens")))
