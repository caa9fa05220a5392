"""An RPC service, and the port mapper through which its clients find it, in one application.

Run it with ``twistd -ny clock.py``.
"""

import os
from typing import Any

from twisted.application.service import Application, IServiceCollection, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from portmapd import (
    Config,
    Holder,
    PortmapperService,
    Registry,
    errors,
    format_address,
    mapping,
)
from portmapd.oncrpc import message, xdr

#: From the numbers that everyone may use for programs of their own (RFC 5531, section 8.4).
PROGRAM = 0x2000_0001
VERSION = 1
NULL, TIME = 0, 1

HOST = "127.0.0.1"


class Clock(DatagramProtocol):
    """Procedure 1 answers with the time, in seconds since 1970."""

    transport: Any

    def __init__(self, clock: Any) -> None:
        self._results = {NULL: lambda: b"", TIME: lambda: xdr.uint(int(clock.seconds()))}

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        try:
            reply = self._reply(message.decode_call(datagram))
        except errors.CallRefused as fault:
            reply = message.refusal(message.xid_of(datagram), fault)
        except errors.Unanswerable:
            return
        self.transport.write(reply, addr)

    def _reply(self, call: message.Call) -> bytes:
        if call.program != PROGRAM:
            raise errors.ProgramUnavailable
        if call.version != VERSION:
            raise errors.ProgramMismatch(VERSION, VERSION)
        if call.procedure not in self._results:
            raise errors.ProcedureUnavailable
        return message.success(call.xid, self._results[call.procedure]())


class ClockService(Service):
    """Serves the clock on a free port, and has it registered for as long as it is served."""

    def __init__(self, reactor: Any, registry: Registry) -> None:
        self._reactor = reactor
        self._registry = registry

    def startService(self) -> None:
        super().startService()
        self._port = self._reactor.listenUDP(0, Clock(self._reactor), HOST)
        address = format_address(HOST, self._port.getHost().port)
        self._holder = self._registry.open(Holder(os.getuid(), os.getpid()))
        self._registry.map(mapping(PROGRAM, VERSION, "udp", address, holder=self._holder))

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        self._registry.close(self._holder)
        stopped: Deferred[Any] = self._port.stopListening()
        return stopped


application = Application("clock")
services = IServiceCollection(application)

portmapper = PortmapperService(
    Config(port=10111, interfaces=(HOST,), rpc_socket=None, local_socket=None), reactor
)
portmapper.setServiceParent(services)
ClockService(reactor, portmapper.registry).setServiceParent(services)
