"""Changes of the registry, as its followers see them."""

from enum import Enum
from typing import Any

from attrs import frozen

from portmapd.registry.mapping import Mapping
from portmapd.registry.service import NamedService


class ChangeKind(Enum):
    """The kinds of change, by their names on the local channel."""

    REGISTERED = "registered"
    DEREGISTERED = "deregistered"
    MAPPED = "mapped"
    UNMAPPED = "unmapped"

    # Members are compared by identity: the default hash of their name costs more than the rest
    # of a look-up.
    __hash__: Any = object.__hash__


@frozen
class ChangeRecord:
    """One registration was added or removed.

    :param kind: what happened.
    :param subject: the mapping for MAPPED and UNMAPPED, the service for the other kinds.
    """

    kind: ChangeKind
    subject: Mapping | NamedService
