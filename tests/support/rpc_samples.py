"""What the unit tests share: callers, calls, and a port mapper without sockets."""

from hypothesis import settings
from hypothesis import strategies as st

from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import NOBODY, Call, Credential, decode_reply, encode_call
from portmapd.oncrpc.netid import LOCAL, NETIDS, TCP, TCP6, UDP, UDP6, Netid
from portmapd.oncrpc.program import PROGRAM, Pmap, Rpcb, encode_pmap, encode_rpcb
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.context import Context, Reporter, report_nothing
from portmapd.portmapper.dispatch import Dispatcher, Outcome
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry

#: Property tests measure no time and leave no files.
PROPERTY = settings(max_examples=200, deadline=None, database=None, print_blob=True)

XID = 0x11223344
TRUE, FALSE = xdr.uint(1), xdr.uint(0)

#: Of every version, its procedures.
PROCEDURES = {2: range(6), 3: range(9), 4: range(13)}


def local(uid: int = 0) -> Caller:
    """The process of a user, over the rpcbind socket."""
    return Caller(LOCAL, Audience.LOCAL, uid=uid)


def loopback(netid: Netid = UDP, port: int = 40_000) -> Caller:
    """A process of this host, over a loopback address."""
    host = "::1" if netid.family == "inet6" else "127.0.0.1"
    return Caller(netid, Audience.LOCAL, host, port, host)


def remote(netid: Netid = UDP, audience: Audience = Audience.STRANGER, port: int = 999) -> Caller:
    """A process of another host."""
    if netid.family == "inet6":
        return Caller(netid, audience, "2001:db8::7", port, "2001:db8::1")
    return Caller(netid, audience, "192.0.2.7", port, "192.0.2.1")


#: One caller for every way to the port mapper, and for each audience that can come that way.
CALLERS = (
    *(local(uid) for uid in (0, 104)),
    *(loopback(netid, port) for netid in (UDP, TCP, UDP6, TCP6) for port in (800, 40_000)),
    *(
        remote(netid, audience)
        for netid in (UDP, TCP, UDP6, TCP6)
        for audience in (Audience.TRUSTED, Audience.STRANGER, Audience.EXCLUDED)
    ),
)


def call(
    version: int,
    procedure: int,
    arguments: bytes = b"",
    program: int = PROGRAM,
    credential: Credential = NOBODY,
) -> bytes:
    """The message of a call of program 100000, unless another one is said."""
    return encode_call(Call(XID, program, version, procedure, credential, arguments))


def pmap(program: int, version: int, protocol: int = 17, port: int = 0) -> bytes:
    """An encoded ``struct mapping``."""
    return encode_pmap(Pmap(program, version, protocol, port))


def rpcb(program: int, version: int, netid: str = "", address: str = "", owner: str = "") -> bytes:
    """An encoded ``struct rpcb``."""
    return encode_rpcb(Rpcb(program, version, netid, address, owner))


def remote_call(program: int, version: int, procedure: int, arguments: bytes = b"") -> bytes:
    """The encoded arguments of CALLIT, BCAST and INDIRECT."""
    return b"".join(map(xdr.uint, (program, version, procedure))) + xdr.opaque(arguments)


class PortMapper:
    """Program 100000 without sockets.

    :ivar bound: the addresses that are bound on its host.
    :ivar now: its time, in seconds since 1970.
    """

    def __init__(self, policy: Policy | None = None, report: Reporter = report_nothing) -> None:
        self.registry = Registry()
        self.bound: set[str] = set()
        self.now = 1_000_000_000.5
        self.context = Context(
            self.registry, policy or Policy(), self._is_bound, lambda: self.now, report
        )
        self.statistics = self.context.statistics
        self.dispatcher = Dispatcher(self.context)

    def _is_bound(self, mapping: Mapping) -> bool:
        return mapping.address in self.bound

    def dispatch(self, message: bytes, caller: Caller) -> Outcome:
        """What comes of a message."""
        return self.dispatcher.dispatch(message, caller)

    def ask(
        self, caller: Caller, version: int, procedure: int, arguments: bytes = b""
    ) -> bytes | None:
        """The results of a call; None: silence.

        :raises CallRefused: it was answered with an error status.
        """
        reply = self.dispatch(call(version, procedure, arguments), caller).reply
        return None if reply is None else decode_reply(reply)

    def rows(self) -> list[tuple[int, int, str, str, str]]:
        """Everything that is mapped."""
        return [(m.program, m.version, m.netid, m.address, m.owner) for m in self.registry.mappings]


UINTS = st.integers(0, 0xFFFF_FFFF)
#: Numbers that are likely to meet each other.
FEW = st.sampled_from((0, 1, 2, 3, PROGRAM, 0xFFFF_FFFF))
PORTS = st.integers(1, 65_535)
_SCOPES = st.sampled_from(("eth0", "eth0.100", "7"))


def _in_family(netid: Netid) -> st.SearchStrategy[str]:
    if netid is LOCAL:
        names = st.text(st.characters().filter(str.isprintable), max_size=25)
        return names.map("/{}".format)
    if netid.family == "inet6":
        others = st.ip_addresses(v=6).map(str).filter(lambda host: not host.startswith("::ffff:"))
        hosts = others | st.builds("{}%{}".format, st.ip_addresses(network="fe80::/10"), _SCOPES)
    else:
        hosts = st.ip_addresses(v=4).map(str)
    return st.builds(lambda host, port: f"{host}.{port >> 8}.{port & 255}", hosts, PORTS)


#: A netid and an address that is valid there.
ADDRESSES = st.sampled_from(list(NETIDS.values())).flatmap(
    lambda netid: st.tuples(st.just(netid), _in_family(netid))
)
