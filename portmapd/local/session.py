"""What the commands of one connection do; pure but for the process that it knows of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from attrs import frozen
from twisted.logger import Logger

from portmapd.channel import command as c
from portmapd.channel.box import Box
from portmapd.errors import (
    BadArguments,
    ExecutableUnknown,
    InternalError,
    InvalidMapping,
    InvalidService,
    NotRegistered,
    Refusal,
    ReservedName,
    UnknownCommand,
    UnsupportedVersion,
)
from portmapd.local.listing import Filter, list_mappings, list_services
from portmapd.local.watching import Watcher, Watchers
from portmapd.portmapper.access import PROGRAM
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import PUBLIC, RESERVED, Service, check_service

Answer = Mapping[str, Any]
_NOTHING: Answer = {}


@frozen
class Daemon:
    """What every session of a daemon works on.

    :param registry: what is registered.
    :param watchers: who watches it.
    :param instance: a name that no other start of the daemon has.
    """

    registry: Registry
    watchers: Watchers
    instance: str

    def open(self, holder: Holder, watcher: Watcher) -> "Session":
        """Let the holder of a new connection in.

        If another executable stands for its process, that process is gone or has forked: what it
        was is not known any more.
        """
        for other in self.registry.holders_of(holder.pid):
            if other.exe != holder.exe:
                self.registry.blank(other)
        return Session(self, self.registry.open(holder), watcher)


class Session:
    """One connection's side of the channel.

    :param daemon: what it works on.
    :param holder: what it registers belongs to.
    :param watcher: tells its peer of changes.
    """

    __slots__ = ("_daemon", "_watcher", "holder")
    _log = Logger()

    def __init__(self, daemon: Daemon, holder: Holder, watcher: Watcher) -> None:
        self._daemon = daemon
        self.holder = holder
        self._watcher = watcher

    def answer(self, box: Box) -> bytes:
        """Serve a box; the box that answers it, or nothing if none is asked for."""
        tag = box.get(c.ASK)
        try:
            command, operate = _TABLE.get(box.get(c.COMMAND, b"")) or _unknown(box)
            values = operate(self, *command.read_arguments(box))
            return command.reply(tag, values) if tag is not None else b""
        except Refusal as refusal:
            return c.encode_refusal(tag, refusal) if tag is not None else b""
        except Exception:
            self._log.failure("a command of pid {pid} failed", pid=self.holder.pid)
            error = InternalError("the port mapper failed; its log tells how")
            return c.encode_refusal(tag, error) if tag is not None else b""

    def end(self) -> None:
        """The connection has ended: nothing of it stays."""
        self._daemon.watchers.discard(self._watcher)
        self._daemon.registry.close(self.holder)

    def _hello(self, version: int) -> Answer:
        if version != c.VERSION:
            raise UnsupportedVersion(f"version {version}: this daemon speaks {c.VERSION}")
        return {
            "version": c.VERSION,
            "instance": self._daemon.instance,
            "limit": self.holder.allowance.limit or 0,
            "uid": self.holder.uid,
            "pid": self.holder.pid,
        }

    def _register(self, services: Sequence[tuple[str, str, int]]) -> Answer:
        new = [self._new_service(name, port, flags) for name, port, flags in services]
        self._daemon.registry.register(*new)
        return _NOTHING

    def _new_service(self, name: str, port: str, flags: int) -> Service:
        if name.endswith(RESERVED):
            _check_reserved(name, port, flags)
        else:
            check_service(name, port, flags)
        if flags & PUBLIC and not self.holder.exe:
            raise ExecutableUnknown(
                f"flags {flags}: the path of the executable of pid {self.holder.pid} is not known "
                "(it was deleted, replaced, or may not be read)"
            )
        return self.holder.new_service(name, port, flags)

    def _deregister(self, services: Sequence[tuple[str, str]]) -> Answer:
        self._daemon.registry.deregister(self.holder, *services)
        return _NOTHING

    def _list(
        self,
        names: list[str] | None,
        users: list[int] | None,
        pids: list[int] | None,
        after: str | None,
    ) -> Answer:
        wanted = Filter(frozenset(names or ()), frozenset(users or ()), frozenset(pids or ()))
        services, more = list_services(self._daemon.registry, wanted, after)
        return {"services": services, "more": more}

    def _set_mappings(self, mappings: Sequence[tuple[int, int, str, str]]) -> Answer:
        holder = self.holder
        new = [mapping(*fields, owner=holder.owner, holder=holder) for fields in mappings]
        if any(m.program == PROGRAM for m in new):
            raise InvalidMapping(f"program {PROGRAM} is the port mapper's own")
        holder.allowance.check(len(new))
        self._daemon.registry.map(*new)
        return _NOTHING

    def _unset_mappings(self, mappings: Sequence[tuple[int, int, str, str]]) -> Answer:
        held = self.holder.mappings
        for program, version, netid, address in mappings:
            standing = held.get((program, version, netid))
            if standing is None or standing.address != address:
                raise NotRegistered(
                    f"program {program} version {version} on {netid} is not mapped to {address} "
                    "on this connection"
                )
        keys = dict.fromkeys((program, version, netid) for program, version, netid, _ in mappings)
        self._daemon.registry.unmap(*[held[key] for key in keys])
        return _NOTHING

    def _list_mappings(self, after: str | None) -> Answer:
        mappings, more = list_mappings(self._daemon.registry, after)
        return {"mappings": mappings, "more": more}

    def _watch(self, names: list[str] | None) -> Answer:
        self._daemon.watchers.add(self._watcher, frozenset(names or ()))
        return _NOTHING

    def _unwatch(self) -> Answer:
        self._daemon.watchers.discard(self._watcher)
        return _NOTHING


def _check_reserved(name: str, port: str, flags: int) -> None:
    if name != c.PID2EXE:
        raise ReservedName(f"name {name!r}: names that end in {RESERVED} are the port mapper's")
    if port != c.ANY_PORT or flags != PUBLIC:
        raise InvalidService(f"{c.PID2EXE} is registered with port {c.ANY_PORT} and flags {PUBLIC}")


def _unknown(box: Box) -> NoReturn:
    name = box.get(c.COMMAND)
    if name is None:
        raise BadArguments("_command is missing")
    shown = name[:64].decode("utf-8", "backslashreplace")
    raise UnknownCommand(f"{shown!r} is none of {', '.join(_NAMES)}")


_NAMES = [command.name for command in c.COMMANDS.values()]
_OPERATIONS: dict[bytes, Callable[..., Answer]] = {
    c.HELLO.key: Session._hello,
    c.REGISTER.key: Session._register,
    c.DEREGISTER.key: Session._deregister,
    c.LIST.key: Session._list,
    c.SET_MAPPINGS.key: Session._set_mappings,
    c.UNSET_MAPPINGS.key: Session._unset_mappings,
    c.LIST_MAPPINGS.key: Session._list_mappings,
    c.WATCH.key: Session._watch,
    c.UNWATCH.key: Session._unwatch,
}
_TABLE = {name: (c.COMMANDS[name], operate) for name, operate in _OPERATIONS.items()}
