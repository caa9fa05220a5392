"""Addresses that callers are told in place of the one they reached."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from attrs import frozen

Network = IPv4Network | IPv6Network


@frozen
class Advertisement:
    """What callers of a network are told where a service listens on all addresses.

    :param network: the network.
    :param address: an IPv4 or IPv6 address, of the network's family.
    """

    network: Network
    address: str


def advertised(advertisements: Sequence[Advertisement], host: str) -> str | None:
    """The address that a caller is told; None: the one that it reached.

    :param host: the caller's address. Of several networks that it is in, the smallest counts.
    """
    if not advertisements:
        return None
    address = ip_address(host.partition("%")[0])
    fitting = [each for each in advertisements if address in each.network]
    return max(fitting, key=lambda each: each.network.prefixlen).address if fitting else None
