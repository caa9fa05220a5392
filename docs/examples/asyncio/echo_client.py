"""Has a word echoed, within five seconds: ``python echo_client.py WORD``."""

import asyncio
import sys

from portmapd.client.aio import Portmapper
from portmapd.errors import DaemonUnreachable, NoService


async def main(word: str) -> None:
    """Connect to the service by its name."""
    async with asyncio.timeout(5), Portmapper() as portmapper:
        try:
            reader, writer = await portmapper.connect_any("echo.example.com")
        except (NoService, DaemonUnreachable) as error:
            sys.exit(str(error))
    writer.write(f"{word}\n".encode())
    print((await reader.readline()).decode(), end="")
    writer.close()
    await writer.wait_closed()


asyncio.run(main(sys.argv[1]))
