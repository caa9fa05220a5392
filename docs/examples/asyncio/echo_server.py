"""Echoes each line, over TCP on a port that the system chooses, until it is killed."""

import asyncio
from asyncio import StreamReader, StreamWriter

from portmapd.client.aio import Flags, Group, Portmapper
from portmapd.errors import PortmapdError


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    """Serve one connection."""
    async for line in reader:
        writer.write(line)
    writer.close()


def lost(group: Group, why: PortmapdError) -> None:
    """Tell of what could not be registered again when the daemon was restarted."""
    print(f"not registered any more: {group.services}: {why}", flush=True)


async def main() -> None:
    """Serve under a name."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Portmapper(lost=lost) as portmapper, server:
        await portmapper.reg("echo.example.com", port, Flags.EXCLUSIVE)
        print("registered echo.example.com", flush=True)
        await server.serve_forever()


asyncio.run(main())
