"""How long callers wait: a call that is timed once a second."""

from __future__ import annotations

import socket
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from zope.interface import implementer

from portmapd.oncrpc.message import Call, encode_call
from portmapd.oncrpc.netid import UDP
from portmapd.oncrpc.program import PMAP_VERS, PROGRAM, Pmap, PmapProcedure, encode_pmap
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Audience, Caller
from portmapd.portmapper.context import Context
from portmapd.portmapper.dispatch import Dispatcher
from portmapd.registry.mapping import Mapping
from portmapd.registry.registry import Registry

#: Seconds between two calls.
PERIOD = 1.0
#: The most times that are kept themselves.
RECENT = 60
#: The upper bounds of the histogram, in seconds.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

#: Asks for the port mapper itself over UDP.
_GETPORT = encode_call(
    Call(
        0,
        PROGRAM,
        PMAP_VERS,
        PmapProcedure.PMAPPROC_GETPORT,
        arguments=encode_pmap(Pmap(PROGRAM, PMAP_VERS, UDP.number or 0)),
    )
)
_CALLER = Caller(UDP, Audience.LOCAL, "127.0.0.1")


class Histogram:
    """Times, counted by their sizes.

    :ivar counts: how many there were up to each of :data:`BOUNDS`, and beyond.
    :ivar total: their sum, in seconds.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@implementer(IReadDescriptor)
class Probe:
    """Makes a call to the port mapper once a second, and measures the time until its reply is made.

    The call comes over a socket that the reactor watches with all the others, so that it waits as
    others wait. It is dispatched, and counted nowhere else. So no caller pays for the measurement.

    :param registry: what is looked up.
    :param policy: who may do what.
    :param clock: says when the calls are made.
    :param descriptors: watches the socket; None: the reactor watches none, and nothing is measured.
    :param now: measures the time, in seconds.
    :ivar histogram: the times since the start.
    :ivar recent: those since somebody emptied it, of a minute at most.
    """

    def __init__(
        self,
        registry: Registry,
        policy: Policy,
        clock: IReactorTime,
        descriptors: IReactorFDSet | None,
        now: Callable[[], float],
    ) -> None:
        self._dispatcher = Dispatcher(Context(registry, policy, _is_bound, clock.seconds))
        self._descriptors = descriptors
        self._now = now
        self.histogram = Histogram()
        self.recent: deque[float] = deque(maxlen=RECENT)
        self._sent: float | None = None
        self._caller, self._socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._calling = LoopingCall(self._call)
        self._calling.clock = clock

    def start(self) -> None:
        """Begin to make calls."""
        if self._descriptors is None:
            return
        self._descriptors.addReader(self)
        self._calling.start(PERIOD, now=False)

    def _call(self) -> None:
        if self._sent is None:
            self._sent = self._now()
            self._caller.send(_GETPORT)

    def fileno(self) -> int:
        """The descriptor that calls come over."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Its name in log lines."""
        return "latency"

    def doRead(self) -> None:
        """A call has come."""
        self._dispatcher.dispatch(self._socket.recv(len(_GETPORT)), _CALLER)
        if self._sent is not None:
            took, self._sent = self._now() - self._sent, None
            self.histogram.observe(took)
            self.recent.append(took)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or the socket broke."""
        self.stop()

    def stop(self) -> None:
        """Make no further call."""
        if self._calling.running:
            self._calling.stop()
        if self._socket.fileno() >= 0:
            if self._descriptors is not None:
                self._descriptors.removeReader(self)
            self._socket.close()
            self._caller.close()


def _is_bound(mapping: Mapping) -> bool:
    return True
