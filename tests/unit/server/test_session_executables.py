"""Public services and pid2exe, on connections without sockets."""

from portmapd.errors import ExecutableUnknown, InvalidService, LimitExceeded
from tests.support.channel_sessions import SessionTestCase


class ExecutableTests(SessionTestCase):
    """Public services, pid2exe, and what becomes of executables."""

    PID2EXE = ("pid2exe.portmapd", "*", 2)

    def exe(self, pid: int) -> list[str]:
        """What is announced as the executable of a process."""
        rows = self.connection.services(names=["pid2exe.portmapd"], pids=[pid])
        return [row[4] for row in rows]

    def test_announced(self) -> None:
        """A process announces its executable, and stops."""
        self.connection.register(self.PID2EXE)
        self.host.connect(pid=8, exe="/bin/b").register(self.PID2EXE)
        self.assertEqual((self.exe(7), self.exe(8), self.exe(9)), (["/bin/a"], ["/bin/b"], []))
        self.connection.deregister(self.PID2EXE[:2])
        self.assertEqual(self.exe(7), [])

    def test_counts(self) -> None:
        """The announcement counts like a service."""
        self.connection.register(*((f"a{number}", "80", 0) for number in range(10)))
        self.refused(LimitExceeded, "holds 10", self.connection.register, self.PID2EXE)

    def test_unknown(self) -> None:
        """An executable that cannot be known cannot be public; other services can be."""
        unknown = self.host.connect(pid=8, exe="")
        for new in (self.PID2EXE, ("a", "80", 2), ("a", "80", 3)):
            self.refused(ExecutableUnknown, "pid 8", unknown.register, ("b", "80", 0), new)
        unknown.register(("b", "80", 1))
        self.assertEqual(self.names(), ["b"])

    def test_looked_at_late(self) -> None:
        """What counts is what the process executes when it first makes something public."""
        first, second = self.host.connect(pid=8), self.host.connect(pid=8)
        first.register(("a", "80", 0))
        first.process.exe = second.process.exe = "/bin/b"
        first.register(self.PID2EXE)
        self.assertEqual(self.exe(8), ["/bin/b"])
        first.process.exe = second.process.exe = "/bin/c"
        first.register(("a", "81", 2))
        self.assertEqual(self.exe(8), ["/bin/b"])
        second.register(self.PID2EXE)
        self.assertEqual(self.exe(8), ["", "/bin/c"])

    def test_not_for_what_is_refused(self) -> None:
        """The executable is not looked at for what is not valid, nor for what is not public."""
        public, other = self.host.connect(pid=8), self.host.connect(pid=8)
        public.register(self.PID2EXE)
        other.process.exe = "/bin/b"
        self.assertRaises(InvalidService, other.register, ("a", "80", 2), ("", "80", 0))
        other.register(("a", "80", 1))
        self.assertEqual(self.exe(8), ["/bin/a"])

    def test_blanked(self) -> None:
        """A connection of the same pid with another executable clears the executable."""
        for exe in ("/bin/b", ""):
            public = self.host.connect(pid=8)
            public.register(self.PID2EXE, ("a", "80", 2))
            self.host.connect(pid=8, exe="/bin/a")
            self.assertEqual(self.exe(8), ["/bin/a"])
            self.host.connect(pid=9, exe=exe)
            self.assertEqual(self.exe(8), ["/bin/a"])
            self.host.connect(pid=8, exe=exe).close()
            self.assertEqual(self.exe(8), [""])
            self.assertEqual(public.services(names=["a"]), [("a", 104, 8, "80", "")])
            self.refused(ExecutableUnknown, "pid 8", public.register, ("c", "80", 2))
            public.close()
