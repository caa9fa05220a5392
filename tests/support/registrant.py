"""A process that does what a test tells it, and hands its connections to the daemon over.

The test speaks on the process's connection; whose it is, the kernel tells the daemon. Run as a
program, this file is that process; it needs nothing but the standard library then.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

#: No answer takes longer, in seconds; it only keeps a broken test from hanging.
PATIENCE = 30.0


class Registrant:
    """A process.

    :param path: the daemon's socket.
    :param uid: the user that it becomes; None: it stays what it is.
    :param command: what starts a Python interpreter.
    :param env: variables that are added to the environment.
    :ivar pid: its process id, where it runs.
    """

    def __init__(
        self,
        path: str,
        uid: int | None = None,
        command: tuple[str, ...] = (sys.executable,),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE)
        with theirs:
            self._process = subprocess.Popen(
                [*command, "-I", "-S", __file__, str(theirs.fileno()), path],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
            )
        self.pid: int = self.tell("pid")
        if uid is not None:
            self.tell("become", uid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # It ends when nobody is there to tell it anything, wherever it is.
        self._control.close()
        self.wait()

    def tell(self, operation: str, *arguments: Any) -> Any:
        """Have it do something; give what that gave."""
        self.ask(operation, *arguments)
        return self.told()

    def ask(self, operation: str, *arguments: Any) -> None:
        """Have it do something; :meth:`told` gives what that gave."""
        self._control.send(json.dumps([operation, *arguments]).encode())

    def told(self) -> Any:
        """What the operation gave that it was asked for."""
        return json.loads(self._control.recv(65_536))

    def connect(self) -> socket.socket:
        """Have it connect to the daemon, and give its connection, which it keeps as well."""
        self.ask("connect")
        _, (descriptor,), _, _ = socket.recv_fds(self._control, 65_536, 1)
        return socket.socket(fileno=descriptor)

    def fork(self) -> int:
        """Have it make a child that holds what it holds, and give the child's process id."""
        child = self.tell("fork")
        assert isinstance(child, int)
        return child

    def execute(self, python: str, home: str) -> None:
        """Have it become another interpreter's process, which keeps its connections."""
        self.tell("execute", python, home)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send it, or what started it, a signal; give the exit status of that as Popen does."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and give its exit status as Popen does."""
        return self._process.wait(PATIENCE)


def _connect(path: str) -> int:
    skt = socket.socket(socket.AF_UNIX)
    skt.connect(path)
    skt.set_inheritable(True)
    _KEPT.append(skt)
    return skt.fileno()


def _become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def _fork() -> int:
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    return child


def _execute(control: int, path: str, python: str, home: str) -> None:
    words = [python, "-I", "-S", __file__, str(control), path, "told"]
    os.execve(python, words, {**os.environ, "PYTHONHOME": home})


def _serve(control: socket.socket, path: str) -> None:
    """Do what is told."""
    while order := control.recv(65_536):
        operation, *arguments = json.loads(order)
        if operation == "connect":
            socket.send_fds(control, [b"null"], [_connect(path)])
            continue
        if operation == "execute":
            _execute(control.fileno(), path, *arguments)
        result = _OPERATIONS[operation](*arguments)
        control.send(json.dumps(result).encode())


_KEPT: list[socket.socket] = []


def _pair(key: bytes, value: bytes) -> bytes:
    return len(key).to_bytes(2) + key + len(value).to_bytes(2) + value


def _crowd(path: str, count: int) -> int:
    """Make connections that register a service each."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(most, count + 100)), most))
    for number in range(count):
        _connect(path)
        service = _pair(b"name", b"crowd.%d.%d" % (os.getpid(), number))
        service += _pair(b"port", b"80") + _pair(b"flags", b"1") + b"\0\0"
        command = _pair(b"_ask", b"1") + _pair(b"_command", b"Register")
        _KEPT[-1].sendall(command + _pair(b"services", service) + b"\0\0")
    return sum(skt.recv(64).startswith(b"\0\7_answer") for skt in _KEPT)


def _close() -> None:
    while _KEPT:
        _KEPT.pop().close()


def _wait(child: int) -> None:
    os.waitpid(child, 0)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "pid": os.getpid,
    "become": _become,
    "fork": _fork,
    "close": _close,
    "wait": _wait,
    "crowd": _crowd,
}


def main(control: str, path: str, *told: str) -> None:
    """Be the process."""
    with socket.socket(fileno=int(control)) as skt:
        skt.set_inheritable(True)
        if told:
            skt.send(b"null")
        _serve(skt, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
