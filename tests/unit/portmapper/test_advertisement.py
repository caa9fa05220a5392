"""What callers are told in place of the address that they reached."""

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from portmapd.portmapper.advertisement import Advertisement, advertised

EVERYONE = Advertisement(ip_network("0.0.0.0/0"), "203.0.113.1")
OFFICE = Advertisement(ip_network("10.0.0.0/8"), "10.0.0.1")
DESK = Advertisement(ip_network("10.1.0.0/16"), "10.1.0.1")
LINK = Advertisement(ip_network("fe80::/10"), "2001:db8::1")


class AdvertisedTests(SynchronousTestCase):
    """The address for a caller."""

    def test_nothing(self) -> None:
        """Without advertisements, or in none of their networks, it is the one reached."""
        self.assertIsNone(advertised((), "10.1.2.3"))
        self.assertIsNone(advertised((OFFICE, LINK), "192.0.2.1"))
        self.assertIsNone(advertised((EVERYONE,), "2001:db8::7"))

    def test_smallest_network(self) -> None:
        """Of several networks, the smallest counts, in any order."""
        for order in ((EVERYONE, OFFICE, DESK, LINK), (LINK, DESK, OFFICE, EVERYONE)):
            for host, address in (
                ("10.1.2.3", "10.1.0.1"),
                ("10.2.2.3", "10.0.0.1"),
                ("192.0.2.1", "203.0.113.1"),
                ("fe80::7%eth0", "2001:db8::1"),
            ):
                self.assertEqual(advertised(order, host), address)
