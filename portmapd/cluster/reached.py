"""Where other machines reach what is registered on this one."""

from __future__ import annotations

from ipaddress import ip_address

from attrs import frozen

from portmapd.oncrpc.netid import NETIDS, format_address, split_address
from portmapd.oncrpc.program import PROGRAM
from portmapd.registry.mapping import Mapping

#: The netids of mappings that an address of a family serves.
_FAMILIES = {4: "inet", 6: "inet6"}


@frozen
class Reached:
    """Which mappings are shared, and at which address: none of the port mapper's own.

    :param address: the address of this machine, IPv4 or IPv6.
    :param programs: the programs whose mappings are shared; None: all.
    """

    address: str
    programs: frozenset[int] | None = frozenset()

    def address_of(self, mapping: Mapping) -> str | None:
        """The universal address at which other machines reach the service of a mapping.

        :return: None: it is not shared, or they cannot reach it.
        """
        if mapping.program == PROGRAM or not self._is_shared(mapping.program):
            return None
        netid = NETIDS[mapping.netid]
        if not netid.wildcard:
            return None
        host, port = split_address(mapping.address)
        bound = ip_address(host)
        if bound.is_loopback or bound.is_link_local:
            return None
        if not bound.is_unspecified:
            return mapping.address
        is_ours = netid.family == _FAMILIES[ip_address(self.address).version]
        return format_address(self.address, port) if is_ours else None

    def _is_shared(self, program: int) -> bool:
        return self.programs is None or program in self.programs
