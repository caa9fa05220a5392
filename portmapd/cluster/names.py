"""Names that one process has in the whole cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from twisted.internet.defer import DeferredLock

from portmapd.cluster.entry import Claim, Layout
from portmapd.cluster.lease import Lease
from portmapd.errors import AlreadyRegistered, ClusterUnreachable, EtcdError
from portmapd.etcd.client import EtcdClient
from portmapd.etcd.messages import (
    Compare,
    Delete,
    KeyValue,
    Operation,
    Put,
    Range,
    Transaction,
)
from portmapd.registry.change import ChangeKind, ChangeRecord
from portmapd.registry.registry import Registry
from portmapd.registry.service import EXCLUSIVE, SHARED, NamedService

#: A service that has its name in the whole cluster has both flags.
CLAIMED = EXCLUSIVE | SHARED
#: The most claims of one transaction: etcd takes 128 operations.
MAX_CLAIMS = 60


class Names:
    """The claims of this machine.

    A claim is an entry of etcd that is written only if there is none: of all that ask for a name,
    one gets it. What is asked of etcd is asked in order, one thing after the other, so that no
    release can follow the claim that comes after it.

    :param etcd: the client of etcd.
    :param layout: the keys of the cluster.
    :param host: what this machine is called there.
    :param lease: the lease under which this machine writes.
    :param changed: is called when there are claims to release.
    :ivar held: the services of each claim, by its key: one Register may have a name several times.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        layout: Layout,
        host: str,
        lease: Lease,
        changed: Callable[[], object],
    ) -> None:
        self.held: dict[str, list[NamedService]] = {}
        self._etcd = etcd
        self._layout = layout
        self._host = host
        self._lease = lease
        self._changed = changed
        self._lock = DeferredLock()
        #: The keys of claims that may be in etcd, and that nobody here holds.
        self._released: dict[str, None] = {}

    async def pause(self) -> None:
        """Ask etcd for nothing until :meth:`resume`; returns when nothing is asked."""
        await self._lock.acquire()

    def resume(self) -> None:
        """Ask again."""
        self._lock.release()

    def __len__(self) -> int:
        """How many claims are to be released."""
        return len(self._released)

    def follow(self, registry: Registry) -> Callable[[], None]:
        """Hold what is registered already, and release what is deregistered.

        :return: a function that ends that.
        """
        self._hold(registry.services())
        return registry.follow(self._deregistered, ChangeKind.DEREGISTERED)

    def _deregistered(self, changes: Sequence[ChangeRecord]) -> None:
        subjects = (change.subject for change in changes)
        self.release(each for each in subjects if isinstance(each, NamedService))

    def _hold(self, services: Iterable[NamedService]) -> None:
        for service in services:
            if service.flags & CLAIMED == CLAIMED:
                self.held.setdefault(self._layout.name(service), []).append(service)

    def release(self, services: Iterable[NamedService]) -> None:
        """Release the claims of services that are not registered, or no longer."""
        for service in services:
            if service.flags & CLAIMED == CLAIMED:
                self._release(self._layout.name(service), service)
        if self._released:
            self._changed()

    def _release(self, key: str, service: NamedService) -> None:
        held = self.held.get(key, [])
        if service in held:
            held.remove(service)
            if not held:
                del self.held[key]
                self._released[key] = None

    async def claim(self, services: Sequence[NamedService]) -> None:
        """Claim the names of services, all or none; they are held from then on.

        :raises AlreadyRegistered: one is held; the message says by whom.
        :raises ClusterUnreachable: etcd does not answer, or refuses.
        """
        await self._lock.acquire()
        try:
            await self._claim({self._layout.name(s): s for s in services})
            self._hold(services)
        except EtcdError as error:
            # It may have been done all the same.
            self._doubt(services)
            raise ClusterUnreachable(f"a name cannot be claimed in the cluster: {error}") from error
        finally:
            self._lock.release()

    def _doubt(self, services: Sequence[NamedService]) -> None:
        keys = {self._layout.name(service) for service in services}
        self._released |= dict.fromkeys(key for key in keys if key not in self.held)
        self._changed()

    async def _claim(self, wanted: Mapping[str, NamedService]) -> None:
        # A name under a lease that may have ended would be lost at once.
        if self._lease.left <= 0:
            raise ClusterUnreachable(
                "a name cannot be claimed in the cluster: this machine has no lease at etcd"
            )
        found: dict[str, KeyValue] = {}
        # The second time with claims that this machine has left over.
        for _ in range(2):
            done = await self._etcd.transact(self._transaction(wanted, found))
            if done.succeeded:
                return
            found = {each.key: each for answer in done.found for each in answer.keys}
            for key, kv in found.items():
                self._check(wanted[key], key, kv)
        raise AlreadyRegistered(f"{next(iter(wanted.values())).name} was registered at this moment")

    def _transaction(
        self, wanted: Mapping[str, NamedService], found: Mapping[str, KeyValue]
    ) -> Transaction:
        lease = self._lease.number
        puts: list[Operation] = [
            Put(key, Claim(self._host, s.pid, s.port).encode(), lease) for key, s in wanted.items()
        ]
        return Transaction(
            [Compare.changed(key, found[key].revision if key in found else 0) for key in wanted],
            puts,
            [Range(key) for key in wanted],
        )

    def _check(self, service: NamedService, key: str, kv: KeyValue) -> None:
        """Check that a claim which stands in the way is one that this machine has left over."""
        claim = Claim.decode(kv.value)
        if claim is None or claim.host != self._host or key in self.held:
            who = f"pid {claim.pid} on host {claim.host}" if claim else "something else"
            raise AlreadyRegistered(
                f"{service.name} is registered exclusively in the cluster by uid {service.uid}, "
                f"{who}"
            )

    async def give_back(self) -> None:
        """Delete released claims from etcd.

        :raises EtcdError: it is not done; they are to be released still.
        """
        await self._lock.acquire()
        try:
            while self._released:
                keys = list(islice(self._released, MAX_CLAIMS))
                if not await self._delete(keys):
                    for key in keys:
                        await self._delete([key])
                for key in keys:
                    del self._released[key]
        finally:
            self._lock.release()

    async def _delete(self, keys: Sequence[str]) -> bool:
        """Delete claims that are under our lease.

        :return: False: not all of them are, so that none was deleted.
        """
        keys = [key for key in keys if key not in self.held]
        lease = self._lease.number
        deletes: list[Operation] = [Delete(key) for key in keys]
        done = await self._etcd.transact(
            Transaction([Compare.leased(key, lease) for key in keys], deletes, [])
        )
        return done.succeeded

    async def check(self) -> list[NamedService]:
        """The services whose claims are not in etcd under our lease, and that are held no longer.

        :raises EtcdError: it is not known.
        """
        await self._lock.acquire()
        try:
            lost: list[NamedService] = []
            for key in tuple(self.held):
                found = await self._etcd.find(Range(key))
                if not any(each.lease == self._lease.number for each in found.keys):
                    lost += self.held.pop(key, [])
            return lost
        finally:
            self._lock.release()

    def lose(self) -> list[NamedService]:
        """Hold nothing any more, for the lease has ended.

        :return: the services whose names are lost.
        """
        held, self.held = self.held, {}
        self._released |= dict.fromkeys(held)
        return [service for services in held.values() for service in services]
