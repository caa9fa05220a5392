"""What a service manager is told: lines and descriptors at its socket, and a watchdog's period."""

import os
import socket
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.service_notification import (
    READY,
    main_pid,
    notify,
    reloading,
    status,
    watchdog_period,
)


class NotifyTests(SynchronousTestCase):
    """Messages to a manager."""

    def setUp(self) -> None:
        self.folder = Path(mkdtemp())
        self.addCleanup(rmtree, self.folder)
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.settimeout(10)

    def listen(self) -> dict[str, str]:
        """Have a manager listen; the environment that names it."""
        path = str(self.folder / "notify")
        self.manager.bind(path)
        return {"NOTIFY_SOCKET": path}

    def test_path(self) -> None:
        """The lines of one call are one message at the manager's path."""
        environ = self.listen()
        self.assertTrue(notify(READY, main_pid(7), environ=environ))
        self.assertEqual(self.manager.recv(1000), b"READY=1\nMAINPID=7")

    def test_abstract(self) -> None:
        """A manager may listen at an abstract name."""
        self.manager.bind("")
        name = self.manager.getsockname()[1:].decode()
        self.assertTrue(notify(READY, environ={"NOTIFY_SOCKET": f"@{name}"}))
        self.assertEqual(self.manager.recv(1000), b"READY=1")

    def test_descriptors(self) -> None:
        """Descriptors go with the lines."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        notify("FDSTORE=1", "FDNAME=x", descriptors=[write], environ=self.listen())
        data, passed, _, _ = socket.recv_fds(self.manager, 1000, 4)
        os.close(write)
        self.assertEqual(data, b"FDSTORE=1\nFDNAME=x")
        os.write(passed[0], b"passed")
        os.close(passed[0])
        self.assertEqual(os.read(read, 100), b"passed")

    def test_nobody(self) -> None:
        """Without a manager nothing happens, nor with one that is gone or cannot be named."""
        gone = str(self.folder / "gone")
        for address in ("", gone, "x" * 200, "/" * 200, "vsock:2:1", "@", "relative", "\0", "/\0"):
            self.assertFalse(notify(READY, environ={"NOTIFY_SOCKET": address}), address)
        self.assertFalse(notify(READY, environ={}))

    def test_busy(self) -> None:
        """A manager that does not read keeps nobody waiting for ever."""
        environ = self.listen()
        sent = [notify("x" * 1000, environ=environ) for _ in range(2)]
        while notify("x" * 1000, environ=environ):
            sent.append(True)
        self.assertTrue(all(sent))


class LineTests(SynchronousTestCase):
    """The lines."""

    def test_status(self) -> None:
        """A status is one line, whatever is in it: a further one would be obeyed."""
        self.assertEqual(status("serving\nMAINPID=1\r\x00 "), "STATUS=serving MAINPID=1 \x00")

    def test_reloading(self) -> None:
        """A reload carries the time of the clock that the manager compares it with."""
        first, second = reloading()
        self.assertEqual(first, "RELOADING=1")
        self.assertRegex(second, r"^MONOTONIC_USEC=\d+$")

    def test_watchdog(self) -> None:
        """A watchdog is for this process, and has a period; everything else is none."""
        ours, other = str(os.getpid()), str(os.getpid() + 1)
        for microseconds, pid, period in (
            ("3000000", ours, 3.0),
            ("3000000", "", 3.0),
            ("3000000", other, None),
            ("3000000", "me", None),
            ("0", ours, None),
            ("", ours, None),
            ("-5", ours, None),
            ("soon", ours, None),
            ("\u0663", ours, None),
        ):
            environ = {"WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
            self.assertEqual(watchdog_period(environ), period, environ)
        self.assertIsNone(watchdog_period({}))
