"""A connection to the daemon that is made again when it breaks, and what stands through it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from portmapd.channel import commands as c
from portmapd.channel.box import Box
from portmapd.client.connecting import QueueEndpoint, Single, sentence
from portmapd.client.link import Link
from portmapd.client.patience import FIRST_WAIT, JITTER, LONGEST_WAIT
from portmapd.client.restoring import restore
from portmapd.client.standing import RETRY_WAIT, Group, Lost, Refused, Standing
from portmapd.errors import ClientClosed, DaemonUnreachable, PortmapdError
from portmapd.oncrpc.netid import MAX_PATH

#: How long the daemon has to greet on a connection, in seconds.
GREETING_TIMEOUT = 10.0


class LastingLink:
    """One client's connection to the daemon.

    There is one attempt to connect at a time, and it belongs to no operation: those that need the
    connection wait for it, and may give up waiting without harm to the others.

    :param lost: is told what could not be restored; None: the log is.
    :param opened: is given every new connection, once everything stands again.
    :param event: is given the daemon's events.
    :param needed: must the connection be made again, though nothing stands?
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        path: str,
        lost: Lost | None,
        opened: Callable[[Link], object],
        event: Callable[[Box], object],
        needed: Callable[[], bool],
    ) -> None:
        self.path = path
        self.standing = Standing()
        self.is_closed = False
        self._reactor = reactor
        self._report = lost
        self._opened = opened
        self._event = event
        self._needed = needed
        self._link: Link | None = None
        self._attempt: Deferred[Link] | None = None
        self._waiting: list[Deferred[Link]] = []
        self._later: IDelayedCall | None = None
        self._wait = FIRST_WAIT
        #: Connections that are not closed yet, and who waits for that.
        self._links: set[Link] = set()
        self._closing: list[Deferred[None]] = []

    async def open(self) -> Link:
        """The connection, on which everything stands.

        :raises DaemonUnreachable: there is no daemon, or the application has closed its client.
        """
        if self.is_closed:
            raise self.closed()
        if self._link is None:
            waiting: Deferred[Link] = Deferred()
            self._waiting.append(waiting)
            self._begin()
            return await waiting
        if self._link.is_inherited:
            raise DaemonUnreachable(
                "the connection to the daemon belongs to the process that this one was forked "
                "from; make a Portmapper of its own"
            )
        return self._link

    def closed(self) -> ClientClosed:
        """What operations fail with that come too late."""
        return ClientClosed(f"the client of {self.path} is closed; make another Portmapper")

    # One attempt to connect

    def _begin(self) -> None:
        if self._attempt is None:
            self._attempt = attempt = Deferred.fromCoroutine(self._connect())
            attempt.addCallbacks(self._connected, self._failed, (attempt,), {}, (attempt,))

    async def _connect(self) -> Link:
        link = await self._dial()
        self._links.add(link)
        try:
            await self._greet(link)
            lost = await restore(link, self.standing, self._pause)
        except BaseException:
            link.close(self._unanswered())
            raise
        self._lost(lost)
        return link

    async def _dial(self) -> Link:
        self._check_path()
        link = Link(self.path, self._event, self._broken)
        try:
            await QueueEndpoint(self._reactor, self.path).connect(Single(link))
        except (ConnectError, OSError) as error:
            raise DaemonUnreachable(
                f"no daemon answers at {self.path} ({sentence(error)}); is portmapd running there?"
            ) from error
        return link

    def _check_path(self) -> None:
        """Twisted would log an error instead, and fail later."""
        if len(os.fsencode(self.path)) > MAX_PATH or "\0" in self.path:
            raise DaemonUnreachable(
                f"no daemon can be at {self.path!r}: the path of a socket has at most {MAX_PATH} "
                "bytes, none of them 0"
            )

    async def _greet(self, link: Link) -> None:
        """Be sure that it is a daemon, and one that speaks our version."""
        hello = link.ask(c.HELLO, {"version": c.VERSION})
        try:
            await hello.addTimeout(GREETING_TIMEOUT, self._reactor)
        except defer.TimeoutError:
            raise self._unanswered() from None

    def _unanswered(self) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"what listens at {self.path} does not answer; is that portmapd's socket?"
        )

    def _pause(self) -> Deferred[None]:
        return deferLater(self._reactor, RETRY_WAIT)

    def _lost(self, refused: list[Refused]) -> None:
        for group, why in refused:
            self.standing.discard(group)
            # Not at once: the application may do anything in there.
            self._reactor.callLater(0, self._tell, group, why)

    def _tell(self, group: Group, why: PortmapdError) -> None:
        try:
            if self._report is not None:
                self._report(group, why)
            else:
                self._log.warn("{group} could not be restored: {why}", group=group, why=why)
        except Exception:
            self._log.failure("the callback for what was lost failed")

    def _connected(self, link: Link, attempt: Deferred[Link]) -> None:
        if self._attempt is attempt:
            self._attempt = None
            self._link = link
            self._wait = FIRST_WAIT
            self._opened(link)
            for waiting in self._take_waiting():
                waiting.callback(link)

    def _failed(self, failure: Failure, attempt: Deferred[Link]) -> None:
        if self._attempt is attempt:
            self._attempt = None
            if not failure.check(PortmapdError):
                self._log.failure("connecting failed", failure)
            for waiting in self._take_waiting():
                waiting.errback(failure)
            self.try_later()

    def _take_waiting(self) -> list[Deferred[Link]]:
        taken, self._waiting = self._waiting, []
        return taken

    # Its end

    def _broken(self, link: Link) -> None:
        self._links.discard(link)
        if self._link is link:
            self._link = None
        if not self._links:
            closing, self._closing = self._closing, []
            for waiting in closing:
                waiting.callback(None)
        self.try_later()

    def try_later(self) -> None:
        """Connect again after a while, if there is no connection, and anything needs one."""
        idle = self._link is None and self._attempt is None and self._later is None
        if idle and not self.is_closed and (self.standing or self._needed()):
            spread = 1 + JITTER * (random.random() - 0.5)
            self._later = self._reactor.callLater(self._wait * spread, self._try)
            self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _try(self) -> None:
        self._later = None
        if self._link is None:
            self._begin()

    def abandon(self) -> None:
        """Break the connection: nothing that was registered through it stands any more.

        Operations that wait for it get another one.
        """
        self.standing.clear()
        self._drop(
            DaemonUnreachable(
                f"the connection to the daemon at {self.path} was closed, for another operation "
                "was cancelled or terminated"
            )
        )
        if any(not waiting.called for waiting in self._waiting):
            self._begin()
        self.try_later()

    def _drop(self, why: DaemonUnreachable) -> None:
        link, self._link = self._link, None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        if link is not None:
            link.close(why)

    def close(self) -> Deferred[None]:
        """End it all; the Deferred fires once the connection is closed."""
        self.is_closed = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self.standing.clear()
        self._drop(self.closed())
        for waiting in self._take_waiting():
            waiting.errback(self.closed())
        if not self._links:
            return defer.succeed(None)
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        return done
