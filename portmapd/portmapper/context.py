"""What procedures work on, and the request that they serve."""

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from attrs import field, frozen

from portmapd.oncrpc.message import Call
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.dumps import Dumps
from portmapd.portmapper.statistics import Statistics
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry


class Event(Enum):
    """What is reported of the changes that callers make."""

    SET = "set"
    REPLACED = "replaced"
    UNSET = "unset"

    # Members are compared by identity: the default hash of their name is slow.
    __hash__: Any = object.__hash__


class Reporter(Protocol):
    """Is told what callers change."""

    def __call__(self, event: Event, caller: Caller, mapping: Mapping, **fields: object) -> None:
        """Take note.

        :param mapping: what is registered now, or no longer.
        :param fields: for REPLACED the old address as ``old``.
        """


def report_nothing(event: Event, caller: Caller, mapping: Mapping, **fields: object) -> None:
    """A reporter that nobody reads."""


@frozen
class Context:
    """What procedures work on.

    :param registry: what is registered.
    :param policy: who may do what.
    :param bound: tells whether the address of a mapping is bound on this host now.
    :param now: tells the time, in seconds since 1970.
    :param report: is told what callers change.
    """

    registry: Registry
    policy: Policy
    bound: Callable[[Mapping], bool]
    now: Callable[[], float]
    report: Reporter = report_nothing
    statistics: Statistics = field(factory=Statistics)
    dumps: Dumps = field(init=False)

    @dumps.default
    def _make_dumps(self) -> Dumps:
        return Dumps(self.registry.mappings)


@frozen
class Request:
    """One call, and who made it.

    :param size: the size of the call's message, in bytes.
    """

    call: Call
    caller: Caller
    size: int
