"""Where a program is, as a port mapper tells."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from attrs import frozen

from portmapd.cli.exit import REFUSED, Exit
from portmapd.cli.rpc.server import Server, reachable, transport_of, universal_server
from portmapd.client.blocking import PortmapClient
from portmapd.client.blocking.connection import run
from portmapd.client.rpc.blocking import ThreadWaiter
from portmapd.client.rpc.wire import MAX_ADDRESSES
from portmapd.errors import CallTimedOut, DaemonUnreachable, PortmapdError
from portmapd.oncrpc.netid import NETIDS, Netid, format_address


@frozen
class Address:
    """Where a program is called.

    :param netid: its netid.
    :param server: its address.
    """

    netid: str
    server: Server

    def __str__(self) -> str:
        server = self.server
        return server.host if server.is_local else format_address(server.host, server.port)


@frozen
class Wanted:
    """How a program is found.

    :param netids: over which of them it is sought, in this order.
    :param port: its port, which nobody is asked for; None: the port mapper is asked.
    :param ends: when it must be found, in seconds of the monotonic clock.
    """

    server: Server
    program: int
    version: int
    netids: Sequence[Netid]
    port: int | None
    ends: float

    def address(self) -> Address:
        """The first address that there is.

        :raises Exit: it is registered on none of the netids.
        :raises PortmapdError: the port mapper does not say.
        """
        places = [*self._places()]
        error: PortmapdError | None = None
        for count, (netid, host) in zip(range(len(places), 0, -1), places, strict=True):
            if self.port is not None:
                return Address(netid.name, Server(host, self.port))
            try:
                found = self._asked(netid, host, (self.ends - time.monotonic()) / count)
            except (DaemonUnreachable, CallTimedOut) as why:
                error = why
            else:
                if found:
                    at = universal_server(netid.name, found)
                    return Address(netid.name, reachable(at, host))
        raise error or self._not_registered(places)

    def _asked(self, netid: Netid, host: str, seconds: float) -> str:
        if seconds <= 0:
            raise CallTimedOut("there was no time left to ask the port mapper")
        transport = transport_of(netid.name)
        with PortmapClient(host, self.server.port or 1, transport, seconds) as client:
            return client.getaddr(self.program, self.version)

    def _places(self) -> Iterator[tuple[Netid, str]]:
        """Each netid with each address of the host that is of its family."""
        if self.server.is_local:
            yield NETIDS["local"], self.server.host
            return
        hosts = self._hosts()
        families = {netid.family for netid in self.netids}
        if not any(_family(host) in families for host in hosts):
            wanted = ", ".join(netid.name for netid in self.netids)
            raise DaemonUnreachable(f"{self.server.host} has no address for netid {wanted}")
        for netid in self.netids:
            yield from ((netid, host) for host in hosts if _family(host) == netid.family)

    def _hosts(self) -> list[str]:
        try:
            found = run(ThreadWaiter().resolve(self.server.host, self.server.port, self.ends))
        except OSError as error:
            why = f"{self.server.host} cannot be reached: {error.strerror}"
            raise DaemonUnreachable(why) from error
        return list(dict.fromkeys(str(row[4][0]) for row in found))[:MAX_ADDRESSES]

    def _not_registered(self, places: Sequence[tuple[Netid, str]]) -> Exit:
        over = " or ".join(dict.fromkeys(netid.name for netid, _ in places))
        return Exit(
            REFUSED,
            f"program {self.program} is not registered over {over} with the port mapper of "
            f"{self.server.host}; portmapctl rpc list shows what is",
        )


def _family(host: str) -> str:
    return "inet6" if ":" in host else "inet"
