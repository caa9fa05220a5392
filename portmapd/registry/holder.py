"""Holders: a registration lives exactly as long as the holder that owns it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from portmapd.errors import LimitExceeded, Refusal
from portmapd.registry.mapping import SUPERUSER, Key, Mapping
from portmapd.registry.service import NamedService


@define(eq=False)
class Allowance:
    """How many registrations of one kind a process may hold, on all its connections together.

    :param kind: what is counted: services or mappings.
    :param option: the option of the daemon that sets the limit.
    :param limit: the most of them; None: no limit.
    :param held: how many it holds now.
    """

    kind: str
    option: str
    limit: int | None = None
    held: int = 0

    def check(self, more: int) -> None:
        """Check that *more* can be held.

        :raises LimitExceeded: they would exceed the limit.
        """
        if self.limit is not None and self.held + more > self.limit:
            raise LimitExceeded(
                f"a process may hold {self.limit} {self.kind} ({self.option}); this one holds "
                f"{self.held} and asks for {more} more"
            )


@define(eq=False)
class Allowances:
    """What a process may hold.

    :ivar services: how many named services.
    :ivar mappings: how many RPC mappings, which are counted apart.
    """

    services: Allowance
    mappings: Allowance


def allowances(services: int | None = None, mappings: int | None = None) -> Allowances:
    """The allowances of a new process, by their limits; None: no limit."""
    return Allowances(
        Allowance("services", "--max-services", services),
        Allowance("mappings", "--max-mappings", mappings),
    )


@define(eq=False)
class Holder:
    """The owner of registrations, usually one connection.

    :param uid: the user of the process at the other end.
    :param pid: the process.
    :param exe: the path of its executable; empty if unknown, None if it has not been read yet.
    :param allowances: what the process may hold, shared by all its holders.
    :param serial: its number in the registry, which grows with every holder that is opened.
    :param services: what it holds, by name and port.
    :param mappings: what it holds, by program, version and netid.
    :param last: the serial of its last service.
    :param told: is called with a service that it has lost, and why.
    """

    uid: int
    pid: int
    exe: str | None = None
    allowances: Allowances = field(factory=allowances)
    serial: int = 0
    services: dict[tuple[str, str], NamedService] = field(factory=dict, repr=False)
    mappings: dict[Key, Mapping] = field(factory=dict, repr=False)
    last: int = 0
    told: Callable[[NamedService, Refusal], object] | None = field(default=None, repr=False)

    def lose(self, service: NamedService, why: Refusal) -> None:
        """Tell whose holder it is that a service is registered no longer, and why."""
        if self.told is not None:
            self.told(service, why)

    @property
    def owner(self) -> str:
        """The owner of its mappings, as rpcbind names owners."""
        return owner_of(self.uid)

    def new_service(self, name: str, port: str, flags: int) -> NamedService:
        """Make a service of this holder, which is not registered yet."""
        self.last += 1
        return NamedService(name, port, flags, self.last, self)


def owner_of(uid: int) -> str:
    """The owner of what user *uid* registers: ``superuser`` for 0, else the decimal uid."""
    return str(uid) if uid else SUPERUSER
