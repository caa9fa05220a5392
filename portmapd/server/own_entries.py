"""What a port mapper registers of itself: program 100000, and the local channel."""

from __future__ import annotations

import os
from collections.abc import Mapping

from portmapd.channel.commands import ITSELF
from portmapd.errors import AlreadyRegistered, ConfigurationError
from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.dispatch import TABLE
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import SUPERUSER, mapping
from portmapd.registry.registry import Registry


class OwnEntries:
    """The entries of a port mapper in its own registry, for as long as it serves.

    :param registry: has them.
    :param addresses: the universal addresses of program 100000, by their netids.
    :param local_socket: the path of the local channel; None: there is none.
    """

    def __init__(
        self, registry: Registry, addresses: Mapping[str, str], local_socket: str | None
    ) -> None:
        self._registry = registry
        self._addresses = addresses
        self._local_socket = local_socket
        self._holder: Holder | None = None

    @property
    def serial(self) -> int:
        """The serial of their holder, once they are registered."""
        assert self._holder is not None
        return self._holder.serial

    def take_over(self, holder: Holder) -> None:
        """Have what another process of this daemon has registered, as that process still."""
        self._holder = holder

    def register(self) -> None:
        """Register them, unless they are.

        :raises ConfigurationError: another port mapper serves the same registry.
        """
        if self._holder is not None:
            return
        self._holder = holder = self._registry.open(Holder(os.geteuid(), os.getpid()))
        try:
            self._registry.map(
                *(
                    mapping(PROGRAM, version, netid, address, SUPERUSER, holder)
                    for netid, address in self._addresses.items()
                    for version in sorted(TABLE, reverse=True)
                )
            )
        except AlreadyRegistered as error:
            self.close()
            raise ConfigurationError(
                f"{error}: one registry can have one port mapper with sockets for RPC"
            ) from None
        if self._local_socket is not None:
            self._registry.register(holder.new_service(ITSELF, self._local_socket, 0))

    def move(self) -> None:
        """Have this process be the holder of what it has taken over.

        If it serves elsewhere, what was registered is removed, and where it serves is registered.

        :raises ConfigurationError: another port mapper serves the same registry.
        """
        assert self._holder is not None
        if self._are_held_by(self._holder):
            self._registry.move(self._holder, os.geteuid(), os.getpid())
        else:
            self.close()
            self.register()

    def close(self) -> None:
        """Remove them; nothing happens if none is registered."""
        if self._holder is not None:
            self._registry.close(self._holder)
            self._holder = None

    def _are_held_by(self, holder: Holder) -> bool:
        """Are these the entries that *holder* has?"""
        addresses = {each.netid: each.address for each in holder.mappings.values()}
        ports = {service.port for service in holder.services.values()}
        return addresses == self._addresses and ports == {self._local_socket} - {None}
