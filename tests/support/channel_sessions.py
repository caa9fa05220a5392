"""The local channel without sockets, and the connections of made-up processes."""

from collections.abc import Iterator, MutableSequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.channel.box import Box, BoxReader
from portmapd.errors import Refusal
from portmapd.registry.holder import Allowances, Holder, allowances
from portmapd.registry.registry import Registry
from portmapd.server.session import ChannelContext
from portmapd.server.watchers import Watchers

#: A service to register: its name, port and flags.
Wanted = tuple[str, str, int]
Fields = dict[str, Any]


class Host:
    """A channel, and the processes of its host.

    :param limit: the most services that one process may hold, and the most mappings.
    """

    def __init__(self, limit: int = 10) -> None:
        self.registry = Registry()
        self.context = ChannelContext(self.registry, Watchers(self.registry), "b1946ac9", limit)
        self._limit = limit
        self._allowances: dict[int, Allowances] = {}

    def connect(self, uid: int = 104, pid: int = 7, exe: str = "/bin/a") -> "Connection":
        """A connection of a process; one with the same pid is the same process."""
        allowance = self._allowances.setdefault(pid, allowances(self._limit, self._limit))
        return Connection(self.context, uid, pid, exe, allowance)

    def exit(self, pid: int) -> None:
        """The process has ended, and so have its connections: another one may get its pid."""
        self._allowances.pop(pid, None)


class Process:
    """The other end of a session: a process that was made up.

    :param said: where the boxes go that the session sends by itself.
    :ivar exe: its executable.
    """

    def __init__(
        self, uid: int, pid: int, exe: str, allowance: Allowances, said: MutableSequence[bytes]
    ) -> None:
        self.uid = uid
        self.pid = pid
        self.exe = exe
        self._allowance = allowance
        self._said = said

    def join(self) -> Allowances:
        """It never ends."""
        return self._allowance

    def read_executable(self) -> str:
        """What it executes now."""
        return self.exe

    def send(self, data: bytes) -> None:
        """Take boxes."""
        self._said.append(data)


class Connection:
    """A process's connection: commands go in as bytes, and so do answers and events come out."""

    def __init__(
        self, context: ChannelContext, uid: int, pid: int, exe: str, allowance: Allowances
    ) -> None:
        self._said: list[bytes] = []
        self.process = Process(uid, pid, exe, allowance, self._said)
        self.session = context.open(self.process)

    @property
    def holder(self) -> Holder:
        """What it registers belongs to."""
        return self.session.open_holder()

    def answer(self, box: Box) -> Box | None:
        """The box that answers *box*; None if none does."""
        answers = list(BoxReader().feed(self.session.answer(box)))
        assert len(answers) <= 1
        return answers[0] if answers else None

    def ask(self, command: c.Command, **values: Any) -> Fields:
        """The answer to a command.

        :raises Refusal: it is refused.
        """
        (box,) = BoxReader().feed(command.ask(b"t", values))
        answer = self.answer(box)
        assert answer is not None
        if b"_error" in answer:
            assert answer[b"_error"] == b"t"
            raise c.read_refusal(answer)
        assert answer.pop(b"_answer") == b"t"
        return command.read_answer(answer)

    def hello(self, version: int = c.VERSION) -> Fields:
        """Say hello."""
        return self.ask(c.HELLO, version=version)

    def register(self, *services: Wanted) -> None:
        """Register services."""
        assert self.ask(c.REGISTER, services=services) == {}

    def deregister(self, *services: tuple[str, str]) -> None:
        """Undo registrations."""
        assert self.ask(c.DEREGISTER, services=services) == {}

    def set(self, *mappings: tuple[int, int, str, str]) -> None:
        """Register mappings."""
        assert self.ask(c.SET_MAPPINGS, mappings=mappings) == {}

    def unset(self, *mappings: tuple[int, int, str, str]) -> None:
        """Undo mappings."""
        assert self.ask(c.UNSET_MAPPINGS, mappings=mappings) == {}

    def watch(self, *names: str) -> None:
        """Watch names; all, if none is given."""
        assert self.ask(c.WATCH, names=names or None) == {}

    def unwatch(self) -> None:
        """Watch no more."""
        assert self.ask(c.UNWATCH) == {}

    def pages(self, command: c.Command = c.LIST, **values: Any) -> Iterator[list[Any]]:
        """A listing, a page at a time."""
        more: str | None = None
        while True:
            page = self.ask(command, after=more, **values)
            more = page.pop("more")
            yield page.popitem()[1]
            if more is None:
                return

    def services(self, **values: Any) -> list[tuple[str, int, int, str, str]]:
        """The listing of services, whole."""
        return [row for page in self.pages(c.LIST, **values) for row in page]

    def mappings(self) -> list[tuple[int, int, str, str, str]]:
        """The listing of mappings, whole."""
        return [row for page in self.pages(c.LIST_MAPPINGS) for row in page]

    def told(self) -> list[tuple[Any, ...]]:
        """What the watcher was told since the last look: changes and rows, or overflows."""
        data, self._said[:] = b"".join(self._said), []
        return [read_event(box) for box in BoxReader().feed(data)]

    def close(self) -> None:
        """End the connection."""
        self.session.end()


def read_event(box: Box) -> tuple[Any, ...]:
    """The change and the row of an event, or ``("overflow",)``."""
    assert b"_ask" not in box
    if box[b"_command"] == b"Overflow":
        return ("overflow",)
    assert box[b"_command"] == b"Event"
    change = box[b"change"].decode()
    rows = c.MAPPING_ROW if change in {"mapped", "unmapped"} else c.SERVICE_ROW
    assert set(box) == {b"_command", b"change", *(column.key for column in rows.columns)}
    return (change, *(column.take(box) for column in rows.columns))


class SessionTestCase(SynchronousTestCase):
    """A host and a connection on it."""

    def setUp(self) -> None:
        self.host = Host()
        self.connection = self.host.connect()

    def names(self) -> list[str]:
        """The names that are listed."""
        return [row[0] for row in self.connection.services()]

    def refused(self, kind: type[Refusal], names: str, call: Any, *arguments: Any) -> str:
        """The sentence of the refusal, which must have *names* in it."""
        sentence = str(self.assertRaises(kind, call, *arguments))
        self.assertIn(names, sentence)
        return sentence
