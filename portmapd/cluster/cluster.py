"""A machine's place in its cluster: what it shares, and what the others do."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from portmapd.cluster.condition import FOLLOWING, LEASE, WRITING, Condition
from portmapd.cluster.entry import Layout
from portmapd.cluster.follower import Follower
from portmapd.cluster.lease import Lease
from portmapd.cluster.names import Names
from portmapd.cluster.published import Published
from portmapd.cluster.publisher import Publisher
from portmapd.cluster.reached import Reached
from portmapd.errors import (
    ClusterUnreachable,
    Compacted,
    EtcdError,
    LeaseNotFound,
    NameLost,
    NameTaken,
    Refusal,
)
from portmapd.etcd.client import EtcdClient
from portmapd.registry.cluster_copy import ClusterCopy
from portmapd.registry.registry import Registry
from portmapd.registry.service import NamedService
from portmapd.registry.shared import ClusterHost
from portmapd.server.cluster import ClusterMember, ClusterStatus
from portmapd.server.log_events import CLUSTER_NAME_LOST
from portmapd.waiting import spread, waits

#: A lease is kept alive so many times in its time.
TIMES = 3
#: Seconds before something is tried again; each further time twice as many, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
#: Seconds that the lease is given back within when the service stops.
FAREWELL = 0.5


def boot_time() -> float:
    """Seconds of a clock that goes on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _delays() -> Iterator[float]:
    """The seconds to wait between attempts, until one succeeds."""
    return waits(FIRST_WAIT, LONGEST_WAIT)


@frozen
class Membership:
    """How a machine belongs to a cluster.

    :param host: this machine.
    :param prefix: what all keys of the cluster begin with.
    :param seconds: how long its lease lasts without being kept alive.
    :param stale: after how many seconds its copy is not to be relied upon.
    :param programs: the programs whose mappings it shares; None: all.
    """

    host: ClusterHost
    prefix: str
    seconds: int
    stale: float
    programs: frozenset[int] | None = frozenset()


class EtcdCluster(Service):
    """A cluster whose machines share what they have in etcd.

    Nothing here waits for etcd but claims of names. What cannot be done is tried again, after waits
    that are different on each machine.

    :param membership: how this machine belongs to it.
    :param etcd: the client of etcd.
    :param registry: what is registered on this machine.
    :param reactor: gives turns.
    :param now: the seconds of a clock that goes on while the machine sleeps.
    :ivar copy: what all machines share.
    :ivar condition: what is in the way.
    """

    _log = Logger()

    def __init__(
        self,
        membership: Membership,
        etcd: EtcdClient,
        registry: Registry,
        reactor: IReactorTime,
        now: Callable[[], float] = boot_time,
    ) -> None:
        self._membership = membership
        self._etcd = etcd
        self._registry = registry
        self._reactor = reactor
        host = membership.host
        layout = Layout(membership.prefix)
        self.copy = ClusterCopy()
        self.condition = Condition(host.name)
        self._lease = Lease(etcd, layout, host, membership.seconds, now)
        reached = Reached(host.address, membership.programs)
        self.published = Published(layout, host.name, reached, self._write_soon)
        self._publisher = Publisher(etcd, layout, host.name, self._lease, self.published)
        self.names = Names(etcd, layout, host.name, self._lease, self._write_soon)
        current = partial(self.condition.succeeded, FOLLOWING)
        self._follower = Follower(etcd, layout, self.copy, now, current)
        self._tasks: list[Deferred[None]] = []
        self._ends: list[Callable[[], None]] = []
        self._is_writing = False
        #: Who waits for the first attempt to join; None: it is over.
        self._waiting: list[Deferred[None]] | None = []

    def startService(self) -> None:
        """Join the cluster."""
        super().startService()
        self._ends = [self.published.follow(self._registry), self.names.follow(self._registry)]
        for work in (self._hold_lease(), self._expire(), self._keep_copy(), self._check_copy()):
            self._spawn(work)

    def stopService(self) -> Deferred[None]:
        """Leave the cluster: the lease is given back, and what was under it is gone at once."""
        self._end()
        return self._within(FAREWELL, self._lease.give_back())

    # In favour of another process, and in place of one

    def pause(self) -> Deferred[None]:
        """Claim no further names; fires when all claims under way are done."""
        # Nobody would answer those who wait for the first attempt to join.
        self._attempted()
        return Deferred.fromCoroutine(self.names.pause())

    def resume(self) -> None:
        """Claim names again."""
        self.names.resume()

    def pass_on(self) -> dict[str, Any]:
        """What another process needs to go on, as a value of JSON."""
        return {"lease": self._lease.pass_on(), "copy": self._follower.pass_on()}

    def take_over(self, data: dict[str, Any]) -> None:
        """Go on where another process was."""
        self._lease.take_over(data["lease"])
        self._follower.take_over(data["copy"])

    def _end(self) -> None:
        super().stopService()
        for end in self._ends:
            end()
        self._ends = []
        for each in tuple(self._tasks):
            each.cancel()
        self._follower.stop()

    def _within(self, seconds: float, work: Coroutine[Any, Any, None]) -> Deferred[None]:
        done: Deferred[None] = Deferred.fromCoroutine(work)
        done.addTimeout(seconds, self._reactor)
        # The lease ends by itself.
        done.addErrback(lambda _: None)
        return done.addCallback(lambda _: self._etcd.close())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        done: Deferred[None] = Deferred.fromCoroutine(work)
        self._tasks.append(done)
        done.addErrback(lambda failure: failure.trap(CancelledError) and None)
        done.addErrback(lambda failure: self._log.failure("the cluster failed", failure))
        done.addBoth(lambda _: self._tasks.remove(done) if done in self._tasks else None)

    async def _sleep(self, seconds: float) -> None:
        await task.deferLater(self._reactor, seconds, lambda: None)

    # The lease

    async def _hold_lease(self) -> None:
        delays = _delays()
        while True:
            try:
                await self._join()
                delays = _delays()
                await self._keep_lease()
            except LeaseNotFound:
                self._lease.lost()
                self._lose(self.names.lose(), "the lease of this machine has ended")
                continue
            except (EtcdError, NameTaken) as error:
                self.condition.failed(LEASE, error)
            self._attempted()
            await self._sleep(next(delays))

    async def _join(self) -> None:
        await self._lease.join()
        self._lose(await self.names.check(), "it is not this machine's in the cluster")
        unwanted = await self._publisher.compare()
        if unwanted:
            # Clients that connect again after a restart have so long to register again.
            seconds = self._membership.seconds
            self._spawn(self._delete_later(seconds, unwanted))
        self.condition.succeeded(LEASE)
        self._attempted()
        self._write_soon()

    async def _delete_later(self, seconds: float, keys: Sequence[str]) -> None:
        await self._sleep(seconds)
        self.published.put_back(self.published.unwanted(keys))
        self._write_soon()

    async def _keep_lease(self) -> None:
        """Keep the lease alive until it has ended."""
        while True:
            await self._sleep(spread(self._membership.seconds / TIMES))
            await self._lease.keep()
            self.condition.succeeded(LEASE)

    async def _expire(self) -> None:
        """Give up names whose lease may have ended: another machine may have them by now."""
        while True:
            left = self._lease.left
            if left <= 0 and self.names.held:
                why = f"etcd could not be asked for {self._membership.seconds} s"
                self._lose(self.names.lose(), why)
            await self._sleep(max(left, 0.05) if self._lease.number else 0.2)

    def _lose(self, services: Iterable[NamedService], why: str) -> None:
        for service in services:
            CLUSTER_NAME_LOST.emit(
                self._log, name=service.name, uid=service.uid, pid=service.pid, why=why
            )
            self._registry.deregister(service.holder, (service.name, service.port))
            service.holder.lose(service, NameLost(f"{service.name} is held no longer: {why}"))

    # What is shared

    def _write_soon(self) -> None:
        if self.running and not self._is_writing:
            self._is_writing = True
            self._spawn(self._write())

    async def _write(self) -> None:
        delays = _delays()
        try:
            await self._sleep(0)
            while (self.published or self.names) and self._lease.number:
                try:
                    await self._publisher.write()
                    await self.names.give_back()
                    self.condition.succeeded(WRITING)
                except LeaseNotFound:
                    self._lease.lost()
                except EtcdError as error:
                    self.condition.failed(WRITING, error)
                    await self._sleep(next(delays))
        finally:
            self._is_writing = False

    # The copy

    async def _keep_copy(self) -> None:
        delays = _delays()
        while True:
            try:
                await self._follower.follow()
                delays = _delays()
            except Compacted:
                continue
            except EtcdError as error:
                self.condition.failed(FOLLOWING, error)
            await self._sleep(next(delays))

    async def _check_copy(self) -> None:
        while True:
            await self._sleep(spread(self._membership.seconds / TIMES))
            await self._follower.check()

    # What sessions of the local channel ask

    def age(self) -> float:
        """Seconds since the copy was known to be current; see :class:`Cluster`."""
        age = self._follower.age
        if age is None:
            raise ClusterUnreachable(
                f"what the cluster shares is not known yet ({self.condition.why or 'it is read'})"
            )
        if age > self._membership.stale:
            raise ClusterUnreachable(
                f"what the cluster shares was last known {age:.0f} s ago, and --cluster-stale is "
                f"{self._membership.stale:g} s ({self.condition.why})"
            )
        return age

    def claim(
        self, services: Sequence[NamedService], done: Callable[[Refusal | None], object]
    ) -> None:
        """Claim names; see :class:`Cluster`."""
        self._spawn(self._claim(services, done))

    def _first_attempt(self) -> Deferred[None]:
        """Fires once the cluster was joined, or could not be."""
        attempted: Deferred[None] = Deferred()
        if self._waiting is None:
            attempted.callback(None)
        else:
            self._waiting.append(attempted)
        return attempted

    def _attempted(self) -> None:
        waiting, self._waiting = self._waiting or (), None
        for each in waiting:
            if not each.called:
                each.callback(None)

    async def _claim(
        self, services: Sequence[NamedService], done: Callable[[Refusal | None], object]
    ) -> None:
        refusal: Refusal | None = ClusterUnreachable("the port mapper ends")
        try:
            # Clients that connect again after a restart are early.
            await self._first_attempt()
            await self.names.claim(services)
            refusal = None
        except Refusal as error:
            refusal = error
        finally:
            done(refusal)

    def release(self, services: Sequence[NamedService]) -> None:
        """Release names that were claimed, and are not registered after all."""
        self.names.release(services)

    def status(self) -> ClusterStatus:
        """How this machine stands in the cluster."""
        host = self._membership.host
        return ClusterStatus(
            host=host.name,
            address=host.address,
            state=self.condition.state,
            why=self.condition.why,
            age=self._follower.age,
            revision=self._follower.revision,
            lease=self._lease.number,
            left=max(self._lease.left, 0.0),
            members=[
                ClusterMember(url, self._etcd.silent.get(url, "known" if at else "asked"))
                for at, url in enumerate(self._etcd.members)
            ],
            unwritten=len(self.published) + len(self.names),
            failures=dict(self.condition.failures),
        )
