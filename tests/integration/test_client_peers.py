"""PortmapClient and peers that lose, forge, garble and refuse."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from struct import pack, unpack
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, gatherResults

from portmapd.client import PortmapClient
from portmapd.errors import (
    AuthRefused,
    BrokenStream,
    CallRefused,
    CallTimedOut,
    DaemonUnreachable,
    GarbageArguments,
    PeerFault,
    ProcedureUnavailable,
    ProgramMismatch,
    ProgramUnavailable,
    RpcMismatch,
    SystemFailure,
)
from portmapd.oncrpc import xdr
from portmapd.oncrpc.message import refusal, success, xid_of
from tests.support.embedded import asking, asynchronous
from tests.support.peers import Peer, Respond, Send, echo, peering, silent

UDP = socket.IPPROTO_UDP

REFUSALS: tuple[CallRefused, ...] = (
    RpcMismatch(),
    AuthRefused(5),
    ProgramUnavailable(),
    ProgramMismatch(3, 3),
    ProcedureUnavailable(),
    GarbageArguments(),
    SystemFailure(),
)

MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "a call": lambda call: call,
    "an xid": lambda call: call[:4],
    "no results": lambda call: success(xid_of(call), b""),
    "no boolean": lambda call: success(xid_of(call), xdr.uint(2)),
    "no end": lambda call: success(xid_of(call), xdr.uint(1) * 5),
    "no status": lambda call: xdr.uint(xid_of(call)) + xdr.uint(1) + xdr.uint(7),
}

both = pytest.mark.parametrize("transport", ["udp", "tcp"])


@asynccontextmanager
async def talking(
    transport: str, respond: Respond, framed: bool = True, closes: bool = False, **options: Any
) -> AsyncIterator[tuple[Peer, PortmapClient]]:
    """Run a peer that responds so, and a client of it, in the block."""
    async with (
        peering(transport, respond, framed=framed, closes=closes) as peer,
        asking(peer.port, transport=transport, **options) as client,
    ):
        yield peer, client


def number(value: int, call: bytes) -> bytes:
    """The reply to *call* whose results are that number."""
    return success(xid_of(call), xdr.uint(value))


@asynchronous
async def test_lost_datagrams() -> None:
    """What is lost on the way is sent again, with the same xid."""

    def respond(call: bytes, send: Send) -> None:
        if peer.calls.count(call) == 2:
            send(number(7, call))

    async with talking("udp", respond) as (peer, client):
        assert await gatherResults([client.getport(n, 1, UDP) for n in range(20)]) == [7] * 20
        assert len(peer.calls) == 40


@asynchronous
async def test_foreign_replies() -> None:
    """A reply from another socket does not count, even with the right xid."""

    def respond(call: bytes, send: Send) -> None:
        forger.sendto(number(666, call), peer.callers[-1])
        if peer.calls.count(call) == 2:
            send(number(7, call))

    with socket.socket(type=socket.SOCK_DGRAM) as forger:
        async with talking("udp", respond) as (peer, client):
            assert await client.getport(1, 1, UDP) == 7


def unreachable(host: str, port: int, caller: tuple[str, int]) -> bytes:
    """An ICMP message: what *caller* sent to that port and host did not arrive (RFC 792)."""
    datagram = pack("!HHHH", caller[1], port, 8, 0)
    addresses = socket.inet_aton(caller[0]) + socket.inet_aton(host)
    head = pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    message = pack("!BBHI", 3, 3, 0, 0) + head + datagram
    total = sum(unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + pack("!H", ~total & 0xFFFF) + message[4:]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9"])
@asynchronous
async def test_icmp_errors(host: str) -> None:
    """An ICMP error fails the calls if it is about the server: anybody can send others."""
    if os.geteuid() != 0:
        pytest.skip("raw sockets need root")

    def respond(call: bytes, send: Send) -> None:
        caller = peer.callers[-1]
        raw.sendto(unreachable(host, peer.port, caller), (caller[0], 0))
        if peer.calls.count(call) == 3:
            send(number(7, call))

    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        async with talking("udp", respond) as (peer, client):
            if host == "127.0.0.1":
                with pytest.raises(DaemonUnreachable, match="Connection refused"):
                    await client.getport(1, 1, UDP)
            else:
                assert await client.getport(1, 1, UDP) == 7


@both
@asynchronous
async def test_unknown_replies(transport: str) -> None:
    """A reply that comes twice, or with an unknown xid, does no harm."""

    def respond(call: bytes, send: Send) -> None:
        send(success(xid_of(call) ^ 1, xdr.uint(666)))
        send(b"")
        for value in (7, 666):
            send(number(value, call))

    async with talking(transport, respond) as (_, client):
        assert [await client.getport(n, 1, UDP) for n in range(5)] == [7] * 5


@pytest.mark.parametrize("refused", REFUSALS, ids=lambda refused: type(refused).__name__)
@both
@asynchronous
async def test_refusals(transport: str, refused: CallRefused) -> None:
    """Each error status fails the call with its own class."""

    def respond(call: bytes, send: Send) -> None:
        send(refusal(xid_of(call), refused))

    async with talking(transport, respond) as (_, client):
        with pytest.raises(type(refused)):
            await client.null()


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=list(MALFORMED))
@both
@asynchronous
async def test_malformed_replies(transport: str, reply: Callable[[bytes], bytes]) -> None:
    """A reply that is none fails the call, and says that it is the peer's fault."""
    async with talking(transport, lambda call, send: send(reply(call))) as (_, client):
        with pytest.raises(PeerFault):
            await client.dump()


@asynchronous
async def test_broken_framing() -> None:
    """A stream that is not records fails the call; the next one has a connection of its own."""

    def respond(call: bytes, send: Send) -> None:
        send(b"HTTP/1.1 400 Bad Request\r\n")

    async with talking("tcp", respond, framed=False) as (peer, client):
        for _ in range(2):
            with pytest.raises(BrokenStream):
                await client.null()
        assert len(set(peer.callers)) == 2


@asynchronous
async def test_closed_after_each_reply() -> None:
    """A server that closes the connection after each reply still replies to every call, once."""
    async with talking("tcp", echo, closes=True) as (peer, client):
        calls = [client.getport(n, 1, UDP) for n in range(20)]
        assert await gatherResults(calls) == list(range(20))
        assert len(set(peer.callers)) == 20
        assert await client.getport(20, 1, UDP) == 20
        assert len(peer.calls) == 21


@asynchronous
async def test_unmarked_end() -> None:
    """A final fragment without its mark is final when the server closes behind it."""

    def respond(call: bytes, send: Send) -> None:
        reply = number(7, call)
        send(xdr.uint(len(reply)) + reply)

    async with talking("tcp", respond, framed=False, closes=True) as (_, client):
        assert [await client.getport(n, 1, UDP) for n in range(3)] == [7] * 3


@asynchronous
async def test_closed_after_a_timeout() -> None:
    """A server that goes on sending after the timeout sends to nobody."""
    sends: list[Send] = []

    def respond(call: bytes, send: Send) -> None:
        sends.append(send)
        send(xdr.uint(15 << 20))

    async with talking("tcp", respond, framed=False, timeout=0.2) as (peer, client):
        for count in (1, 2):
            with pytest.raises(CallTimedOut):
                await client.null()
            for send in sends:
                send(b"x")
            assert len(set(peer.callers)) == count


@both
@asynchronous
async def test_timeout(transport: str) -> None:
    """A peer that is silent is given up; later calls go on."""
    async with talking(transport, silent, timeout=0.2) as (_, client):
        for _ in range(2):
            with pytest.raises(CallTimedOut, match=r"did not answer within 0\.2 s"):
                await client.null()


@both
@asynchronous
async def test_cancel(transport: str) -> None:
    """A cancelled call is forgotten: its answer disturbs nobody, other calls go on."""
    answers: list[Callable[[], object]] = []

    def respond(call: bytes, send: Send) -> None:
        answers.append(partial(send, number(len(answers), call)))

    async with talking(transport, respond) as (peer, client):
        cancelled, kept = client.getport(1, 1, UDP), client.getport(2, 1, UDP)
        await peer.called(2)
        cancelled.cancel()
        with pytest.raises(CancelledError):
            await cancelled
        for answer in answers:
            answer()
        assert await kept == 1
