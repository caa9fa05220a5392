"""What is registered through one client, in the groups in which it was registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from portmapd.errors import PortmapdError, Refusal

#: A service as it is registered: name, port, flags.
Registration = tuple[str, str, int]
#: A mapping as it is set: program, version, netid, universal address.
MappingFields = tuple[int, int, str, str]


class Group(NamedTuple):
    """What was registered at once: it is registered again at once, or not at all.

    :param services: the services, each as (name, port, flags).
    :param mappings: the RPC mappings, each as (program, version, netid, address).
    """

    services: tuple[Registration, ...] = ()
    mappings: tuple[MappingFields, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.services or self.mappings)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The name and port of each service."""
        return [service[:2] for service in self.services]

    def without_services(self, gone: set[tuple[str, str]]) -> Group:
        """Return the group without these services, and without the mappings that belong to them.

        A mapping that was set together with services belongs to all of them on its port.
        """
        services = tuple([service for service in self.services if service[:2] not in gone])
        if len(services) == len(self.services):
            return self
        ports = {port for _, port, _ in services}
        return Group(services, tuple([m for m in self.mappings if _port(m) in ports]))

    def without_mapping(self, gone: MappingFields) -> Group:
        """Return the group without this mapping, however its address is written.

        A version has one address on each netid, so these three fields tell it.
        """
        return Group(self.services, tuple([m for m in self.mappings if m[:3] != gone[:3]]))


#: A group, and why it was refused.
Refused = tuple[Group, Refusal]

#: Is told of a group that could not be registered again, and why.
Lost = Callable[[Group, PortmapdError], object]


class Registrations:
    """Every group that is registered, in the order of registration."""

    def __init__(self) -> None:
        self._groups: list[Group] = []

    def __iter__(self) -> Iterator[Group]:
        return iter(tuple(self._groups))

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, group: Group) -> None:
        """*group* was registered."""
        if group:
            self._groups.append(group)

    def discard(self, group: Group) -> None:
        """*group* is no longer registered."""
        if group in self._groups:
            self._groups.remove(group)

    def clear(self) -> None:
        """Nothing is registered any more."""
        self._groups.clear()

    def deregistered(self, services: Iterable[tuple[str, str]]) -> tuple[MappingFields, ...]:
        """These services, by name and port, are no longer registered.

        :return: the mappings that belong to them, and are to be unset.
        """
        gone = set(services)
        before = [mapping for group in self._groups for mapping in group.mappings]
        self._keep([group.without_services(gone) for group in self._groups])
        left = {mapping for group in self._groups for mapping in group.mappings}
        return tuple([mapping for mapping in before if mapping not in left])

    def lost(self, name: str, port: str) -> list[Group]:
        """The daemon has deregistered a service, whose name another machine may have.

        :return: what was registered with that name and port.
        """
        key = name, port
        lost = [each for group in self._groups for each in group.services if each[:2] == key]
        self._keep([group.without_services({key}) for group in self._groups])
        return [Group((each,)) for each in lost]

    def unset(self, mapping: MappingFields) -> None:
        """This mapping is no longer set."""
        self._keep([group.without_mapping(mapping) for group in self._groups])

    def _keep(self, groups: Iterable[Group]) -> None:
        self._groups = [group for group in groups if group]


def _port(mapping: MappingFields) -> str:
    """Return the port, or the path, of a mapping in the form in which services have it."""
    # It takes long to import, and most programs do not need it.
    from portmapd.oncrpc.netid import LOCAL, split_address

    *_, netid, address = mapping
    return address if netid == LOCAL.name else str(split_address(address)[1])
