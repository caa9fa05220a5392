"""All that is registered, as JSON with which another process goes on.

A snapshot lacks what connections hold, since it outlives them. An image is for a process that takes
the connections over: it has their holders, and keeps every order that anyone can see.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from portmapd.errors import InvalidMapping, InvalidState
from portmapd.registry.change import ChangeKind
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import Mapping as RpcMapping
from portmapd.registry.mapping import Users, mapping
from portmapd.registry.registry import Registry
from portmapd.registry.service import NamedService
from portmapd.registry.snapshot import SavedMapping, decode_saved, encode_mapping

#: What is known of a mapping that no connection holds: the fields of a :class:`SavedMapping`.
Known = tuple[RpcMapping, Users, float | None]


@frozen
class Image:
    """All that was registered in another process.

    :param serial: that of its last holder.
    :param holders: the fields of each holder, in the order of their serials.
    :param services: of each service its holder's serial and its fields; those of one name in the
        order in which they were registered.
    :param held: the same of each mapping that a connection holds.
    :param unheld: the mappings that no connection holds, suspended ones included.
    :param changes: how many changes of each kind there were.
    """

    serial: int
    holders: Sequence[Sequence[Any]]
    services: Sequence[Sequence[Any]]
    held: Sequence[Sequence[Any]]
    unheld: Sequence[SavedMapping]
    changes: Mapping[str, int]

    def admit(self, registry: Registry) -> dict[int, Holder]:
        """Open the holders in a new registry; they hold nothing yet.

        :return: the holders, by their serials.
        :raises InvalidState: a holder is malformed.
        """
        try:
            for serial, uid, pid, exe, last in self.holders:
                registry.readmit(Holder(uid, pid, exe, serial=serial, last=last))
        except (TypeError, ValueError) as error:
            raise InvalidState(f"a holder cannot be read: {error!r}") from error
        registry.serial = self.serial
        return {holder.serial: holder for holder in registry.holders_after(0)}

    def register(self, registry: Registry, holders: Mapping[int, Holder]) -> None:
        """Register what the holders hold. Their allowances count it, and forbid nothing.

        :raises InvalidState: a mapping or a service is malformed.
        """
        try:
            registry.put_back(
                [
                    mapping(program, version, netid, address, owner, holders[serial])
                    for serial, program, version, netid, address, owner in self.held
                ],
                [
                    NamedService(name, port, flags, place, holders[serial])
                    for serial, name, port, flags, place in self.services
                ],
            )
        except (InvalidMapping, KeyError, TypeError, ValueError) as error:
            raise InvalidState(f"what is held cannot be read: {error!r}") from error

    def count(self, registry: Registry) -> None:
        """Have the registry go on counting changes where the other one was."""
        for kind in ChangeKind:
            registry.changes[kind] = self.changes.get(kind.value, 0)


def take_image(registry: Registry, unheld: Iterable[Known]) -> dict[str, Any]:
    """The image of a registry, as a value of JSON.

    :param unheld: the mappings that no connection holds, suspended ones included.
    """
    return {
        "serial": registry.serial,
        "holders": [_holder_row(holder) for holder in registry.holders_after(0)],
        "services": [_service_row(service) for service in registry.names],
        "held": [row for holder in registry.holders_after(0) for row in _held_rows(holder)],
        "unheld": list({known[0].key: encode_mapping(*known) for known in unheld}.values()),
        "changes": {kind.value: count for kind, count in registry.changes.items()},
    }


def take_held(registry: Registry, holders: Iterable[Holder]) -> dict[str, Any]:
    """The image of what some holders have registered, and of nothing else.

    :param holders: in the order of their serials.
    """
    kept = list(holders)
    return {
        "serial": registry.serial,
        "holders": [_holder_row(holder) for holder in kept],
        "services": [_service_row(s) for holder in kept for s in holder.services.values()],
        "held": [row for holder in kept for row in _held_rows(holder)],
        "unheld": [],
        "changes": {},
    }


def without_holders(data: Mapping[str, Any], serials: Container[int | None]) -> dict[str, Any]:
    """An image without some holders, and without what they hold.

    :raises InvalidState: it is malformed.
    """
    try:
        lists = {
            name: [row for row in data[name] if row[0] not in serials]
            for name in ("holders", "services", "held")
        }
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidState(f"what is registered cannot be read: {error!r}") from error
    return {**data, **lists}


def _holder_row(holder: Holder) -> list[Any]:
    return [holder.serial, holder.uid, holder.pid, holder.exe, holder.last]


def _service_row(service: NamedService) -> list[Any]:
    return [service.holder.serial, service.name, service.port, service.flags, service.serial]


def _held_rows(holder: Holder) -> Iterator[list[Any]]:
    for m in holder.mappings.values():
        yield [holder.serial, m.program, m.version, m.netid, m.address, m.owner]


def read_image(data: Mapping[str, Any]) -> Image:
    """Read what :func:`take_image` gave.

    :raises InvalidState: it is malformed.
    """
    try:
        if not (isinstance(data["serial"], int) and isinstance(data["changes"], dict)):
            raise TypeError("a number, or the counts, are missing")
        return Image(
            data["serial"],
            data["holders"],
            data["services"],
            data["held"],
            [decode_saved(line) for line in data["unheld"]],
            data["changes"],
        )
    except (KeyError, TypeError) as error:
        raise InvalidState(f"what is registered cannot be read: {error!r}") from error
