"""The group of IPv6 broadcasts, on this machine's loopback."""

import select
import socket
from typing import cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.fast.epoll_group import IGroupReactor
from portmapd.server.fast.rpc_group import DELAY, RpcGroup


class RpcGroupTests(SynchronousTestCase):
    """Membership in the group."""

    def test_start_and_stop(self) -> None:
        """It watches until it is stopped, more than once, too, and leaves nothing behind."""
        reactor = MemoryReactorClock()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as skt:
            group = RpcGroup([skt], cast("IGroupReactor", reactor))
            for _ in range(2):
                group.start()
                self.assertEqual(reactor.getReaders(), [group])
                self.assertEqual(select.select([group], [], [], 0)[0], [])
                for _ in range(3):
                    group.doRead()
                self.assertEqual(len(reactor.getDelayedCalls()), 1)
                reactor.advance(DELAY)
                group.doRead()
                group.stop()
                group.stop()
                self.assertEqual((reactor.getReaders(), reactor.getDelayedCalls()), ([], []))
