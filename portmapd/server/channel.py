"""Connections of the local channel."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

from attrs import evolve
from twisted.internet.defer import Deferred

from portmapd.channel.box import Box, BoxReader, encode_box
from portmapd.channel.commands import CLUSTER_OVERFLOW_BOX
from portmapd.errors import ConfigurationError, LimitExceeded, NotAllowed
from portmapd.oncrpc.netid import LOCAL
from portmapd.portmapper.caller import Audience, Caller
from portmapd.registry.holder import Allowances, Holder
from portmapd.registry.registry import Registry
from portmapd.server.cluster import Cluster
from portmapd.server.handover.passed import (
    Descriptors,
    PassableTransport,
    PassedConnection,
    PassedStream,
    Received,
)
from portmapd.server.log_events import COMMAND_REFUSED, CONNECTION_REFUSED, PEER_GONE
from portmapd.server.peer_credentials import peer_credentials, peer_socket
from portmapd.server.peer_lookups import PeerLookups
from portmapd.server.peer_process import Process, Processes, read_executable
from portmapd.server.pipelining import PipelinedFactory, PipelinedProtocol
from portmapd.server.quota import Budget, Quota
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.session import (
    ChannelContext,
    Peer,
    Session,
    keeps_nothing,
    refuse_restart,
)
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
    #: Says that what a service manager keeps of it is not true any more; None: it keeps nothing.
    touched: Callable[[], object] | None = None

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
        if self.touched is not None:
            self.touched()
        self.take(self._reader.feed(data))
        if self._reader.unfinished + self._unread != self._held:
            self._count_held()
        if self._broken:
            # What it holds is gone at once, whether it reads its answers or not.
            self.drop()
            self._serve()

    @property
    def unanswered(self) -> bytes:
        requests = [encode_box(request) for request in self._waiting or ()]
        return b"".join([*requests, self._reader.pending])

    def pass_on(self, descriptors: Descriptors) -> PassedStream | None:
        return super().pass_on(descriptors) if self._session or self.is_closing else None

    def passed(self, stream: PassedStream, process: int | None) -> PassedConnection:
        """What another process needs to go on with the connection.

        :param stream: what it needs to go on with its stream.
        :param process: the place of its process.
        """
        holder, watch, cluster = self._session.pass_on() if self._session else (None, None, None)
        return PassedConnection(
            stream,
            process,
            self.factory.is_waiting(self),
            holder,
            watch,
            self.factory.restarts.get(self, ()),
            cluster,
        )

    @property
    def holder(self) -> Holder | None:
        """Its holder, if it holds or watches anything."""
        return None if self._session is None else self._session.holding

    @property
    def is_quiet(self) -> bool:
        """Whether it has nothing to answer, and nothing to send."""
        transport = cast("PassableTransport", self.transport)
        if not transport.is_passable or self.is_closing or self.is_busy:
            return False
        return not (self._reader.pending or transport.unsent)

    @property
    def process(self) -> Process | None:
        """The process at its other end; None: it was not looked up."""
        return self._process

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
            self._shut_down()
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
        self._shut_down()
        super().end()

    def _shut_down(self) -> None:
        """Have the peer see the end, though a service manager may have the connection, too."""
        if self.touched is not None and self._socket is not None:
            self.touched()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.touched is not None and cast("PassableTransport", self.transport).unsent:
            # A box of which a part is sent.
            self.touched()

    def hang_up(self) -> None:
        self._end_session()
        super().hang_up()

    def connectionLost(self, reason: object = None) -> None:
        if self.touched is not None:
            self.touched()
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


class ResumedChannel(ChannelProtocol):
    """A connection that another process has had.

    :param passed: what it was there.
    :param process: its process; None: it was not looked up.
    :param holder: its holder, which is open; None: it has none.
    """

    def __init__(
        self, passed: PassedConnection, process: Process | None, holder: Holder | None
    ) -> None:
        self._passed = passed
        self._process = process
        self._resumed_holder = holder

    def connectionMade(self) -> None:
        """Be what the connection was: all has been checked when it was made."""
        passed, factory = self._passed, self.factory
        self._reader = BoxReader()
        self._socket = skt = peer_socket(self.transport)
        self.pid, self.uid, _ = peer_credentials(skt)
        factory.resume(self, passed)
        if not passed.stream.is_closing:
            self._session = factory.new_session(self)
            self._session.take_over(self._resumed_holder, passed.watch, passed.cluster_watch)
            self.transport.registerProducer(self, True)
        self._resumed_holder = None

    @property
    def stream(self) -> PassedStream:
        """What its stream was."""
        return self._passed.stream

    @property
    def serial(self) -> int | None:
        """The serial of its holder."""
        return self._passed.holder


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
    :param behind: gives the seconds for which the newest changes have not been written to the file
        of mappings; None: none is kept.
    :param restart: begins a restart; None: there can be none.
    :param cluster: what the machines of a cluster share; None: there is no cluster.
    :ivar processes: the processes at their other ends.
    :ivar log: bounds the lines of its connections.
    :ivar restarts: the tags of requests for a restart that are not answered, by their connections.
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
        behind: Callable[[], float | None] = keeps_nothing,
        restart: Callable[[], object] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__(turns)
        self.processes = processes
        #: The superuser need not leave any to others, nor the user whose daemon it is.
        self._unlimited = frozenset({0, os.geteuid()})
        self.held = Budget(
            "bytes of unfinished boxes and unread answers", MAX_HELD, self._unlimited
        )
        self.restarts: dict[ChannelProtocol, list[bytes]] = {}
        self._restart = restart
        self._context = ChannelContext(
            registry,
            Watchers(registry, self._unlimited, turns),
            instance=uuid4().hex,
            limit=processes.max_services,
            behind=behind,
            refused=self._log_refused,
            refusals=Counter() if refusals is None else refusals,
            restart=refuse_restart if restart is None else self._begin_restart,
            cluster=cluster,
            cluster_watchers=None
            if cluster is None
            else Watchers(cluster.copy, self._unlimited, turns, CLUSTER_OVERFLOW_BOX),
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
        self.restarts.pop(channel, None)
        if channel.uid not in self._unlimited:
            self._shares.give_back(channel.uid)
        if process is not None:
            self.processes.leave(channel, process)

    # In place of another process, and in favour of one

    def is_waiting(self, channel: ChannelProtocol) -> bool:
        """Whether the process of *channel* is still to be looked up."""
        return channel in self._peer_lookups

    def keepable(self, limit: int) -> dict[ChannelProtocol, Holder]:
        """The connections that hold or watch anything, and say nothing just now.

        :param limit: how many there may be.
        :return: each with its holder, in the order of the holders' serials.
        """
        self.processes.finish()
        held = ((each, each.holder) for each in self.streams if each.is_quiet)
        found = [(each, holder) for each, holder in held if holder is not None]
        return dict(sorted(found, key=lambda pair: pair[1].serial)[:limit])

    def pass_on(
        self, descriptors: Descriptors, channels: Iterable[ChannelProtocol] | None = None
    ) -> dict[str, Any]:
        """What another process needs to go on with connections, as a value of JSON.

        :param channels: the connections; None: all.
        """
        self.processes.finish()
        places: dict[Process, int] = {}
        rows: list[Any] = []
        processes: list[Any] = []
        for channel in tuple(self.streams) if channels is None else channels:
            stream = channel.pass_on(descriptors)
            if stream is None:
                continue
            process = channel.process
            if process is not None and process not in places:
                places[process] = len(processes)
                pidfd = None if process.pidfd is None else descriptors.add(process.pidfd)
                processes.append([process.key[0], pidfd])
            place = None if process is None else places[process]
            rows.append(channel.passed(stream, place).encode())
        return {"instance": self._context.instance, "processes": processes, "connections": rows}

    def take_over(
        self,
        data: Mapping[str, Any],
        received: Received,
        holders: Mapping[int, Holder],
    ) -> Iterator[tuple[socket.socket, ResumedChannel]]:
        """The connections of another process, each to be made with its socket.

        :param holders: the holders, which are open, by their serials.
        :raises InvalidState: the data cannot be read.
        """
        self._context = evolve(self._context, instance=data["instance"])
        processes = [
            self.processes.take_over(pid, None if place is None else received.take(place))
            for pid, place in data["processes"]
        ]
        for row in data["connections"]:
            passed = PassedConnection.decode(row)
            process = None if passed.process is None else processes[passed.process]
            holder = None if passed.holder is None else holders[passed.holder]
            if holder is not None and process is not None:
                holder.allowances = process.allowances
            channel = ResumedChannel(passed, process, holder)
            channel.factory = self
            if process is not None:
                process.connections[channel] = None
            yield received.socket(passed.stream.descriptor), channel

    def resume(self, channel: ResumedChannel, passed: PassedConnection) -> None:
        """Count a connection that another process has had."""
        self.streams.add(channel)
        if channel.uid not in self._unlimited:
            self._shares.take(channel.uid, self._room())
        if passed.is_waiting:
            self._peer_lookups.add(channel)
        if passed.restarts:
            self.restarts[channel] = list(passed.restarts)

    def new_session(self, channel: ChannelProtocol) -> Session:
        """A session of which nothing is known yet."""
        return Session(self._context, channel)

    def _begin_restart(self, peer: Peer, tag: bytes | None) -> None:
        if peer.uid not in self._unlimited:
            raise NotAllowed(f"only root and uid {os.geteuid()} may restart the port mapper")
        assert self._restart is not None
        assert isinstance(peer, ChannelProtocol)
        self.restarts.setdefault(peer, []).extend([] if tag is None else [tag])
        self._restart()

    def restarted(self, answer: Callable[[bytes], bytes]) -> None:
        """A restart has ended, somehow: answer those who have asked for it.

        :param answer: makes the box that answers the request with a tag.
        """
        restarts, self.restarts = self.restarts, {}
        for channel, tags in restarts.items():
            channel.send(b"".join(map(answer, tags)))

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

    def close(self) -> Deferred[None]:
        self._peer_lookups.stop()
        # The end of each connection would be told to all those that are not closed yet.
        self._context.watchers.close()
        if self._context.cluster_watchers is not None:
            self._context.cluster_watchers.close()
        return super().close()
