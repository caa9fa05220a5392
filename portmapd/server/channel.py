"""Connections of the local channel, and all of one socket's."""

import os
from contextlib import suppress
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from portmapd.channel.box import Box, BoxReader
from portmapd.oncrpc.netid import LOCAL
from portmapd.portmapper.caller import Audience, Caller
from portmapd.registry.holder import Allowance
from portmapd.registry.registry import Registry
from portmapd.server.peer_credentials import peer_credentials
from portmapd.server.peer_lookups import PeerLookups
from portmapd.server.peer_process import Process, Processes, read_executable
from portmapd.server.pipelining import PipelinedProtocol
from portmapd.server.quota import Quota
from portmapd.server.rate_limited_log import RateLimitedLog
from portmapd.server.session import Daemon, Session
from portmapd.server.watchers import Watchers


class Channel(PipelinedProtocol[Box]):
    """One connection, and the process at the other end of it."""

    factory: "ChannelFactory"
    _log = Logger()
    _session: Session | None = None
    _process: Process | None = None

    def connectionMade(self) -> None:
        self._reader = BoxReader()
        peer = peer_credentials(self.transport.getHandle())
        self.uid, self.pid = peer.uid, peer.pid
        try:
            self._session = self.factory.open(self)
        except OSError as error:
            self._log.debug("pid {pid} was not let in: {error}", pid=self.pid, error=error)
            self.end()
            return
        self.transport.registerProducer(self, True)

    def look(self) -> None:
        """Look at the process, which others may be waiting for."""
        with suppress(ProcessLookupError):
            # A connection that broke the language has no session, and ends with its process, too.
            self.join()
            if self._session is not None:
                self._session.find_executable()

    def join(self) -> Allowance:
        if self._process is None:
            try:
                self._process = self.factory.join(self)
            except OSError as error:
                self._log.debug("pid {pid} is gone: {error}", pid=self.pid, error=error)
                self.end()
                raise ProcessLookupError(f"pid {self.pid} is gone") from error
        return self._process.allowance

    def read_executable(self) -> str:
        return read_executable(self.pid, self._process.pidfd) if self._process is not None else ""

    def dataReceived(self, data: bytes) -> None:
        self.take(self._reader.feed(data))
        if self._broken:
            # What it holds is gone at once, whether it reads its answers or not.
            self.drop()
            self._serve()

    def answer(self, request: Box) -> bytes:
        return self._session.answer(request) if self._session is not None else b""

    def broke(self, fault: str) -> None:
        if self._session is not None:
            self.factory.complain(self, fault)
        self._close()

    def pauseProducing(self) -> None:
        if self._session is not None:
            self._session.pause()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        if self._session is not None:
            self._session.resume()
        super().resumeProducing()

    def end(self) -> None:
        """End the connection and all that it holds, whatever it has still to say."""
        self._close()
        self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        self._close()
        self.factory.closed(self, self._process)
        self._process = None

    def _close(self) -> None:
        if self._session is not None:
            self._session.end()
            # It leads back here: without it, nothing has to wait for the collector.
            self._session = None


class ChannelFactory(Factory):
    """The connections of one socket.

    :param registry: what they register in.
    :param processes: whose they are.
    :param peer_lookups: those whose process nobody has looked at.
    :param rate_limited_log: is told of those that break the language.
    :param limit: the most descriptors that connections and processes may take; further connections
        are closed at once. One user may have a quarter of them.
    """

    noisy = False

    def __init__(
        self,
        registry: Registry,
        processes: Processes,
        peer_lookups: PeerLookups,
        rate_limited_log: RateLimitedLog,
        limit: int,
    ) -> None:
        self._daemon = Daemon(registry, Watchers(registry), uuid4().hex, processes.limit)
        self._processes = processes
        self._newcomers = peer_lookups
        self._complaints = rate_limited_log
        self._limit = limit
        #: The superuser need not leave any to others, nor the user whose daemon it is.
        self._unlimited = frozenset({0, os.geteuid()})
        self._shares = Quota(limit)
        self._open: set[Channel] = set()
        self._emptied: list[Deferred[None]] = []

    def buildProtocol(self, addr: Any) -> Any:
        if self._descriptors >= self._limit:
            # Most of them have come from processes that are known.
            self._newcomers.clear()
            if self._descriptors >= self._limit:
                return None
        channel = Channel()
        channel.factory = self
        self._open.add(channel)
        return channel

    @property
    def _descriptors(self) -> int:
        """How many there are, and may be once every newcomer's process is known."""
        return len(self._open) + len(self._processes) + len(self._newcomers)

    def open(self, channel: Channel) -> Session:
        """The session of a new connection.

        :raises ProcessLookupError: its process has ended.
        :raises PermissionError: its user has too many.
        """
        if channel.uid not in self._unlimited and not self._shares.take(channel.uid):
            raise PermissionError(f"uid {channel.uid} has too many connections")
        if not self._processes.has_peer_pidfd:
            channel.join()
        self._newcomers.add(channel)
        return self._daemon.open(channel)

    def join(self, channel: Channel) -> Process:
        """The process of *channel*, which it has from now on.

        :raises OSError: it has ended, or there are no descriptors left.
        """
        return self._processes.join(channel, channel.transport.getHandle(), channel.pid)

    def closed(self, channel: Channel, process: Process | None) -> None:
        """*channel* has ended; *process* is the one that it joined."""
        self._newcomers.discard(channel)
        if channel.uid not in self._unlimited:
            self._shares.give_back(channel.uid)
        if process is not None:
            self._processes.leave(channel, process)
        self._open.discard(channel)
        self._tell_emptied()

    def complain(self, channel: Channel, fault: str) -> None:
        """*channel* broke the language."""
        caller = Caller(LOCAL, Audience.LOCAL, uid=channel.uid)
        self._complaints.malformed(caller, f"{fault} (pid {channel.pid})")

    def end(self) -> Deferred[None]:
        """End every connection; the deferred fires when they are closed."""
        self._newcomers.stop()
        for channel in tuple(self._open):
            channel.end()
        emptied = Deferred[None]()
        self._emptied.append(emptied)
        self._tell_emptied()
        return emptied

    def _tell_emptied(self) -> None:
        while self._emptied and not self._open:
            self._emptied.pop().callback(None)
