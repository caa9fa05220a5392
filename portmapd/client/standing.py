"""What is registered through one client, in the groups in which it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from portmapd.errors import AlreadyRegistered, LimitExceeded, PortmapdError, Refusal

if TYPE_CHECKING:
    from portmapd.client.registration import MappingFields, Registration


#: How often, and after how many seconds, what was refused is tried again: our own broken
#: connection may hold it for a moment longer.
RETRIES = 5
RETRY_WAIT = 0.1

#: Refusals that may be due to that.
PASSING = (AlreadyRegistered, LimitExceeded)


class Group(NamedTuple):
    """What was registered at once, and is registered again at once or not at all.

    :param services: the services, each as (name, port, flags).
    :param mappings: the mappings, each as (program, version, netid, address).
    """

    services: tuple[Registration, ...] = ()
    mappings: tuple[MappingFields, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.services or self.mappings)

    def without_services(self, gone: set[tuple[str, str]]) -> Group:
        """The group without these services, and without the mappings that came with them.

        A mapping that was set together with services goes with the last one on its port.
        """
        services = tuple([service for service in self.services if service[:2] not in gone])
        if len(services) == len(self.services):
            return self
        ports = {port for _, port, _ in services}
        mappings = tuple([mapping for mapping in self.mappings if _port(mapping) in ports])
        return Group(services, mappings)

    def without_mappings(self, gone: set[MappingFields]) -> Group:
        """The group without these mappings."""
        return Group(self.services, tuple([m for m in self.mappings if m not in gone]))


#: A group, and why it was refused.
Refused = tuple[Group, Refusal]

#: Is told of a group that could not be registered again, and why.
Lost = Callable[[Group, PortmapdError], object]


class Standing:
    """Every group that stands."""

    def __init__(self) -> None:
        self._groups: list[Group] = []

    def __iter__(self) -> Iterator[Group]:
        """The groups in the order in which they were registered."""
        return iter(tuple(self._groups))

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, group: Group) -> None:
        """*group* was registered."""
        if group:
            self._groups.append(group)

    def discard(self, group: Group) -> None:
        """*group* is not registered any more."""
        if group in self._groups:
            self._groups.remove(group)

    def clear(self) -> None:
        """Nothing is registered any more."""
        self._groups.clear()

    def deregistered(self, services: Iterable[tuple[str, str]]) -> tuple[MappingFields, ...]:
        """These services, by name and port, are not registered any more.

        :return: the mappings that came with them and are to be unset now.
        """
        gone = set(services)
        before = [mapping for group in self._groups for mapping in group.mappings]
        self._keep([group.without_services(gone) for group in self._groups])
        left = {mapping for group in self._groups for mapping in group.mappings}
        return tuple([mapping for mapping in before if mapping not in left])

    def unset(self, mappings: Iterable[MappingFields]) -> None:
        """These mappings are not set any more."""
        gone = set(mappings)
        self._keep([group.without_mappings(gone) for group in self._groups])

    def _keep(self, groups: Iterable[Group]) -> None:
        self._groups = [group for group in groups if group]


def _port(mapping: MappingFields) -> str:
    """The port, or the path, of a mapping as services have it."""
    # Few programs come here, and it takes long to import.
    from portmapd.oncrpc.netid import LOCAL, split_address

    *_, netid, address = mapping
    return address if netid == LOCAL.name else str(split_address(address)[1])
