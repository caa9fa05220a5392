"""Where the daemon's socket is looked for."""

import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.socket_path import (
    SYSTEM_SOCKET,
    asking_socket,
    private_directory,
    serving_socket,
)


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


class PrivateTests(SynchronousTestCase):
    """A user without a directory for sockets."""

    def setUp(self) -> None:
        self.patch(os, "environ", {})
        self.patch(os, "geteuid", lambda: 4_242_426)
        self.folder = Path(private_directory())
        self.own = str(self.folder / "portmapd.sock")
        self.addCleanup(rmtree, self.folder, ignore_errors=True)

    def make(self, uid: int) -> None:
        """Have that user make the directory and a socket in it."""
        self.folder.mkdir(0o700)
        Path(self.own).touch()
        for path in (self.folder, self.own):
            os.chown(path, uid, -1)

    def test_nothing_there(self) -> None:
        """The daemon serves in a private directory; until then clients ask the system's."""
        self.assertEqual((asking_socket(), serving_socket()), (SYSTEM_SOCKET, self.own))

    def test_daemon_is_there(self) -> None:
        """Clients find the daemon there, with and without a directory in their environment."""
        self.make(os.geteuid())
        self.assertEqual((asking_socket(), serving_socket()), (self.own, self.own))
        self.patch(os, "environ", {"XDG_RUNTIME_DIR": "/nowhere"})
        self.assertEqual(asking_socket(), self.own)

    def test_of_another_user(self) -> None:
        """What another user has put there is neither asked nor served in."""
        self.make(os.geteuid() + 1)
        self.assertEqual((asking_socket(), serving_socket()), (SYSTEM_SOCKET, None))

    def test_link(self) -> None:
        """Nor is a link, to whatever directory."""
        target = Path(mkdtemp())
        self.addCleanup(rmtree, target)
        os.chown(target, os.geteuid(), -1)
        self.folder.symlink_to(target)
        self.addCleanup(self.folder.unlink)
        self.assertIsNone(serving_socket())

    def test_directory_of_another_user(self) -> None:
        """After ``su`` the environment may name another user's directory: it is not used."""
        others = Path(mkdtemp())
        self.addCleanup(rmtree, others)
        (others / "portmapd.sock").touch()
        for path in (others, others / "portmapd.sock"):
            os.chown(path, os.geteuid() + 1, -1)
        self.patch(os, "environ", {"XDG_RUNTIME_DIR": str(others)})
        self.assertEqual((asking_socket(), serving_socket()), (SYSTEM_SOCKET, self.own))
        os.chown(others / "portmapd.sock", os.geteuid(), -1)
        self.assertEqual(asking_socket(), SYSTEM_SOCKET)
