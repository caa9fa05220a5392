"""The mappings that no connection holds, as text that outlives the process.

A snapshot is a line that names the format and has the checksum of the rest; a line with the boot,
the moment and the number of mappings; and a line for each mapping::

    portmapd-mappings 1 5b0e…
    8a4e5f50-0d3a-4f6e-9f6e-2d1c7a3b9e10 86400.250 2
    100024 1 udp 103 103 - 0.0.0.0.182.50
    100005 3 tcp superuser 0 42.500 0.0.0.0.78.80
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256

from attrs import evolve, frozen

from portmapd.errors import InvalidMapping, InvalidState
from portmapd.registry.mapping import NOBODY, Mapping, Users, mapping
from portmapd.registry.presence import owner_users

#: How a snapshot begins: the name of the format, and its version.
FORMAT = "portmapd-mappings"
VERSION = 1

#: A service has one user, or a few where several share a port; more are not kept.
MAX_USERS = 8
#: In place of a user, and of a list or a number that is not there.
_UNKNOWN, _NONE = "?", "-"

_HEADER = re.compile(rb"portmapd-mappings (\d{1,9}) ([0-9a-f]{64})\n")
_MOMENT = re.compile(r"([0-9a-f-]{1,64}) (\d{1,15}\.\d{3}) (\d{1,9})")
_MAPPING = re.compile(
    r"(\d{1,10}) (\d{1,10}) (\w+) (superuser|unknown|\d{1,10}) (-|[\d?,]{1,99}) "
    r"(-|\d{1,9}\.\d{3}) (.+)"
)


@frozen
class SavedMapping:
    """A mapping that no connection holds, with what is known of its service.

    :param mapping: it is registered, or suspended while its service pauses.
    :param users: who had its address bound, as :class:`~portmapd.registry.mapping.Mapping` has
        it; empty: it was not seen bound.
    :param left: seconds for which the suspended mapping is still remembered; None: it is
        registered.
    """

    mapping: Mapping
    users: Users = NOBODY
    left: float | None = None


@frozen
class Snapshot:
    """The mappings at one moment.

    :param boot: names the boot of the kernel.
    :param moment: seconds since that boot.
    """

    boot: str
    moment: float
    saved: tuple[SavedMapping, ...]


def encode_saved(saved: SavedMapping) -> str:
    """One mapping as a line without its end; the inverse of :func:`decode_saved`."""
    return encode_mapping(saved.mapping, saved.users, saved.left)


def encode_mapping(mapping: Mapping, users: Users, left: float | None = None) -> str:
    """The same, of the fields of a :class:`SavedMapping`: a large registry has very many."""
    m, rest = mapping, _NONE if left is None else f"{left:.3f}"
    return f"{m.program} {m.version} {m.netid} {m.owner} {_encode_users(users)} {rest} {m.address}"


def decode_saved(line: str) -> SavedMapping:
    """Read one mapping.

    :raises InvalidState: it is malformed.
    """
    match = _MAPPING.fullmatch(line)
    if match is None:
        raise InvalidState(f"{line[:200]!r} is not a mapping")
    program, version, netid, owner, users, left, address = match.groups()
    try:
        found = mapping(int(program), int(version), netid, address, owner)
        who = _decode_users(users)
    except (InvalidMapping, ValueError) as error:
        raise InvalidState(f"{line[:200]!r} is not a mapping: {error}") from None
    return SavedMapping(found, who, None if left == _NONE else float(left))


@lru_cache(maxsize=64)
def _encode_users(users: Users) -> str:
    if not users:
        return _NONE
    known = sorted(user for user in users if user is not None)[:MAX_USERS]
    return ",".join([*map(str, known), *[_UNKNOWN] * (None in users)])


def _decode_users(text: str) -> Users:
    if text == _NONE:
        return NOBODY
    return frozenset(None if user == _UNKNOWN else int(user) for user in text.split(","))


def encode_snapshot(boot: str, moment: float, lines: Sequence[bytes]) -> list[bytes]:
    """A whole snapshot, in pieces.

    :param lines: what :func:`encode_lines` made of the mappings.
    """
    count = sum(piece.count(b"\n") for piece in lines)
    first = f"{boot} {moment:.3f} {count}\n".encode()
    digest = sha256(first)
    for piece in lines:
        digest.update(piece)
    return [f"{FORMAT} {VERSION} {digest.hexdigest()}\n".encode(), first, *lines]


def encode_lines(lines: Iterable[str]) -> bytes:
    """Lines of :func:`encode_saved`, with their ends."""
    return "".join([f"{line}\n" for line in lines]).encode()


def decode_snapshot(data: bytes) -> Snapshot:
    """Read a whole snapshot.

    :raises InvalidState: it is of another version, incomplete or malformed; the message says what.
    """
    header = _HEADER.match(data)
    if header is None:
        raise InvalidState("it is empty" if not data else "it is not a list of portmapd's mappings")
    if int(header[1]) != VERSION:
        raise InvalidState(f"it is of version {int(header[1])}, and this is for version {VERSION}")
    rest = memoryview(data)[header.end() :]
    if sha256(rest).hexdigest().encode() != header[2]:
        raise InvalidState("its checksum is wrong: it is incomplete or damaged")
    return _decode_body(str(rest, "utf-8", "surrogateescape"))


def _decode_body(text: str) -> Snapshot:
    first, *lines = text.split("\n")
    match = _MOMENT.fullmatch(first)
    if match is None or not lines or lines.pop():
        raise InvalidState("its second line is malformed, or its last one has no end")
    if len(lines) != int(match[3]):
        raise InvalidState(f"it announces {int(match[3])} mappings and has {len(lines)}")
    # What changed while the lines were made may be there twice; the later line is newer.
    saved = {each.mapping.key: each for each in map(decode_saved, lines)}
    return Snapshot(match[1], float(match[2]), tuple(saved.values()))


def restored(
    saved: SavedMapping, users: Users, age: float | None, forget: float
) -> SavedMapping | None:
    """What becomes of a saved mapping when a port mapper starts.

    It is registered if one of its users has its address bound, or if it was never seen bound, so
    that nothing can be said of its service. Otherwise it is remembered, as that of a service that
    pauses is. After a boot of the kernel it is only remembered: ports have been given anew, so who
    has this one may be another program of the same user.

    :param users: who has the address bound now.
    :param age: seconds since it was saved; None: the kernel has booted since.
    :param forget: seconds for which the mapping of a service that is gone is remembered.
    :return: None: it is forgotten.
    """
    if age is not None and (not saved.users or not saved.users.isdisjoint(users)):
        return evolve(saved, left=None)
    left = forget
    if saved.left is not None:
        left = 0.0 if age is None else min(saved.left - age, forget)
    known = saved.users | owner_users(saved.mapping.owner)
    return evolve(saved, users=known, left=left) if left > 0 and known else None
