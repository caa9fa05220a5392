"""What happened to the registry."""

from enum import Enum
from typing import Any

from attrs import frozen

from portmapd.registry.mapping import Mapping
from portmapd.registry.service import Service


class Kind(Enum):
    """The kinds of change, by their names on the local channel."""

    REGISTERED = "registered"
    DEREGISTERED = "deregistered"
    MAPPED = "mapped"
    UNMAPPED = "unmapped"

    # Members are compared by identity: the default hash of their name costs more than the rest
    # of a look-up.
    __hash__: Any = object.__hash__


@frozen
class Change:
    """One registration came or went.

    :param subject: the mapping, of kinds MAPPED and UNMAPPED, or the service.
    """

    kind: Kind
    subject: Mapping | Service
