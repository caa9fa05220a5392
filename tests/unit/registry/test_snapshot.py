"""Mappings as text, and back: nothing but what was written is read."""

from hashlib import sha256

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidState
from portmapd.registry.mapping import NOBODY, Users, mapping
from portmapd.registry.snapshot import (
    MAX_USERS,
    SavedMapping,
    Snapshot,
    decode_saved,
    decode_snapshot,
    encode_lines,
    encode_saved,
    encode_snapshot,
    restored,
)
from tests.support.rpc_samples import PROPERTY

STATD = SavedMapping(
    mapping(100024, 1, "udp", "0.0.0.0.182.50", "103"), frozenset({103}), left=None
)
MOUNTD = SavedMapping(
    mapping(100005, 3, "tcp6", "::.78.80", "superuser"), frozenset({0, 7, None}), left=42.5
)
LOCAL = SavedMapping(mapping(7, 2**32 - 1, "local", "/run/a b\u00e9.sock", "unknown"))
ALL = (STATD, MOUNTD, LOCAL)
BOOT = "8a4e5f50-0d3a-4f6e-9f6e-2d1c7a3b9e10"


def snapshot(*saved: SavedMapping) -> bytes:
    """A snapshot of these, as bytes."""
    return b"".join(encode_snapshot(BOOT, 12.5, [encode_lines(map(encode_saved, saved))]))


def signed(body: bytes) -> bytes:
    """A snapshot with any body, whose checksum is right."""
    return f"portmapd-mappings 1 {sha256(body).hexdigest()}\n".encode() + body


class EncodingTests(SynchronousTestCase):
    """A snapshot says what was saved."""

    def test_line(self) -> None:
        """A mapping is a line that people can read."""
        self.assertEqual(encode_saved(STATD), "100024 1 udp 103 103 - 0.0.0.0.182.50")
        self.assertEqual(encode_saved(MOUNTD), "100005 3 tcp6 superuser 0,7,? 42.500 ::.78.80")

    def test_round(self) -> None:
        """What was encoded is decoded."""
        for saved in ALL:
            self.assertEqual(decode_saved(encode_saved(saved)), saved)
        for some in ((), ALL):
            self.assertEqual(decode_snapshot(snapshot(*some)), Snapshot(BOOT, 12.5, some))

    def test_many_users(self) -> None:
        """However many users share a port, the line has an end."""
        many = evolve(STATD, users=frozenset(range(2**32 - 100, 2**32 - 1)))
        self.assertEqual(len(decode_saved(encode_saved(many)).users), MAX_USERS)


class DecodingTests(SynchronousTestCase):
    """Nothing else is read, and nothing but InvalidState is raised."""

    def refuse(self, data: bytes, why: str) -> None:
        """Check that the data are refused with such a message."""
        self.assertIn(why, str(self.assertRaises(InvalidState, decode_snapshot, data)))

    def test_truncated_at_any_byte(self) -> None:
        """A file that ends early is no file, wherever it ends."""
        whole = snapshot(*ALL)
        for size in range(len(whole)):
            self.assertRaises(InvalidState, decode_snapshot, whole[:size])

    def test_any_byte_damaged(self) -> None:
        """One byte that is not what it was makes the file none."""
        whole = snapshot(*ALL)
        for at in range(len(whole)):
            damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            self.assertRaises(InvalidState, decode_snapshot, damaged)

    def test_longer(self) -> None:
        """What was appended is not read."""
        self.refuse(snapshot(*ALL) + b"\n", "checksum")

    def test_twice(self) -> None:
        """Of two lines about one program's version and netid, the later one is newer."""
        paused = evolve(STATD, left=1.0)
        self.assertEqual(decode_snapshot(snapshot(STATD, LOCAL, paused)).saved, (paused, LOCAL))

    def test_reasons(self) -> None:
        """The message says what is wrong."""
        self.refuse(b"", "empty")
        self.refuse(b"\0" * 4096, "not a list")
        self.refuse(snapshot().replace(b" 1 ", b" 2 ", 1), "version 2")

    def test_right_checksum(self) -> None:
        """A checksum proves nothing about the rest."""
        first = f"{BOOT} 1.000 1\n".encode()
        line = encode_lines([encode_saved(STATD)])
        self.assertEqual(decode_snapshot(signed(first + line)).saved, (STATD,))
        self.refuse(signed(b""), "second line")
        self.refuse(signed(first), "announces 1 mappings and has 0")
        self.refuse(signed(first + line + line), "announces 1 mappings and has 2")
        for bad in (
            b"",
            b"\xff\xfe",
            line.replace(b"100024", b"4294967296"),
            line.replace(b"100024", b"-1"),
            line.replace(b"udp", b"sctp"),
            line.replace(b" 103 103", b" root 103"),
            line.replace(b" - ", b" nan "),
            line.replace(b" - ", b" 1e9 "),
            line.replace(b" 103 103", b" 103 ,"),
            line.replace(b"182.50", b"182.500"),
        ):
            self.refuse(signed(first + bad.removesuffix(b"\n") + b"\n"), "is not a mapping")

    @PROPERTY
    @given(st.binary(max_size=300))
    def test_any_bytes(self, body: bytes) -> None:
        """Any bytes are refused, also with a right checksum."""
        for data in (body, signed(body), signed(f"{BOOT} 1.000 1\n".encode() + body)):
            self.assertRaises(InvalidState, decode_snapshot, data)


class RestoringTests(SynchronousTestCase):
    """What becomes of a mapping when a port mapper starts."""

    def test_bound(self) -> None:
        """A mapping whose user has its address is registered, also if its service paused."""
        for saved in (STATD, evolve(STATD, left=1.0)):
            self.assertEqual(restored(saved, frozenset({0, 103}), 3600.0, 60.0), STATD)

    def test_not_bound(self) -> None:
        """One whose address nobody has, or another user, is remembered."""
        for users in (NOBODY, frozenset({104})):
            self.assertEqual(restored(STATD, users, 3600.0, 60.0), evolve(STATD, left=60.0))
            self.assertIsNone(restored(STATD, users, 3600.0, 0.0))

    def test_paused(self) -> None:
        """What had been suspended is remembered for what is left of its time."""
        paused = evolve(STATD, left=42.5)
        self.assertEqual(restored(paused, NOBODY, 2.0, 60.0), evolve(STATD, left=40.5))
        self.assertEqual(restored(paused, NOBODY, 2.0, 10.0), evolve(STATD, left=10.0))
        self.assertIsNone(restored(paused, NOBODY, 42.5, 60.0))

    def test_never_bound(self) -> None:
        """The mapping of a service that cannot be seen stays registered while the kernel runs."""
        self.assertEqual(restored(LOCAL, NOBODY, 2.0, 60.0), LOCAL)
        self.assertIsNone(restored(LOCAL, NOBODY, None, 60.0))

    def test_another_boot(self) -> None:
        """After a boot, a mapping is remembered, whoever has its port; a suspended one is not."""
        bound: Users = frozenset({103})
        self.assertEqual(restored(STATD, bound, None, 60.0), evolve(STATD, left=60.0))
        self.assertIsNone(restored(evolve(STATD, left=30.0), bound, None, 60.0))
