"""Where the daemon's socket is looked for."""

import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.socket_path import SYSTEM_SOCKET, asking_socket, serving_socket


class PathTests(SynchronousTestCase):
    """A user with a directory for sockets, of which one is there."""

    def setUp(self) -> None:
        folder = Path(mkdtemp())
        self.addCleanup(rmtree, folder)
        self.patch(os, "environ", {**os.environ, "XDG_RUNTIME_DIR": str(folder)})
        self.own = str(folder / "portmapd.sock")
        Path(self.own).touch()

    def be(self, uid: int) -> None:
        """Be the user of that uid."""
        self.patch(os, "geteuid", lambda: uid)

    def test_own(self) -> None:
        """A user asks, and serves, in the own directory."""
        self.be(os.stat(self.own).st_uid or 1000)
        os.chown(self.own, os.geteuid(), -1)
        self.assertEqual((asking_socket(), serving_socket()), (self.own, self.own))

    def test_given(self) -> None:
        """The path that a client was given counts."""
        self.assertEqual(asking_socket(Path("/run/s")), "/run/s")
        self.assertEqual(asking_socket("s"), "s")

    def test_others(self) -> None:
        """Another user's socket is not asked."""
        self.be(os.stat(self.own).st_uid + 4242)
        self.assertEqual(asking_socket(), SYSTEM_SOCKET)

    def test_root(self) -> None:
        """Root asks the system's daemon, whoever's directory the environment names."""
        self.be(0)
        self.assertEqual((asking_socket(), serving_socket()), (SYSTEM_SOCKET, SYSTEM_SOCKET))

    def test_none(self) -> None:
        """Without a socket of one's own, the system's is asked."""
        self.be(1000)
        os.unlink(self.own)
        self.assertEqual(asking_socket(), SYSTEM_SOCKET)
