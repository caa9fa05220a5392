"""A program that asks with PortmapClient where a test cannot: in a namespace.

``python -m tests.support.ask TRANSPORT HOST PORT [SECONDS [strict]]`` prints the address of program
100000, version 4, or the name and the text of the error.

``python -m tests.support.ask broadcast PROGRAM SECONDS LIMIT`` prints each reply to NULL of version
1 as it comes: host, port and results; then how many there were, or the error.
"""

import sys
from typing import Any, Literal, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from portmapd.client import PortmapClient
from portmapd.client.rpc.broadcast import BroadcastReply
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


async def _main(reactor: Any, first: str, *words: str) -> None:
    try:
        if first == "broadcast":
            print(await _ask_everyone(reactor, *words))
        else:
            print(await _ask(reactor, first, *words))
    except PortmapdError as error:
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(_main(reactor, *words)), sys.argv[1:])
