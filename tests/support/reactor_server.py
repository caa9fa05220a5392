"""A port mapper on a chosen reactor, in a process of its own.

Run as a program, this file is that process: ``python -m tests.support.reactor_server REACTOR HOW
FOLDER`` serves UDP and TCP on a free port of 127.0.0.1 and two sockets in FOLDER, and prints a line
then. HOW is ``plain`` for a PortmapServer on Twisted's own transports, and ``fast`` for
PortmapperService, which uses the fast engine. It ends when its standard input does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.internet import asyncioreactor, epollreactor, pollreactor, selectreactor
from twisted.internet.protocol import Protocol
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from portmapd.config import Config
from portmapd.oncrpc.netid import format_address
from portmapd.portmapper.access import Policy
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.server.portmap_server import PortmapServer
from portmapd.service import PortmapperService
from tests.support.exchange import PATIENCE, free_port
from tests.support.host import Daemon

REACTORS = {
    "epoll": epollreactor.install,
    "poll": pollreactor.install,
    "select": selectreactor.install,
    "asyncio": asyncioreactor.install,
}
HOST = "127.0.0.1"
RPC_SOCKET, CHANNEL_SOCKET = "rpc.sock", "channel.sock"


@contextmanager
def reactor_server(reactor: str, how: str, folder: Path) -> Iterator[Daemon]:
    """Run the process in the block; it ends without an error after it.

    :param folder: where its sockets and its log are.
    """
    words = [sys.executable, "-m", "tests.support.reactor_server", reactor, how, str(folder)]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline(), log.read_text()
        try:
            yield Daemon(process, str(folder / RPC_SOCKET))
        finally:
            process.stdin.close()
            status = process.wait(PATIENCE)
    assert (status, log.read_text()) == (0, "")


def serve(name: str, how: str, folder: str) -> None:
    """Serve until the standard input ends."""
    REACTORS[name]()
    from twisted.internet import reactor
    from twisted.internet.stdio import StandardIO

    _log_errors()
    START[how](Path(folder))
    StandardIO(_Input())
    print("serving", flush=True)
    reactor.run()


class _Input(Protocol):
    """The standard input."""

    def connectionLost(self, reason: object = None) -> None:
        from twisted.internet import reactor

        reactor.stop()


def _log_errors() -> None:
    errors = LogLevelFilterPredicate(LogLevel.error)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [errors])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _serve_plain(folder: Path) -> None:
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
    from twisted.internet.interfaces import IReactorUDP

    registry = Registry()
    server = PortmapServer(registry, Policy(), reactor)
    port = free_port()
    registry.map(mapping(100000, 2, "udp", format_address(HOST, port)))
    IReactorUDP(reactor).listenUDP(port, server.datagramProtocol(HOST), HOST, 65_535)
    TCP4ServerEndpoint(reactor, port, interface=HOST).listen(server.streamFactory())
    UNIXServerEndpoint(reactor, str(folder / RPC_SOCKET)).listen(server.streamFactory())
    UNIXServerEndpoint(reactor, str(folder / CHANNEL_SOCKET)).listen(server.channelFactory())


def _serve_fast(folder: Path) -> None:
    from twisted.internet import reactor

    config = Config(
        port=0,
        interfaces=(HOST,),
        rpc_socket=str(folder / RPC_SOCKET),
        local_socket=str(folder / CHANNEL_SOCKET),
    )
    PortmapperService(config, reactor).startService()


START = {"plain": _serve_plain, "fast": _serve_fast}

if __name__ == "__main__":
    serve(*sys.argv[1:])
