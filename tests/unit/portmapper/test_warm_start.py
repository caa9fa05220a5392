"""The files that rpcbind leaves."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidState
from portmapd.oncrpc import xdr
from portmapd.oncrpc.program import PROGRAM, Pmap, Rpcb, encode_pmap, encode_rpcb
from portmapd.portmapper.warm_start import decode_pmaplist, decode_rpcblist, warm_start_mappings
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import PROPERTY

STATD = Rpcb(100024, 1, "udp", "0.0.0.0.182.50", "103")
#: The beginning of what rpcbind 1.2.6 writes with one program: its own row, and that one's.
WRITTEN = bytes.fromhex(
    "00000001 000186a0 00000004 00000004 74637036 00000008 3a3a2e302e313131"
    "00000009 7375706572757365 72000000"
    "00000001 000186b8 00000001 00000003 75647000 0000000e 302e302e302e302e3138322e35300000"
    "00000003 31303300 00000000"
)


class WarmStartTests(SynchronousTestCase):
    """Lists in XDR."""

    def test_written(self) -> None:
        """What rpcbind writes is read."""
        own = Rpcb(PROGRAM, 4, "tcp6", "::.0.111", "superuser")
        self.assertEqual(decode_rpcblist(WRITTEN), [own, STATD])
        self.assertEqual(decode_rpcblist(xdr.sequence([encode_rpcb(STATD)])), [STATD])
        self.assertEqual(decode_rpcblist(xdr.sequence([])), [])

    def test_pmaplist(self) -> None:
        """Version 2's list has no owners; protocols without a netid are left out."""
        rows = [Pmap(100024, 1, 17, 46_642), Pmap(100024, 1, 132, 7), Pmap(100024, 1, 6, 65_536)]
        data = xdr.sequence([encode_pmap(row) for row in rows])
        unknown = Rpcb(100024, 1, "udp", "0.0.0.0.182.50", "unknown")
        self.assertEqual(decode_pmaplist(data), [unknown])

    def test_truncated(self) -> None:
        """A file that ends early, or goes on, is none."""
        for size in range(len(WRITTEN)):
            self.assertRaises(InvalidState, decode_rpcblist, WRITTEN[:size])
        self.assertRaises(InvalidState, decode_rpcblist, WRITTEN + b"\0")

    def test_mappings(self) -> None:
        """Mappings are made of what can be served: each once, and none of the port mapper's own."""
        rows = [
            STATD,
            Rpcb(100024, 1, "udp", "0.0.0.0.182.51", "unknown"),
            Rpcb(PROGRAM, 4, "tcp6", "::.0.111", "superuser"),
            Rpcb(7, 1, "ticotsord", "host", "superuser"),
            Rpcb(7, 1, "udp", "nonsense", "superuser"),
            Rpcb(7, 1, "tcp", "0.0.0.0.1.1", "root\n"),
            Rpcb(7, 1, "tcp6", "::.1.1", "12345678901"),
        ]
        found = [
            mapping(100024, 1, "udp", "0.0.0.0.182.50", "103"),
            mapping(7, 1, "tcp", "0.0.0.0.1.1", "unknown"),
            mapping(7, 1, "tcp6", "::.1.1", "unknown"),
        ]
        self.assertEqual(warm_start_mappings(rows), found)

    @PROPERTY
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are read or refused."""
        for decode in (decode_rpcblist, decode_pmaplist):
            try:
                warm_start_mappings(decode(data))
            except InvalidState:
                continue
