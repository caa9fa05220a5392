"""The lease under which a machine shares: what is under it ends when the machine does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from portmapd.cluster.entry import Layout, encode_host
from portmapd.errors import LeaseNotFound, NameTaken
from portmapd.etcd.client import EtcdClient
from portmapd.etcd.messages import Compare, KeyValue, Put, Range, Transaction
from portmapd.registry.shared import ClusterHost

#: Each member has this part of a lease's time to keep it alive: if one is cut off, another is asked
#: before the lease ends.
PART = 6


class Lease:
    """The lease of this machine.

    A machine that starts again within the time of its lease goes on with it: it knows it by its own
    entry, which says which machine has written it. So nothing that it shares is ever missing.

    :param etcd: the client of etcd.
    :param layout: the keys of the cluster.
    :param host: this machine.
    :param seconds: how long the lease lasts without being kept alive.
    :param now: the seconds of a clock that goes on while the machine sleeps.
    :ivar number: its number; 0: there is none.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        layout: Layout,
        host: ClusterHost,
        seconds: int,
        now: Callable[[], float],
    ) -> None:
        self.number = 0
        self._etcd = etcd
        self._layout = layout
        self._host = host
        self._seconds = seconds
        self._now = now
        #: Until when etcd keeps it for certain: counted from before it was asked for that.
        self._until = 0.0

    @property
    def left(self) -> float:
        """For how many seconds etcd keeps it for certain; 0 or less: perhaps no longer."""
        return self._until - self._now() if self.number else 0.0

    async def join(self) -> None:
        """Have a lease, and the machine's own entry under it.

        :raises NameTaken: another machine is called so.
        :raises EtcdError: it could not be done.
        """
        found = await self._etcd.find(Range(self._layout.host(self._host.name)))
        known = found.keys[0] if found.keys else None
        if known is not None and self._machine_of(known) != self._host.machine:
            raise NameTaken(
                f"another machine of the cluster is called {self._host.name}: give this one "
                "another name with --cluster-host, or wait until that one's lease has ended"
            )
        for number in (self.number, known.lease if known else 0):
            if await self._resumes(number):
                break
        else:
            begun = self._now()
            self.number = await self._etcd.grant(self._seconds)
            self._until = begun + self._seconds
        await self._write(known)

    async def _resumes(self, number: int) -> bool:
        """Go on with a lease, if it has not ended."""
        if not number:
            return False
        self.number = number
        try:
            await self.keep()
        except LeaseNotFound:
            self.number = 0
        return bool(self.number)

    async def _write(self, known: KeyValue | None) -> None:
        key = self._layout.host(self._host.name)
        done = await self._etcd.transact(
            Transaction(
                [Compare.changed(key, known.revision if known else 0)],
                [Put(key, encode_host(self._host), self.number)],
            )
        )
        if not done.succeeded:
            raise NameTaken(f"another machine has just called itself {self._host.name}")

    def _machine_of(self, known: KeyValue) -> str | None:
        host = self._layout.read(known.key, known.value)
        return host.machine if isinstance(host, ClusterHost) else None

    async def keep(self) -> None:
        """Have it last for its whole time again.

        :raises LeaseNotFound: it has ended.
        :raises EtcdError: it is not known whether it has.
        """
        begun = self._now()
        left = await self._etcd.keep_alive(self.number, self._seconds / PART)
        self._until = begun + min(left, self._seconds)

    def lost(self) -> None:
        """It has ended."""
        self.number = 0
        self._until = 0.0

    async def give_back(self) -> None:
        """End it, with all that is under it."""
        number = self.number
        self.lost()
        if number:
            await self._etcd.revoke(number)

    def pass_on(self) -> list[float]:
        """What another process of this machine needs to go on with it, as a value of JSON."""
        return [self.number, self._until]

    def take_over(self, passed: list[Any]) -> None:
        """Go on with that of another process."""
        self.number, self._until = passed
