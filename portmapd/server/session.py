"""The commands of one connection of the local channel, without its socket and its process."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

from attrs import evolve, field, frozen
from twisted.logger import Logger

from portmapd import __version__
from portmapd.channel import commands as c
from portmapd.channel.box import Box
from portmapd.channel.service import check_service
from portmapd.cluster_config import is_host_name
from portmapd.errors import (
    BadArguments,
    ExecutableUnknown,
    InternalError,
    InvalidMapping,
    InvalidService,
    NoCluster,
    NotRegistered,
    Refusal,
    ReservedName,
    RestartFailed,
    UnknownCommand,
    UnsupportedVersion,
)
from portmapd.oncrpc.netid import NETIDS, canonical_address
from portmapd.oncrpc.program import PROGRAM
from portmapd.registry.holder import Allowances, Holder
from portmapd.registry.mapping import Mapping as RpcMapping
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import PUBLIC, RESERVED, SHARED, NamedService
from portmapd.server.cluster import Cluster
from portmapd.server.handover.passed import PassedWatch
from portmapd.server.listing import (
    Filter,
    list_cluster,
    list_cluster_mappings,
    list_mappings,
    list_services,
    shared_place,
)
from portmapd.server.peer_process import UNSEEN
from portmapd.server.watchers import Watcher, Watchers

#: The most machines of a page: an address or a release has at most 63 bytes, as a rule.
MAX_HOSTS = 200

Answer = Mapping[str, Any]
#: An answer that takes time: it is begun with a function that is called with the answer, or with
#: a refusal.
Pending = Callable[[Callable[[Answer | Refusal], None]], None]
_NOTHING: Answer = {}


class Peer(Protocol):
    """A connection, as its session sees it.

    :ivar uid: the user who connected.
    :ivar pid: the process that connected.
    """

    uid: int
    pid: int

    def join(self) -> Allowances:
        """Have the connection end when its process ends.

        :return: what the process may hold.
        :raises ProcessLookupError: it has ended already, and so has the connection.
        """
        raise NotImplementedError

    def read_executable(self) -> str:
        """The path of the process's executable, after :meth:`join`; empty if it is unknown."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Write boxes."""
        raise NotImplementedError


def ignore_refusal(peer: Peer, command: str, why: str) -> None:
    """What is done about a refusal that nobody logs."""


def keeps_nothing() -> float | None:
    """There is no file of mappings."""
    return None


def refuse_restart(peer: Peer, tag: bytes | None) -> None:
    """What is done where no other process can take the place of this one.

    :raises RestartFailed: always.
    """
    raise RestartFailed("this port mapper is part of an application: restart that")


@frozen
class ChannelContext:
    """What all sessions of a channel share.

    :param registry: where they register.
    :param watchers: those of them that watch it.
    :param instance: a name that is new at every start of the channel.
    :param limit: the most services that one process may hold.
    :param behind: gives the seconds for which the newest changes have not been written to the file
        of mappings; None: none is kept.
    :param refused: is called with a peer, the command that it is refused, and why.
    :param refusals: what was refused, by the code of the refusal.
    :param restart: is called with a peer that asks for a restart and the tag of its request, which
        it answers; it may raise a :exc:`~portmapd.errors.Refusal`.
    :param cluster: what the machines of a cluster share; None: there is no cluster.
    :param cluster_watchers: those of the sessions that watch it.
    """

    registry: Registry
    watchers: Watchers
    instance: str
    limit: int
    behind: Callable[[], float | None] = keeps_nothing
    refused: Callable[[Peer, str, str], object] = ignore_refusal
    refusals: Counter[str] = field(factory=Counter)
    restart: Callable[[Peer, bytes | None], object] = refuse_restart
    cluster: Cluster | None = None
    cluster_watchers: Watchers | None = None

    def open(self, peer: Peer) -> "Session":
        """The session of a new connection.

        :raises ProcessLookupError: its process has ended.
        """
        session = Session(self, peer)
        if self.registry.has_public(peer.pid):
            session.find_executable()
        return session


class Session:
    """What one connection does.

    Most connections ask one question and are gone. So the process is not looked at before the first
    registration, nor its executable before the first public one, unless
    :meth:`find_executable` is called.

    :param context: what it shares with other sessions.
    :param peer: the connection.
    """

    __slots__ = ("_cluster_watcher", "_context", "_has_ended", "_holder", "_peer", "_watcher")
    _log = Logger()

    def __init__(self, context: ChannelContext, peer: Peer) -> None:
        self._context = context
        self._peer = peer
        self._holder: Holder | None = None
        self._watcher: Watcher | None = None
        self._cluster_watcher: Watcher | None = None
        self._has_ended = False

    def open_holder(self) -> Holder:
        """The connection's holder, which is opened in the registry if it was not before.

        :raises ProcessLookupError: the process has ended.
        """
        if self._holder is None:
            peer = self._peer
            holder = Holder(peer.uid, peer.pid, allowances=peer.join())
            self._holder = self._context.registry.open(holder)
        return self._holder

    def find_executable(self) -> str:
        """The path of the process's executable; empty if it is unknown.

        If another executable is registered for the same pid, that process is gone, or runs another
        program now. Its executable becomes unknown.

        :raises ProcessLookupError: the process has ended.
        """
        holder = self.open_holder()
        if holder.exe is None:
            exe = self._peer.read_executable()
            self._clear_executables(holder.pid, exe)
            holder.exe = exe
        return holder.exe

    def _clear_executables(self, pid: int, exe: str) -> None:
        registry = self._context.registry
        known = (other for other in registry.holders_of(pid) if other.exe)
        # All that are known are the same. Comparing the first is enough: there may be a thousand.
        first = next(known, None)
        if first is not None and first.exe != exe:
            for other in (first, *known):
                registry.clear_executable(other)

    def end(self) -> None:
        """The connection has ended: remove all that it registered."""
        self._has_ended = True
        if self._watcher is not None:
            self._context.watchers.discard(self._watcher)
            self._watcher.drop()
        if self._cluster_watcher is not None and self._context.cluster_watchers is not None:
            self._context.cluster_watchers.discard(self._cluster_watcher)
            self._cluster_watcher.drop()
        if self._holder is not None:
            # It refers to this session: the cycle would wait for the collector.
            self._holder.told = None
            self._context.registry.close(self._holder)

    @property
    def holding(self) -> Holder | None:
        """Its holder, if it holds or watches anything."""
        holder = self._holder
        if holder is None or not (holder.services or holder.mappings or self._watching):
            return None
        return holder

    def pass_on(self) -> tuple[int | None, PassedWatch | None, PassedWatch | None]:
        """What another process needs to go on with it: its holder's serial, and what it watches."""
        holder, watcher, cluster = self._holder, self._watcher, self._cluster_watcher
        return (
            None if holder is None else holder.serial,
            None if watcher is None else watcher.pass_on(),
            # Its copy of the cluster is another one.
            None if cluster is None else evolve(cluster.pass_on(), has_overflowed=True),
        )

    def take_over(
        self, holder: Holder | None, watch: PassedWatch | None, cluster_watch: PassedWatch | None
    ) -> None:
        """Be what the session was in another process.

        :param holder: its holder, which is open.
        """
        self._holder = holder
        peer, cluster_watchers = self._peer, self._context.cluster_watchers
        if holder is not None:
            holder.told = self._tell_lost
        if watch is not None:
            self._watcher = self._context.watchers.resume(watch, peer.send, peer.uid)
        if cluster_watch is not None and cluster_watchers is not None:
            self._cluster_watcher = cluster_watchers.resume(cluster_watch, peer.send, peer.uid)

    def pause(self) -> None:
        """The peer has stopped reading."""
        for watcher in self._watching:
            watcher.pause()

    def resume(self) -> None:
        """The peer reads again."""
        for watcher in self._watching:
            watcher.resume()

    @property
    def _watching(self) -> list[Watcher]:
        """What watches for the peer."""
        return [each for each in (self._watcher, self._cluster_watcher) if each is not None]

    def answer(self, box: Box) -> bytes:
        """The box that answers *box*; empty if it asks for no answer."""
        tag = box.get(c.ASK)
        try:
            command, operate = _TABLE.get(box.get(c.COMMAND, b"")) or _unknown(box)
            values = operate(self, *command.read_arguments(box))
            if values is None:
                self._context.restart(self._peer, tag)
                return b""
            if callable(values):
                values(partial(self._answer_later, box, command))
                return b""
            return self._answer(tag, command, values)
        except Refusal as refusal:
            return self._refuse(box, refusal)
        except ProcessLookupError:
            return b""
        except Exception:
            self._log.failure("a command of pid {pid} failed", pid=self._peer.pid)
            error = InternalError("the port mapper failed; its log tells how")
            return c.encode_refusal(tag, error) if tag is not None else b""

    def _answer(self, tag: bytes | None, command: c.Command, values: Answer) -> bytes:
        if self._watcher is not None:
            # Events of its own changes, and of those that a listing has, come first.
            self._watcher.send()
        if self._cluster_watcher is not None:
            self._cluster_watcher.send()
        return command.reply(tag, values) if tag is not None else b""

    def _refuse(self, box: Box, refusal: Refusal) -> bytes:
        self._context.refusals[refusal.code] += 1
        self._context.refused(self._peer, _shown(box), str(refusal))
        tag = box.get(c.ASK)
        return c.encode_refusal(tag, refusal) if tag is not None else b""

    def _answer_later(self, box: Box, command: c.Command, outcome: Answer | Refusal) -> None:
        if self._has_ended:
            return
        if isinstance(outcome, Refusal):
            self._peer.send(self._refuse(box, outcome))
        else:
            self._peer.send(self._answer(box.get(c.ASK), command, outcome))

    def _hello(self, version: int) -> Answer:
        if version != c.VERSION:
            raise UnsupportedVersion(f"version {version}: this daemon speaks {c.VERSION}")
        return {
            "version": c.VERSION,
            "instance": self._context.instance,
            "limit": self._context.limit,
            "uid": self._peer.uid,
            "pid": self._peer.pid,
        }

    def _register(self, services: Sequence[tuple[str, str, int]]) -> Answer | Pending:
        every = 0
        for name, port, flags in services:
            _check_service(name, port, flags)
            every |= flags
        if every & PUBLIC and not self.find_executable():
            public = next(flags for _, _, flags in services if flags & PUBLIC)
            raise ExecutableUnknown(f"flags {public}: {_why_unknown(self._peer.pid)}")
        holder = self.open_holder()
        new = [holder.new_service(*service) for service in services]
        if every & SHARED:
            pending = self._share(new, [service for service in new if service.flags & SHARED])
            if pending is not None:
                return pending
        self._context.registry.register(*new)
        return _NOTHING

    def _share(self, new: Sequence[NamedService], shared: Sequence[NamedService]) -> Pending | None:
        """What has to be done in the cluster before services are registered; None: nothing.

        :raises NoCluster: there is none.
        :raises AlreadyRegistered: they could not be registered.
        """
        cluster = self._context.cluster
        if cluster is None:
            raise NoCluster(
                "this port mapper belongs to no cluster: start it with --cluster, or leave flag 4 "
                "(shared) out"
            )
        claimed = [service for service in shared if service.is_exclusive]
        if not claimed:
            return None
        self._context.registry.check(*new)
        return partial(self._claim, cluster, new, claimed)

    def _claim(
        self,
        cluster: Cluster,
        new: Sequence[NamedService],
        claimed: Sequence[NamedService],
        done: Callable[[Answer | Refusal], None],
    ) -> None:
        """Register services once their names are claimed in the whole cluster."""

        def register(refusal: Refusal | None) -> None:
            try:
                if refusal is not None:
                    raise refusal
                if self._has_ended:
                    raise NotRegistered("the connection has ended")
                self._context.registry.register(*new)
            except Exception as error:
                cluster.release(claimed)
                if not isinstance(error, Refusal):
                    self._log.failure("a command of pid {pid} failed", pid=self._peer.pid)
                    error = InternalError("the port mapper failed; its log tells how")
                done(error)
            else:
                new[0].holder.told = self._tell_lost
                done(_NOTHING)

        cluster.claim(claimed, register)

    def _tell_lost(self, service: NamedService, why: Refusal) -> None:
        self._peer.send(c.encode_lost(service.name, service.port, why))

    def _deregister(self, services: Sequence[tuple[str, str]]) -> Answer:
        self._context.registry.deregister(self.open_holder(), *services)
        return _NOTHING

    def _list(
        self,
        names: list[str] | None,
        users: list[int] | None,
        pids: list[int] | None,
        after: str | None,
    ) -> Answer:
        wanted = Filter(frozenset(names or ()), frozenset(users or ()), frozenset(pids or ()))
        services, more = list_services(self._context.registry, wanted, after)
        return {"services": services, "more": more}

    def _set_mappings(self, mappings: Sequence[tuple[int, int, str, str]]) -> Answer:
        holder = self.open_holder()
        new = [mapping(*fields, owner=holder.owner, holder=holder) for fields in mappings]
        if any(m.program == PROGRAM for m in new):
            raise InvalidMapping(f"program {PROGRAM} is the port mapper's own")
        holder.allowances.mappings.check(len(new))
        self._context.registry.map(*new)
        return _NOTHING

    def _unset_mappings(self, mappings: Sequence[tuple[int, int, str, str]]) -> Answer:
        held = self.open_holder().mappings
        for program, version, netid, address in mappings:
            existing = held.get((program, version, netid))
            if existing is None or not _is_at(existing, address):
                raise NotRegistered(
                    f"program {program} version {version} on {netid} is not mapped to {address} "
                    "on this connection"
                )
        keys = dict.fromkeys((program, version, netid) for program, version, netid, _ in mappings)
        self._context.registry.unmap(*[held[key] for key in keys])
        return _NOTHING

    def _list_mappings(self, after: str | None) -> Answer:
        mappings, more = list_mappings(self._context.registry, after)
        return {"mappings": mappings, "more": more}

    def _status(self) -> Answer:
        registry, behind = self._context.registry, self._context.behind()
        return {
            "release": __version__,
            "registered": registry.count_services(),
            "mapped": len(registry.mappings),
            "behind": None if behind is None else round(behind),
        }

    def _watch(self, names: list[str] | None) -> Answer:
        self.open_holder()
        if self._watcher is None:
            self._watcher = self._context.watchers.open(self._peer.send, self._peer.uid)
        self._context.watchers.add(self._watcher, frozenset(names or ()))
        return _NOTHING

    def _unwatch(self) -> Answer:
        if self._watcher is not None:
            self._context.watchers.discard(self._watcher)
        return _NOTHING

    def _in_cluster(self) -> Cluster:
        """The cluster.

        :raises NoCluster: there is none.
        """
        if self._context.cluster is None:
            raise NoCluster("this port mapper belongs to no cluster: start it with --cluster")
        return self._context.cluster

    def _list_cluster(
        self,
        names: list[str] | None,
        users: list[int] | None,
        hosts: list[str] | None,
        after: str | None,
    ) -> Answer:
        start, cluster = shared_place(after), self._in_cluster()
        age = round(cluster.age())
        wanted = frozenset(names or ()), frozenset(users or ()), frozenset(hosts or ())
        services, more = list_cluster(cluster.copy, *wanted, start)
        return {"services": services, "age": age, "more": more}

    def _list_cluster_mappings(self, hosts: list[str] | None, after: str | None) -> Answer:
        start, cluster = shared_place(after), self._in_cluster()
        age = round(cluster.age())
        mappings, more = list_cluster_mappings(cluster.copy, frozenset(hosts or ()), start)
        return {"mappings": mappings, "age": age, "more": more}

    def _watch_cluster(self, names: list[str] | None) -> Answer:
        self._in_cluster()
        watchers = self._context.cluster_watchers
        assert watchers is not None
        self.open_holder()
        if self._cluster_watcher is None:
            self._cluster_watcher = watchers.open(self._peer.send, self._peer.uid)
        watchers.add(self._cluster_watcher, frozenset(names or ()))
        return _NOTHING

    def _unwatch_cluster(self) -> Answer:
        if self._cluster_watcher is not None and self._context.cluster_watchers is not None:
            self._context.cluster_watchers.discard(self._cluster_watcher)
        return _NOTHING

    def _cluster(self, after: str | None) -> Answer:
        if after is not None and not is_host_name(after):
            raise BadArguments(f"after {after[:64]!r} is not the name of a machine")
        cluster = self._in_cluster()
        status, counts = cluster.status(), cluster.copy.counts
        hosts = sorted(cluster.copy.hosts.values())
        page = [host for host in hosts if after is None or host.name > after][:MAX_HOSTS]
        is_last = not page or page[-1] == hosts[-1]
        return {
            **{name: getattr(status, name) for name in ("host", "address", "state", "why")},
            "age": None if status.age is None else round(status.age),
            "revision": status.revision,
            "lease": status.lease,
            "left": round(status.left),
            "members": [(each.url, each.state) for each in status.members],
            "machines": [(h.name, h.address, h.release, counts[h.name]) for h in page],
            "more": None if is_last else page[-1].name,
        }

    def _restart(self) -> None:
        """The context answers it when the restart has ended."""


def _is_at(existing: RpcMapping, address: str) -> bool:
    """Whether *address* is that of the mapping, in any spelling."""
    try:
        canonical, _ = canonical_address(NETIDS[existing.netid], address)
    except InvalidMapping:
        return False
    return canonical == existing.address


def _why_unknown(pid: int) -> str:
    """Why the executable of a process is not known."""
    if pid == UNSEEN:
        return (
            "the executable of a process in another pid namespace, such as a container's, cannot "
            "be seen from here: register without flag 2 (public)"
        )
    return (
        f"the path of the executable of pid {pid} is not known (it was deleted, replaced, or may "
        "not be read)"
    )


def _check_service(name: str, port: str, flags: int) -> None:
    if not name.endswith(RESERVED):
        check_service(name, port, flags)
    elif name != c.PID2EXE:
        raise ReservedName(f"name {name!r}: names that end in {RESERVED} are the port mapper's")
    elif port != c.ANY_PORT or flags != PUBLIC:
        raise InvalidService(
            f"port {port!r}, flags {flags}: {c.PID2EXE} is registered with port {c.ANY_PORT} and "
            f"flags {PUBLIC}"
        )


def _unknown(box: Box) -> NoReturn:
    name = box.get(c.COMMAND)
    if name is None:
        raise BadArguments("_command is missing")
    raise UnknownCommand(f"{_shown(box)!r} is none of {', '.join(_NAMES)}")


def _shown(box: Box) -> str:
    """The name of the command, as messages show it."""
    return box.get(c.COMMAND, b"")[:64].decode("utf-8", "backslashreplace")


_NAMES = [command.name for command in c.COMMANDS.values()]
_OPERATIONS: dict[bytes, Callable[..., Answer | Pending | None]] = {
    c.HELLO.key: Session._hello,
    c.REGISTER.key: Session._register,
    c.DEREGISTER.key: Session._deregister,
    c.LIST.key: Session._list,
    c.SET_MAPPINGS.key: Session._set_mappings,
    c.UNSET_MAPPINGS.key: Session._unset_mappings,
    c.LIST_MAPPINGS.key: Session._list_mappings,
    c.WATCH.key: Session._watch,
    c.UNWATCH.key: Session._unwatch,
    c.STATUS.key: Session._status,
    c.RESTART.key: Session._restart,
    c.LIST_CLUSTER.key: Session._list_cluster,
    c.LIST_CLUSTER_MAPPINGS.key: Session._list_cluster_mappings,
    c.WATCH_CLUSTER.key: Session._watch_cluster,
    c.UNWATCH_CLUSTER.key: Session._unwatch_cluster,
    c.CLUSTER.key: Session._cluster,
}
_TABLE = {name: (c.COMMANDS[name], operate) for name, operate in _OPERATIONS.items()}
