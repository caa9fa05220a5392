"""Images: what is refused."""

from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidState
from portmapd.server.handover.image import READ, VERSION, decode_image, encode_image

VALUE = {"registry": {"serial": 1}, "listening": [], "names": ["é", "\0/run/rpcbind.sock"]}


class ImageTests(SynchronousTestCase):
    """The line with the version and the checksum, and what is behind it."""

    def refused(self, data: bytes, why: str) -> None:
        """Assert that an image is refused, and why."""
        with self.assertRaisesRegex(InvalidState, why):
            decode_image(data)

    def test_round_trip(self) -> None:
        """What was encoded comes back, and its version is among those that are read."""
        self.assertEqual(decode_image(encode_image(VALUE)), VALUE)
        self.assertIn(VERSION, READ)

    def test_truncated(self) -> None:
        """No part of an image is read."""
        whole = encode_image(VALUE)
        self.refused(b"", "it is empty")
        for size in range(1, len(whole)):
            self.refused(whole[:size], "not an image|checksum is wrong")

    def test_corrupt(self) -> None:
        """No image is read of which a byte has changed."""
        whole = encode_image(VALUE)
        for at in range(len(whole)):
            changed = bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]])
            self.refused(changed, "not an image|checksum is wrong|of version")

    def test_newer(self) -> None:
        """An image of a version that is not known is refused, whatever is in it."""
        newer = encode_image(VALUE).replace(b" 1 ", b" 2 ", 1)
        self.refused(newer, "it is of version 2, and this reads version 1")

    def test_no_object(self) -> None:
        """The checksum proves nothing about what is behind it."""
        for body, why in ((b"{", "not JSON"), (b"[]", "not an object"), (b"\xff", "not JSON")):
            line = f"portmapd-image {VERSION} {sha256(body).hexdigest()}\n".encode()
            self.refused(line + body, why)
