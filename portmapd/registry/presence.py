"""Whether the service of a mapping is there, judged by who has its address bound."""

from functools import lru_cache

from portmapd.registry.mapping import NOBODY, SUPERUSER, Mapping, Users


def see(mapping: Mapping, users: Users) -> bool:
    """Note that *users* have the address bound; is it seen bound for the first time?"""
    is_first = bool(users) and not mapping.users
    if is_first:
        mapping.users = _with_owner(users, mapping.owner)
    return is_first


def is_wrong(mapping: Mapping, users: Users, is_suspended: bool) -> bool:
    """Whether the mapping has to be suspended, or resumed, if *users* have the address."""
    return bool(mapping.users) and is_suspended is not mapping.users.isdisjoint(users)


@lru_cache(maxsize=1_024)
def owner_users(owner: str) -> Users:
    """The user that the owner of a mapping names; nobody for ``unknown``."""
    if owner == SUPERUSER:
        return frozenset((0,))
    return frozenset((int(owner),)) if owner.isdecimal() else NOBODY


@lru_cache(maxsize=1_024)
def _with_owner(users: Users, owner: str) -> Users:
    """All of them. Most services have the same users; their sets are one."""
    return users | owner_users(owner)
