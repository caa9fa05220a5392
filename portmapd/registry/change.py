"""Changes of the registry, as its followers see them."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from attrs import frozen

from portmapd.registry.mapping import Mapping
from portmapd.registry.service import NamedService
from portmapd.registry.shared import SharedMapping, SharedService


class ChangeKind(Enum):
    """The kinds of change. The local channel tells of the first four, by these names."""

    REGISTERED = "registered"
    DEREGISTERED = "deregistered"
    MAPPED = "mapped"
    UNMAPPED = "unmapped"
    #: A mapping is remembered while its service pauses; UNMAPPED came before.
    SUSPENDED = "suspended"
    #: A mapping is no longer remembered; if it is registered again, MAPPED came before.
    RELEASED = "released"
    #: A mapping was set again as it is.
    CONFIRMED = "confirmed"
    #: The address of a mapping without a holder is seen bound for the first time.
    SEEN = "seen"

    # Members are compared by identity: the default hash of their name costs more than the rest
    # of a look-up.
    __hash__: Any = object.__hash__


#: The kinds that add or remove what callers see.
VISIBLE = (ChangeKind.REGISTERED, ChangeKind.DEREGISTERED, ChangeKind.MAPPED, ChangeKind.UNMAPPED)


@frozen
class ChangeRecord:
    """One registration was added or removed, or its state changed.

    :param kind: what happened.
    :param subject: the service for REGISTERED and DEREGISTERED, the mapping for the other kinds.
    """

    kind: ChangeKind
    subject: Mapping | NamedService


#: Is called with the changes of one transaction. It must neither raise nor change the registry.
Follower = Callable[[Sequence[ChangeRecord]], None]


@frozen
class ClusterChange:
    """A service or a mapping of the cluster was added or removed.

    :param kind: one of :data:`VISIBLE`.
    """

    kind: ChangeKind
    subject: SharedService | SharedMapping
