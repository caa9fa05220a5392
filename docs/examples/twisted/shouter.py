"""Shouts back what it is told: over TCP on a port that the system chooses, and a UNIX socket."""

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

from portmapd import Flags, Group, Portmapper
from portmapd.errors import PortmapdError

SOCKET = os.path.abspath("shouter.sock")


class Shouter(LineOnlyReceiver):
    """One connection."""

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """Shout it back."""
        self.sendLine(line.upper())


def lost(group: Group, why: PortmapdError) -> None:
    """Tell of what could not be registered again when the daemon was restarted."""
    print(f"not registered any more: {group.services}: {why}", flush=True)


async def main(reactor: Any) -> None:
    """Serve until it is killed."""
    factory = Factory.forProtocol(Shouter)
    ports = [
        reactor.listenTCP(0, factory, interface="127.0.0.1"),
        reactor.listenUNIX(SOCKET, factory),
    ]
    portmapper = Portmapper(reactor, lost=lost)
    await portmapper.reg("shouter.example.com", ports, Flags.EXCLUSIVE)
    print("registered", flush=True)
    await Deferred()


react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
