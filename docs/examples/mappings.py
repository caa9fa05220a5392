"""List what is registered with a port mapper: ``python mappings.py HOST [PORT]``."""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from portmapd import PortmapClient


async def show(reactor: IReactorTime, host: str, port: str = "111") -> None:
    """Print a line for each mapping."""
    client = PortmapClient(reactor, host, int(port), transport="tcp")
    try:
        for row in await client.dump_addresses():
            print(f"{row.program:9} {row.version:3} {row.netid:5} {row.address:20} {row.owner}")
    finally:
        await client.close()


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(show(reactor, *words)), sys.argv[1:])
