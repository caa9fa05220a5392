"""A connection to the daemon that is made again when it breaks, and what stands through it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from portmapd.channel import command as c
from portmapd.channel.box import Box
from portmapd.client.link import Link
from portmapd.client.standing import Group, Standing
from portmapd.errors import AlreadyRegistered, DaemonUnreachable, PortmapdError, Refusal

#: How long a connection may take, in seconds.
CONNECT_TIMEOUT = 10.0
#: The wait before the first attempt to connect again, in seconds; it doubles up to the longest.
FIRST_WAIT = 0.05
LONGEST_WAIT = 2.0
#: How far a wait is spread around its length, so that not all clients come at once.
JITTER = 0.5
#: How often, and after how many seconds, what is taken is tried again: our own broken connection
#: may hold it for a moment longer.
RETRIES = 5
RETRY_WAIT = 0.1

#: Is told of a group that could not be registered again, and why.
Lost = Callable[[Group, PortmapdError], object]


class LastingLink:
    """One client's connection to the daemon.

    :param lost: is told what could not be restored; None: the log is.
    :param opened: is run on every new connection, once everything stands again.
    :param event: is given the daemon's events.
    :param needed: must the connection be made again, though nothing stands?
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        path: str,
        lost: Lost | None,
        opened: Callable[[Link], Deferred[None]],
        event: Callable[[Box], object],
        needed: Callable[[], bool],
    ) -> None:
        self.path = path
        self.standing = Standing()
        self._reactor = reactor
        self._report = lost
        self._opened = opened
        self._event = event
        self._needed = needed
        self._lock = DeferredLock()
        self._link: Link | None = None
        self._later: IDelayedCall | None = None
        self._wait = FIRST_WAIT
        self._closed: list[Deferred[None]] = []

    async def ask(self, command: c.Command, values: Mapping[str, Any]) -> dict[str, Any]:
        """Ask *command*, on a connection that is made if there is none.

        :raises Refusal: the daemon refuses.
        :raises DaemonUnreachable: there is no daemon, or the connection broke before it answered.
        """
        link = await self.open()
        return await link.ask(command, values)

    async def open(self) -> Link:
        """The connection, on which everything stands.

        :raises DaemonUnreachable: there is no daemon.
        """
        if self._link is not None:
            return self._link
        await self._lock.acquire()
        try:
            if self._link is None:
                self._link = await self._connect()
                self._wait = FIRST_WAIT
            return self._link
        finally:
            self._lock.release()

    async def _connect(self) -> Link:
        endpoint = UNIXClientEndpoint(self._reactor, self.path, CONNECT_TIMEOUT)
        link = Link(self.path, self._event, self._broken)
        try:
            await connectProtocol(endpoint, link)
        except (ConnectError, OSError) as error:
            raise DaemonUnreachable(
                f"no daemon answers at {self.path} ({error}); is portmapd running there?"
            ) from error
        try:
            await self._restore(link)
            await self._opened(link)
        except BaseException:
            link.close()
            raise
        return link

    async def _restore(self, link: Link) -> None:
        for group in self.standing:
            try:
                await register(link, group, self._pause)
            except Refusal as refusal:
                self.standing.discard(group)
                self._tell(group, refusal)

    def _pause(self) -> Deferred[None]:
        return deferLater(self._reactor, RETRY_WAIT)

    def _tell(self, group: Group, why: PortmapdError) -> None:
        try:
            if self._report is not None:
                self._report(group, why)
            else:
                self._log.warn("{group} could not be restored: {why}", group=group, why=why)
        except Exception:
            self._log.failure("the callback for what was lost failed")

    def _broken(self, link: Link) -> None:
        if self._link is link:
            self._link = None
        closed, self._closed = self._closed, []
        for waiting in closed:
            waiting.callback(None)
        self.try_later()

    def try_later(self) -> None:
        """Connect again after a while, if anything needs it."""
        if self._later is None and (self.standing or self._needed()):
            spread = 1 + JITTER * (random.random() - 0.5)
            self._later = self._reactor.callLater(self._wait * spread, self._try)
            self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _try(self) -> None:
        self._later = None
        attempt = Deferred.fromCoroutine(self.open())
        attempt.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if not failure.check(PortmapdError):
            self._log.failure("connecting failed", failure)
        self.try_later()

    def abandon(self) -> None:
        """Break the connection: nothing that was registered through it stands any more."""
        self.standing.clear()
        if self._link is not None:
            self._link.close()

    def close(self) -> Deferred[None]:
        """End it all; the Deferred fires once the connection is closed."""
        done: Deferred[None] = Deferred()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._link is None:
            done.callback(None)
        else:
            self._closed.append(done)
        self.abandon()
        return done


async def register(link: Link, group: Group, pause: Callable[[], Deferred[None]]) -> None:
    """Register *group* on *link*, all or nothing.

    :param pause: waits between two attempts.
    :raises Refusal: the daemon refuses.
    """
    for attempt in range(RETRIES, -1, -1):
        try:
            await register_once(link, group)
        except AlreadyRegistered:
            if not attempt:
                raise
            await pause()
        else:
            return


async def register_once(link: Link, group: Group) -> None:
    """Register *group* on *link*, all or nothing; :exc:`Refusal` is raised for nothing."""
    if group.services:
        await link.ask(c.REGISTER, {"services": group.services})
    if not group.mappings:
        return
    try:
        await link.ask(c.SET_MAPPINGS, {"mappings": group.mappings})
    except Refusal:
        if group.services:
            keys = [registration[:2] for registration in group.services]
            await link.ask(c.DEREGISTER, {"services": keys})
        raise
