"""Print which RPC programs hosts serve, at once: ``python programs_at_once.py PORT HOST...``."""

import asyncio
import sys

from portmapd.client.aio import PortmapClient
from portmapd.errors import PortmapdError


async def show(host: str, port: int) -> None:
    """Print a line on one host."""
    try:
        async with PortmapClient(host, port, transport="tcp", timeout=5) as client:
            programs = {row.program for row in await client.dump_addresses()}
    except PortmapdError as error:
        print(error)
    else:
        print(f"{host}:", *sorted(programs))


async def main(port: str, *hosts: str) -> None:
    """Ask all hosts."""
    await asyncio.gather(*(show(host, int(port)) for host in hosts))


asyncio.run(main(*sys.argv[1:]))
