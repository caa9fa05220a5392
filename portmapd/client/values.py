"""What both clients of the local channel give and take; no Twisted."""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from enum import IntFlag
from typing import Any

from attrs import frozen

from portmapd.channel.box import Box
from portmapd.channel.command import CHANGE, MAPPING_ROW, SERVICE_ROW
from portmapd.errors import BadArguments

#: Kinds of change that a service's row comes with; the others come with a mapping's.
_OF_SERVICES = ("registered", "deregistered")


class Flags(IntFlag):
    """How a name is registered."""

    #: No other registration of the name by the same user stands beside it.
    EXCLUSIVE = 1
    #: Listings show the registrant's executable.
    PUBLIC = 2


@frozen
class Service:
    """A registration of a name.

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


@frozen
class RpcMapping:
    """An RPC program's version, mapped on a netid to a universal address."""

    program: int
    version: int
    netid: str
    address: str
    owner: str


@frozen
class Change:
    """Something that a watcher is told of.

    :param kind: ``registered``, ``deregistered``, ``mapped`` or ``unmapped``.
    """

    kind: str
    subject: Service | RpcMapping


def service_of(row: tuple[Any, ...]) -> Service:
    """The service in a row of a listing."""
    name, user, pid, port, exe = row
    return Service(name, user, pid, int(port) if port.isdecimal() else port, exe)


def mapping_of(row: tuple[Any, ...]) -> RpcMapping:
    """The mapping in a row of a listing."""
    return RpcMapping(*row)


def change_of(box: Box) -> Change:
    """The change that an event tells of."""
    kind = box.get(CHANGE, b"").decode("utf-8", "replace")
    rows, make = (SERVICE_ROW, service_of) if kind in _OF_SERVICES else (MAPPING_ROW, mapping_of)
    return Change(kind, make(tuple(column.take(box) for column in rows.columns)))


def user_ids(user: int | str | Iterable[int | str] | None) -> list[int] | None:
    """The uids of one user or several, by uid or by name; None for any.

    :raises BadArguments: there is no user of that name.
    """
    if user is None:
        return None
    users = [user] if isinstance(user, int | str) else user
    return [u if isinstance(u, int) else _uid(u) for u in users]


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise BadArguments(f"user: there is no user {name!r}") from None
