"""Clients of the local channel joined to a daemon without sockets: nothing travels unless let."""

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionAborted, ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.box import BoxReader, encode_box
from portmapd.client.core.connecting import LONGEST_WAIT
from portmapd.client.core.registrations import Group
from portmapd.client.twisted import Portmapper
from portmapd.errors import PortmapdError
from portmapd.registry.holder import allowances
from portmapd.waiting import JITTER
from tests.support.channel_sessions import Host, Process

PATH = "/run/test.sock"


class Transport(StringTransport):
    """A transport whose protocol may be another one later, as Twisted's own."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol


class Wire:
    """The daemon's end of one connection.

    :param protocol: the client's end.
    :param host: where the daemon is.
    """

    def __init__(self, protocol: Any, host: Host, pid: int = 7) -> None:
        self.transport = Transport(protocol)
        self.commands: list[bytes] = []
        self._out: deque[bytes] = deque()
        self._reader = BoxReader()
        process = Process(104, pid, "/bin/a", allowances(), self._out)
        self.session = host.context.open(process)
        self._is_up = True
        self.is_paused = False
        protocol.makeConnection(self.transport)

    def serve(self) -> bool:
        """Answer what the client has sent; whether there was anything.

        As the daemon, it answers nothing while the connection is paused.
        """
        if self.is_paused:
            return False
        data = self.transport.value()
        self.transport.clear()
        for box in self._reader.feed(data):
            self.commands.append(box[b"_command"])
            self._out.append(self.session.answer(box))
        return bool(data)

    def pause(self) -> None:
        """The client reads nothing for now."""
        self.is_paused = True
        self.session.pause()

    def resume(self) -> None:
        """The client reads again."""
        self.is_paused = False
        self.session.resume()

    def send(self, data: bytes) -> None:
        """Let these bytes come to the client."""
        self.transport.protocol.dataReceived(data)

    def queue(self, box: bytes) -> None:
        """Send *box* behind what the daemon has sent."""
        self._out.append(box)

    def forget(self) -> None:
        """Let nothing come of what the daemon has sent and was not delivered."""
        self._out.clear()

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
            self.transport.protocol.connectionLost(Failure(kind()))


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
        self._fail("Nobody listens")

    def fill(self) -> None:
        """Let it fail as Twisted does when the queue of the daemon's socket is full."""
        self._fail(Failure(ConnectionDone()))

    def _fail(self, why: Any) -> None:
        factory = self.reactor.unixClients[-1][1]
        factory.clientConnectionFailed(None, Failure(ConnectError(string=why)))


class PortmapperTestCase(SynchronousTestCase):
    """A client on a reactor in memory, and the daemon's end of its connections."""

    def setUp(self) -> None:
        self.lost: list[tuple[Group, PortmapdError]] = []
        self.host = Host()
        self.socket = Socket(self.host)
        self.reactor: Any = self.socket.reactor
        self.client = Portmapper(
            self.reactor, PATH, lambda group, why: self.lost.append((group, why))
        )

    def connect(self) -> Wire:
        """Let the client connect, and everything travel."""
        wire = self.socket.accept()
        wire.settle()
        return wire

    def registered(self, *names: str) -> Wire:
        """Have these names registered, each by itself."""
        results = [self.client.reg(name, 80) for name in names]
        wire = self.connect()
        for result in results:
            self.successResultOf(result)
        return wire

    def restart(self) -> None:
        """The daemon ends, and another one begins."""
        self.host = self.socket.host = Host()
        self.socket.wires[-1].lose()

    def reconnect(self) -> None:
        """Let the client's wait pass; it asks for a connection then."""
        asked = self.socket.asked
        self.reactor.advance(LONGEST_WAIT * (1 + JITTER))
        self.assertEqual(self.socket.asked, asked + 1)

    def fails(self, result: "Deferred[Any]", names: str, kind: type[Exception]) -> None:
        """Assert that an operation has failed so, with *names* in the message."""
        error = self.failureResultOf(result, kind).value
        self.assertIs(type(error), kind)
        self.assertIn(names, str(error))

    def names(self) -> list[str]:
        """What is registered."""
        return [service.name for service in self.host.registry.services()]

    def idle(self) -> None:
        """Assert that the client waits for nothing, and will not connect."""
        asked = self.socket.asked
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.socket.asked, asked)
