"""The procedures and structures of program 100000, as RFC 1833 has them."""

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import XdrError
from portmapd.oncrpc.program import (
    MAX_NETBUF,
    MAX_SUBJECTS,
    CallResult,
    Pmap,
    PmapProcedure,
    RemoteCall,
    Rpcb,
    RpcbCallResult,
    RpcbEntry,
    RpcbProcedure,
    RpcbsAddr,
    RpcbsRmtcall,
    RpcbStat,
    encode_call_result,
    encode_netbuf,
    encode_pmap,
    encode_remote_call,
    encode_rpcb,
    encode_rpcb_call_result,
    encode_rpcb_entry,
    encode_rpcb_stat,
    read_call_result,
    read_netbuf,
    read_pmap,
    read_remote_call,
    read_rpcb,
    read_rpcb_entry,
    read_rpcb_stat,
    read_void,
)
from portmapd.oncrpc.xdr import Reader, opaque, uint

#: Encoder, value, its bytes.
ENCODED: list[tuple[Callable[[Any], bytes], Any, str]] = [
    (encode_pmap, Pmap(100003, 3, 17, 2049), "000186a3 00000003 00000011 00000801"),
    (
        encode_rpcb,
        Rpcb(100003, 3, "udp", "::1.0.111", "104"),
        "000186a3 00000003 00000003 75647000 00000009 3a3a312e 302e3131 3100000000000003 31303400",
    ),
    (
        encode_remote_call,
        RemoteCall(7, 1, 3, b"ab"),
        "00000007 00000001 00000003 00000002 61620000",
    ),
    (encode_call_result, CallResult(2049, b"abc"), "00000801 00000003 61626300"),
    (encode_rpcb_call_result, RpcbCallResult("/s", b"abc"), "00000002 2f730000 00000003 61626300"),
    (encode_netbuf, b"abc", "00000003 00000003 61626300"),
    (
        encode_rpcb_entry,
        RpcbEntry("::1.0.9", "tcp6", 3, "inet6", "tcp"),
        "00000007 3a3a312e 302e3900 00000004 74637036 00000003 00000005 696e6574 36000000"
        "00000003 74637000",
    ),
    (
        encode_rpcb_stat,
        RpcbStat(
            tuple(range(13)),
            (1 << 32) + 20,
            21,
            (RpcbsAddr(1, 2, 3, 4, "tcp"),),
            (RpcbsRmtcall(1, 2, 3, 4, 5, True, "udp"),),
        ),
        "00000000 00000001 00000002 00000003 00000004 00000005 00000006 00000007"
        "00000008 00000009 0000000a 0000000b 0000000c 00000014 00000015"
        "00000001 00000001 00000002 00000003 00000004 00000003 74637000 00000000"
        "00000001 00000001 00000002 00000003 00000004 00000005 00000001 00000003 75647000"
        "00000000",
    ),
]

READERS: dict[Callable[[Any], bytes], Callable[[Reader], Any]] = {
    encode_pmap: read_pmap,
    encode_rpcb: read_rpcb,
    encode_remote_call: read_remote_call,
    encode_call_result: read_call_result,
    encode_netbuf: read_netbuf,
    encode_rpcb_entry: read_rpcb_entry,
}


class StructureTests(SynchronousTestCase):
    """The structures."""

    def test_encoded(self) -> None:
        """Each is encoded as the RFC has it."""
        for encode, value, data in ENCODED:
            self.assertEqual(encode(value), bytes.fromhex(data))

    def test_read_statistics(self) -> None:
        """Statistics come back as they are on the wire; too many subjects are refused."""
        (data,) = (data for encode, _, data in ENCODED if encode is encode_rpcb_stat)
        sent = bytes.fromhex(data)
        self.assertEqual(encode_rpcb_stat(read_rpcb_stat(Reader(sent))), sent)
        subject = RpcbsAddr(1, 2, 3, 4, "tcp")
        for count in (MAX_SUBJECTS, MAX_SUBJECTS + 1):
            sent = encode_rpcb_stat(RpcbStat((0,) * 13, 0, 0, (subject,) * count, ()))
            if count > MAX_SUBJECTS:
                self.assertRaises(XdrError, read_rpcb_stat, Reader(sent))
            else:
                self.assertEqual(len(read_rpcb_stat(Reader(sent)).lookups), count)

    def test_read(self) -> None:
        """Each that is read anywhere comes back as it was."""
        for encode, value, data in ENCODED:
            if encode in READERS:
                self.assertEqual(READERS[encode](Reader(bytes.fromhex(data))), value)

    def test_truncated(self) -> None:
        """Each is refused where it ends early."""
        for encode, _, text in ENCODED:
            data = bytes.fromhex(text)
            for end in range(len(data)) if encode in READERS else ():
                self.assertRaises(XdrError, READERS[encode], Reader(data[:end]))

    def test_netbuf(self) -> None:
        """The maximum length does not matter; the length has a limit."""
        longest = bytes(MAX_NETBUF)
        self.assertEqual(read_netbuf(Reader(uint(0) + opaque(longest))), longest)
        self.assertRaises(XdrError, read_netbuf, Reader(uint(0) + opaque(longest + b"x")))

    def test_void(self) -> None:
        """Surplus bytes are not read."""
        reader = Reader(b"more")
        read_void(reader)
        self.assertEqual(reader.rest(), b"more")


class ProcedureTests(SynchronousTestCase):
    """The procedures."""

    def test_numbers(self) -> None:
        """They are numbered without gaps, in the RFC's order."""
        self.assertEqual([p.value for p in PmapProcedure], list(range(6)))
        self.assertEqual([p.value for p in RpcbProcedure], list(range(13)))
        self.assertIs(RpcbProcedure.RPCBPROC_BCAST, RpcbProcedure.RPCBPROC_CALLIT)

    def test_names(self) -> None:
        """Their names are those of RFC 1833."""
        names = ["NULL", "SET", "UNSET", "GETPORT", "DUMP", "CALLIT"]
        self.assertEqual([p.name for p in PmapProcedure], [f"PMAPPROC_{name}" for name in names])
        names = ["NULL", "SET", "UNSET", "GETADDR", "DUMP", "CALLIT", "GETTIME", "UADDR2TADDR"]
        names += ["TADDR2UADDR", "GETVERSADDR", "INDIRECT", "GETADDRLIST", "GETSTAT"]
        self.assertEqual([p.name for p in RpcbProcedure], [f"RPCBPROC_{name}" for name in names])
