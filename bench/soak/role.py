"""What a process does beside the server that is measured."""

import socket
from collections.abc import Callable, Iterator

from attrs import frozen

from bench.servers import HOST
from tests.support.exchange import connect
from tests.support.talk import Talk

#: The users that the processes are: what one takes is not to be missed by another one.
ORDINARY, HOSTILE, CROWD = 60_001, 60_002, 60_010

#: Seconds after which a datagram is lost.
LOST = 1.0


@frozen
class Target:
    """Where the server is.

    :param port: its UDP and its TCP port.
    :param path: the socket of its local channel; empty: it has none.
    :param scale: the share of the connections and mappings that a role has otherwise.
    """

    port: int
    path: str
    scale: float

    def datagrams(self) -> socket.socket:
        """A UDP socket that is connected to it."""
        skt = connect(socket.SOCK_DGRAM, HOST, self.port)
        skt.settimeout(LOST)
        return skt

    def stream(self) -> socket.socket:
        """A TCP connection to it."""
        return connect(socket.SOCK_STREAM, HOST, self.port)

    def talk(self) -> Talk:
        """A connection to its local channel."""
        skt = socket.socket(socket.AF_UNIX)
        # It waits for room among those that are not accepted yet; with a timeout it would not.
        skt.connect(self.path)
        return Talk(skt)

    def some(self, count: int) -> range:
        """That many, scaled; at least one."""
        return range(max(1, round(count * self.scale)))


class Unserved(Exception):
    """The server did not do what was asked of it."""


#: Does a round at each step. If one fails, it is called anew.
Rounds = Callable[[Target], Iterator[None]]


@frozen
class Role:
    """What one process does, round after round.

    :param rounds: the rounds.
    :param uid: the user that it is.
    :param period: seconds from the beginning of one round to that of the next; 0: no rest.
    :param is_rpc: whether it needs nothing but program 100000, so that rpcbind can meet it, too.
    :param mappings: how many there are before.
    :param options: of the daemon.
    """

    rounds: Rounds
    uid: int = HOSTILE
    period: float = 0.0
    is_rpc: bool = False
    mappings: int = 10
    options: tuple[str, ...] = ()
