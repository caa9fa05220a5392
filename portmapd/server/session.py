"""The commands of one connection of the local channel, without its socket and its process."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from attrs import field, frozen
from twisted.logger import Logger

from portmapd import __version__
from portmapd.channel import commands as c
from portmapd.channel.box import Box
from portmapd.channel.service import check_service
from portmapd.errors import (
    BadArguments,
    ExecutableUnknown,
    InternalError,
    InvalidMapping,
    InvalidService,
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
from portmapd.registry.service import PUBLIC, RESERVED
from portmapd.server.handover.passed import PassedWatch
from portmapd.server.listing import Filter, list_mappings, list_services
from portmapd.server.peer_process import UNSEEN
from portmapd.server.watchers import Watcher, Watchers

Answer = Mapping[str, Any]
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
    """

    registry: Registry
    watchers: Watchers
    instance: str
    limit: int
    behind: Callable[[], float | None] = keeps_nothing
    refused: Callable[[Peer, str, str], object] = ignore_refusal
    refusals: Counter[str] = field(factory=Counter)
    restart: Callable[[Peer, bytes | None], object] = refuse_restart

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

    __slots__ = ("_context", "_holder", "_peer", "_watcher")
    _log = Logger()

    def __init__(self, context: ChannelContext, peer: Peer) -> None:
        self._context = context
        self._peer = peer
        self._holder: Holder | None = None
        self._watcher: Watcher | None = None

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
        if self._watcher is not None:
            self._context.watchers.discard(self._watcher)
            self._watcher.drop()
        if self._holder is not None:
            self._context.registry.close(self._holder)

    @property
    def holding(self) -> Holder | None:
        """Its holder, if it holds or watches anything."""
        holder = self._holder
        if holder is None or not (holder.services or holder.mappings or self._watcher):
            return None
        return holder

    def pass_on(self) -> tuple[int | None, PassedWatch | None]:
        """What another process needs to go on with it: its holder's serial, and what it watches."""
        holder, watcher = self._holder, self._watcher
        return (
            None if holder is None else holder.serial,
            None if watcher is None else watcher.pass_on(),
        )

    def take_over(self, holder: Holder | None, watch: PassedWatch | None) -> None:
        """Be what the session was in another process.

        :param holder: its holder, which is open.
        """
        self._holder = holder
        if watch is not None:
            peer = self._peer
            self._watcher = self._context.watchers.resume(watch, peer.send, peer.uid)

    def pause(self) -> None:
        """The peer has stopped reading."""
        if self._watcher is not None:
            self._watcher.pause()

    def resume(self) -> None:
        """The peer reads again."""
        if self._watcher is not None:
            self._watcher.resume()

    def answer(self, box: Box) -> bytes:
        """The box that answers *box*; empty if it asks for no answer."""
        tag = box.get(c.ASK)
        try:
            command, operate = _TABLE.get(box.get(c.COMMAND, b"")) or _unknown(box)
            values = operate(self, *command.read_arguments(box))
            if values is None:
                self._context.restart(self._peer, tag)
                return b""
            if self._watcher is not None:
                # Events of its own changes, and of those that a listing has, come first.
                self._watcher.send()
            return command.reply(tag, values) if tag is not None else b""
        except Refusal as refusal:
            self._context.refusals[refusal.code] += 1
            self._context.refused(self._peer, _shown(box), str(refusal))
            return c.encode_refusal(tag, refusal) if tag is not None else b""
        except ProcessLookupError:
            return b""
        except Exception:
            self._log.failure("a command of pid {pid} failed", pid=self._peer.pid)
            error = InternalError("the port mapper failed; its log tells how")
            return c.encode_refusal(tag, error) if tag is not None else b""

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

    def _register(self, services: Sequence[tuple[str, str, int]]) -> Answer:
        for service in services:
            _check_service(*service)
        public = next((flags for _, _, flags in services if flags & PUBLIC), 0)
        if public and not self.find_executable():
            raise ExecutableUnknown(f"flags {public}: {_why_unknown(self._peer.pid)}")
        holder = self.open_holder()
        self._context.registry.register(*[holder.new_service(*service) for service in services])
        return _NOTHING

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
_OPERATIONS: dict[bytes, Callable[..., Answer | None]] = {
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
}
_TABLE = {name: (c.COMMANDS[name], operate) for name, operate in _OPERATIONS.items()}
