"""Ask the clock of clock.py for the time: ``python ask_clock.py [HOST [PORT]]``."""

import socket
import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from portmapd import PortmapClient
from portmapd.errors import CallRefused, CallTimedOut, DaemonUnreachable
from portmapd.oncrpc.xdr import Reader

PROGRAM, VERSION = 0x2000_0001, 1
TIME = 1


async def ask(reactor: IReactorTime, host: str = "127.0.0.1", port: str = "10111") -> None:
    """Print where the clock is, and what it says."""
    client = PortmapClient(reactor, host, int(port), timeout=5)
    try:
        found = await client.getport(PROGRAM, VERSION, socket.IPPROTO_UDP)
        if not found:
            sys.exit("no clock is registered")
        answer = await client.callit(PROGRAM, VERSION, TIME)
        print(f"the clock on port {found} says {Reader(answer.results).uint()}")
    except CallTimedOut as error:
        sys.exit(f"no answer: {error}")
    except DaemonUnreachable as error:
        sys.exit(f"no port mapper: {error}")
    except CallRefused as error:
        sys.exit(f"refused: {error}")
    finally:
        await client.close()


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(ask(reactor, *words)), sys.argv[1:])
