"""How a machine stands in its cluster: what is in the way, told once."""

from __future__ import annotations

from collections import Counter

from twisted.logger import Logger

from portmapd.errors import (
    EtcdFull,
    EtcdGarbage,
    EtcdRefused,
    EtcdUnavailable,
    NameTaken,
    PortmapdError,
)
from portmapd.server.log_events import CLUSTER_JOINED, CLUSTER_TROUBLE

#: What has to be possible before a machine has joined, and what else may fail.
LEASE, FOLLOWING, WRITING = "lease", "following", "writing"
_NEEDED = frozenset((LEASE, FOLLOWING))

#: The states, by what is in the way; the first one that fits counts.
_STATES: tuple[tuple[type[PortmapdError], str], ...] = (
    (NameTaken, "name-taken"),
    (EtcdFull, "full"),
    (EtcdGarbage, "garbage"),
    (EtcdRefused, "refused"),
    (EtcdUnavailable, "unreachable"),
)
JOINED, JOINING = "joined", "joining"


class Condition:
    """What is in the way of each activity: of keeping the lease, of following, of writing.

    A change of the state is logged once, however often an activity fails.

    :param host: what this machine is called in the cluster.
    :ivar state: ``joining``, ``joined``, or what is in the way.
    :ivar why: what etcd, or the way to it, said; empty while nothing is in the way.
    :ivar failures: how often something was in the way, by its state.
    """

    _log = Logger()

    def __init__(self, host: str) -> None:
        self._host = host
        self._errors: dict[str, PortmapdError] = {}
        self._possible: set[str] = set()
        self.state = JOINING
        self.why = ""
        self.failures: Counter[str] = Counter()

    def succeeded(self, activity: str) -> None:
        """Nothing is in the way of that activity."""
        self._possible.add(activity)
        self._errors.pop(activity, None)
        self._change()

    def failed(self, activity: str, error: PortmapdError) -> None:
        """That is in the way of the activity."""
        self._errors[activity] = error
        self.failures[_state_of(error)] += 1
        self._change()

    def _change(self) -> None:
        before = self.state
        error = next(iter(self._errors.values()), None)
        if error is not None:
            self.state, self.why = _state_of(error), str(error)
        else:
            self.state, self.why = JOINED if self._possible >= _NEEDED else JOINING, ""
        if self.state in (before, JOINING):
            return
        if self.state == JOINED:
            CLUSTER_JOINED.emit(self._log, host=self._host)
        else:
            CLUSTER_TROUBLE.emit(self._log, host=self._host, state=self.state, why=self.why)


def _state_of(error: PortmapdError) -> str:
    return next((state for kind, state in _STATES if isinstance(error, kind)), "unreachable")
