"""Ethernet frames that carry a datagram from any source address whatever."""

from ipaddress import ip_address
from struct import pack

_UDP = 17
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_HOPS = 64


def frame(target: bytes, source: tuple[str, int], ours: tuple[str, int], data: bytes) -> bytes:
    """The frame that brings *data* to the port and address *ours*, as if it came from *source*.

    :param target: the hardware address of the interface that receives it.
    """
    head, version = _ip(source[0], ours[0], 8 + len(data))
    addresses = ip_address(source[0]).packed + ip_address(ours[0]).packed
    datagram = pack("!HHH", source[1], ours[1], 8 + len(data)) + bytes(2) + data
    total = _checksum(addresses + pack("!II", len(datagram), _UDP) + datagram) or 0xFFFF
    link = target + b"\2\0\0\0\0\1" + pack("!H", _ETHERTYPES[version])
    return link + head + datagram[:6] + pack("!H", total) + datagram[8:]


def _ip(source: str, ours: str, size: int) -> tuple[bytes, int]:
    """The header of IP, and its version."""
    here, there = ip_address(source), ip_address(ours)
    if here.version == 6:
        head = pack("!IHBB", 6 << 28, size, _UDP, _HOPS)
        return head + here.packed + there.packed, 6
    words = pack("!BBHHHBB", 0x45, 0, 20 + size, 0, 0, _HOPS, _UDP)
    addresses = here.packed + there.packed
    return words + pack("!H", _checksum(words + bytes(2) + addresses)) + addresses, 4


def _checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def hardware_address(text: str) -> bytes:
    """The bytes of a hardware address such as ``02:00:00:00:00:01``."""
    return bytes.fromhex(text.replace(":", ""))
