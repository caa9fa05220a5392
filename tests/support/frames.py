"""Ethernet frames that carry a datagram, or open a stream, from any source address whatever."""

from ipaddress import ip_address
from struct import pack

_TCP, _UDP = 6, 17
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_HOPS = 64

#: An address and a port.
Place = tuple[str, int]


def frame(target: bytes, source: Place, ours: Place, data: bytes) -> bytes:
    """The frame that brings *data* to the port and address *ours*, as if it came from *source*.

    :param target: the hardware address of the interface that receives it.
    """
    ports = pack("!HHH", source[1], ours[1], 8 + len(data))
    total = _sum_of(_UDP, source, ours, ports + bytes(2) + data) or 0xFFFF
    return _link(target, source, ours, _UDP, ports + pack("!H", total) + data)


def opening(target: bytes, source: Place, ours: Place) -> bytes:
    """The frame with the first segment of a TCP connection, otherwise as :func:`frame` makes it."""
    # Sequence, acknowledgement, five words with SYN, a window.
    head = pack("!HHIIHH", source[1], ours[1], 1, 0, 0x5002, 0xFFFF)
    total = _sum_of(_TCP, source, ours, head + bytes(4))
    return _link(target, source, ours, _TCP, head + pack("!HH", total, 0))


def _link(target: bytes, source: Place, ours: Place, protocol: int, data: bytes) -> bytes:
    version = ip_address(source[0]).version
    head = _IP[version](_packed(source), _packed(ours), protocol, len(data))
    return target + b"\2\0\0\0\0\1" + pack("!H", _ETHERTYPES[version]) + head + data


def _ip6(source: bytes, ours: bytes, protocol: int, size: int) -> bytes:
    return pack("!IHBB", 6 << 28, size, protocol, _HOPS) + source + ours


def _ip4(source: bytes, ours: bytes, protocol: int, size: int) -> bytes:
    words = pack("!BBHHHBB", 0x45, 0, 20 + size, 0, 0, _HOPS, protocol)
    return words + pack("!H", _checksum(words + bytes(2) + source + ours)) + source + ours


_IP = {4: _ip4, 6: _ip6}


def _packed(place: Place) -> bytes:
    return ip_address(place[0]).packed


def _sum_of(protocol: int, source: Place, ours: Place, data: bytes) -> int:
    """The checksum of TCP or UDP, which counts the addresses, too."""
    return _checksum(_packed(source) + _packed(ours) + pack("!II", len(data), protocol) + data)


def _checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def hardware_address(text: str) -> bytes:
    """The bytes of a hardware address such as ``02:00:00:00:00:01``."""
    return bytes.fromhex(text.replace(":", ""))
