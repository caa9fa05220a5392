"""Requests to the kernel."""

import errno
import socket

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.netlink import DONE, DUMP, HEADER, ask, requested

#: Types of requests of ``rtnetlink(7)``: the interfaces; and one that does not exist.
GET_LINK, NONE = 18, 0x7FF0
#: ``struct ifinfomsg``: any interface, and the first one.
ANY, FIRST = bytes(16), bytes(4) + (1).to_bytes(4, "little") + bytes(8)


class AskTests(SynchronousTestCase):
    """One reply, or an error."""

    def test_reply(self) -> None:
        """The reply comes with its header."""
        reply = ask(socket.NETLINK_ROUTE, GET_LINK, FIRST)
        length, kind, *_ = HEADER.unpack_from(reply)
        self.assertEqual((length, kind), (len(reply), 16))

    def test_error(self) -> None:
        """An error of the kernel is raised with its number."""
        with self.assertRaises(OSError) as caught:
            ask(socket.NETLINK_ROUTE, NONE, ANY)
        self.assertEqual(caught.exception.errno, errno.EOPNOTSUPP)


class TableTests(SynchronousTestCase):
    """A whole table."""

    def test_end(self) -> None:
        """A table is told until its end."""
        kinds = []
        with requested(socket.NETLINK_ROUTE, GET_LINK, ANY, DUMP) as netlink:
            while DONE not in kinds:
                kinds.append(HEADER.unpack_from(netlink.recv(1 << 16))[1])
        self.assertEqual(kinds[-1], DONE)
