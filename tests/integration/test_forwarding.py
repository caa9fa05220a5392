"""Forwarded calls: each answer to its own caller, bounded in number, made once."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.threads import deferToThread

from portmapd.errors import CallTimedOut, ProgramUnavailable
from portmapd.oncrpc.message import (
    decode_call,
    decode_reply,
    refusal,
    success,
    sys_credential,
    xid_of,
)
from portmapd.oncrpc.program import CallResult, RemoteCall, encode_remote_call
from portmapd.portmapper.caller import RESERVED_PORTS
from portmapd.registry.mapping import mapping
from portmapd.server.call_forwarder import MAX_OF_SERVICE
from portmapd.service import PortmapperService
from tests.support.embedded import asking, asynchronous, needs_ipv6, serving
from tests.support.exchange import connect, exchange, question
from tests.support.peers import Peer, Respond, Send, echo, peering, silent

PROGRAM = 200100


@asynccontextmanager
async def forwarding(respond: Respond) -> AsyncIterator[tuple[PortmapperService, Peer]]:
    """Run a port mapper, and a service that responds so and is registered there."""
    async with serving() as service, peering("udp", respond) as peer:
        address = f"0.0.0.0.{peer.port >> 8}.{peer.port & 255}"
        service.registry.map(mapping(PROGRAM, 1, "udp", address))
        yield service, peer


def callit(procedure: int, arguments: bytes = b"", version: int = 2) -> bytes:
    """A CALLIT of that procedure of the service."""
    remote = encode_remote_call(RemoteCall(PROGRAM, 1, procedure, arguments))
    return question(version, 5, remote)


def settle(port: int) -> None:
    """Be sure that what was sent before has been taken in."""
    with connect(socket.SOCK_DGRAM, "127.0.0.1", port) as skt:
        exchange(skt, question(2, 0))


@asynchronous
async def test_own_callers() -> None:
    """Callers who wait at the same time each get their own answer, whatever the order."""
    waiting: list[tuple[Send, bytes]] = []

    def respond(call: bytes, send: Send) -> None:
        waiting.append((send, call))
        if len(waiting) == 96:
            Random(1).shuffle(waiting)
            for answer, asked in waiting:
                echo(asked, answer)

    async with (
        forwarding(respond) as (service, peer),
        asking(service.port) as one,
        asking(service.port) as two,
        asking(service.port) as three,
        asking(service.port, transport="tcp") as four,
    ):
        texts = [f"{n}...".encode() for n in range(96)]
        callers = [one, two, three, four] * 24
        calls = [c.callit(PROGRAM, 1, 1, text) for c, text in zip(callers, texts, strict=True)]
        answers = await gatherResults(calls)
        assert answers == [CallResult(peer.port, text) for text in texts]


@asynchronous
async def test_bounded() -> None:
    """No more calls are under way than the limit; there is room again once some are answered."""
    sends: list[tuple[Send, bytes]] = []

    async with (
        forwarding(lambda call, send: sends.append((send, call))) as (service, peer),
        asking(service.port, transport="tcp") as one,
        asking(service.port, transport="tcp") as two,
        asking(service.port, transport="tcp") as three,
    ):
        half = range(MAX_OF_SERVICE // 2)
        calls = [client.callit(PROGRAM, 1, n) for client in (one, two) for n in half]
        await peer.called(MAX_OF_SERVICE)
        refused = [three.callit(PROGRAM, 1, n) for n in range(50)]
        await three.null()
        for send, call in sends:
            echo(call, send)
        assert len(await gatherResults(calls)) == MAX_OF_SERVICE
        assert len(peer.calls) == MAX_OF_SERVICE
        for each in refused:
            each.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        sends.clear()
        again = three.callit(PROGRAM, 1, 1)
        await peer.called(MAX_OF_SERVICE + 1)
        echo(sends[0][1], sends[0][0])
        await again


@asynchronous
async def test_retransmission() -> None:
    """A question that is asked again while its call is under way makes no second call."""
    sends: list[tuple[Send, bytes]] = []

    def ask(times: int) -> socket.socket:
        skt = connect(socket.SOCK_DGRAM, "127.0.0.1", service.port)
        for _ in range(times):
            skt.send(message)
        settle(service.port)
        return skt

    async with forwarding(lambda call, send: sends.append((send, call))) as (service, peer):
        message = callit(1, b"once")
        with await deferToThread(ask, 5) as skt:
            await peer.called(1)
            echo(sends[0][1], sends[0][0])
            reply = await deferToThread(skt.recv, 65_535)
            assert reply[:4] == message[:4]
            assert decode_reply(reply)[8:] == b"once"
            # Another caller's question with the same bytes is another question.
            with await deferToThread(ask, 1) as other:
                await peer.called(2)
                echo(sends[1][1], sends[1][0])
                assert await deferToThread(other.recv, 65_535) == reply
            assert len(peer.calls) == 2
            skt.setblocking(False)
            with pytest.raises(BlockingIOError):
                skt.recv(65_535)


@asynchronous
async def test_forged_answers() -> None:
    """An answer from another socket, or with another xid, is not passed on."""
    forger = socket.socket(type=socket.SOCK_DGRAM)

    def respond(call: bytes, send: Send) -> None:
        forger.sendto(success(xid_of(call), b"forged.."), peer.callers[-1])
        send(success(xid_of(call) ^ 1, b"unknown."))
        send(b"???")
        send(success(xid_of(call), b"genuine."))

    with forger:
        async with forwarding(respond) as (service, peer), asking(service.port) as client:
            assert (await client.callit(PROGRAM, 1, 1)).results == b"genuine."


@asynchronous
async def test_what_is_called() -> None:
    """The service sees the caller's credential and arguments, from an unprivileged port here."""
    credential = sys_credential(1000, 100, machine="here")
    async with (
        forwarding(echo) as (service, peer),
        asking(service.port, credential=credential) as client,
    ):
        await client.callit(PROGRAM, 1, 7, b"arguments...")
    call = decode_call(peer.calls[0])
    assert (call.program, call.version, call.procedure) == (PROGRAM, 1, 7)
    assert (call.credential, call.arguments) == (credential, b"arguments...")
    host, port = peer.callers[0][:2]
    assert host == "127.0.0.1"
    assert port >= RESERVED_PORTS


@needs_ipv6
@asynchronous
async def test_service_on_ipv6() -> None:
    """A service that is registered on IPv6 alone is called there."""
    async with serving() as service, peering("udp", echo, host="::1") as peer:
        address = f"::.{peer.port >> 8}.{peer.port & 255}"
        service.registry.map(mapping(PROGRAM, 1, "udp6", address))
        async with asking(service.port) as client:
            assert (await client.callit(PROGRAM, 1, 1, b"text")).results == b"text"


@pytest.mark.parametrize(
    "respond",
    [
        silent,
        lambda call, send: send(refusal(xid_of(call), ProgramUnavailable())),
        lambda call, send: send(call),
        lambda call, send: send(call[:4]),
    ],
    ids=["silent", "refuses", "no reply", "an xid"],
)
@asynchronous
async def test_failures(respond: Respond) -> None:
    """What fails is answered with silence, and the port mapper goes on."""
    async with (
        forwarding(respond) as (service, peer),
        asking(service.port, transport="tcp", timeout=0.3) as client,
    ):
        with pytest.raises(CallTimedOut):
            await client.callit(PROGRAM, 1, 1)
        await client.null()
        assert len(peer.calls) == 1


@asynchronous
async def test_nobody_there() -> None:
    """A service that is registered and gone, or not registered, is silence."""
    async with serving() as service, asking(service.port, timeout=0.3) as client:
        service.registry.map(mapping(PROGRAM, 1, "udp", "0.0.0.0.0.1"))
        for program in (PROGRAM, PROGRAM + 1):
            with pytest.raises(CallTimedOut):
                await client.callit(program, 1, 1)
        await client.null()
