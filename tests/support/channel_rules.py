"""A model of the local channel's rules, by the protocol's document and without portmapd's code."""

from collections import Counter
from collections.abc import Iterable, Iterator

from attrs import define, field, frozen

Row = tuple[object, ...]
Keys = dict[tuple[str, str], int]
Addresses = dict[tuple[int, int, str], str]

#: Which of the few names, ports and mappings that the operations use are valid.
RESERVED = ("x.portmapd", "portmapd.portmapd")
PID2EXE = ("pid2exe.portmapd", "*", 2)
BAD_NAMES = ("", "a b", "a\n", "n" * 256)
BAD_PORTS = ("0", "65536", "*", "http")
BAD_NETIDS = ("ip", "")


@define(eq=False)
class Process:
    """A process.

    :param pid: which other processes have had before it, and will have after it.
    :param exe: its executable; empty if unknown.
    """

    pid: int
    uid: int
    exe: str
    connections: "list[Connection]" = field(factory=list, repr=False)

    @property
    def held(self) -> tuple[int, int]:
        """How many services it holds, and how many mappings."""
        return (
            sum(len(each.services) for each in self.connections),
            sum(len(each.mappings) for each in self.connections),
        )


@define(eq=False)
class Connection:
    """A connection of a process.

    :param exe: its executable when it was looked up; None: it was not.
    """

    process: Process = field(repr=False)
    exe: str | None = None
    services: Keys = field(factory=dict)
    mappings: Addresses = field(factory=dict)


@frozen
class Rules:
    """What is registered, and what may be.

    :param limit: the most services of a process, and the most mappings.
    """

    limit: int
    connections: list[Connection] = field(factory=list)
    #: Mappings that no connection holds.
    others: dict[tuple[int, int, str], tuple[str, str]] = field(factory=dict)

    def connect(self, process: Process) -> Connection:
        """Make a connection; it is looked at if another of its pid has made something public."""
        made = Connection(process)
        others = [other for other in self.connections if other.process.pid == process.pid]
        public = any(flags & 2 for other in others for flags in other.services.values())
        self.connections.append(made)
        process.connections.append(made)
        if public:
            self.look(made)
        return made

    def look(self, connection: Connection) -> None:
        """Look at the executable; others of the pid with another one are blanked."""
        if connection.exe is None:
            connection.exe = connection.process.exe
            for other in self.connections:
                same = other.process.pid == connection.process.pid
                if same and other.exe not in {None, connection.exe}:
                    other.exe = ""

    def close(self, connection: Connection) -> None:
        """End a connection."""
        self.connections.remove(connection)
        connection.process.connections.remove(connection)

    def faults(self, connection: Connection, new: list[tuple[str, str, int]]) -> set[str]:
        """The errors that registering *new* deserves; one of them must be told.

        If every service is valid and one public, the executable is looked at.
        """
        public = any(flags & 2 for _, _, flags in new)
        if public and all(each[0] not in RESERVED and is_valid(*each) for each in new):
            self.look(connection)
        found = {fault for each in new for fault in self._service_faults(connection, *each)}
        keys = Counter((name, port) for name, port, _ in new)
        if max(keys.values(), default=0) > 1 or any(key in connection.services for key in keys):
            found.add("ALREADY_REGISTERED")
        return found | self._excess(connection.process.held[0] + len(new))

    def _service_faults(
        self, connection: Connection, name: str, port: str, flags: int
    ) -> Iterator[str]:
        if name in RESERVED:
            yield "RESERVED_NAME"
        elif not is_valid(name, port, flags):
            yield "INVALID_SERVICE"
        if flags & 2 and not connection.exe:
            yield "EXECUTABLE_UNKNOWN"
        existing = [
            held
            for other in self.connections
            if other.process.uid == connection.process.uid
            for (taken, _), held in other.services.items()
            if taken == name
        ]
        if existing and any((flags | held) & 1 for held in existing):
            yield "ALREADY_REGISTERED"

    def _excess(self, count: int) -> set[str]:
        return {"LIMIT_EXCEEDED"} if count > self.limit else set()

    def mapping_faults(
        self, connection: Connection, new: list[tuple[int, int, str, str]]
    ) -> set[str]:
        """The errors that setting *new* deserves."""
        found: set[str] = set()
        taken = self.mapped()
        for program, version, netid, _ in new:
            key = (program, version, netid)
            if program in {-1, 100000} or netid in BAD_NETIDS:
                found.add("INVALID_MAPPING")
            if key in taken:
                found.add("ALREADY_REGISTERED")
            taken[key] = ("", "")
        return found | self._excess(connection.process.held[1] + len(new))

    def mapped(self) -> dict[tuple[int, int, str], tuple[str, str]]:
        """Every mapping: by its key, its address and owner."""
        held = {
            key: (address, owner(connection.process.uid))
            for connection in self.connections
            for key, address in connection.mappings.items()
        }
        return self.others | held

    def services(
        self, names: Iterable[str] = (), users: Iterable[int] = (), pids: Iterable[int] = ()
    ) -> Counter[Row]:
        """What a listing gives."""
        wanted_names, wanted_users, wanted_pids = set(names), set(users), set(pids)
        return Counter(
            (name, who.uid, who.pid, port, connection.exe if flags & 2 else "")
            for connection in self.connections
            for who in [connection.process]
            for (name, port), flags in connection.services.items()
            if (not wanted_names or name in wanted_names)
            and (not wanted_users or who.uid in wanted_users)
            and (not wanted_pids or who.pid in wanted_pids)
        )

    def mappings(self) -> list[Row]:
        """What a listing of mappings gives."""
        return [(*key, *rest) for key, rest in sorted(self.mapped().items())]


def is_valid(name: str, port: str, flags: int) -> bool:
    """May a service have these fields?"""
    if name == PID2EXE[0]:
        return (name, port, flags) == PID2EXE
    return name not in BAD_NAMES and port not in BAD_PORTS and 0 <= flags <= 3


def owner(uid: int) -> str:
    """The owner of mappings that a user sets."""
    return str(uid) if uid else "superuser"
