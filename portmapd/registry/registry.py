"""The one registry behind every protocol.

A change is checked first and then made, all or nothing. After that, the followers of its kind are
called, in order.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from portmapd.errors import AlreadyRegistered, NotRegistered
from portmapd.registry.change import ChangeKind, ChangeRecord, Follower
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import SUPERUSER, Key, Mapping, Mappings
from portmapd.registry.service import PUBLIC, NamedService, Names


class Registry:
    """Mappings, services and their holders. It does no I/O and has no clock.

    :ivar mappings: every RPC mapping that callers see.
    :ivar suspended: the mappings of services that pause, by their keys. Callers do not see them.
    :ivar names: every service, by its name.
    :ivar serial: that of the last holder.
    :ivar all_unheld: how many mappings no connection holds, suspended ones included.
    :ivar changes: how many changes of each kind there were.
    """

    def __init__(self) -> None:
        self.mappings = Mappings()
        self.suspended: dict[Key, Mapping] = {}
        #: The number of mappings without a holder, suspended ones included, of each owner.
        self._unheld: Counter[str] = Counter()
        self.all_unheld = 0
        self.names = Names()
        self._holders: dict[int, Holder] = {}
        self._processes: dict[int, dict[Holder, None]] = {}
        #: The number of public services of each process that has any.
        self._public: Counter[int] = Counter()
        self.serial = 0
        self.changes = dict.fromkeys(ChangeKind, 0)
        self._followers: dict[ChangeKind, list[Follower]] = {kind: [] for kind in ChangeKind}

    def follow(self, follower: Follower, *kinds: ChangeKind) -> Callable[[], None]:
        """Call *follower* with every later change of these kinds.

        :return: a function that removes the follower.
        """
        for kind in kinds:
            self._followers[kind].append(follower)

        def end() -> None:
            for kind in kinds:
                self._followers[kind].remove(follower)

        return end

    # Mappings

    def map(self, *new: Mapping) -> None:
        """Register mappings, all or none.

        :raises AlreadyRegistered: the program, version and netid of one of them are taken, or
            suspended and another owner's.
        """
        taken: set[Key] = set()
        for m in new:
            existing = self.mappings.get(*m.key)
            if existing is not None:
                raise AlreadyRegistered(_taken(m, existing))
            self._check_suspended(m)
            if m.key in taken:
                raise AlreadyRegistered(
                    f"program {m.program} version {m.version} on {m.netid} is listed twice"
                )
            taken.add(m.key)
        self._commit_mappings((), new)

    def _check_suspended(self, new: Mapping) -> None:
        """A service that pauses keeps its registration: only its owner or root may replace it."""
        old = self.suspended.get(new.key)
        if old is not None and new.owner not in (SUPERUSER, old.owner):
            raise AlreadyRegistered(f"{_taken(new, old)}, whose service is not listening just now")

    def unmap(self, *old: Mapping) -> None:
        """Remove registered mappings."""
        self._commit_mappings(old, ())

    def replace(self, old: Mapping, new: Mapping) -> None:
        """Replace *old* by *new*, which has the same key, in one transaction."""
        self._commit_mappings((old,), (new,))

    def confirm(self, existing: Mapping) -> None:
        """A mapping is set again as it is."""
        self._tell(ChangeKind.CONFIRMED, (existing,))

    def see(self, *bound: Mapping) -> None:
        """The addresses of mappings without a holder are seen bound for the first time."""
        self._tell(ChangeKind.SEEN, bound)

    def suspend(self, *old: Mapping) -> None:
        """Remove registered mappings without a holder, but remember them; see :meth:`resume`."""
        self._commit_mappings(old, ())
        self.remember(*old)

    def remember(self, *paused: Mapping) -> None:
        """Have mappings without a holder suspended whose keys are free."""
        for m in paused:
            self.suspended[m.key] = m
            self._count_unheld(m, 1)
        self._tell(ChangeKind.SUSPENDED, paused)

    def resume(self, *suspended: Mapping) -> None:
        """Register suspended mappings again."""
        self._commit_mappings((), suspended)

    def forget(self, *suspended: Mapping) -> None:
        """Remember suspended mappings no longer."""
        for m in suspended:
            del self.suspended[m.key]
            self._count_unheld(m, -1)
        self._tell(ChangeKind.RELEASED, suspended)

    def unheld(self, owner: str) -> int:
        """How many mappings of *owner* no connection holds, suspended ones included."""
        return self._unheld[owner]

    def _commit_mappings(self, old: Sequence[Mapping], new: Sequence[Mapping]) -> None:
        for m in old:
            self.mappings.discard(m)
            self._count(m, -1)
            if m.holder is not None:
                del m.holder.mappings[m.key]
        self._add_mappings(new)
        self._tell(ChangeKind.UNMAPPED, old)
        self._tell(ChangeKind.MAPPED, new)
        if self.suspended:
            self.forget(*[self.suspended[m.key] for m in new if m.key in self.suspended])

    def _add_mappings(self, new: Iterable[Mapping]) -> None:
        for m in new:
            self.mappings.add(m)
            self._count(m, 1)
            if m.holder is not None:
                m.holder.mappings[m.key] = m

    def _count(self, mapping: Mapping, change: int) -> None:
        if mapping.holder is not None:
            mapping.holder.allowances.mappings.held += change
        else:
            self._count_unheld(mapping, change)

    def _count_unheld(self, mapping: Mapping, change: int) -> None:
        self.all_unheld += change
        self._unheld[mapping.owner] += change
        if not self._unheld[mapping.owner]:
            del self._unheld[mapping.owner]

    # Services

    def register(self, *new: NamedService) -> None:
        """Register services of one holder, all or none.

        Services of one call do not conflict with each other, but a holder has a name and port only
        once. The fields are not checked here: ``check_service`` does that.

        :raises AlreadyRegistered: a name is taken.
        :raises LimitExceeded: the process would hold more than its limit.
        """
        if not new:
            return
        self.check(*new)
        self._add_services(new)
        self._tell(ChangeKind.REGISTERED, new)

    def check(self, *new: NamedService) -> None:
        """Check that services of one holder could be registered now; see :meth:`register`."""
        holder = new[0].holder
        holder.allowances.services.check(len(new))
        self._check_services(holder, new)

    def _add_services(self, new: Iterable[NamedService]) -> None:
        for service in new:
            holder = service.holder
            holder.services[service.name, service.port] = service
            holder.allowances.services.held += 1
            self.names.add(service)
            if service.flags & PUBLIC:
                self._public[holder.pid] += 1

    def _check_services(self, holder: Holder, new: Sequence[NamedService]) -> None:
        keys: set[tuple[str, str]] = set()
        for service in new:
            key = service.name, service.port
            if key in keys:
                raise AlreadyRegistered(f"name {service.name}: port {service.port} is listed twice")
            if key in holder.services:
                raise AlreadyRegistered(
                    f"name {service.name}: port {service.port} is already registered on this "
                    f"connection, by uid {holder.uid}, pid {holder.pid}"
                )
            keys.add(key)
            self._check_exclusive(service)

    def _check_exclusive(self, new: NamedService) -> None:
        taken = self.names.is_exclusive(new.name, new.uid)
        if not taken and not new.is_exclusive:
            return
        existing = self.names.first(new.name, new.uid)
        if existing is not None:
            how = "exclusively" if taken else "already, so it cannot be registered exclusively,"
            raise AlreadyRegistered(
                f"{new.name} is registered {how} by uid {existing.uid}, pid {existing.pid}"
            )

    def deregister(self, holder: Holder, *keys: tuple[str, str]) -> None:
        """Remove services of *holder* by name and port, all or none.

        :raises NotRegistered: this holder has not registered one of them.
        """
        missing = next((key for key in keys if key not in holder.services), None)
        if missing is not None:
            raise NotRegistered(
                "name {}: port {} is not registered on this connection".format(*missing)
            )
        self._drop_services([holder.services[key] for key in dict.fromkeys(keys)])

    def _drop_services(self, old: Sequence[NamedService]) -> None:
        for service in old:
            del service.holder.services[service.name, service.port]
            service.holder.allowances.services.held -= 1
            self.names.discard(service)
            if service.flags & PUBLIC:
                self._forget_public(service.pid)
        self._tell(ChangeKind.DEREGISTERED, old)

    def _forget_public(self, pid: int) -> None:
        self._public[pid] -= 1
        if not self._public[pid]:
            del self._public[pid]

    def services(self) -> Iterator[NamedService]:
        """Every service, in the order of :attr:`NamedService.place`."""
        return (s for holder in self._holders.values() for s in holder.services.values())

    def count_services(self) -> int:
        """How many services are registered."""
        return sum(len(holder.services) for holder in self._holders.values())

    # Holders

    def open(self, holder: Holder) -> Holder:
        """Admit *holder*: from now on it may hold services and mappings."""
        self.serial += 1
        holder.serial = self.serial
        self.readmit(holder)
        return holder

    def readmit(self, holder: Holder) -> None:
        """Admit a holder that has a serial already, the largest one so far."""
        self._holders[holder.serial] = holder
        self._processes.setdefault(holder.pid, {})[holder] = None

    def put_back(self, mappings: Iterable[Mapping], services: Sequence[NamedService]) -> None:
        """Have what holders had registered in another process. Nothing is checked, and no follower
        is told: nothing has changed.

        :param services: those of one name in the order in which they were registered; a holder gets
            its own in the order of their serials.
        """
        self._add_mappings(mappings)
        self._add_services(services)
        for holder in {service.holder for service in services}:
            own = sorted(holder.services.values(), key=lambda service: service.serial)
            holder.services = {(service.name, service.port): service for service in own}

    def move(self, holder: Holder, uid: int, pid: int) -> None:
        """*holder* belongs to another process from now on, which does the same.

        Its services must be neither exclusive nor public.
        Followers see its services deregistered, then registered again.
        """
        services = list(holder.services.values())
        self._tell(ChangeKind.DEREGISTERED, services)
        self._leave(holder)
        holder.uid, holder.pid = uid, pid
        self.readmit(holder)
        self._tell(ChangeKind.REGISTERED, services)

    def holders_of(self, pid: int) -> Iterable[Holder]:
        """The open holders of that process."""
        return self._processes.get(pid, {})

    def has_public(self, pid: int) -> bool:
        """Whether that process has public services."""
        return pid in self._public

    def holders_after(self, serial: int) -> Iterator[Holder]:
        """The open holders whose serial is *serial* or more, in order."""
        return (h for h in self._holders.values() if h.serial >= serial)

    def clear_executable(self, holder: Holder) -> None:
        """Forget the executable of *holder*.

        Followers see its public services deregistered, then registered again without executable.
        """
        public = [s for s in holder.services.values() if s.exe]
        self._tell(ChangeKind.DEREGISTERED, public)
        holder.exe = ""
        self._tell(ChangeKind.REGISTERED, public)

    def close(self, holder: Holder) -> None:
        """Close *holder* and remove everything it holds. Closing it again does nothing."""
        if self._holders.pop(holder.serial, None) is None:
            return
        self._leave(holder)
        self._drop_services(list(holder.services.values()))
        self._commit_mappings(list(holder.mappings.values()), ())

    def _leave(self, holder: Holder) -> None:
        """*holder* is none of its process any more."""
        peers = self._processes[holder.pid]
        del peers[holder]
        if not peers:
            del self._processes[holder.pid]

    def _tell(self, kind: ChangeKind, subjects: Sequence[Mapping] | Sequence[NamedService]) -> None:
        self.changes[kind] += len(subjects)
        followers = self._followers[kind]
        if followers and subjects:
            changes = [ChangeRecord(kind, subject) for subject in subjects]
            for follower in tuple(followers):
                follower(changes)


def _taken(new: Mapping, existing: Mapping) -> str:
    holder = existing.holder
    who = f"uid {holder.uid}, pid {holder.pid}" if holder else f"owner {existing.owner}"
    return (
        f"program {new.program} version {new.version} on {new.netid} is mapped to "
        f"{existing.address} by {who}"
    )
