"""Connections of the local channel."""

from __future__ import annotations

import os
import socket
from collections import Counter
from contextlib import suppress
from uuid import uuid4

from twisted.internet.defer import Deferred

from portmapd.channel.box import Box, BoxReader
from portmapd.errors import ConfigurationError, LimitExceeded
from portmapd.oncrpc.netid import LOCAL
from portmapd.portmapper.caller import Audience, Caller
from portmapd.registry.holder import Allowances
from portmapd.registry.registry import Registry
from portmapd.server.log_events import COMMAND_REFUSED, CONNECTION_REFUSED, PEER_GONE
from portmapd.server.peer_credentials import peer_credentials, peer_socket
from portmapd.server.peer_lookups import PeerLookups
from portmapd.server.peer_process import Process, Processes, read_executable
from portmapd.server.pipelining import PipelinedFactory, PipelinedProtocol
from portmapd.server.quota import Budget, Quota
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.session import ChannelContext, Peer, Session
from portmapd.server.turns import TurnQueue
from portmapd.server.watchers import Watchers

#: The most bytes that all connections together hold of boxes that are not finished, and of answers
#: that their peers do not read.
MAX_HELD = 67_108_864
#: What a connection may hold whose peer does not read: answers, and a request that waits.
UNREAD = 65_536
WAITING = 500


class ChannelProtocol(PipelinedProtocol[Box]):
    """One connection, and the process at its other end.

    :ivar uid: the user who connected.
    :ivar pid: the process that connected.
    """

    factory: ChannelFactory
    uid: int
    pid: int
    #: The UNIX socket; None if the connection has none, and is refused.
    _socket: socket.socket | None = None
    _session: Session | None = None
    _process: Process | None = None
    #: How many bytes it holds because its peer does not read.
    _unread = 0
    #: How many bytes it holds in all, as far as they are counted.
    _held = 0

    def connectionMade(self) -> None:
        self._reader = BoxReader()
        try:
            skt = peer_socket(self.transport)
            self.pid, self.uid, _ = peer_credentials(skt)
        except ConfigurationError as error:
            self.factory.refuse(self, error)
            return
        self._socket = skt
        try:
            self._session = self.factory.open(self)
        except PermissionError as error:
            self.factory.log_refused(self, str(error))
            self.end()
            return
        except OSError as error:
            self.factory.log.log(CONNECTION_REFUSED, pid=self.pid, why=str(error))
            self.end()
            return
        self.transport.registerProducer(self, True)

    def look_up(self) -> None:
        """Look up the process, and its executable."""
        with suppress(ProcessLookupError):
            # A connection whose framing is lost has no session, but still ends with its process.
            self.join()
            if self._session is not None:
                self._session.find_executable()

    def join(self) -> Allowances:
        if self._process is None:
            assert self._socket is not None
            try:
                self._process = self.factory.processes.join(self, self._socket, self.pid)
            except OSError as error:
                self.factory.log.log(PEER_GONE, pid=self.pid, why=str(error))
                self.end()
                raise ProcessLookupError(f"pid {self.pid} is gone") from error
        return self._process.allowances

    def read_executable(self) -> str:
        return read_executable(self.pid, self._process.pidfd) if self._process is not None else ""

    def dataReceived(self, data: bytes) -> None:
        self.take(self._reader.feed(data))
        if self._reader.unfinished + self._unread != self._held:
            self._count_held()
        if self._broken:
            # What it holds is gone at once, whether it reads its answers or not.
            self.drop()
            self._serve()

    def answer(self, request: Box) -> bytes:
        return self._session.answer(request) if self._session is not None else b""

    def broke(self, fault: str) -> None:
        if self._session is not None:
            self.factory.log_malformed(self, fault)
        self._end_session()

    def _count_held(self) -> None:
        """Count what the connection holds by now; with too much, it ends."""
        more = self._reader.unfinished + self._unread - self._held
        try:
            self.factory.held.take(self.uid, more)
        except LimitExceeded as error:
            self.factory.log_refused(self, str(error))
            # Its session ends later: a change of the registry may be under way.
            super().end()
        else:
            self._held += more

    def pauseProducing(self) -> None:
        if self._session is not None:
            self._session.pause()
        super().pauseProducing()
        if not self._unread:
            self._unread = UNREAD + WAITING * len(self._waiting or ())
            self._count_held()

    def resumeProducing(self) -> None:
        if self._unread:
            self._unread = 0
            self._count_held()
        if self._session is not None:
            self._session.resume()
        super().resumeProducing()

    def end(self) -> None:
        self._end_session()
        super().end()

    def connectionLost(self, reason: object = None) -> None:
        self.drop()
        self._end_session()
        if self._socket is not None:
            self.factory.held.take(self.uid, -self._held)
            self.factory.leave(self, self._process)
        self._process = None
        self.factory.discard(self)

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.end()
            # It refers to this connection: the cycle would wait for the collector.
            self._session = None


class ChannelFactory(PipelinedFactory[ChannelProtocol]):
    """The connections of one UNIX socket, or of several.

    :param registry: what they register in.
    :param processes: the processes at their other ends.
    :param peer_lookups: the connections whose processes have not been looked up yet.
    :param log: is told who sends malformed boxes, and who is refused.
    :param turns: where connections wait whose commands take longer than a turn.
    :param limit: the most descriptors that connections and processes may take; further connections
        are closed at once. Users are limited to a share, see :class:`Quota`.
    :param refusals: what was refused, by the code of the refusal; None: nobody asks.
    :ivar processes: the processes at their other ends.
    :ivar log: bounds the lines of its connections.
    :ivar held: bounds the memory that connections hold.
    """

    def __init__(
        self,
        registry: Registry,
        processes: Processes,
        peer_lookups: PeerLookups,
        log: RateLimitedLog,
        turns: TurnQueue,
        limit: int,
        refusals: Counter[str] | None = None,
    ) -> None:
        super().__init__(turns)
        self.processes = processes
        #: The superuser need not leave any to others, nor the user whose daemon it is.
        self._unlimited = frozenset({0, os.geteuid()})
        self.held = Budget(
            "bytes of unfinished boxes and unread answers", MAX_HELD, self._unlimited
        )
        self._context = ChannelContext(
            registry,
            Watchers(registry, self._unlimited, turns),
            instance=uuid4().hex,
            limit=processes.max_services,
            refused=self._log_refused,
            refusals=Counter() if refusals is None else refusals,
        )
        self._peer_lookups = peer_lookups
        self.log = log
        self._limit = limit
        self._shares = Quota(limit)

    def buildProtocol(  # type: ignore[override] # Twisted's own type allows any factory
        self, addr: object
    ) -> ChannelProtocol | None:
        if self.is_closed or (self._is_full() and self._is_full_of_known()):
            return None
        channel = ChannelProtocol()
        channel.factory = self
        self.streams.add(channel)
        return channel

    def _is_full(self) -> bool:
        """Are there too many descriptors, with those that the lookups may take?"""
        return self._room() <= 0

    def _room(self) -> int:
        """How many further descriptors there is room for, besides those of lookups to come."""
        taken = len(self.streams) + len(self.processes) + len(self._peer_lookups)
        return self._limit - taken

    def _is_full_of_known(self) -> bool:
        """Are there too many descriptors after every lookup? Most are of processes known before."""
        self._peer_lookups.clear()
        return self._is_full()

    def open(self, channel: ChannelProtocol) -> Session:
        """The session of a new connection.

        :raises ProcessLookupError: its process has ended.
        :raises PermissionError: its user has too many connections.
        """
        if channel.uid not in self._unlimited:
            self._check_share(channel.uid)
        if not self.processes.has_peer_pidfd:
            channel.join()
        self._peer_lookups.add(channel)
        return self._context.open(channel)

    def _check_share(self, uid: int) -> None:
        """Take a connection of the user's share.

        :raises PermissionError: there is none for it.
        """
        if 2 * self._room() < self._limit:
            self._peer_lookups.clear()
        if not self._shares.take(uid, self._room()):
            raise PermissionError("this user, or all users but root, have too many connections")

    def leave(self, channel: ChannelProtocol, process: Process | None) -> None:
        """Undo what was done in :meth:`open`.

        :param process: the process that *channel* joined; None if it joined none.
        """
        self._peer_lookups.discard(channel)
        if channel.uid not in self._unlimited:
            self._shares.give_back(channel.uid)
        if process is not None:
            self.processes.leave(channel, process)

    def log_refused(self, channel: ChannelProtocol, why: str) -> None:
        """*channel* is closed, for others."""
        caller = Caller(LOCAL, Audience.LOCAL, uid=channel.uid)
        self.log.sent_away(caller, f"{why} (pid {channel.pid})")

    def log_malformed(self, channel: ChannelProtocol, fault: str) -> None:
        """*channel* sent what is not a box."""
        caller = Caller(LOCAL, Audience.LOCAL, uid=channel.uid)
        self.log.malformed(caller, f"{fault} (pid {channel.pid})")

    def _log_refused(self, peer: Peer, command: str, why: str) -> None:
        self.log.log(COMMAND_REFUSED, command=command, uid=peer.uid, pid=peer.pid, why=why)

    def end(self) -> Deferred[None]:
        self._peer_lookups.stop()
        return super().end()
