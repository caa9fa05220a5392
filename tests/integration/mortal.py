"""A daemon that a test kills, and starts again."""

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.daemon import TWISTD
from tests.integration.exchange import PATIENCE, connect_local
from tests.integration.namespace import TOP, eventually


class Mortal:
    """A daemon; its socket's path is the same at every start.

    :param folder: where its log and its socket are.
    :param options: of ``twistd portmapd``.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.path = str(folder / "portmapd.sock")
        self._log = folder / "twistd.log"
        sockets = ("--port", "0", "--rpc-socket", "none", "--local-socket", self.path)
        self._command = [TWISTD, "-n", "--pidfile=", "portmapd", *sockets, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(self._serves, f"{self.path} is served")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill it, if it runs, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(PATIENCE)

    def again(self) -> None:
        """Kill it, and start it again."""
        self.kill()
        self.start()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            connect_local(self.path).close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True
