"""A VXI-11 instrument that measures a voltage: ``python instrument.py``."""

from portmapd import rpc
from portmapd.rpc import BOOL, INT, OPAQUE, STRING, UINT, Procedure, Request, fields

NO_LINK, OUT_OF_RESOURCES, TIMED_OUT = 4, 9, 15
COUNT_REACHED, END = 1, 4
MAX_LINKS = 100
ANSWERS = {b"*IDN?": b"Example,Voltmeter,1,1.0\n", b"MEAS:VOLT?": b"+1.25000E+00\n"}

#: For each link, what is to be read from it.
links: dict[int, bytes] = {}


def create_link(wanted: tuple[int, bool, int, str], request: Request) -> tuple[int, ...]:
    """Open a link; a client has one for each instrument that it uses."""
    if len(links) >= MAX_LINKS:
        return OUT_OF_RESOURCES, 0, 0, 0
    link = max(links, default=0) + 1
    links[link] = b""
    return 0, link, 0, 65_000


def device_write(wanted: tuple[int, int, int, int, bytes], request: Request) -> tuple[int, int]:
    """Take a command."""
    link, *_, command = wanted
    if link not in links:
        return NO_LINK, 0
    links[link] = ANSWERS.get(command.strip().upper(), b"")
    return 0, len(command)


def device_read(wanted: tuple[int, ...], request: Request) -> tuple[int, int, bytes]:
    """Give the answer to the last command, or the next part of it."""
    link, size = wanted[:2]
    if not links.get(link):
        return TIMED_OUT if link in links else NO_LINK, 0, b""
    part, links[link] = links[link][:size], links[link][size:]
    return 0, COUNT_REACHED if links[link] else END, part


def destroy_link(link: int, request: Request) -> int:
    """Close a link."""
    return NO_LINK if links.pop(link, None) is None else 0


LINK, WANTED = fields(INT, INT, UINT, UINT), fields(INT, BOOL, UINT, STRING)
WRITE, WRITTEN = fields(INT, UINT, UINT, INT, OPAQUE), fields(INT, UINT)
READ, ANSWER = fields(INT, UINT, UINT, UINT, INT, INT), fields(INT, INT, OPAQUE)
procedures = (
    Procedure("create_link", 10, WANTED, LINK, create_link),
    Procedure("device_write", 11, WRITE, WRITTEN, device_write),
    Procedure("device_read", 12, READ, ANSWER, device_read),
    Procedure("destroy_link", 23, INT, INT, destroy_link),
)

if __name__ == "__main__":
    rpc.run(rpc.Program("DEVICE_CORE", 0x0607AF, 1, *procedures))
