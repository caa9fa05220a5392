"""Messages between two processes."""

import os
import socket
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import HandoverFailed
from portmapd.server.handover.talk import BATCH, NO, Talk


class TalkTests(SynchronousTestCase):
    """Both ends."""

    def setUp(self) -> None:
        ours, theirs = socket.socketpair()
        self.ours, self.theirs = Talk(ours), Talk(theirs)
        for each in (self.ours, self.theirs):
            each.limit(10)
            self.addCleanup(each.close)

    def fails(self, why: str, word: str = "word") -> None:
        """Assert that no message with that word comes, and why."""
        with self.assertRaisesRegex(HandoverFailed, why):
            self.theirs.expect(word)

    def test_message(self) -> None:
        """Words come with their bytes, in their order."""
        self.ours.send("first", b"a\nb\0")
        self.ours.send("second")
        self.assertEqual(self.theirs.expect("first"), (b"a\nb\0", []))
        self.assertEqual(self.theirs.expect("second"), (b"", []))

    def test_many(self) -> None:
        """More descriptors than one message of the kernel takes, behind much text."""
        count = 2 * BATCH + 1
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        text = bytes(3 << 20)
        thread = Thread(target=self.ours.send, args=("image", text, [read] * count))
        thread.start()
        data, descriptors = self.theirs.expect("image")
        thread.join()
        self.assertEqual((data, len(set(descriptors))), (text, count))
        os.close(write)
        for descriptor in descriptors:
            self.assertFalse(os.get_inheritable(descriptor))
            self.assertEqual(os.read(descriptor, 1), b"")
            os.close(descriptor)

    def test_refusal(self) -> None:
        """The other process says why it does not go on."""
        self.ours.send(NO, b"port 111 is taken")
        self.fails("port 111 is taken")

    def test_another_word(self) -> None:
        """Another word is a failure."""
        self.ours.send("else")
        self.fails("says 'else', not 'word'")

    def test_end(self) -> None:
        """The other process has ended, before a message and within one."""
        self.ours.send("word")
        self.theirs.expect("word")
        self.assertFalse(self.theirs.has_ended)
        self.ours.close()
        self.fails("the other process has ended")
        self.assertTrue(self.theirs.has_ended)

    def test_silence(self) -> None:
        """Nobody is waited for without end; that is not the end of the other process."""
        self.theirs.limit(0.01)
        self.fails("takes too long")
        self.assertFalse(self.theirs.has_ended)
