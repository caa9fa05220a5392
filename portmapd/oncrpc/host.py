"""Hosts, as users and peers name them."""

from ipaddress import ip_address


def is_address(host: str) -> bool:
    """Whether *host* is an IPv4 or IPv6 address, perhaps with a scope, rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
