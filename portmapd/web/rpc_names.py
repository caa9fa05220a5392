"""The names of RPC programs (``rpc(5)``)."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

#: Where they are, and how much of it is read.
FILE = Path("/etc/rpc")
MAX_FILE = 1 << 20


def rpc_names(file: Path = FILE) -> Mapping[int, str]:
    """The names of programs by their numbers; none if there is no such file."""
    text = ""
    with suppress(OSError), file.open(errors="replace") as lines:
        text = lines.read(MAX_FILE)
    return dict(_named(text))


def _named(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        name, number, *_ = [*line.partition("#")[0].split(), "", ""]
        if number.isascii() and number.isdecimal() and len(number) <= 10:
            yield int(number), name
