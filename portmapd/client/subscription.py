"""Watchers of one client, over one connection after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from portmapd.channel import commands as c
from portmapd.channel.box import Box
from portmapd.client.asking import pages
from portmapd.client.census import Census
from portmapd.client.link import Link
from portmapd.client.values import Change, Service, change_of, mapping_of, service_of
from portmapd.client.watching import Subject, View
from portmapd.errors import DaemonUnreachable, PortmapdError

#: The most bytes of names that the daemon is asked to watch; beyond that, it is asked for all.
MAX_NAMES = 32_768


class Watching(AsyncIterator[Change]):
    """An asynchronous iterator of changes, from what is registered now on.

    It goes on, over the daemon's restarts, until it is closed.
    """

    def __init__(self, view: View, closed: Callable[[Watching], object]) -> None:
        self.view = view
        self._closed = closed
        self._waiting: Deferred[None] | None = None
        self._ended = False
        self._error: PortmapdError | None = None

    def __aiter__(self) -> Watching:
        return self

    async def __anext__(self) -> Change:
        """The next change.

        :raises PortmapdError: the daemon refuses to be watched.
        :raises RuntimeError: the next change is waited for already.
        """
        while not self.view.changes:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            if self._waiting is not None:
                raise RuntimeError("another next change is waited for already")
            self._waiting = Deferred()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self.view.changes.popleft()

    def wake(self) -> None:
        """There are changes, or the end."""
        waiting = self._waiting
        if waiting is not None and not waiting.called and (self.view.changes or self._ended):
            waiting.callback(None)

    def close(self) -> None:
        """Watch no more: the iteration ends after the changes that came already."""
        if not self._ended:
            self._ended = True
            self._closed(self)
            self.wake()

    def fail(self, error: PortmapdError) -> None:
        """Watch no more, for the reason *error*, which is raised after those changes."""
        self._error = error
        self.close()


class Subscriptions:
    """What one client's watchers watch."""

    _log = Logger()

    def __init__(self) -> None:
        self._watchings: list[Watching] = []
        #: Those that no listing has begun for.
        self._new: list[Watching] = []
        self._link: Link | None = None
        self._is_running = False
        #: Is a listing to begin once the present one has ended?
        self._again = False
        #: Counts services while they are listed; None while they are not.
        self._census: Census | None = None
        #: What happened to mappings meanwhile; the last change of one tells whether it stands.
        self._mapped: list[Change] = []

    def __bool__(self) -> bool:
        return bool(self._watchings)

    def add(self, watching: Watching) -> None:
        """Tell *watching* of changes, once there is a connection."""
        self._watchings.append(watching)
        self._new.append(watching)

    def discard(self, watching: Watching) -> None:
        """Tell *watching* nothing any more; the daemon is told if it was the last."""
        self._watchings = [one for one in self._watchings if one is not watching]
        self._new = [one for one in self._new if one is not watching]
        if not self._watchings and self._link is not None:
            self._link.ask(c.UNWATCH, {}).addErrback(_ignore)

    def close(self) -> None:
        """End every watching."""
        self._link = None
        for watching in tuple(self._watchings):
            watching.close()

    def begin(self, link: Link) -> None:
        """Watch on *link* what was added, unless that was begun with the connection."""
        if self._new:
            self.resume(link)

    def resume(self, link: Link) -> None:
        """Watch what is watched on *link*, and bring every view up to date."""
        self._link = link
        self._again = True
        if not self._is_running:
            self._is_running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._failed)

    async def _run(self) -> None:
        """List for as long as that is wanted, one listing after the other."""
        try:
            while self._again and self._watchings and self._link is not None:
                self._again = False
                try:
                    await self._resume(self._link)
                except DaemonUnreachable:
                    # Another connection is made, and resumes.
                    continue
                except PortmapdError as error:
                    self._refused(error)
        finally:
            self._is_running = False

    def _refused(self, error: PortmapdError) -> None:
        for watching in tuple(self._watchings):
            watching.fail(type(error)(*error.args))

    def _failed(self, failure: Any) -> None:
        self._log.failure("watching failed", failure)

    async def _resume(self, link: Link) -> None:
        self._new = []
        self._census, self._mapped = Census(), []
        try:
            subjects = await self._subjects(link, self._names(), self._census)
            mapped = self._mapped
        finally:
            self._census = None
        for watching in tuple(self._watchings):
            watching.view.listed(subjects, mapped)
            watching.wake()

    async def _subjects(self, link: Link, names: list[str] | None, census: Census) -> list[Subject]:
        """Everything that is watched, from now on."""
        await link.ask(c.WATCH, {"names": names})
        mappings: list[Subject] = []
        if names is None:
            mappings += await pages(link, c.LIST_MAPPINGS, {}, mapping_of)
        wanted: dict[str, Any] = {"names": names}
        census.listed(await pages(link, c.LIST, wanted, service_of, census.first))
        while census.unsure:
            wanted = census.again()
            census.listed(await pages(link, c.LIST, wanted, service_of, census.first))
        return [*mappings, *census.counts.elements()]

    def _names(self) -> list[str] | None:
        """The names that the daemon is asked for; None: all."""
        views = [watching.view for watching in self._watchings]
        names = sorted(set().union(*(view.names for view in views)))
        size = sum(len(name.encode()) + 2 for name in names)
        return None if size > MAX_NAMES or any(not view.names for view in views) else names

    def event(self, box: Box) -> None:
        """The daemon sent *box*."""
        if box.get(c.COMMAND) == c.EVENT:
            self._happened(change_of(box))
        elif box.get(c.COMMAND) == c.OVERFLOW and self._link is not None:
            # It left events out.
            self.resume(self._link)

    def _happened(self, change: Change) -> None:
        if self._census is None:
            for watching in tuple(self._watchings):
                watching.view.happened(change)
                watching.wake()
        elif isinstance(change.subject, Service):
            self._census.happened(change)
        else:
            self._mapped.append(change)


def _ignore(failure: object) -> None:
    """A connection that is lost watches nothing either."""
