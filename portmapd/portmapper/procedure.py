"""What a row of the dispatch table is made of."""

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from portmapd.oncrpc.message import Credential
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.statistics import Lookup, Remote, Statistics
from portmapd.registry.change import Kind
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry


class Dumps:
    """The encoded DUMP of each version, kept until a mapping changes."""

    def __init__(self, registry: Registry) -> None:
        self._bodies: dict[int, bytes] = {}
        registry.follow(lambda changes: self._bodies.clear(), Kind.MAPPED, Kind.UNMAPPED)

    def get(self, version: int, encode: Callable[[], bytes]) -> bytes:
        """The body for *version*, made by *encode* if it is not there."""
        body = self._bodies.get(version)
        if body is None:
            body = self._bodies[version] = encode()
        return body


@frozen
class Context:
    """What procedures work on.

    :param registry: what is registered.
    :param policy: who may do what.
    :param bound: is the address of this mapping bound on this host now?
    :param now: the time in seconds since 1970.
    """

    registry: Registry
    policy: Policy
    bound: Callable[[Mapping], bool]
    now: Callable[[], float]
    statistics: Statistics = field(factory=Statistics)
    dumps: Dumps = field(init=False)

    @dumps.default
    def _make_dumps(self) -> Dumps:
        return Dumps(self.registry)


@frozen
class Results:
    """What a procedure answers.

    :param body: the encoded results.
    :param subject: what it looked up, for the statistics; None if that is not counted.
    :param success: did it find or do what was asked?
    """

    body: bytes = b""
    subject: Lookup | None = None
    success: bool = True


@frozen
class Relay:
    """A call that is to be made, over UDP, before the caller can be answered.

    :param host: IPv4 or IPv6 address of the service.
    :param port: its UDP port.
    :param encode: makes the results for the caller of those of the service.
    :param subject: what is called, for the statistics.
    """

    host: str
    port: int
    program: int
    version: int
    procedure: int
    credential: Credential
    arguments: bytes
    encode: Callable[[bytes], bytes]
    subject: Remote


class Silence(Exception):
    """The call is not answered.

    :param subject: what was to be called, for the statistics.
    """

    def __init__(self, subject: Remote | None = None) -> None:
        super().__init__()
        self.subject = subject


@frozen
class Procedure:
    """A row of the dispatch table.

    :param decode: reads the arguments; it may raise :exc:`~portmapd.errors.XdrError`.
    :param operate: does what is asked, given the context, the caller, its credential, and the
        arguments.
    :param lasting: may the reply be kept until a mapping changes?
    """

    decode: Callable[[Reader], Any]
    operate: Callable[[Context, Caller, Credential, Any], Results | Relay]
    lasting: bool = True
