"""Local connections, kept in case that the process is killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.holder import Holder
from portmapd.registry.registry import Registry
from portmapd.server.channel import ChannelProtocol
from portmapd.server.handover.marks import Marks
from portmapd.server.handover.passed import Descriptors
from portmapd.server.handover.store import DescriptorStore

#: Seconds between two looks for what has changed.
PERIOD = 1.0
#: The most connections that are kept; others are made again by their clients. All of them are
#: written at one go, which takes seven milliseconds.
MAX_KEPT = 1_000


class Keeper(Protocol):
    """What has local connections."""

    def keepable(self, limit: int) -> Mapping[ChannelProtocol, Holder]:
        """The connections that hold or watch anything, each with its holder."""
        raise NotImplementedError

    def pass_on_local(
        self, channels: Mapping[ChannelProtocol, Holder], descriptors: Descriptors
    ) -> Mapping[str, Any]:
        """What another process needs to go on with them, as a value of JSON."""
        raise NotImplementedError


class Keeping(Service):
    """Has a service manager keep local connections, as they were a second ago at most.

    :param store: the manager's.
    :param clock: measures time.
    :param keeper: has the connections.
    :param registry: what they hold.
    """

    def __init__(
        self, store: DescriptorStore, clock: IReactorTime, keeper: Keeper, registry: Registry
    ) -> None:
        self._store = store
        self._clock = clock
        self._keeper = keeper
        self._registry = registry
        #: None: nothing, or what the process before has had kept.
        self._kept: Mapping[ChannelProtocol, Holder] | None = None
        #: The connection of each holder that is kept.
        self._channels: dict[Holder | None, ChannelProtocol] = {}
        self._marks = Marks(0)
        self._call: IDelayedCall | None = None
        self._unfollow: Callable[[], None] | None = None

    def startService(self) -> None:
        """Keep connections from now on."""
        super().startService()
        self._unfollow = self._registry.follow(
            self._removed, ChangeKind.DEREGISTERED, ChangeKind.UNMAPPED
        )
        self._call = self._clock.callLater(PERIOD, self._look)

    def stopService(self) -> None:
        """Keep no further ones."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        self._forget()
        # From now on nobody marks what is not true any more.
        self._store.clear()

    def _look(self) -> None:
        self._call = self._clock.callLater(PERIOD, self._look)
        kept = self._keeper.keepable(MAX_KEPT)
        if self._kept is None or kept.keys() != self._kept.keys() or not self._marks.is_blank:
            self._keep(kept)

    def _keep(self, kept: Mapping[ChannelProtocol, Holder]) -> None:
        self._forget()
        self._kept = kept
        self._marks = Marks(len(kept))
        if not kept:
            self._store.clear()
            return
        descriptors = Descriptors()
        image = self._keeper.pass_on_local(kept, descriptors)
        if self._store.keep(image, descriptors, self._marks):
            for place, channel in enumerate(kept):
                channel.touched = partial(self._marks.mark, place)
            self._channels = {holder: channel for channel, holder in kept.items()}
        else:
            # It is tried again at the next look.
            self._kept = None

    def _forget(self) -> None:
        for channel in self._kept or ():
            channel.touched = None
        self._kept = None
        self._channels = {}
        self._marks.close()

    def _removed(self, changes: Sequence[ChangeRecord]) -> None:
        """Mark connections that lose something without a word of theirs.

        The superuser unsets their mappings, a cluster their names, and another program of the same
        process their executable.
        """
        for change in changes:
            channel = self._channels.get(change.subject.holder)
            if channel is not None and channel.touched is not None:
                channel.touched()
