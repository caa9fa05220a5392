"""A printer that registers with nothing but Twisted's AMP, and a program that watches for it."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import react
from twisted.protocols.amp import AMP

from portmapd.channel.amp import Event, List, Register, Watch
from portmapd.errors import AlreadyRegistered

SOCKET = "/run/portmapd/portmapd.sock"
NAME = "printer.example.com"


class Watcher(AMP):
    """A connection on which the daemon tells of changes."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = Deferred[None]()

    @Event.responder
    def event(self, change: str, name: str, port: str, **others: object) -> dict[str, Any]:
        """Print the change."""
        print(f"{change}: {name}, port {port}")
        if change == "deregistered":
            self.gone.callback(None)
        return {}


async def main(reactor: Any) -> None:
    """Register a printer, find it, and disconnect."""
    endpoint = UNIXClientEndpoint(reactor, SOCKET)
    watcher = await connectProtocol(endpoint, Watcher())
    await watcher.callRemote(Watch, names=[NAME])

    printer = await connectProtocol(endpoint, AMP())
    service = {"name": NAME, "port": "9100", "flags": 1}
    await printer.callRemote(Register, services=[service])
    try:
        await watcher.callRemote(Register, services=[service])
    except AlreadyRegistered as error:
        print(f"refused: {error}")

    listed = await watcher.callRemote(List, names=[NAME])
    for found in listed["services"]:
        print(f"listed: {found['name']}, port {found['port']}")

    printer.transport.loseConnection()
    await watcher.gone


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
