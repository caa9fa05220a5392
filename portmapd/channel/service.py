"""A named service as clients register it: its fields, and their rules."""

from __future__ import annotations

from enum import IntFlag

from portmapd.channel.socket_path import MAX_PATH
from portmapd.errors import InvalidService

#: The longest name, in bytes: that of a domain name.
MAX_NAME = 255
MAX_PORT = 65_535

#: Unicode's categories of control characters, and of surrogates, which are not characters.
_CONTROL = ("Cc", "Cs")
#: The digits of the largest port number.
_DIGITS = 5


class Flags(IntFlag):
    """How a name is registered; 0 is neither."""

    #: The same user cannot register the name a second time.
    EXCLUSIVE = 1
    #: Listings show the executable of the process.
    PUBLIC = 2
    #: Every machine of the cluster lists it. With EXCLUSIVE, it has the name in the whole cluster.
    SHARED = 4


_ALL_FLAGS = int(Flags.EXCLUSIVE | Flags.PUBLIC | Flags.SHARED)


def check_service(name: str, port: str, flags: int) -> None:
    """Check the fields that a client chooses.

    :param port: a decimal port, or the absolute path of a UNIX socket.
    :raises InvalidService: a field is malformed or out of range; the message names it.
    """
    if " " in name or (not name.isprintable() and any(map(_is_control, name))):
        raise InvalidService(f"name {name!r}: no space and no control character is allowed")
    if not name or len(name.encode()) > MAX_NAME:
        raise InvalidService(f"name: it must have 1 to {MAX_NAME} bytes")
    if not _is_port(port) and not _is_path(port):
        raise InvalidService(
            f"port {port!r} is neither a number from 1 to 65535 nor the absolute path of a socket"
        )
    if flags & ~_ALL_FLAGS:
        raise InvalidService(
            f"flags {flags}: only 1 (exclusive), 2 (public) and 4 (shared) are known"
        )
    if flags & Flags.SHARED and not is_number(port):
        raise InvalidService(
            f"port {port!r}: only a number can be shared (flag 4), for other machines cannot "
            "connect to the path of a socket"
        )


def is_number(port: str) -> bool:
    """Is it a port in digits, though perhaps one out of range?"""
    return port.isascii() and port.isdecimal() and len(port) <= _DIGITS


def _is_control(char: str) -> bool:
    """Is it a space, a control character or a surrogate? A joiner of letters is not."""
    # It takes long to import, and few names have unusual characters.
    from unicodedata import category

    return char.isspace() or category(char) in _CONTROL


def _is_port(port: str) -> bool:
    return is_number(port) and port[0] != "0" and int(port) <= MAX_PORT


def _is_path(port: str) -> bool:
    return port.startswith("/") and port.isprintable() and len(port.encode()) <= MAX_PATH
