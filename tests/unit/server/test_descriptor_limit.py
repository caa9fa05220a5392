"""The local channel's share of descriptors, whatever the process may have."""

import resource

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server import portmap_server
from portmapd.server.portmap_server import MAX_DESCRIPTORS


class DescriptorLimitTests(SynchronousTestCase):
    """How many connections the channel has room for."""

    def most(self, limit: int) -> int:
        """Their descriptors, if the process may have *limit*."""
        self.patch(resource, "getrlimit", lambda _: (limit, limit))
        return portmap_server._max_descriptors()

    def test_share(self) -> None:
        """Three quarters of the process's descriptors."""
        self.assertEqual(self.most(1_024), 768)

    def test_bound(self) -> None:
        """Memory bounds them, too: a million descriptors do not make it grow."""
        self.assertEqual(self.most(1_048_576), MAX_DESCRIPTORS)
        self.assertEqual(self.most(resource.RLIM_INFINITY), MAX_DESCRIPTORS)
