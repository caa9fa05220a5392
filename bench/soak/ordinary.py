"""Those who want to be served: what a hostile peer must not take from them."""

import socket
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count, islice
from types import MappingProxyType

from bench.load import FIRST_PROGRAM
from bench.servers import HOST
from bench.soak.role import LOST, ORDINARY, Role, Target, Unserved
from portmapd.oncrpc.message import decode_call, decode_reply, success
from portmapd.oncrpc.program import (
    Pmap,
    PmapProcedure,
    RemoteCall,
    encode_pmap,
    encode_remote_call,
    read_call_result,
)
from portmapd.oncrpc.record import mark
from portmapd.oncrpc.xdr import Reader
from tests.support.exchange import exchange, question, receive_record, results
from tests.support.talk import Talk

#: The streams and the local clients of a crowd.
STREAMS, CLIENTS = 1_000, 1_000
#: How many of the streams are served in a round.
PART = 50
#: Where the programs of services that are called begin.
SERVICES = FIRST_PROGRAM + 0x1000_0000

_UDP = 17
_GETPORT = encode_pmap(Pmap(FIRST_PROGRAM, 1, _UDP))


def getport() -> bytes:
    """The call that asks for the first of the programs that are registered."""
    return question(2, PmapProcedure.PMAPPROC_GETPORT, _GETPORT)


def callit(program: int, arguments: bytes = b"") -> bytes:
    """A call to be forwarded to that program."""
    call = encode_remote_call(RemoteCall(program, 1, 1, arguments))
    return question(2, PmapProcedure.PMAPPROC_CALLIT, call)


def _check(reply: bytes) -> None:
    if not Reader(decode_reply(reply)).uint():
        raise Unserved("the program is not registered")


def caller(target: Target) -> Iterator[None]:
    """GETPORT on a stream that stays, and on one that is new."""
    with target.stream() as kept:
        while True:
            _check(exchange(kept, getport()))
            with target.stream() as new:
                _check(exchange(new, getport()))
            yield


def registrant(target: Target) -> Iterator[None]:
    """Connect, register a service, find it, deregister it, leave."""
    for number in count():
        with target.talk() as talk:
            name = f"ordinary.{number}"
            talk.register((name, "80", 0))
            if len(talk.services(names=[name])) != 1:
                raise Unserved(f"{name} is not listed")
            talk.deregister((name, "80"))
        yield


def forwarded(target: Target) -> Iterator[None]:
    """Have a call forwarded to a service that answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service, target.datagrams() as skt:
        service.bind((HOST, 0))
        service.settimeout(LOST)
        program = set_service(skt, service)
        while True:
            skt.send(callit(program, b"data"))
            asked, forwarder = service.recvfrom(65_535)
            service.sendto(success(decode_call(asked).xid, b"data"), forwarder)
            if read_call_result(Reader(decode_reply(skt.recv(65_535)))).results != b"data":
                raise Unserved("not what the service answered")
            yield


def set_service(skt: socket.socket, service: socket.socket) -> int:
    """SET a program that no other has at the port of *service*, and give it."""
    # Of the port, so that no other has it.
    port: int = service.getsockname()[1]
    program = SERVICES + port
    pmap = Pmap(program, 1, _UDP, port)
    if not results(skt, 2, PmapProcedure.PMAPPROC_SET, encode_pmap(pmap)).boolean():
        raise Unserved(f"SET of {program} is refused")
    return program


def streams(target: Target) -> Iterator[None]:
    """A crowd of streams that stay, and call GETPORT in turn."""
    every = deque(target.stream() for _ in target.some(STREAMS))
    while True:
        part = list(islice(every, PART))
        for skt in part:
            skt.sendall(mark(getport()))
        for skt in part:
            _check(receive_record(skt))
        every.rotate(-PART)
        yield


def clients(target: Target) -> Iterator[None]:
    """A crowd of local clients, each with a service: new ones come, and the oldest leave."""
    numbers = count()
    here = deque(_client(target, next(numbers)) for _ in target.some(CLIENTS))
    while True:
        here.append(_client(target, next(numbers)))
        here.popleft().skt.close()
        yield


def _client(target: Target, number: int) -> Talk:
    talk = target.talk()
    talk.register((f"client.{number}", "80", 0))
    return talk


#: Those that are measured beside each hostile peer.
BYSTANDERS: Mapping[str, Role] = MappingProxyType(
    {
        "caller": Role(caller, ORDINARY, 0.05, is_rpc=True),
        "registrant": Role(registrant, ORDINARY, 0.05),
        "forwarded": Role(forwarded, ORDINARY, 0.1),
    }
)
#: Those that are there while the server is under load for long.
CROWD: Mapping[str, Role] = MappingProxyType(
    {
        # Of root, for any other user may have a quarter of the streams.
        "streams": Role(streams, 0, 0.1, is_rpc=True),
        "clients": Role(clients, ORDINARY, 0.01),
    }
)
