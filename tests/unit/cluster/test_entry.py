"""What machines share, as keys and values."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.cluster.entry import (
    Claim,
    Layout,
    encode_host,
    encode_mapping,
    encode_service,
)
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from portmapd.registry.shared import ClusterHost, SharedMapping, SharedService

#: A claim whose process has no number.
_PID = b'{"host": "one", "pid": 1e999, "port": "3"}'
LAYOUT = Layout("/portmapd/")
HOST = ClusterHost("one", "192.0.2.1", "abc", "1.0")


class EntryTests(SynchronousTestCase):
    """Written by one machine, read by another."""

    def test_service(self) -> None:
        """A service is read as it was, whatever its name is."""
        for name in ("render.example.com", "a/b", "é%", "services", "x" * 255):
            service = Holder(1000, 7).new_service(name, "4711", 4)
            key = LAYOUT.service(service, "one")
            read = LAYOUT.read(key, encode_service(service, "192.0.2.1"))
            self.assertEqual(
                read, SharedService(name, 1000, 7, "4711", "", "one", "192.0.2.1"), key
            )
            self.assertTrue(any(key.startswith(prefix) for prefix in LAYOUT.of_host("one")))
            self.assertFalse(any(key.startswith(prefix) for prefix in LAYOUT.of_host("on")))

    def test_mapping_and_host(self) -> None:
        """So are a mapping and a machine."""
        m = mapping(100_003, 4, "tcp", "0.0.0.0.8.1")
        read = LAYOUT.read(LAYOUT.mapping(m, "one"), encode_mapping("192.0.2.1.8.1", m.owner))
        self.assertEqual(
            read, SharedMapping(100_003, 4, "tcp", "192.0.2.1.8.1", "superuser", "one")
        )
        self.assertEqual(LAYOUT.read(LAYOUT.host("one"), encode_host(HOST)), HOST)

    def test_others(self) -> None:
        """Whatever else is there is no entry."""
        good = b'{"address": "192.0.2.1", "exe": ""}'
        for key, value in (
            ("/other/services/one/a/1000/7/80", good),
            ("/portmapd/services/one/a/1000/7", good),
            ("/portmapd/services/one/a/1000/7/80/9", good),
            ("/portmapd/services/one/a%20b/1000/7/80", good),
            ("/portmapd/services/one/a/1000/7/%2Frun%2Fs", good),
            ("/portmapd/services/one/a/root/7/80", good),
            ("/portmapd/services/one/a/1000/7/80", b"{}"),
            ("/portmapd/services/one/a/1000/7/80", b"[]"),
            ("/portmapd/services/one/a/1000/7/80", b'{"address": 7, "exe": ""}'),
            ("/portmapd/services/one/a/1000/7/80", b"\xff"),
            ("/portmapd/services/one/a/1000/7/80", b"[" * 8_000),
            ("/portmapd/services/one/a/1000/7/80", b'{"exe": "' + b"x" * 10_000 + b'"}'),
            ("/portmapd/names/1000/a", Claim("one", 7, "80").encode()),
            ("/portmapd/", b""),
        ):
            self.assertIsNone(LAYOUT.read(key, value), key)

    def test_claim(self) -> None:
        """A claim says who has the name; what is none is not taken for one."""
        claim = Claim("one", 7, "80")
        self.assertEqual(Claim.decode(claim.encode()), claim)
        for value in (
            b"",
            b"{}",
            b"7",
            b'{"host": 1, "pid": 2, "port": "3"}',
            b"\xff",
            b"[" * 8_000,
            _PID,
        ):
            self.assertIsNone(Claim.decode(value))
