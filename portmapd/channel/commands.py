"""The commands of the local channel, and the boxes that ask, answer and refuse."""

from collections.abc import Mapping
from struct import Struct
from typing import Any

from portmapd.channel.arguments import INTEGER, UNICODE, Argument, Rows, list_of
from portmapd.channel.box import END, Box, encode_pairs
from portmapd.errors import (
    AlreadyRegistered,
    BadArguments,
    ClusterUnreachable,
    ExecutableUnknown,
    InternalError,
    InvalidMapping,
    InvalidService,
    LimitExceeded,
    NameLost,
    NoCluster,
    NotAllowed,
    NotRegistered,
    Refusal,
    ReservedName,
    RestartFailed,
    UnknownCommand,
    UnsupportedVersion,
)

#: The version of the channel's protocol.
VERSION = 1

#: The reserved name, and the port, under which a process announces its executable.
PID2EXE, ANY_PORT = "pid2exe.portmapd", "*"
#: The name under which the daemon lists itself.
ITSELF = "portmapd.portmapd"

ASK, ANSWER, ERROR, COMMAND = b"_ask", b"_answer", b"_error", b"_command"
CODE, DESCRIPTION = b"_error_code", b"_error_description"

_LENGTH = Struct(">H")
_ANSWER_PREFIX = _LENGTH.pack(len(ANSWER)) + ANSWER

#: The longest description of an error that is sent, in bytes.
MAX_DESCRIPTION = 1_024

_NAME = Argument("name", UNICODE)
_PORT = Argument("port", UNICODE)
_USER = Argument("user", INTEGER)
_PID = Argument("pid", INTEGER)
_EXE = Argument("exe", UNICODE)
_MAPPING = (
    Argument("program", INTEGER),
    Argument("version", INTEGER),
    Argument("netid", UNICODE),
    Argument("address", UNICODE),
)
_OWNER = Argument("owner", UNICODE)
_AFTER = Argument("after", UNICODE, optional=True)
_MORE = Argument("more", UNICODE, optional=True)

_HOST = Argument("host", UNICODE)
_ADDRESS = Argument("address", UNICODE)
_HOSTS = Argument("hosts", list_of(UNICODE), optional=True)
_AGE = Argument("age", INTEGER)
_SERVICES = Argument("services", INTEGER)

#: What a listing, and an event, tells of a service, and of a mapping.
SERVICE_ROW = Rows((_NAME, _USER, _PID, _PORT, _EXE))
MAPPING_ROW = Rows((*_MAPPING, _OWNER))
#: The same of a service and a mapping of a machine of the cluster.
SHARED_SERVICE_ROW = Rows((_NAME, _USER, _PID, _PORT, _EXE, _HOST, _ADDRESS))
SHARED_MAPPING_ROW = Rows((*_MAPPING, _OWNER, _HOST))


class Command:
    """A command, by what it takes and what it answers.

    :param arguments: of the box that asks.
    :param answer: of the box that answers.
    :ivar key: its name, in bytes.
    """

    __slots__ = ("answer", "arguments", "key", "name")

    def __init__(
        self, name: str, arguments: tuple[Argument, ...] = (), answer: tuple[Argument, ...] = ()
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.answer = answer
        self.key = name.encode()

    def ask(self, tag: bytes, values: Mapping[str, Any]) -> bytes:
        """The box that asks.

        :param tag: comes back with the answer.
        :param values: the arguments by name; None: left out.
        :raises ValueError: a value is too long for a box.
        """
        head = [(ASK, tag), (COMMAND, self.key)]
        return encode_pairs(head + _encode(self.arguments, values))

    def reply(self, tag: bytes, values: Mapping[str, Any]) -> bytes:
        """The box that answers."""
        head = _ANSWER_PREFIX + _LENGTH.pack(len(tag)) + tag
        return head + (encode_pairs(_encode(self.answer, values)) if self.answer else END)

    def read_arguments(self, box: Box) -> tuple[Any, ...]:
        """The arguments in *box*, in their order; None for those left out.

        :raises BadArguments: one is missing or not of its type; the message names it.
        """
        return tuple([argument.take(box) for argument in self.arguments])

    def read_answer(self, box: Box) -> dict[str, Any]:
        """The answer in *box*, by name.

        :raises BadArguments: as :meth:`read_arguments`.
        """
        return {argument.name: argument.take(box) for argument in self.answer}


def _encode(
    arguments: tuple[Argument, ...], values: Mapping[str, Any]
) -> list[tuple[bytes, bytes]]:
    return [
        (a.key, a.kind.encode(values[a.name])) for a in arguments if values.get(a.name) is not None
    ]


HELLO = Command(
    "Hello",
    (Argument("version", INTEGER),),
    (
        Argument("version", INTEGER),
        Argument("instance", UNICODE),
        Argument("limit", INTEGER),
        Argument("uid", INTEGER),
        Argument("pid", INTEGER),
    ),
)
REGISTER = Command(
    "Register", (Argument("services", Rows((_NAME, _PORT, Argument("flags", INTEGER)))),)
)
DEREGISTER = Command("Deregister", (Argument("services", Rows((_NAME, _PORT))),))
LIST = Command(
    "List",
    (
        Argument("names", list_of(UNICODE), optional=True),
        Argument("users", list_of(INTEGER), optional=True),
        Argument("pids", list_of(INTEGER), optional=True),
        _AFTER,
    ),
    (Argument("services", SERVICE_ROW), _MORE),
)
SET_MAPPINGS = Command("SetMappings", (Argument("mappings", Rows(_MAPPING)),))
UNSET_MAPPINGS = Command("UnsetMappings", (Argument("mappings", Rows(_MAPPING)),))
LIST_MAPPINGS = Command("ListMappings", (_AFTER,), (Argument("mappings", MAPPING_ROW), _MORE))
STATUS = Command(
    "Status",
    (),
    (
        Argument("release", UNICODE),
        Argument("registered", INTEGER),
        Argument("mapped", INTEGER),
        Argument("behind", INTEGER, optional=True),
    ),
)
WATCH = Command("Watch", (Argument("names", list_of(UNICODE), optional=True),))
UNWATCH = Command("Unwatch")
RESTART = Command("Restart")
LIST_CLUSTER = Command(
    "ListCluster",
    (
        Argument("names", list_of(UNICODE), optional=True),
        Argument("users", list_of(INTEGER), optional=True),
        _HOSTS,
        _AFTER,
    ),
    (Argument("services", SHARED_SERVICE_ROW), _AGE, _MORE),
)
LIST_CLUSTER_MAPPINGS = Command(
    "ListClusterMappings",
    (_HOSTS, _AFTER),
    (Argument("mappings", SHARED_MAPPING_ROW), _AGE, _MORE),
)
WATCH_CLUSTER = Command("WatchCluster", (Argument("names", list_of(UNICODE), optional=True),))
UNWATCH_CLUSTER = Command("UnwatchCluster")
CLUSTER = Command(
    "Cluster",
    (_AFTER,),
    (
        Argument("machines", Rows((_HOST, _ADDRESS, Argument("release", UNICODE), _SERVICES))),
        Argument("members", Rows((Argument("url", UNICODE), Argument("state", UNICODE)))),
        _HOST,
        _ADDRESS,
        Argument("state", UNICODE),
        Argument("why", UNICODE),
        Argument("age", INTEGER, optional=True),
        Argument("revision", INTEGER),
        Argument("lease", INTEGER),
        Argument("left", INTEGER),
        _MORE,
    ),
)

EVENT, OVERFLOW, CLUSTER_OVERFLOW, LOST = b"Event", b"Overflow", b"ClusterOverflow", b"Lost"
CHANGE = b"change"
#: What the daemon tells of a name that its holder has lost.
LOST_ROW = Rows((_NAME, _PORT, Argument("why", UNICODE)))

#: What a client may ask for.
COMMANDS = {
    command.key: command
    for command in (
        HELLO,
        REGISTER,
        DEREGISTER,
        LIST,
        SET_MAPPINGS,
        UNSET_MAPPINGS,
        LIST_MAPPINGS,
        WATCH,
        UNWATCH,
        STATUS,
        RESTART,
        LIST_CLUSTER,
        LIST_CLUSTER_MAPPINGS,
        WATCH_CLUSTER,
        UNWATCH_CLUSTER,
        CLUSTER,
    )
}

#: The boxes that tell a watcher to list again.
OVERFLOW_BOX = encode_pairs([(COMMAND, OVERFLOW)])
CLUSTER_OVERFLOW_BOX = encode_pairs([(COMMAND, CLUSTER_OVERFLOW)])

_REFUSALS: dict[bytes, type[Refusal]] = {
    kind.code.encode(): kind
    for kind in (
        AlreadyRegistered,
        BadArguments,
        ClusterUnreachable,
        ExecutableUnknown,
        InternalError,
        InvalidMapping,
        InvalidService,
        LimitExceeded,
        NameLost,
        NoCluster,
        NotAllowed,
        NotRegistered,
        ReservedName,
        RestartFailed,
        UnknownCommand,
        UnsupportedVersion,
    )
}


def encode_event(change: str, rows: Rows, row: tuple[Any, ...]) -> bytes:
    """The box that tells of a change of the service or mapping in *row*."""
    head = encode_pairs([(COMMAND, EVENT), (CHANGE, change.encode())])
    return head[:-2] + rows.encode_row(row)


def encode_lost(name: str, port: str, why: Refusal) -> bytes:
    """The box that tells a holder that a name is registered no longer."""
    return encode_pairs([(COMMAND, LOST)])[:-2] + LOST_ROW.encode_row((name, port, _shown(why)))


def _shown(refusal: Refusal) -> str:
    # A cut may leave a part of a character.
    text = str(refusal).encode("utf-8", "replace")[:MAX_DESCRIPTION]
    return text.decode("utf-8", "ignore")


def encode_refusal(tag: bytes, refusal: Refusal) -> bytes:
    """The box that refuses."""
    text = _shown(refusal).encode()
    return encode_pairs([(ERROR, tag), (CODE, refusal.code.encode()), (DESCRIPTION, text)])


def read_refusal(box: Box) -> Refusal:
    """The refusal that *box* carries."""
    kind = _REFUSALS.get(box.get(CODE, b""), InternalError)
    return kind(box.get(DESCRIPTION, b"").decode("utf-8", "replace"))
