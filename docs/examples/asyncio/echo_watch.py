"""Prints when the echo service comes and goes, until it is interrupted."""

import asyncio
from contextlib import closing, suppress

from portmapd.client.aio import Portmapper


async def main() -> None:
    """Follow the changes of one name."""
    async with Portmapper() as portmapper:
        with closing(portmapper.watch("echo.example.com")) as changes:
            async for change in changes:
                print(change.kind, flush=True)


with suppress(KeyboardInterrupt):
    asyncio.run(main())
