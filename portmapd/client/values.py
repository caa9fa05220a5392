"""What both clients of the local channel give and take; no Twisted."""

import pwd
from collections.abc import Iterable
from enum import IntFlag
from typing import Any, NamedTuple

from portmapd.channel.box import Box
from portmapd.channel.commands import CHANGE, MAPPING_ROW, SERVICE_ROW
from portmapd.errors import BadArguments

#: Kinds of change that a service's row comes with; the others come with a mapping's.
_OF_SERVICES = ("registered", "deregistered")
_OF_MAPPINGS = ("mapped", "unmapped")
#: The digits of the largest port number.
_DIGITS = 5


class Flags(IntFlag):
    """How a name is registered."""

    #: No other registration of the name by the same user stands beside it.
    EXCLUSIVE = 1
    #: Listings show the registrant's executable.
    PUBLIC = 2


class Service(NamedTuple):
    """A registration of a name; a named tuple.

    :param name: the name.
    :param user: the uid of the process that registered it.
    :param pid: that process.
    :param port: a port number, or the absolute path of a UNIX socket; ``*`` for an announcement
        of an executable.
    :param exe: the path of the process's executable, where it was made public; else empty.
    """

    name: str
    user: int
    pid: int
    port: int | str
    exe: str


class RpcMapping(NamedTuple):
    """An RPC program's version, mapped on a netid to a universal address; a named tuple."""

    program: int
    version: int
    netid: str
    address: str
    owner: str


class Change(NamedTuple):
    """Something that a watcher is told of; a named tuple.

    :param kind: ``registered``, ``deregistered``, ``mapped`` or ``unmapped``.
    """

    kind: str
    subject: Service | RpcMapping


def service_of(row: tuple[Any, ...]) -> Service:
    """The service in a row of a listing."""
    name, user, pid, port, exe = row
    return Service(name, user, pid, int(port) if is_number(port) else port, exe)


def is_number(port: str) -> bool:
    """Is it a port in digits, though perhaps one too large?"""
    return port.isascii() and port.isdecimal() and len(port) <= _DIGITS


def mapping_of(row: tuple[Any, ...]) -> RpcMapping:
    """The mapping in a row of a listing."""
    return RpcMapping(*row)


def change_of(box: Box) -> Change:
    """The change that an event tells of.

    :raises BadArguments: it tells of none that is known, or lacks something.
    """
    kind = box.get(CHANGE, b"").decode("utf-8", "replace")
    if kind not in _OF_SERVICES + _OF_MAPPINGS:
        raise BadArguments(f"change {kind!r} is none that is known")
    rows, make = (SERVICE_ROW, service_of) if kind in _OF_SERVICES else (MAPPING_ROW, mapping_of)
    return Change(kind, make(tuple(column.take(box) for column in rows.columns)))


def names_of(name: str | Iterable[str] | None) -> list[str] | None:
    """One name or several, as a list; None for any.

    :raises BadArguments: one of them is no name.
    """
    return None if name is None else _list_of(str, "name", name)


def pids_of(pid: int | Iterable[int] | None) -> list[int] | None:
    """One process or several, as a list; None for any.

    :raises BadArguments: one of them is no number.
    """
    return None if pid is None else _list_of(int, "pid", pid)


def user_ids(user: int | str | Iterable[int | str] | None) -> list[int] | None:
    """The uids of one user or several, by uid or by name; None for any.

    :raises BadArguments: there is no user of that name, or it is neither a uid nor a name.
    """
    if user is None:
        return None
    users: list[int | str] = _list_of((int, str), "user", user)
    return [_uid(one) if isinstance(one, str) else one for one in users]


def _list_of(kind: type | tuple[type, ...], what: str, value: Any) -> list[Any]:
    """One value of a kind, or several, as a list; an empty one would mean any."""
    values = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    if not values or not all(isinstance(one, kind) and not isinstance(one, bool) for one in values):
        raise BadArguments(f"{what} {value!r}: give one, or a list of some, or None for any")
    return values


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    # A name may be none that the user database could be asked for.
    except (KeyError, ValueError):
        raise BadArguments(f"user: there is no user {name!r}") from None
