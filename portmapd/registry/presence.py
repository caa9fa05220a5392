"""Whether the service of a mapping is there, judged by who has its address bound."""

from __future__ import annotations

from attrs import define

from portmapd.registry.mapping import SUPERUSER, Mapping

#: Who has an address bound; a user is None if the kernel does not tell whose the socket is.
Users = frozenset[int | None]
NOBODY: Users = frozenset()


@define(eq=False)
class Presence:
    """What is known of the address of a mapping without a holder.

    :param mapping: it is registered, or suspended while its service pauses.
    :param users: the owner of the mapping, and who had the address bound when it was first seen
        bound: a user who binds it later gains nothing. Empty: it was not seen bound.
    :param forgotten_at: when the suspended mapping is forgotten, by the clock; None: it is
        registered.
    """

    mapping: Mapping
    users: Users = NOBODY
    forgotten_at: float | None = None

    def see(self, users: Users) -> bool:
        """Note that *users* have the address bound; is it seen bound for the first time?"""
        is_first = bool(users) and not self.users
        if is_first:
            self.users = users | owner_users(self.mapping)
        return is_first

    def is_wrong(self, users: Users) -> bool:
        """Whether the mapping has to be suspended, or resumed, if *users* have the address."""
        is_suspended = self.forgotten_at is not None
        return bool(self.users) and is_suspended is not self.users.isdisjoint(users)


def owner_users(mapping: Mapping) -> Users:
    """The user that the owner of *mapping* names; nobody for ``unknown``."""
    if mapping.owner == SUPERUSER:
        return frozenset((0,))
    return frozenset((int(mapping.owner),)) if mapping.owner.isdecimal() else NOBODY
