"""The commands of the local channel as classes for ``twisted.protocols.amp``.

Any program that uses Twisted's AMP can speak to the daemon with them. This is the only module of
its package that imports Twisted; the daemon itself does not use it.

An error box raises the class of :mod:`portmapd.errors` that has its code.
"""

from typing import ClassVar

from twisted.protocols.amp import AmpList, Argument, Command, Integer, ListOf, Unicode

from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    ClusterUnreachable,
    ExecutableUnknown,
    InternalError,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NoCluster,
    NotAllowed,
    NotRegistered,
    Refusal,
    ReservedName,
    RestartFailed,
    UnknownCommand,
    UnsupportedVersion,
)

Fields = list[tuple[bytes, Argument]]
Errors = dict[type[Exception], bytes]


def _errors(*refusals: type[Refusal]) -> Errors:
    """The errors of a command: those of every command, and its own."""
    every: tuple[type[Refusal], ...] = (UnknownCommand, BadArguments, InternalError)
    return {refusal: refusal.code.encode() for refusal in every + refusals}


_KEY: Fields = [(b"name", Unicode()), (b"port", Unicode())]
_NEW_SERVICE: Fields = [*_KEY, (b"flags", Integer())]
_SERVICE: Fields = [
    (b"name", Unicode()),
    (b"user", Integer()),
    (b"pid", Integer()),
    (b"port", Unicode()),
    (b"exe", Unicode()),
]
_MAPPING: Fields = [
    (b"program", Integer()),
    (b"version", Integer()),
    (b"netid", Unicode()),
    (b"address", Unicode()),
]
_OWNED_MAPPING: Fields = [*_MAPPING, (b"owner", Unicode())]
_NAMES: Fields = [(b"names", ListOf(Unicode(), optional=True))]
_AFTER: Fields = [(b"after", Unicode(optional=True))]
_MORE: Fields = [(b"more", Unicode(optional=True))]
_HOSTS: Fields = [(b"hosts", ListOf(Unicode(), optional=True))]
_PLACE: Fields = [(b"host", Unicode()), (b"address", Unicode())]


class Hello(Command):
    """Ask what the daemon is: its version and instance, and what it knows of this process."""

    arguments: ClassVar[Fields] = [(b"version", Integer())]
    response: ClassVar[Fields] = [
        (b"version", Integer()),
        (b"instance", Unicode()),
        (b"limit", Integer()),
        (b"uid", Integer()),
        (b"pid", Integer()),
    ]
    errors: ClassVar[Errors] = _errors(UnsupportedVersion)


class Register(Command):
    """Register services, all or none, for as long as this connection lives."""

    arguments: ClassVar[Fields] = [(b"services", AmpList(_NEW_SERVICE))]
    errors: ClassVar[Errors] = _errors(
        InvalidService,
        ReservedName,
        AlreadyRegistered,
        LimitExceeded,
        ExecutableUnknown,
        NoCluster,
        ClusterUnreachable,
    )


class Deregister(Command):
    """Remove services of this connection, all or none."""

    arguments: ClassVar[Fields] = [(b"services", AmpList(_KEY))]
    errors: ClassVar[Errors] = _errors(NotRegistered)


class List(Command):
    """Ask for a page of the services; ``more`` is ``after`` of the next page."""

    arguments: ClassVar[Fields] = [
        *_NAMES,
        (b"users", ListOf(Integer(), optional=True)),
        (b"pids", ListOf(Integer(), optional=True)),
        *_AFTER,
    ]
    response: ClassVar[Fields] = [(b"services", AmpList(_SERVICE)), *_MORE]
    errors: ClassVar[Errors] = _errors()


class SetMappings(Command):
    """Register RPC mappings, all or none, for as long as this connection lives."""

    arguments: ClassVar[Fields] = [(b"mappings", AmpList(_MAPPING))]
    errors: ClassVar[Errors] = _errors(InvalidMapping, AlreadyRegistered, LimitExceeded)


class UnsetMappings(Command):
    """Remove RPC mappings of this connection, all or none."""

    arguments: ClassVar[Fields] = [(b"mappings", AmpList(_MAPPING))]
    errors: ClassVar[Errors] = _errors(NotRegistered)


class ListMappings(Command):
    """Ask for a page of the RPC mappings; ``more`` is ``after`` of the next page."""

    arguments: ClassVar[Fields] = _AFTER
    response: ClassVar[Fields] = [(b"mappings", AmpList(_OWNED_MAPPING)), *_MORE]
    errors: ClassVar[Errors] = _errors()


class Watch(Command):
    """Ask for an :class:`Event` for every change to services of these names; to any, if none."""

    arguments: ClassVar[Fields] = _NAMES
    errors: ClassVar[Errors] = _errors()


class Unwatch(Command):
    """Ask for no further events."""

    errors: ClassVar[Errors] = _errors()


class Status(Command):
    """Ask how the daemon is: its release, how much is registered, whether its state is written."""

    response: ClassVar[Fields] = [
        (b"release", Unicode()),
        (b"registered", Integer()),
        (b"mapped", Integer()),
        (b"behind", Integer(optional=True)),
    ]
    errors: ClassVar[Errors] = _errors()


class Restart(Command):
    """Have a new process take the place of the daemon; every connection passes over to it."""

    errors: ClassVar[Errors] = _errors(NotAllowed, RestartFailed)


class ListCluster(Command):
    """List the services that the machines of the cluster share, a page at a time."""

    arguments: ClassVar[Fields] = [
        *_NAMES,
        (b"users", ListOf(Integer(), optional=True)),
        *_HOSTS,
        *_AFTER,
    ]
    response: ClassVar[Fields] = [
        (b"services", AmpList([*_SERVICE, *_PLACE])),
        (b"age", Integer()),
        *_MORE,
    ]
    errors: ClassVar[Errors] = _errors(NoCluster, ClusterUnreachable)


class ListClusterMappings(Command):
    """List the RPC mappings that the machines of the cluster share, a page at a time."""

    arguments: ClassVar[Fields] = [*_HOSTS, *_AFTER]
    response: ClassVar[Fields] = [
        (b"mappings", AmpList([*_OWNED_MAPPING, (b"host", Unicode())])),
        (b"age", Integer()),
        *_MORE,
    ]
    errors: ClassVar[Errors] = _errors(NoCluster, ClusterUnreachable)


class WatchCluster(Command):
    """Be told of every change of these names in the cluster; of all services, and mappings, if
    there are none.
    """

    arguments: ClassVar[Fields] = _NAMES
    errors: ClassVar[Errors] = _errors(NoCluster, LimitExceeded)


class UnwatchCluster(Command):
    """Be told of no further change of the cluster."""

    errors: ClassVar[Errors] = _errors()


class Cluster(Command):
    """Ask how this machine stands in its cluster, and for its machines, a page at a time."""

    arguments: ClassVar[Fields] = _AFTER
    response: ClassVar[Fields] = [
        (
            b"machines",
            AmpList([*_PLACE, (b"release", Unicode()), (b"services", Integer())]),
        ),
        (b"members", AmpList([(b"url", Unicode()), (b"state", Unicode())])),
        *_PLACE,
        (b"state", Unicode()),
        (b"why", Unicode()),
        (b"age", Integer(optional=True)),
        (b"revision", Integer()),
        (b"lease", Integer()),
        (b"left", Integer()),
        *_MORE,
    ]
    errors: ClassVar[Errors] = _errors(NoCluster)


class Event(Command):
    """A change, which the daemon tells a watcher.

    ``change`` is ``registered`` or ``deregistered``, with the fields of a service, or ``mapped`` or
    ``unmapped``, with those of a mapping. A change of the cluster has the host, too, and of a
    service the address. The other fields are None.
    """

    arguments: ClassVar[Fields] = [
        (b"change", Unicode()),
        (b"name", Unicode(optional=True)),
        (b"user", Integer(optional=True)),
        (b"pid", Integer(optional=True)),
        (b"port", Unicode(optional=True)),
        (b"exe", Unicode(optional=True)),
        (b"program", Integer(optional=True)),
        (b"version", Integer(optional=True)),
        (b"netid", Unicode(optional=True)),
        (b"address", Unicode(optional=True)),
        (b"owner", Unicode(optional=True)),
        (b"host", Unicode(optional=True)),
    ]
    requiresAnswer = False


class Overflow(Command):
    """The daemon tells a watcher that events are missing: list again."""

    requiresAnswer = False


class ClusterOverflow(Command):
    """The daemon tells a watcher of the cluster that events are missing: list again."""

    requiresAnswer = False


class Lost(Command):
    """The daemon tells a holder that a name is registered no longer, and why."""

    arguments: ClassVar[Fields] = [*_KEY, (b"why", Unicode())]
    requiresAnswer = False


COMMANDS: tuple[type[Command], ...] = (
    Hello,
    Register,
    Deregister,
    List,
    SetMappings,
    UnsetMappings,
    ListMappings,
    Watch,
    Unwatch,
    Status,
    Restart,
    ListCluster,
    ListClusterMappings,
    WatchCluster,
    UnwatchCluster,
    Cluster,
)
