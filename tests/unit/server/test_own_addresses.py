"""Own addresses, as this machine's kernel knows them."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.own_addresses import is_own_address


class OwnAddressTests(SynchronousTestCase):
    """Which addresses are this host's; tests/integration/test_own_addresses.py has more."""

    def test_loopback(self) -> None:
        """Every loopback address is."""
        for host in ("127.0.0.1", "127.255.0.7", "::1"):
            self.assertTrue(is_own_address(host), host)

    def test_others(self) -> None:
        """Addresses of other hosts, groups and unknown scopes are not."""
        for host in (
            "192.0.2.1",
            "2001:db8::1",
            "fe80::7%lo",
            "fe80::7%none",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1%lo",
        ):
            self.assertFalse(is_own_address(host), host)
