"""What is registered through one client, in the groups in which it was."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from attrs import evolve, frozen

from portmapd.client.registration import MappingFields, Registration

T = TypeVar("T")


@frozen
class Group:
    """What was registered at once, and is registered again at once or not at all.

    :param services: the services.
    :param mappings: the mappings.
    """

    services: tuple[Registration, ...] = ()
    mappings: tuple[MappingFields, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.services or self.mappings)


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

    def deregistered(self, services: Iterable[tuple[str, str]]) -> None:
        """These services, by name and port, are not registered any more."""
        gone = set(services)
        self._keep(lambda group: evolve(group, services=_but(group.services, gone, _service_key)))

    def unset(self, mappings: Iterable[MappingFields]) -> None:
        """These mappings are not set any more."""
        gone = set(mappings)
        self._keep(lambda group: evolve(group, mappings=_but(group.mappings, gone, _itself)))

    def _keep(self, rest: Callable[[Group], Group]) -> None:
        self._groups = [group for group in map(rest, self._groups) if group]


def _service_key(registration: Registration) -> tuple[str, str]:
    return registration[:2]


def _itself(mapping: MappingFields) -> MappingFields:
    return mapping


def _but(
    rows: tuple[T, ...], gone: Collection[object], key: Callable[[T], object]
) -> tuple[T, ...]:
    return tuple([row for row in rows if key(row) not in gone])
