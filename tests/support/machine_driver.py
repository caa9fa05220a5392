"""What a machine's processes do: commands as lines of JSON in, outcomes as lines of JSON out."""

import asyncio
import json
import sys
import time
from typing import Any

from portmapd.client.aio import Portmapper
from portmapd.errors import PortmapdError

#: Clients by their names; each registers for itself.
CLIENTS: dict[str, Portmapper] = {}
#: What each has lost, and when.
LOST: list[tuple[str, str, float]] = []
#: How often the listing is looked at, in seconds.
LOOK = 0.001


def client(name: str) -> Portmapper:
    """The client of that name, which is made when it is first asked for."""
    if name not in CLIENTS:
        CLIENTS[name] = Portmapper(
            lost=lambda group, why: LOST.append((name, group.services[0][0], time.monotonic()))
        )
    return CLIENTS[name]


async def reg(by: str, name: str, port: int, flags: int) -> None:
    """Register."""
    await client(by).reg(name, port, flags)


async def dereg(by: str, name: str) -> None:
    """Deregister."""
    await client(by).dereg(name)


async def close(by: str) -> None:
    """Close a client."""
    await CLIENTS.pop(by).close()


async def cluster() -> dict[str, Any]:
    """How the machine stands in its cluster."""
    return (await client("asks").cluster())._asdict()


async def listed(name: str | None = None) -> dict[str, Any]:
    """What the cluster shares."""
    known = await client("asks").list(name, cluster=True)
    return {"rows": known, "age": known.age}


async def until(name: str, count: int) -> float:
    """Wait until so many services of that name are listed, and tell when that was."""
    while len(await client("asks").list(name, cluster=True)) != count:  # noqa: ASYNC110 # it is another process that has them
        await asyncio.sleep(LOOK)
    return time.monotonic()


async def watched(name: str, count: int) -> list[list[Any]]:
    """Watch until so many changes have come."""
    changes = client("watches").watch(name, cluster=True)
    found = []
    async for change in changes:
        found.append([change.kind, change.subject.host, change.subject.pid])  # type: ignore[union-attr] # of the cluster
        if len(found) == count:
            break
    changes.close()
    return found


async def connected(name: str, where: str) -> str:
    """What a service says that is connected to."""
    reader, writer = await client("asks").connect(name, None, where=where)
    said = await reader.readline()
    writer.close()
    return said.decode()


async def lost() -> list[tuple[str, str, float]]:
    """What was lost so far."""
    return LOST


OPERATIONS = {
    each.__name__: each
    for each in (reg, dereg, close, cluster, listed, until, watched, connected, lost)
}


async def answer(line: str) -> None:
    """Do a command, and print what came of it."""
    asked = json.loads(line)
    serial, operation = asked.pop("serial"), asked.pop("operation")
    begun = time.monotonic()
    outcome: dict[str, Any] = {"serial": serial}
    try:
        outcome["value"] = await OPERATIONS[operation](**asked)
    except PortmapdError as error:
        outcome |= {"error": type(error).__name__, "why": str(error)}
    print(json.dumps({**outcome, "begun": begun, "ended": time.monotonic()}), flush=True)


async def main() -> None:
    """Answer until the input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    while line := await reader.readline():
        task = asyncio.ensure_future(answer(line.decode()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main())
