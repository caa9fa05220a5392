"""What a new process has from the one whose place it takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from attrs import frozen

from portmapd.config import Config
from portmapd.errors import InvalidState
from portmapd.registry.image import without_holders
from portmapd.server.handed_in_sockets import HandedInSockets
from portmapd.server.handover.passed import PassedConnection, PassedSocket, Received


@frozen
class TakenOver:
    """All that was passed on.

    :param data: what the other process has made of itself, as a value of JSON.
    :param received: the descriptors that it refers to.
    :param touched: the places of connections of the local channel of which that is not true any
        more.
    """

    data: Mapping[str, Any]
    received: Received
    touched: frozenset[int] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether it is all that the other process had, rather than its local connections alone."""
        return "own" in self.data

    def without_touched(self) -> TakenOver:
        """The same without the connections that are touched, which are closed.

        Of the others, those that watch may have missed something.

        :raises InvalidState: a connection cannot be read.
        """
        if self.is_whole:
            return self
        gone: set[int | None] = set()
        listening = []
        for each in self.data["listening"]:
            streams = each["streams"]
            rows = [PassedConnection.decode(row) for row in streams["connections"]]
            for place in self.touched:
                gone.add(rows[place].holder)
                self._hang_up(rows[place])
            left = [row.unsure() for at, row in enumerate(rows) if at not in self.touched]
            streams = {**streams, "connections": [row.encode() for row in left]}
            listening.append({**each, "streams": streams})
        registry = without_holders(self.data["registry"], gone)
        return TakenOver({"listening": listening, "registry": registry}, self.received)

    def _hang_up(self, connection: PassedConnection) -> None:
        with suppress(OSError), self.received.socket(connection.stream.descriptor) as skt:
            # Its client must see the end, whoever else has it.
            skt.shutdown(socket.SHUT_RDWR)

    @property
    def sockets(self) -> Iterator[PassedSocket]:
        """The listening sockets.

        :raises InvalidState: they cannot be read.
        """
        try:
            return iter([PassedSocket(**row) for row in self.data["listening"]])
        except (KeyError, TypeError) as error:
            raise InvalidState(f"the sockets cannot be read: {error!r}") from error

    def lock(self, path: str) -> int | None:
        """The descriptor that keeps other processes from that state file, if it was passed on."""
        found = self.data.get("lock")
        return self.received.take(found[1]) if found and found[0] == path else None

    def handed_in(self) -> HandedInSockets:
        """Those that a service manager has handed to the first of all processes."""
        sockets = HandedInSockets()
        for passed in self.sockets:
            if not passed.is_made:
                self._take(sockets, passed)
        return sockets

    def add_made(self, sockets: HandedInSockets, config: Config) -> None:
        """Add those that a process has made itself, as far as they are served now.

        :param sockets: those that were handed in.
        """
        for passed in self.sockets:
            if passed.is_made and _is_served(passed, config):
                self._take(sockets, passed)
                sockets.made.add((passed.kind, passed.place))

    def _take(self, sockets: HandedInSockets, passed: PassedSocket) -> None:
        found = [self.received.socket(place) for place in passed.descriptors]
        if passed.is_internet:
            table = {"udp": sockets.udp, "tcp": sockets.tcp}[passed.kind]
            table[ip_address(passed.place)] = found
            sockets.port = passed.port
        else:
            (skt,) = found
            {"rpc": sockets.rpc, "channel": sockets.channel}[passed.kind][passed.place] = skt


def _is_served(passed: PassedSocket, config: Config) -> bool:
    if passed.is_internet:
        addresses = map(ip_address, config.addresses)
        return config.port in (0, passed.port) and ip_address(passed.place) in addresses
    served = {"rpc": config.rpc_socket, "channel": config.local_socket}[passed.kind]
    return passed.place.removeprefix("\0") == served
