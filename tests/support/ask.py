"""A program that asks with PortmapClient where a test cannot: in a namespace.

``python -m tests.support.ask TRANSPORT HOST PORT`` prints the address of program 100000,
version 4, or the name and the text of the error.
"""

import sys
from typing import Any, Literal, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from portmapd.client import PortmapClient
from portmapd.errors import PortmapdError


async def _ask(reactor: Any, transport: str, host: str, port: str) -> None:
    kind = cast('Literal["udp", "tcp", "local"]', transport)
    client = PortmapClient(reactor, host, int(port), kind)
    try:
        print(await client.getaddr(100000, 4))
    except PortmapdError as error:
        print(f"{type(error).__name__}: {error}")
    finally:
        await client.close()


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(_ask(reactor, *words)), sys.argv[1:])
