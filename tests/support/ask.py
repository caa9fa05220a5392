"""A program that asks with PortmapClient where a test cannot: in a namespace.

``python -m tests.support.ask TRANSPORT HOST PORT [SECONDS [strict]]`` prints the address of program
100000, version 4, or the name and the text of the error.

``python -m tests.support.ask broadcast PROGRAM SECONDS LIMIT`` prints each reply to NULL of version
1 as it comes: host, port and results; then how many there were, or the error.

``python -m tests.support.ask every TRANSPORT HOST`` calls every method for port 111, and prints
what each gives.
"""

import socket
import sys
from typing import Any, Literal, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from portmapd.client import PortmapClient
from portmapd.client.rpc.broadcast_call import BroadcastReply
from portmapd.errors import PortmapdError


async def _ask(
    reactor: Any, transport: str, host: str, port: str, seconds: str = "10", strict: str = ""
) -> str:
    kind = cast('Literal["udp", "tcp", "local"]', transport)
    client = PortmapClient(reactor, host, int(port), kind, float(seconds), strict=bool(strict))
    try:
        return await client.getaddr(100000, 4)
    finally:
        await client.close()


def _show(reply: BroadcastReply) -> None:
    print(reply.host, reply.port, reply.results.hex() or "-", flush=True)


async def _ask_everyone(reactor: Any, program: str, seconds: str, limit: str) -> str:
    client = PortmapClient(reactor)
    replies = await client.broadcast(
        int(program), 1, 0, each=_show, timeout=float(seconds), limit=int(limit)
    )
    return f"{len(replies)} replies"


async def _every(reactor: Any, transport: str, host: str) -> str:
    kind = cast('Literal["udp", "tcp", "local"]', transport)
    client = PortmapClient(reactor, host, 111, kind)
    number, udp = 200_300, socket.IPPROTO_UDP
    path = "/run/service.sock"
    said: dict[str, object] = {}
    try:
        for version in (2, 3, 4):
            await client.null(version)
        said["set"] = await client.set(number, 1, udp, 4000)
        for netid, address in (("udp6", "::.15.160"), ("tcp6", "::1.15.160"), ("local", path)):
            said[f"set {netid}"] = await client.set_address(number, 1, netid, address)
        said["getport"] = await client.getport(number, 1, udp)
        said["getaddr"] = await client.getaddr(number, 1)
        said["getaddr of no program"] = await client.getaddr(number + 1, 1)
        said["dump"] = [row for row in await client.dump() if row.program == number]
        rows = [row for row in await client.dump_addresses() if row.program == number]
        said["dump_addresses"] = sorted((row.netid, row.address) for row in rows)
        said["unset tcp6"] = await client.unset_address(number, 1, "tcp6")
        said["unset"] = await client.unset_address(number, 1)
        said["getaddr afterwards"] = await client.getaddr(number, 1)
    finally:
        await client.close()
    return "\n".join(f"{what}: {value}" for what, value in said.items())


#: What the first word of the command asks for; any other is a transport.
_MODES = {"broadcast": _ask_everyone, "every": _every}


async def _main(reactor: Any, first: str, *words: str) -> None:
    try:
        mode: Any = _MODES.get(first)
        print(await (mode(reactor, *words) if mode else _ask(reactor, first, *words)))
    except PortmapdError as error:
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(_main(reactor, *words)), sys.argv[1:])
