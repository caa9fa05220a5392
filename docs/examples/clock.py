"""An RPC service, and the port mapper through which its clients find it, in one application.

Run it with ``twistd -ny clock.py``.
"""

import os

from twisted.application.service import Application, IServiceCollection, Service
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime

from portmapd import Config, Holder, PortmapperService, Registry
from portmapd.rpc import UINT, VOID, Procedure, Program, Request, Server

HOST = "127.0.0.1"


def tell(arguments: None, request: Request) -> int:
    """The time, in seconds since 1970."""
    return int(IReactorTime(reactor).seconds())


#: From the numbers that everyone may use for programs of their own (RFC 5531, section 8.4).
CLOCK = Program("clock", 0x2000_0001, 1, Procedure("TIME", 1, VOID, UINT, tell))


class Registration(Service):
    """Has a server registered for as long as it is served."""

    def __init__(self, server: Server, registry: Registry) -> None:
        self._server = server
        self._registry = registry

    def startService(self) -> None:
        super().startService()
        self._holder = self._registry.open(Holder(os.getuid(), os.getpid()))
        self._registry.map(*self._server.mappings(self._holder))

    def stopService(self) -> None:
        super().stopService()
        self._registry.close(self._holder)


application = Application("clock")
services = IServiceCollection(application)

portmapper = PortmapperService(
    Config(port=10111, interfaces=(HOST,), loopback=False, rpc_socket=None, local_socket=None),
    reactor,
)
clock = Server(reactor, CLOCK, interfaces=(HOST,))
for service in (portmapper, clock, Registration(clock, portmapper.registry)):
    service.setServiceParent(services)
