"""What is fuzzed: functions of bytes that raise if a promise is broken."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from attrs import frozen
from twisted.internet.task import Clock

from portmapd import rpc
from portmapd.channel import commands
from portmapd.channel.box import BoxReader, encode_box
from portmapd.client.core.channel_protocol import ChannelProtocol
from portmapd.cluster.entry import Claim, Layout
from portmapd.errors import (
    BrokenStream,
    CallRefused,
    EtcdError,
    PortmapdError,
    SystemFailure,
    XdrError,
)
from portmapd.etcd.messages import read_changes, read_done, read_error, read_found
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import MAX_DATAGRAM, Call, decode_reply, encode_call, success
from portmapd.oncrpc.netid import LOCAL, TCP, UDP, UDP6
from portmapd.oncrpc.program import (
    Pmap,
    RemoteCall,
    Rpcb,
    encode_pmap,
    encode_remote_call,
    encode_rpcb,
    read_call_result,
    read_pmap,
    read_rpcb,
)
from portmapd.oncrpc.record import RecordReader, mark
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper.access import Callit, Policy
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.context import Context
from portmapd.portmapper.dispatch import TABLE, Dispatcher
from portmapd.portmapper.warm_start import decode_pmaplist, decode_rpcblist
from portmapd.registry.registry import Registry
from portmapd.registry.snapshot import FORMAT, VERSION, decode_snapshot
from portmapd.rpc import Type
from portmapd.rpc.call_server import ProgramServer
from portmapd.server.rate_limited_log import RateLimitedLog
from tests.support.channel_sessions import Host

LAYOUT = Layout("/portmapd/")
#: What a stranger over UDP may always be sent, in bytes.
SMALL = 80
#: More than the answer to any command of one session has, in bytes.
ANSWER = 1 << 17
#: So many mappings are forgotten, and a new registry begins.
MOST = 1_000

CALLERS = (
    Caller(LOCAL, Audience.LOCAL, uid=0),
    Caller(UDP, Audience.LOCAL, "127.0.0.1", 700, "127.0.0.1"),
    Caller(TCP, Audience.LOCAL, "127.0.0.1", 40_000, "127.0.0.1"),
    Caller(UDP, Audience.STRANGER, "192.0.2.7", 700, "192.0.2.1"),
    Caller(UDP6, Audience.STRANGER, "2001:db8::7", 700, "2001:db8::1"),
)


class Dispatch:
    """A port mapper that gives any message of any caller an outcome.

    Its first byte chooses the caller.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._registry = Registry()
        policy = Policy(insecure=True, callit=Callit.ALL)
        context = Context(self._registry, policy, lambda mapping: False, lambda: 1e9)
        self._dispatcher = Dispatcher(context)

    def __call__(self, data: bytes) -> None:
        caller, message = CALLERS[data[0] % len(CALLERS) if data else 0], data[1:]
        outcome = self._dispatcher.dispatch(message, caller)
        reply = outcome.reply or b""
        if outcome.forwarded is not None:
            outcome.forwarded.message(1)
            reply = outcome.forwarded.reply(success(1, message)) or b""
        if caller.netid.protocol == "udp":
            assert len(reply) <= MAX_DATAGRAM
        if caller.audience is Audience.STRANGER:
            assert len(reply) <= max(len(message), SMALL)
        assert not reply or reply[:4] == message[:4], "the reply has the xid of the call"
        if len(self._registry.mappings) > MOST:
            self._begin()


class Programs:
    """A server of an application's procedures that gives any message of any caller a reply.

    Its first byte chooses the caller.
    """

    NUMBER, VERSION = 0x2000_0001, 1
    TYPES: tuple[Type[Any], ...] = (
        rpc.INT,
        rpc.UHYPER,
        rpc.BOOL,
        rpc.STRING,
        rpc.BYTES,
        rpc.fixed(5),
        rpc.array(rpc.OPAQUE, 16),
        rpc.chain(rpc.optional(rpc.UINT)),
        rpc.union({0: rpc.fields(rpc.UINT, rpc.STRING)}, default=rpc.VOID),
    )

    def __init__(self) -> None:
        procedures = (
            rpc.Procedure("SAME", number, type_, type_, lambda value, request: value)
            for number, type_ in enumerate(self.TYPES, 1)
        )
        program = rpc.Program("same", self.NUMBER, self.VERSION, *procedures)
        clock = Clock()
        self._server = ProgramServer((program,), clock, RateLimitedLog(clock))

    def __call__(self, data: bytes) -> None:
        caller, message = CALLERS[data[0] % len(CALLERS) if data else 0], data[1:]
        reply = self._server.serve(message, caller, lambda reply: None)
        assert reply != b"", "nothing comes later"
        if reply is None:
            return
        assert reply[:4] == message[:4], "the reply has the xid of the call"
        try:
            decode_reply(reply)
        except SystemFailure:
            raise AssertionError("what was read is encoded again") from None
        except CallRefused:
            return


def records(data: bytes) -> None:
    """Records are the same however their bytes arrive. The first byte says in which pieces."""
    _read(RecordReader, data)


def boxes(data: bytes) -> None:
    """So are boxes, and each is what its encoding says."""
    for box in _read(BoxReader, data):
        if isinstance(box, dict) and box:
            assert list(BoxReader().feed(encode_box(box))) == [box]


def _read(make: Callable[[], RecordReader | BoxReader], data: bytes) -> list[object]:
    """What is read of a stream, whole and in pieces."""
    size, stream = 1 + data[0] if data else 1, data[1:]
    whole = _outcome(lambda: make().feed(stream))
    reader = make()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert _outcome(lambda: (each for piece in pieces for each in reader.feed(piece))) == whole
    return whole


def _outcome(read: Callable[[], Iterable[object]]) -> list[object]:
    """What is read, and whether the stream broke after it."""
    found: list[object] = []
    try:
        found.extend(read())
    except BrokenStream:
        found.append(BrokenStream)
    return found


def session(data: bytes) -> None:
    """A session answers any box, and leaves nothing registered when it ends."""
    host = Host()
    connection = host.connect()
    with suppress(BrokenStream):
        for box in BoxReader().feed(data):
            answer = connection.session.answer(box)
            assert len(answer) < ANSWER
    connection.session.end()
    assert not list(host.registry.services())
    assert not len(host.registry.mappings)


def replies(data: bytes) -> None:
    """A client decodes any reply, or says that it cannot."""
    with suppress(CallRefused, PortmapdError):
        results = decode_reply(data)
        for read in (Reader.string, read_call_result, read_pmap, read_rpcb):
            with suppress(XdrError):
                read(Reader(results))
        for row in (read_pmap, read_rpcb):
            with suppress(XdrError):
                Reader(results).sequence(row)


def daemon(data: bytes) -> None:
    """The channel's client takes anything that a daemon sends, or ends the connection."""
    client: ChannelProtocol[None] = ChannelProtocol("/run/portmapd/portmapd.sock")
    for command in commands.COMMANDS.values():
        with suppress(PortmapdError, KeyError):
            client.ask(command, {}, None)
    with suppress(PortmapdError):
        list(client.receive(data))


def cluster(data: bytes) -> None:
    """An answer of etcd, or an entry of another machine, is read or refused.

    The first line is the key of an entry, the rest its value.
    """
    key, _, value = data.partition(b"\n")
    LAYOUT.read(LAYOUT.prefix + key.decode(errors="replace"), value)
    Claim.decode(value)
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(answer, dict):
        for read in (read_found, read_done, read_changes):
            with suppress(EtcdError):
                read(answer)
        read_error(answer)


def state(data: bytes) -> None:
    """A state file is read or refused; its checksum is made right, or nothing would be read."""
    for text in (data, _with_checksum(data)):
        with suppress(PortmapdError):
            decode_snapshot(text)
    for decode in (decode_rpcblist, decode_pmaplist):
        with suppress(PortmapdError):
            decode(data)


def _with_checksum(data: bytes) -> bytes:
    return f"{FORMAT} {VERSION} {sha256(data).hexdigest()}\n".encode() + data


@frozen
class Target:
    """Something to fuzz.

    :param run: takes any bytes, and raises if a promise is broken.
    :param seeds: inputs to begin with.
    """

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...] = ()


def _calls() -> Iterable[bytes]:
    """A call of every procedure, with arguments that fit some of them."""
    fitting = (
        b"",
        encode_pmap(Pmap(7, 1, 17, 9)),
        encode_rpcb(Rpcb(7, 1, "udp", "0.0.0.0.0.9", "unknown")),
        encode_remote_call(RemoteCall(7, 1, 1, b"text")),
        xdr.string("0.0.0.0.0.111"),
        xdr.uint(16) + xdr.opaque(b"\2\0\0\x6f" + bytes(12)),
    )
    for version, procedures in TABLE.items():
        for procedure in procedures:
            for given in fitting:
                yield encode_call(Call(1, 100000, version, procedure, arguments=given))


def _program_calls() -> Iterable[bytes]:
    """A call of every procedure of a server of an application."""
    values = (-1, 1 << 40, True, "text", b"rest", b"12345", (b"a", b"bc"), (None, 7), (0, (1, "a")))
    for number, (type_, value) in enumerate(zip(Programs.TYPES, values, strict=True), 1):
        given = type_.encode(value)
        yield encode_call(Call(1, Programs.NUMBER, Programs.VERSION, number, arguments=given))


def _boxes() -> Iterable[bytes]:
    """A box for every command, with the names of its arguments."""
    for command in commands.COMMANDS.values():
        rows = encode_box({b"name": b"a", b"port": b"80", b"flags": b"0"})
        given = {argument.key: rows for argument in command.arguments}
        yield encode_box({b"_ask": b"1", b"_command": command.key, **given})


def _answers() -> Iterable[bytes]:
    """Answers of etcd, and entries."""
    header = {"revision": "7"}
    kv = {"key": "YQ==", "value": "Yg==", "mod_revision": "5", "lease": "9"}
    found = {"header": header, "kvs": [kv], "more": True}
    for answer in (
        found,
        {"header": header, "succeeded": True, "responses": [{"response_range": found}]},
        {"result": {"header": header, "events": [{"kv": kv}, {"type": "DELETE", "kv": kv}]}},
        {"result": {"header": header, "canceled": True, "compact_revision": "6"}},
        {"error": {"grpc_code": 14, "message": "no leader"}},
        {"code": 5, "message": "requested lease not found"},
    ):
        yield json.dumps(answer).encode()
    yield b'hosts/one\n{"address":"192.0.2.1","machine":"a","release":"1"}'
    yield b'services/one/a/1000/7/80\n{"address":"192.0.2.1","exe":""}'
    yield b'mappings/one/7/1/udp\n{"address":"192.0.2.1.0.9","owner":"7"}'
    yield b'names/1000/a\n{"host":"one","pid":7,"port":"80"}'


_CALLS, _BOXES = tuple(_calls()), tuple(_boxes())
_STATE = b"b1946ac9 1.000 1\n100003 3 udp superuser 0 - 0.0.0.0.8.1\n"

TARGETS: Mapping[str, Target] = {
    "dispatch": Target(Dispatch(), tuple(b"\1" + each for each in _CALLS)),
    "programs": Target(Programs(), tuple(b"\1" + each for each in _program_calls())),
    "records": Target(records, tuple(b"\7" + mark(each) for each in _CALLS)),
    "boxes": Target(boxes, tuple(b"\7" + each for each in _BOXES)),
    "session": Target(session, _BOXES),
    "replies": Target(replies, (success(1, b""), success(1, xdr.uint(1)), *_CALLS[:3])),
    "daemon": Target(daemon, (encode_box({b"_answer": b"1"}), encode_box({b"_error": b"1"}))),
    "cluster": Target(cluster, tuple(_answers())),
    "state": Target(state, (_STATE, xdr.uint(1) + encode_rpcb(Rpcb(7, 1, "udp")))),
}
"""Everything that is fuzzed, by name."""
