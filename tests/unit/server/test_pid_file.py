"""A pid file that another process takes over."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.pid_file import write_pid_file


class WriteTests(SynchronousTestCase):
    """The file names another process."""

    def setUp(self) -> None:
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = Path(scratch.name, "pid")

    def test_replaced(self) -> None:
        """It is replaced at one go, whatever an earlier process left beside it."""
        self.path.write_text("1")
        before = self.path.stat().st_ino
        Path(f"{self.path}.new").symlink_to("/nowhere")
        write_pid_file(str(self.path), 77)
        self.assertEqual(self.path.read_text(), "77")
        self.assertNotEqual(self.path.stat().st_ino, before)
        self.assertEqual(os.listdir(self.path.parent), ["pid"])

    def test_cannot_be_written(self) -> None:
        """Where no file can be made, the old one stays."""
        with self.assertRaises(OSError):
            write_pid_file(str(self.path / "pid"), 77)
