"""The files of listening sockets: stale ones, links, other kinds of files, two starts at once."""

import contextlib
import os
import socket
import stat
import threading
import time
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.socket_path import private_directory
from portmapd.server import socket_file
from portmapd.server.directories import check_directory
from portmapd.server.socket_file import (
    LOCK,
    identity,
    listen_at,
    locked,
    make_directory,
    remove_own,
)

#: How often two starts are tried at the same moment.
RACES = 100


class ListenTests(SynchronousTestCase):
    """A socket at a path."""

    def setUp(self) -> None:
        self.folder = Path(mkdtemp())
        self.addCleanup(rmtree, self.folder)
        self.path = str(self.folder / "socket")

    def listen(self) -> socket.socket:
        """A socket that listens there."""
        skt = listen_at(self.path, 5)
        self.addCleanup(skt.close)
        return skt

    def test_mode(self) -> None:
        """Everyone may connect, whatever the umask is."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.listen()
        self.assertEqual(stat.S_IMODE(os.lstat(self.path).st_mode), 0o666)

    def test_stale(self) -> None:
        """A socket where nobody listens is replaced."""
        self.listen().close()
        self.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_live(self) -> None:
        """One where somebody listens is not, and goes on."""
        first = self.listen()
        with self.assertRaisesRegex(CannotListenError, "another process serves there"):
            listen_at(self.path, 5)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
            first.accept()[0].close()

    def test_link(self) -> None:
        """Neither a link nor what it names is touched."""
        secret = self.folder / "secret"
        secret.write_text("root's")
        secret.chmod(0o600)
        for target in ("secret", "none"):
            os.symlink(target, self.path)
            with self.assertRaisesRegex(CannotListenError, "it is not a socket"):
                listen_at(self.path, 5)
            os.unlink(self.path)
        self.assertEqual(secret.read_text(), "root's")
        self.assertEqual(stat.S_IMODE(secret.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.folder), ["secret"])

    def test_link_after_binding(self) -> None:
        """A link that is put there as soon as the socket is bound changes no mode."""
        secret = self.folder / "secret"
        secret.touch(0o600)
        done = threading.Event()

        def attack() -> None:
            while not done.is_set():
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    if not os.path.islink(self.path):
                        os.unlink(self.path)
                        os.symlink(secret, self.path)

        attacker = threading.Thread(target=attack)
        attacker.start()
        for _ in range(RACES):
            listen_at(self.path, 5).close()
            end = time.monotonic() + 10
            while not os.path.islink(self.path) and time.monotonic() < end:
                time.sleep(0)
            os.unlink(self.path)
        done.set()
        attacker.join()
        self.assertEqual(stat.S_IMODE(secret.stat().st_mode), 0o600)

    def test_two_at_once(self) -> None:
        """Of two starts at the same moment one has the path, though a stale one is there."""
        for _ in range(RACES):
            listen_at(self.path, 5).close()
            won = self.race()
            self.assertEqual(len(won), 1)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.path)
            won[0].close()

    def race(self) -> list[socket.socket]:
        """The sockets of those that started at the same moment and succeeded."""
        won: list[socket.socket] = []
        barrier = threading.Barrier(2)

        def start() -> None:
            barrier.wait()
            with contextlib.suppress(CannotListenError):
                won.append(listen_at(self.path, 5))

        threads = [threading.Thread(target=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return won

    def test_no_directory(self) -> None:
        """Where there is no directory, or none that may be read, the error is of the right kind."""
        for path in ("none/socket", "file/socket"):
            (self.folder / "file").touch()
            with self.assertRaises(CannotListenError):
                listen_at(str(self.folder / path), 5)

    def test_lock(self) -> None:
        """Whoever else is starting there is waited for, and in the end the start fails."""
        self.patch(socket_file, "_TRIES", 3)
        with locked(self.path), self.assertRaisesRegex(CannotListenError, "another start there"):
            listen_at(self.path, 5)
        self.listen()
        self.assertEqual(os.listdir(self.folder), ["socket"])

    def test_lock_of_an_ended_start(self) -> None:
        """A lock file that a killed start has left is none."""
        Path(self.path + LOCK).touch(0o600)
        self.listen()
        self.assertEqual(os.listdir(self.folder), ["socket"])

    def test_lock_in_the_way(self) -> None:
        """What is no lock of this user is neither opened for long, nor followed, nor removed."""
        lock = Path(self.path + LOCK)
        target = self.folder / "target"
        for make in (lambda: lock.symlink_to(target), lock.mkdir, lambda: os.mkfifo(lock)):
            make()
            self.assertRaises(CannotListenError, listen_at, self.path, 5)
            self.assertTrue(os.path.lexists(lock))
            self.assertFalse(target.exists())
            if lock.is_dir():
                lock.rmdir()
            else:
                lock.unlink()
        lock.touch()
        uid = os.geteuid()
        self.patch(os, "geteuid", lambda: uid + 1)
        with self.assertRaisesRegex(CannotListenError, "is not a lock of this user"):
            listen_at(self.path, 5)

    def test_remove_own(self) -> None:
        """What was made is removed; what took its place is not, and nothing is an error."""
        self.listen()
        own = identity(self.path)
        assert own is not None
        remove_own(self.path, (own[0], own[1] + 1))
        self.assertTrue(os.path.exists(self.path))
        remove_own(self.path, own)
        remove_own(self.path, own)
        self.assertFalse(os.path.exists(self.path))


class CheckTests(SynchronousTestCase):
    """Who could replace a socket in its directory."""

    def setUp(self) -> None:
        self.folder = Path(mkdtemp())
        self.addCleanup(rmtree, self.folder)
        self.path = str(self.folder / "socket")

    def test_modes(self) -> None:
        """Those who may write there, unless the sticky bit keeps them from what is not theirs."""
        for mode in (0o700, 0o755, 0o1777, 0o1775):
            self.folder.chmod(mode)
            check_directory(self.path)
        for mode in (0o777, 0o775, 0o722, 0o2770):
            self.folder.chmod(mode)
            with self.assertRaisesRegex(PermissionError, f"chmod go-w {self.folder}"):
                check_directory(self.path)

    def test_owner(self) -> None:
        """Another user, but not the one who serves in the end."""
        uid = os.geteuid()
        self.patch(os, "geteuid", lambda: 4_242_425)
        self.patch(os, "stat", lambda path, stat=os.stat: _Owned(stat(path), uid or 4_242_424))
        with self.assertRaisesRegex(PermissionError, "belongs to uid"):
            check_directory(self.path)
        check_directory(self.path, uid or 4_242_424)

    def test_no_directory(self) -> None:
        """There must be one."""
        self.assertRaises(FileNotFoundError, check_directory, str(self.folder / "none" / "socket"))


class DirectoryTests(SynchronousTestCase):
    """The directory of a socket where everyone can make one."""

    def setUp(self) -> None:
        # A user that there is not: its directory is nobody's.
        uid = 4_242_425
        real = os.geteuid()
        self.patch(os, "geteuid", lambda: uid)
        self.folder = Path(private_directory())
        self.path = str(self.folder / "portmapd.sock")
        self.owner = real
        self.addCleanup(rmtree, self.folder, ignore_errors=True)

    def as_owner(self) -> None:
        """The user whose files this process makes has that directory."""
        self.patch(os, "fstat", lambda fd, stat=os.fstat: _Owned(stat(fd), os.geteuid()))

    def test_made(self) -> None:
        """It is made for its user alone."""
        self.as_owner()
        make_directory(self.path)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_open_to_others(self) -> None:
        """One that others may enter is closed to them."""
        self.as_owner()
        self.folder.mkdir(0o755)
        make_directory(self.path)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_of_another_user(self) -> None:
        """One that another user made is refused, and left as it is."""
        self.folder.mkdir(0o755)
        with self.assertRaisesRegex(PermissionError, "belongs to another user"):
            make_directory(self.path)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o755)

    def test_link(self) -> None:
        """A link to a directory is refused, whoever that belongs to."""
        target = Path(mkdtemp())
        self.addCleanup(rmtree, target)
        self.folder.symlink_to(target)
        self.addCleanup(self.folder.unlink)
        with self.assertRaisesRegex(PermissionError, "is not a directory of this user"):
            make_directory(self.path)


class _Owned:
    """The status of a file, as if it belonged to *uid*."""

    def __init__(self, found: os.stat_result, uid: int) -> None:
        self.st_uid = uid
        self.st_mode = found.st_mode
