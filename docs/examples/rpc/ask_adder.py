"""Have the adder of this host add: ``python ask_adder.py [PORT]``."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from portmapd import PortmapClient
from portmapd.rpc import INT, fields


async def ask(reactor: IReactorTime, port: str = "111") -> None:
    """Print the sum of two numbers."""
    client = PortmapClient(reactor, port=int(port), timeout=5)
    arguments = fields(INT, INT).encode((40, 2))
    answer = await client.callit(0x2000_0002, 1, 1, arguments)
    print(f"port {answer.port} says {int.from_bytes(answer.results)}")
    await client.close()


react(lambda reactor, *words: Deferred.fromCoroutine(ask(reactor, *words)), sys.argv[1:])
