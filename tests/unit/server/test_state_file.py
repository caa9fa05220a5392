"""The state file: replaced whole or not at all, and obeyed only if nobody else can have written it.

CVE-2010-2061: rpcbind read what any user had put into /tmp. CVE-2010-2064: it wrote there, through
any link.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import ConfigurationError, InvalidState
from portmapd.server.directories import trusted_directory
from portmapd.server.state_file import MAX_SIZE, SLOTS, StateFile, give_directory

#: A user who is not the one of the tests.
OTHER = 12_345


def make_socket(path: Path) -> None:
    """Make a UNIX socket there."""
    with socket.socket(socket.AF_UNIX) as skt:
        skt.bind(str(path))


def sparse(path: Path) -> None:
    """Make a file there that is one byte too large."""
    path.touch()
    os.truncate(path, MAX_SIZE + 1)


def with_mode(mode: int) -> Callable[[Path], None]:
    """Makes a file with that mode."""

    def make(path: Path) -> None:
        path.touch()
        path.chmod(mode)

    return make


def give_away(path: Path) -> None:
    """Make a file of another user there."""
    path.touch()
    os.chown(path, OTHER, 0)


#: What somebody may put in the place of the file, and what is said of it.
PLANTED: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.symlink_to(path.with_name("elsewhere")), "symbolic link"),
    (lambda path: path.symlink_to("/etc/passwd"), "symbolic link"),
    (lambda path: path.hardlink_to(path.with_name("elsewhere")), "another name"),
    (Path.mkdir, "a directory"),
    (os.mkfifo, "a fifo"),
    (make_socket, "cannot be read"),
    (sparse, f"more than {MAX_SIZE}"),
    (with_mode(0o620), "others may write it: its mode is 620"),
    (with_mode(0o602), "others may write it: its mode is 602"),
]
#: The same, if the tests may give files away.
GIVEN: list[tuple[Callable[[Path], object], str]] = [
    (give_away, f"belongs to uid {OTHER}"),
]


class StateFileTestCase(SynchronousTestCase):
    """A state file in a directory of its own."""

    def setUp(self) -> None:
        scratch = TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name, "state")
        self.path = self.folder / "mappings"
        self.file = StateFile(str(self.path))
        self.addCleanup(self.file.close)

    def store(self, pieces: Iterable[bytes]) -> None:
        """Replace the contents of the file."""
        self.file.write(SLOTS[0], pieces)
        self.file.keep(SLOTS[0])

    def names(self) -> list[str]:
        """The names in its directory, but for the lock's."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != "mappings.lock")


class WritingTests(StateFileTestCase):
    """How it is written."""

    def test_round(self) -> None:
        """What was written is read, as often as it is; nothing else stays in the directory."""
        self.file.open()
        self.assertIsNone(self.file.read())
        self.assertEqual(self.file.modified(), 0.0)
        for data in ([b"one", b"two"], []):
            self.store(data)
            self.assertEqual(self.file.read(), b"".join(data))
        self.assertEqual(self.names(), ["mappings"])
        self.assertGreater(self.file.modified(), 0.0)

    def test_modes(self) -> None:
        """Nobody else may read it, nor enter the directory that was made for it."""
        self.file.open()
        self.store([b"data"])
        modes = [os.stat(path).st_mode & 0o7777 for path in (self.folder, self.path)]
        self.assertEqual(modes, [0o700, 0o600])

    def test_failure(self) -> None:
        """A write that fails leaves what was there, and nothing else."""
        self.file.open()
        self.store([b"good"])

        def pieces() -> Iterator[bytes]:
            yield b"bad"
            raise OSError(28, "No space left on device")

        self.assertRaises(OSError, self.file.write, SLOTS[0], pieces())
        self.assertEqual((self.file.read(), self.names()), (b"good", ["mappings"]))

    def test_killed_before(self) -> None:
        """What a process left that was killed while it wrote is replaced."""
        self.folder.mkdir(0o700)
        (self.folder / "mappings.new-1").write_bytes(b"half")
        self.store([b"whole"])
        self.assertEqual((self.file.read(), self.names()), (b"whole", ["mappings"]))

    def test_beside(self) -> None:
        """What has not reached the disk is beside the file, until it is kept or removed."""
        self.file.open()
        self.store([b"old"])
        self.file.write(SLOTS[1], [b"new"])
        (self.folder / "mappings.new-3").symlink_to("mappings.new-2")
        self.assertEqual(self.file.read_new(), {SLOTS[1]: b"new"})
        self.assertEqual(self.file.read(), b"old")
        self.file.keep(SLOTS[1])
        self.assertEqual((self.file.read(), self.file.read_new()), (b"new", {}))
        self.file.write(SLOTS[0], [b"newer"])
        self.file.remove_new()
        self.assertEqual(self.names(), ["mappings"])

    def test_lock(self) -> None:
        """One process at a time has it; an end of that process, or closing, lets another."""
        self.file.open()
        self.file.open()
        other = StateFile(str(self.path))
        error = self.assertRaises(ConfigurationError, other.open)
        self.assertIn("choose another path with --state", str(error))
        self.file.close()
        other.open()
        other.close()

    def test_no_directory(self) -> None:
        """Directories above its own are not made."""
        lost = StateFile(str(self.folder / "not" / "there"))
        for call in (lost.open, lost.read, lambda: lost.write(SLOTS[0], [b""])):
            self.assertRaises(FileNotFoundError, call)

    def test_give(self) -> None:
        """The directory is made, and given to the user who serves."""
        for _ in range(2):
            give_directory(str(self.path), os.geteuid())
        self.assertEqual(os.stat(self.folder).st_uid, os.geteuid())
        os.rmdir(self.folder)
        self.folder.symlink_to("/etc")
        self.assertRaises(OSError, give_directory, str(self.path), os.geteuid())


class PlantedTests(StateFileTestCase):
    """What others put in its place."""

    def setUp(self) -> None:
        super().setUp()
        self.folder.mkdir(0o700)
        self.elsewhere = self.folder / "elsewhere"
        self.elsewhere.write_bytes(b"elsewhere")

    def planted(self) -> list[tuple[Callable[[Path], object], str]]:
        """What these tests may plant."""
        return PLANTED + GIVEN * (os.geteuid() == 0)

    def test_not_obeyed(self) -> None:
        """CVE-2010-2061: whatever it is, it is not read, and set aside under another name."""
        for number, (plant, why) in enumerate(self.planted()):
            plant(self.path)
            error = self.assertRaises(InvalidState, self.file.read)
            self.assertIn(why, str(error))
            name = self.file.set_aside()
            self.assertEqual(name, f"{self.path}.bad-{min(number + 1, 9)}")
            self.assertTrue(os.path.lexists(name))
            self.assertIsNone(self.file.read())
            if number >= 8:
                os.unlink(name)

    def test_not_followed(self) -> None:
        """CVE-2010-2064: neither a link at its place nor one at the new file's is written through.

        Nor is one at the lock's.
        """
        for name in ("mappings", "mappings.new-1"):
            (self.folder / name).symlink_to(self.elsewhere)
        self.file.open()
        self.store([b"ours"])
        self.assertEqual(self.elsewhere.read_bytes(), b"elsewhere")
        self.assertEqual(self.file.read(), b"ours")
        self.file.close()
        (self.folder / "mappings.lock").unlink()
        (self.folder / "mappings.lock").symlink_to(self.folder / "made")
        self.assertRaises(OSError, self.file.open)
        self.assertNotIn("made", self.names())

    def test_hard_link(self) -> None:
        """CVE-2010-2064: the file behind another name of the new one is not written."""
        (self.folder / "mappings.new-1").hardlink_to(self.elsewhere)
        self.store([b"ours"])
        self.assertEqual(self.elsewhere.read_bytes(), b"elsewhere")

    def test_many_set_aside(self) -> None:
        """So many are kept; then the last one is replaced."""
        for number in range(12):
            self.path.write_bytes(b"%d" % number)
            self.file.set_aside()
        kept = [path.read_bytes() for path in sorted(self.folder.glob("*.bad-*"))]
        self.assertEqual(kept, [b"%d" % number for number in (*range(8), 11)])


class DirectoryTests(StateFileTestCase):
    """Where it is."""

    def refused(self, why: str) -> None:
        """Check that nothing is touched there, and why."""
        for call in (self.file.open, self.file.read, lambda: self.store([b""])):
            self.assertIn(why, str(self.assertRaises(PermissionError, call)))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_writable_by_others(self) -> None:
        """A directory in which others can plant a file is not used, not even with a sticky bit."""
        self.folder.mkdir()
        for mode in (0o770, 0o707, 0o1777):
            self.folder.chmod(mode)
            self.refused("can be written by others")

    def test_of_another_user(self) -> None:
        """Nor is that of another user."""
        if os.geteuid() == 0:
            self.folder.mkdir(0o755)
            os.chown(self.folder, OTHER, 0)
            self.refused(f"belongs to uid {OTHER}")

    def test_above(self) -> None:
        """Nor is one that others can replace; a sticky bit keeps them from it."""
        self.folder.mkdir(0o700)
        above = self.folder.parent
        above.chmod(0o777)
        self.refused(f"{above} can be written by others")
        above.chmod(0o1777)
        self.file.open()

    def test_link_to_it(self) -> None:
        """The directory may be a link: the one it leads to counts."""
        real = self.folder.with_name("real")
        real.mkdir(0o700)
        self.folder.symlink_to(real)
        self.file.open()
        self.store([b"data"])
        self.assertEqual((real / "mappings").read_bytes(), b"data")

    def test_no_descriptor_is_left(self) -> None:
        """A directory that is refused is closed."""
        self.folder.mkdir(0o777)
        self.folder.chmod(0o777)
        before = os.listdir("/proc/self/fd")
        with self.assertRaises(PermissionError), trusted_directory(str(self.folder), {0}):
            pass
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))
