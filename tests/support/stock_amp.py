"""The local channel's commands as Twisted's ``amp.AMP`` has them, by the protocol's document."""

from typing import Any, ClassVar

from twisted.protocols import amp


class Refused(Exception):
    """The daemon answered with an error."""


def _refused(code: str) -> type[Refused]:
    return type(code, (Refused,), {"__doc__": f"{code}."})


UNSUPPORTED_VERSION = _refused("UNSUPPORTED_VERSION")
INVALID_SERVICE = _refused("INVALID_SERVICE")
RESERVED_NAME = _refused("RESERVED_NAME")
ALREADY_REGISTERED = _refused("ALREADY_REGISTERED")
LIMIT_EXCEEDED = _refused("LIMIT_EXCEEDED")
EXECUTABLE_UNKNOWN = _refused("EXECUTABLE_UNKNOWN")
NOT_REGISTERED = _refused("NOT_REGISTERED")
INVALID_MAPPING = _refused("INVALID_MAPPING")
NO_CLUSTER = _refused("NO_CLUSTER")
CLUSTER_UNREACHABLE = _refused("CLUSTER_UNREACHABLE")
NOT_ALLOWED = _refused("NOT_ALLOWED")
RESTART_FAILED = _refused("RESTART_FAILED")
UNKNOWN_COMMAND = _refused("UNKNOWN_COMMAND")
BAD_ARGUMENTS = _refused("BAD_ARGUMENTS")
INTERNAL_ERROR = _refused("INTERNAL_ERROR")

_ANYWHERE = (UNKNOWN_COMMAND, BAD_ARGUMENTS, INTERNAL_ERROR)

Fields = list[tuple[bytes, amp.Argument]]
Errors = dict[type[Exception], bytes]


def _errors(*kinds: type[Refused]) -> Errors:
    return {kind: kind.__name__.encode() for kind in (*kinds, *_ANYWHERE)}


_NAMED: Fields = [(b"name", amp.Unicode()), (b"port", amp.Unicode())]
_SERVICE: Fields = [
    (b"name", amp.Unicode()),
    (b"user", amp.Integer()),
    (b"pid", amp.Integer()),
    (b"port", amp.Unicode()),
    (b"exe", amp.Unicode()),
]
_MAPPING: Fields = [
    (b"program", amp.Integer()),
    (b"version", amp.Integer()),
    (b"netid", amp.Unicode()),
    (b"address", amp.Unicode()),
]
_OWNED: Fields = [*_MAPPING, (b"owner", amp.Unicode())]
_NAMES: Fields = [(b"names", amp.ListOf(amp.Unicode(), optional=True))]
_AFTER: Fields = [(b"after", amp.Unicode(optional=True))]
_MORE: Fields = [(b"more", amp.Unicode(optional=True))]
_PLACE: Fields = [(b"host", amp.Unicode()), (b"address", amp.Unicode())]


class Hello(amp.Command):
    """Who is there?"""

    arguments: ClassVar[Fields] = [(b"version", amp.Integer())]
    response: ClassVar[Fields] = [
        (b"version", amp.Integer()),
        (b"instance", amp.Unicode()),
        (b"limit", amp.Integer()),
        (b"uid", amp.Integer()),
        (b"pid", amp.Integer()),
    ]
    errors: ClassVar[Errors] = _errors(UNSUPPORTED_VERSION)


class Register(amp.Command):
    """Register services, all or none."""

    arguments: ClassVar[Fields] = [(b"services", amp.AmpList([*_NAMED, (b"flags", amp.Integer())]))]
    errors: ClassVar[Errors] = _errors(
        INVALID_SERVICE,
        RESERVED_NAME,
        ALREADY_REGISTERED,
        LIMIT_EXCEEDED,
        EXECUTABLE_UNKNOWN,
        NO_CLUSTER,
        CLUSTER_UNREACHABLE,
    )


class Deregister(amp.Command):
    """Undo registrations."""

    arguments: ClassVar[Fields] = [(b"services", amp.AmpList(_NAMED))]
    errors: ClassVar[Errors] = _errors(NOT_REGISTERED)


class List(amp.Command):
    """A page of the services."""

    arguments: ClassVar[Fields] = [
        *_NAMES,
        (b"users", amp.ListOf(amp.Integer(), optional=True)),
        (b"pids", amp.ListOf(amp.Integer(), optional=True)),
        *_AFTER,
    ]
    response: ClassVar[Fields] = [(b"services", amp.AmpList(_SERVICE)), *_MORE]
    errors: ClassVar[Errors] = _errors()


class SetMappings(amp.Command):
    """Register mappings, all or none."""

    arguments: ClassVar[Fields] = [(b"mappings", amp.AmpList(_MAPPING))]
    errors: ClassVar[Errors] = _errors(INVALID_MAPPING, ALREADY_REGISTERED, LIMIT_EXCEEDED)


class UnsetMappings(amp.Command):
    """Undo mappings."""

    arguments: ClassVar[Fields] = [(b"mappings", amp.AmpList(_MAPPING))]
    errors: ClassVar[Errors] = _errors(NOT_REGISTERED)


class ListMappings(amp.Command):
    """A page of the mappings."""

    arguments: ClassVar[Fields] = _AFTER
    response: ClassVar[Fields] = [(b"mappings", amp.AmpList(_OWNED)), *_MORE]
    errors: ClassVar[Errors] = _errors()


class Watch(amp.Command):
    """Be told of changes."""

    arguments: ClassVar[Fields] = _NAMES
    errors: ClassVar[Errors] = _errors()


class Unwatch(amp.Command):
    """Be told no more."""

    errors: ClassVar[Errors] = _errors()


class Status(amp.Command):
    """How is the daemon?"""

    response: ClassVar[Fields] = [
        (b"release", amp.Unicode()),
        (b"registered", amp.Integer()),
        (b"mapped", amp.Integer()),
        (b"behind", amp.Integer(optional=True)),
    ]
    errors: ClassVar[Errors] = _errors()


class Restart(amp.Command):
    """Have a new process take the place of the daemon."""

    errors: ClassVar[Errors] = _errors(NOT_ALLOWED, RESTART_FAILED)


class ListCluster(amp.Command):
    """A page of the services of the cluster."""

    arguments: ClassVar[Fields] = [
        *_NAMES,
        (b"users", amp.ListOf(amp.Integer(), optional=True)),
        (b"hosts", amp.ListOf(amp.Unicode(), optional=True)),
        *_AFTER,
    ]
    response: ClassVar[Fields] = [
        (b"services", amp.AmpList([*_SERVICE, *_PLACE])),
        (b"age", amp.Integer()),
        *_MORE,
    ]
    errors: ClassVar[Errors] = _errors(NO_CLUSTER, CLUSTER_UNREACHABLE)


class ListClusterMappings(amp.Command):
    """A page of the mappings of the cluster."""

    arguments: ClassVar[Fields] = [(b"hosts", amp.ListOf(amp.Unicode(), optional=True)), *_AFTER]
    response: ClassVar[Fields] = [
        (b"mappings", amp.AmpList([*_OWNED, (b"host", amp.Unicode())])),
        (b"age", amp.Integer()),
        *_MORE,
    ]
    errors: ClassVar[Errors] = _errors(NO_CLUSTER, CLUSTER_UNREACHABLE)


class WatchCluster(amp.Command):
    """Be told of changes of the cluster."""

    arguments: ClassVar[Fields] = _NAMES
    errors: ClassVar[Errors] = _errors(NO_CLUSTER, LIMIT_EXCEEDED)


class UnwatchCluster(amp.Command):
    """Be told no more of the cluster."""

    errors: ClassVar[Errors] = _errors()


class Cluster(amp.Command):
    """How does this machine stand in its cluster?"""

    arguments: ClassVar[Fields] = _AFTER
    response: ClassVar[Fields] = [
        (
            b"machines",
            amp.AmpList([*_PLACE, (b"release", amp.Unicode()), (b"services", amp.Integer())]),
        ),
        (b"members", amp.AmpList([(b"url", amp.Unicode()), (b"state", amp.Unicode())])),
        *_PLACE,
        (b"state", amp.Unicode()),
        (b"why", amp.Unicode()),
        (b"age", amp.Integer(optional=True)),
        (b"revision", amp.Integer()),
        (b"lease", amp.Integer()),
        (b"left", amp.Integer()),
        *_MORE,
    ]
    errors: ClassVar[Errors] = _errors(NO_CLUSTER)


class Event(amp.Command):
    """A change: the fields of a service, or those of a mapping."""

    arguments: ClassVar[Fields] = [
        (b"change", amp.Unicode()),
        *(
            (name, type(kind)(optional=True))
            for name, kind in dict([*_SERVICE, *_OWNED, *_PLACE]).items()
        ),
    ]
    requiresAnswer = False


class Overflow(amp.Command):
    """Changes are missing: list again."""

    requiresAnswer = False


class ClusterOverflow(amp.Command):
    """Changes of the cluster are missing: list it again."""

    requiresAnswer = False


class Lost(amp.Command):
    """A name is registered no longer."""

    arguments: ClassVar[Fields] = [*_NAMED, (b"why", amp.Unicode())]
    requiresAnswer = False


COMMANDS: tuple[type[amp.Command], ...] = (
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


class Client(amp.AMP):
    """A client that is nothing but Twisted's.

    :ivar told: the fields of every event, in order; None for an overflow.
    """

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, Any] | None] = []

    @Event.responder
    def _event(self, **fields: Any) -> dict[str, Any]:
        self.told.append({name: value for name, value in fields.items() if value is not None})
        return {}

    @Overflow.responder
    def _overflow(self) -> dict[str, Any]:
        self.told.append(None)
        return {}
