"""A headless Chromium, driven over pipes (Chrome DevTools Protocol)."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from select import select
from typing import Any

from tests.support.exchange import PATIENCE
from tests.support.namespace import PATH, eventually

#: No profile, nothing of the network but what a test asks for; root may have no sandbox.
_WORDS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--hide-scrollbars",
)  # fmt: skip

#: Gives Chromium its two pipes as the descriptors 3 and 4.
_START = 'read=$1 write=$2; shift 2; eval "exec \\"\\$@\\" 3<&$read 4>&$write"'


class Browser:
    """One page of a Chromium.

    :param incoming: where commands go.
    :param outgoing: where answers and events come from.
    """

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._serials = count(1)
        self._buffer = b""
        self._session: str | None = None
        #: What the page logged, and what it was not allowed to do.
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Make a call of the protocol, and give its result."""
        serial = next(self._serials)
        message = {"id": serial, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._incoming, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == serial:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select([self._outgoing], [], [], PATIENCE)
            data = os.read(self._outgoing, 1 << 20) if ready else b""
            assert data, "Chromium does not answer"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))

    def open(self, url: str) -> None:
        """Go to *url*, and wait until its page is there."""
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'", url)

    def run(self, script: str) -> Any:
        """The value of an expression in JavaScript."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str, what: str) -> None:
        """Wait until an expression is true."""
        eventually(lambda: self.run(script), what, PATIENCE)

    def type(self, keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                words = {"text": key} if kind == "keyDown" else {}
                self.call("Input.dispatchKeyEvent", type=kind, key=key, **words)

    def press(self, key: str) -> None:
        """Press a key that has a name."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def show(self, width: int, height: int, scheme: str = "light") -> None:
        """Have a window of that size, and prefer light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, file: Path) -> None:
        """Write what is shown to *file*, as PNG."""
        taken = self.call("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Run a Chromium in the block.

    :param folder: where its profile goes.
    """
    read, incoming = os.pipe()
    outgoing, write = os.pipe()
    words = ("chromium", *_WORDS, f"--user-data-dir={folder}")
    process = subprocess.Popen(
        ["bash", "-c", _START, "bash", str(read), str(write), *words],
        pass_fds=(read, write),
        env={**os.environ, "PATH": PATH, "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(read)
    os.close(write)
    try:
        yield Browser(incoming, outgoing)
    finally:
        # It ends by itself when its pipe does.
        os.close(incoming)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            os.close(outgoing)
