"""Who holds registrations: they live exactly as long as their holder."""

from __future__ import annotations

from attrs import define, field

from portmapd.errors import LimitExceeded
from portmapd.registry.mapping import SUPERUSER, Key, Mapping
from portmapd.registry.service import Service


@define(eq=False)
class Allowance:
    """How much one process may hold, all its connections together.

    :param limit: the most services and mappings; None: any number.
    :param held: how many it holds now.
    """

    limit: int | None = None
    held: int = 0

    def check(self, more: int) -> None:
        """Raise :exc:`~portmapd.errors.LimitExceeded` if *more* would be too many."""
        if self.limit is not None and self.held + more > self.limit:
            raise LimitExceeded(
                f"a process may hold {self.limit} services and mappings; this one holds "
                f"{self.held} and asks for {more} more"
            )


@define(eq=False)
class Holder:
    """One connection's hold on the registry.

    :param uid: the user of the process at the other end.
    :param pid: the process.
    :param exe: the path of its executable; empty if it is unknown, None if nobody looked yet.
    :param allowance: shared by all holders of the process.
    """

    uid: int
    pid: int
    exe: str | None = None
    allowance: Allowance = field(factory=Allowance)
    serial: int = 0
    services: dict[tuple[str, str], Service] = field(factory=dict, repr=False)
    mappings: dict[Key, Mapping] = field(factory=dict, repr=False)
    _next: int = 0

    @property
    def owner(self) -> str:
        """The owner of its mappings, as rpcbind names owners."""
        return owner_of(self.uid)

    def new_service(self, name: str, port: str, flags: int) -> Service:
        """A service of this holder, not registered yet."""
        self._next += 1
        return Service(name, port, flags, self._next, self)


def owner_of(uid: int) -> str:
    """The owner that a process of user *uid* registers as: ``superuser`` or the decimal uid."""
    return str(uid) if uid else SUPERUSER
