"""Watchers of one client, over one connection after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock

from portmapd.channel import command as c
from portmapd.channel.box import Box
from portmapd.client.link import Link
from portmapd.client.values import Change, RpcMapping, Service, change_of, mapping_of, service_of
from portmapd.client.watching import Subject, View


class Watching(AsyncIterator[Change]):
    """An asynchronous iterator of changes, from what is registered now on.

    It goes on, over the daemon's restarts, until it is closed.
    """

    def __init__(self, view: View, closed: Callable[[Watching], object]) -> None:
        self.view = view
        self._closed = closed
        self._waiting: Deferred[None] | None = None
        self._ended = False

    def __aiter__(self) -> Watching:
        return self

    async def __anext__(self) -> Change:
        while not self.view.changes:
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


class Subscriptions:
    """What one client's watchers watch."""

    def __init__(self) -> None:
        self._watchings: list[Watching] = []
        self._link: Link | None = None
        self._lock = DeferredLock()
        #: What happened to each kind while it is listed; None while it is not.
        self._during: dict[type, list[Change]] | None = None

    def __bool__(self) -> bool:
        return bool(self._watchings)

    def add(self, watching: Watching) -> None:
        """Tell *watching* of changes, once the daemon was asked for them."""
        self._watchings.append(watching)

    def discard(self, watching: Watching) -> None:
        """Tell *watching* nothing any more."""
        if watching in self._watchings:
            self._watchings.remove(watching)

    def close(self) -> None:
        """End every watching."""
        for watching in tuple(self._watchings):
            watching.close()

    async def resume(self, link: Link) -> None:
        """Watch what is watched on *link*, and bring every view up to date."""
        self._link = link
        await self._lock.acquire()
        try:
            if self._watchings:
                await self._resume(link)
        finally:
            self._lock.release()

    async def _resume(self, link: Link) -> None:
        views = [watching.view for watching in self._watchings]
        everything = any(not view.names for view in views)
        names = None if everything else sorted(set().union(*(view.names for view in views)))
        self._during = {Service: [], RpcMapping: []}
        try:
            await link.ask(c.WATCH, {"names": names})
            subjects = await self._list(link, Service, c.LIST, "services", {"names": names})
            if everything:
                subjects += await self._list(link, RpcMapping, c.LIST_MAPPINGS, "mappings", {})
        finally:
            during, self._during = self._during, None
        self._listed(subjects, [change for changes in during.values() for change in changes])

    async def _list(
        self, link: Link, kind: type, command: c.Command, field: str, wanted: dict[str, Any]
    ) -> list[Subject]:
        """Every page of a listing.

        What happened before the first page came is in it.
        """
        make = service_of if kind is Service else mapping_of
        answer = await link.ask(command, wanted)
        if self._during is not None:
            self._during[kind].clear()
        subjects = [make(row) for row in answer[field]]
        while answer["more"] is not None:
            answer = await link.ask(command, {**wanted, "after": answer["more"]})
            subjects += [make(row) for row in answer[field]]
        return subjects

    def _listed(self, subjects: list[Subject], during: list[Change]) -> None:
        for watching in tuple(self._watchings):
            watching.view.listed(subjects, during)
            watching.wake()

    def event(self, box: Box) -> None:
        """The daemon sent *box*."""
        if box.get(c.COMMAND) == c.OVERFLOW:
            self._relist()
        elif box.get(c.COMMAND) == c.EVENT:
            self._happened(change_of(box))

    def _happened(self, change: Change) -> None:
        if self._during is not None:
            self._during[type(change.subject)].append(change)
            return
        for watching in tuple(self._watchings):
            watching.view.happened(change)
            watching.wake()

    def _relist(self) -> None:
        """The daemon left events out: list again."""
        if self._link is not None:
            again = Deferred.fromCoroutine(self.resume(self._link))
            # A connection that breaks meanwhile is made again, and lists again.
            again.addErrback(lambda failure: None)
