"""The services of another machine, as its port mapper lists them at ``/portmap`` over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from portmapd.channel import commands as c
from portmapd.channel.service import MAX_PORT, check_service
from portmapd.client.core.connecting import TIMEOUT, S, dial, reason_of
from portmapd.client.core.registrations import Registrations
from portmapd.errors import (
    CallTimedOut,
    ClientClosed,
    DaemonUnreachable,
    InvalidService,
    UnknownCommand,
)
from portmapd.oncrpc.host import is_address

if TYPE_CHECKING:
    from portmapd.client.core.interfaces import Future, RemoteDialer, Runtime

T = TypeVar("T")

#: The port that is asked unless the host names another one.
PORT = 80
#: The most bytes of an answer: some 100,000 services.
MAX_ANSWER = 16 << 20
#: How long the look-up of a host's name may take, in seconds.
RESOLVE_TIMEOUT = 10.0
#: How much is shown of why a request is not served, in characters.
MAX_WHY = 200
#: The most bytes of filters that are sent; a server takes 65,536 of a form. Beyond them, it is
#: asked for everything.
MAX_FORM = 60_000
#: The most addresses of a name that are tried.
MAX_ADDRESSES = 8
#: The largest uid and pid, and the longest path of an executable, in characters.
MAX_UID, MAX_PID, MAX_EXE = (1 << 32) - 1, 1 << 31, 4_096

#: A name or an address, and a port.
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>\w[\w.-]{0,252}))(?::(?P<port>[0-9]{1,5}))?"
)

#: A row of a listing of the channel.
Row = tuple[str, int, int, str, str]
#: Sends a request to the host, and gives its answer.
Exchange = Callable[[bytes], Awaitable[bytes]]


class RemoteHost:
    """The port mapper of another machine.

    :param text: the host, a name or an address; with its port, if that is not 80.
    :raises ValueError: it is neither.
    :ivar name: the host.
    :ivar port: the port of its HTTP.
    :ivar addresses: those that the name was found to have; the first one has answered.
    """

    def __init__(self, text: str) -> None:
        self.name, self.port = _split(text)
        self.addresses: tuple[str, ...] = ()
        self._text = text

    def __str__(self) -> str:
        return f"the port mapper at {self._text}"

    async def exchange(self, dialer: RemoteDialer[S], request: bytes) -> bytes:
        """Send *request*, and return all that is answered.

        :raises DaemonUnreachable: it does not answer.
        """
        reason: Exception = OSError("the name has no address")
        try:
            found = tuple(await dialer.resolve(self.name, self.port))[:MAX_ADDRESSES]
            for count, address in zip(range(len(found), 0, -1), found, strict=True):
                try:
                    stream = await dial(
                        dialer, (address, self.port), min(TIMEOUT, dialer.left / count)
                    )
                except (OSError, CallTimedOut) as error:
                    reason = error
                    continue
                self.addresses = (address, *(other for other in found if other != address))
                return await dialer.exchange(stream, request, MAX_ANSWER, TIMEOUT)
        except (OSError, CallTimedOut) as error:
            reason = error
        raise DaemonUnreachable(f"{self} does not answer: {reason_of(reason)}") from reason

    def request(self, wanted: Mapping[str, Any]) -> bytes:
        """The request for the services that match the filters of ``List``."""
        fields = [("service", name) for name in wanted.get("names") or ()]
        fields += [("user", uid) for uid in wanted.get("users") or ()]
        fields += [("pid", pid) for pid in wanted.get("pids") or ()]
        form = urlencode(fields, errors="replace")
        form = form if len(form) <= MAX_FORM else ""
        name = self.name.encode("idna").decode()
        host = f"[{name}]" if ":" in name else name
        # HTTP/1.0: the answer ends with the connection, and comes in one piece.
        lines = (
            "POST /portmap HTTP/1.0",
            f"Host: {host}:{self.port}",
            "Accept: application/json",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(form)}",
            "",
            form,
        )
        return "\r\n".join(lines).encode()

    def rows(self, answer: bytes, wanted: Mapping[str, Any]) -> list[Row]:
        """The services in an answer that are of use here: those with a port.

        :raises DaemonUnreachable: it is not a listing; the message says why.
        """
        try:
            listed = json.loads(_body(answer))
            if not isinstance(listed, list):
                raise ValueError("it is no list")
            rows = [_row(fields) for fields in listed]
        except (ValueError, RecursionError) as error:
            raise DaemonUnreachable(
                f"{self} answers with no listing of services: {error}"
            ) from None
        return [row for row in rows if row is not None and _matches(row, wanted)]


def _split(text: str) -> tuple[str, int]:
    """A host and its port.

    :raises ValueError: it is none.
    """
    if is_address(text):
        return text, PORT
    found = _HOST.fullmatch(text)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 0 < port <= MAX_PORT or (found["v6"] and not is_address(found["v6"])):
        raise ValueError(
            f"host {text!r} is neither the name of a host nor an address; give it like "
            "www.example.com, www.example.com:8080 or [2001:db8::1]:8080"
        )
    return found["v6"] or found["name"], port


def _body(answer: bytes) -> bytes:
    """The body of an answer over HTTP (RFC 9112, 4).

    :raises ValueError: it is no answer, or says that the request is not served.
    """
    head, end, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    version, _, status = status.partition(" ")
    if not (end and version.startswith("HTTP/1.")):
        raise ValueError("it is not HTTP")
    if status.partition(" ")[0] != "200":
        # The first line of the body says what to do.
        why = body.partition(b"\n")[0].decode("utf-8", "replace")
        raise ValueError(f"the status is {status[:64]!r}: {why[:MAX_WHY]!r}")
    fields = {name.strip().lower(): text.strip() for name, _, text in map(_field, lines)}
    if not fields.get("content-type", "").startswith("application/json"):
        raise ValueError("it is not JSON")
    if fields.get("content-length", str(len(body))) != str(len(body)):
        raise ValueError("it is not whole")
    return body


def _field(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def _row(fields: Any) -> Row | None:
    """A service of a listing; None if it is on a UNIX socket, which is no use from here.

    :raises ValueError: it is none.
    """
    if not isinstance(fields, dict):
        raise ValueError("a service has no fields")
    name, port, exe = fields.get("service"), fields.get("port"), fields.get("prog")
    uid, pid = _number(fields, "user", MAX_UID), _number(fields, "pid", MAX_PID)
    if not isinstance(name, str) or not isinstance(exe, str) or len(exe) > MAX_EXE:
        raise ValueError("a service has no name")
    if isinstance(port, str):
        return None
    if not isinstance(port, int) or isinstance(port, bool):
        raise ValueError("a service has no port")
    try:
        check_service(name, str(port), 0)
    except (InvalidService, UnicodeError) as error:
        raise ValueError(error) from None
    return name, uid, pid, str(port), exe


def _number(fields: dict[str, Any], name: str, largest: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise ValueError(f"a service has no {name}")
    return value


def _matches(row: Row, wanted: Mapping[str, Any]) -> bool:
    """Whether the filters leave a row: a server may list more."""
    name, uid, pid, *_ = row
    filters = (("names", name), ("users", uid), ("pids", pid))
    return all(not wanted.get(kind) or value in wanted[kind] for kind, value in filters)


class RemoteConnection:
    """What answers the operations of a client: listings are asked for over HTTP.

    :param host: the other machine.
    :param exchange: sends a request there, and gives the answer.
    """

    def __init__(self, host: RemoteHost, exchange: Exchange) -> None:
        self._host = host
        self._exchange = exchange

    async def ask(self, command: c.Command, values: Mapping[str, Any]) -> dict[str, Any]:
        """Answer *command*.

        :raises UnknownCommand: it is not ``List``.
        """
        if command is not c.LIST:
            raise UnknownCommand(
                f"{command.name}: the services of another machine can be listed and connected to, "
                "and nothing else"
            )
        answer = await self._exchange(self._host.request(values))
        return {"services": self._host.rows(answer, values), "more": None}

    async def sleep(self, seconds: float) -> None:
        """Nothing waits: nothing is tried again."""

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do one thing after the other."""
        return [await one for one in work]

    def check(self) -> None:
        """It never ends: each operation has a connection of its own."""


class RemoteSession:
    """A client of another machine's port mapper, on a reactor or an event loop.

    :param host: the other machine.
    :ivar registrations: nothing is ever registered.
    """

    def __init__(self, runtime: Runtime[Any], host: RemoteHost) -> None:
        self.registrations = Registrations()
        self._runtime = runtime
        self._host = host
        self._is_closed = False
        self._connection = RemoteConnection(host, self._exchange)

    async def _exchange(self, request: bytes) -> bytes:
        return await self._host.exchange(self._runtime, request)

    @property
    def remote_hosts(self) -> Sequence[str]:
        """Where the services are."""
        return self._host.addresses

    @asynccontextmanager
    async def connected(self, changes: bool = False) -> AsyncIterator[RemoteConnection]:
        """Give the block what answers; see :class:`~portmapd.client.core.interfaces.Session`."""
        self.check()
        yield self._connection

    async def open(self) -> RemoteConnection:
        """Return what answers.

        :raises ClientClosed: the client is closed.
        """
        self.check()
        return self._connection

    def check(self) -> None:
        """Raise the error if the client is closed."""
        if self._is_closed:
            raise self.closed()

    def closed(self) -> ClientClosed:
        """Make the error of operations after the end of the client."""
        return ClientClosed(f"the client of {self._host} is closed; make another Portmapper")

    def abandon(self) -> None:
        """Nothing is kept."""

    def close(self) -> Future[None]:
        """Close it for good."""
        self._is_closed = True
        done: Future[None] = self._runtime.future()
        done.set_result(None)
        return done
