"""Has a word shouted back: ``python shout.py WORD``."""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

from portmapd import Portmapper
from portmapd.errors import DaemonUnreachable, NoService


class Listener(LineOnlyReceiver):
    """A connection to the shouter."""

    delimiter = b"\n"

    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        """Take what is shouted."""
        self.heard.callback(line)


async def main(reactor: Any) -> None:
    """Connect to whichever shouter accepts, within five seconds."""
    portmapper = Portmapper(reactor)
    try:
        connecting = portmapper.connect_any("shouter.example.com", Factory.forProtocol(Listener))
        shouter: Any = await connecting.addTimeout(5, reactor)
    except (NoService, DaemonUnreachable) as error:
        sys.exit(str(error))
    finally:
        await portmapper.close()
    shouter.sendLine(sys.argv[1].encode())
    print((await shouter.heard).decode())
    shouter.transport.loseConnection()


react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
