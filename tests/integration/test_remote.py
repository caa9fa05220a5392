"""The services of another machine, in every client."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from portmapd.errors import (
    BadArguments,
    ClientClosed,
    DaemonUnreachable,
    NotAccepted,
    NotListed,
    UnknownCommand,
)
from tests.support.client_shells import SHELLS, Shell
from tests.support.embedded import may_block
from tests.support.exchange import PATIENCE, free_port
from tests.support.web import WebDaemon, web_daemon


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDaemon]:
    """Give a daemon, which stands in for that of another machine."""
    with web_daemon(tmp_path_factory.mktemp("remote")) as running:
        yield running


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    """Give each kind of client."""
    made = SHELLS[request.param]()
    yield made
    made.close()


@contextmanager
def served(answers: bytes, *, endless: bool = False) -> Iterator[str]:
    """Give the block a host that answers anything with these bytes, once or without end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)

        def serve() -> None:
            try:
                with listening.accept()[0] as skt:
                    skt.sendall(answers)
                    while endless:
                        skt.sendall(answers)
                    skt.shutdown(socket.SHUT_WR)
                    while skt.recv(65_536):
                        pass
            except OSError:
                # The client had enough.
                return

        # It ends when the client closes its connection, for which a reactor may have to run.
        Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def fails(shell: Shell, client: Any, said: str) -> None:
    """The other machine is of no use, and the error says why."""
    with pytest.raises(DaemonUnreachable, match=said):
        shell.call(client.list)


@may_block
def test_list_and_connect(shell: Shell, web: WebDaemon) -> None:
    """Services with a port are listed, filtered, and connected to; UNIX sockets are left out."""
    with socket.create_server(("127.0.0.1", 0)) as listening, web.client() as registered:
        port = listening.getsockname()[1]
        registered.reg([("a.example", port), ("b.example", 9), ("unix.example", "/run/x")])
        for host in (f"127.0.0.1:{web.port}", f"localhost:{web.port}"):
            with shell.client(None, host=host) as client:
                listed = shell.wait(client.list())
                assert [(s.name, s.port) for s in listed] == [("a.example", port), ("b.example", 9)]
                me = {"user": os.geteuid(), "pid": os.getpid()}
                assert [s.name for s in shell.wait(client.list("b.example", **me))] == ["b.example"]
                assert shell.wait(client.list(pid=1)) == []
                connection = shell.connect(client, "a.example")
                accepted, _ = listening.accept()
                with accepted:
                    accepted.sendall(b"hello")
                assert shell.receive(connection) == b"hello"
                with pytest.raises(NotListed):
                    shell.connect(client, "unix.example")
                with pytest.raises(NotAccepted):
                    shell.connect(client, "b.example")


@may_block
def test_nothing_else(shell: Shell, web: WebDaemon) -> None:
    """Nothing is registered, set or watched on another machine, whose users are numbers."""
    with shell.client(None, host=f"127.0.0.1:{web.port}") as client:
        for operate in (
            lambda: client.reg("a.example", 1),
            lambda: client.dereg("a.example", 1),
            lambda: client.set(7, 1, "tcp", "0.0.0.0.0.7"),
            client.mappings,
            client.regpid2exe,
        ):
            with pytest.raises(UnknownCommand, match="another machine can be listed and connected"):
                shell.call(operate)
        with pytest.raises(BadArguments, match="give a uid of the other one"):
            shell.call(lambda: client.list(user="root"))
        with pytest.raises(BadArguments, match="cannot be watched"):
            client.watch()
    with pytest.raises(ClientClosed):
        shell.call(client.list)


@may_block
def test_bad_hosts(shell: Shell) -> None:
    """What is no host is refused at once; one that does not answer when it is asked."""
    for host in ("", "a b", "http://localhost", "localhost:0"):
        with pytest.raises(ValueError, match="neither the name of a host nor an address"):
            shell.make(None, host=host)
    with pytest.raises(ValueError, match="not both"):
        shell.make("/run/x", host="localhost")
    for host, said in (
        (f"127.0.0.1:{free_port()}", "Connection refused"),
        ("name.invalid", "the port mapper at name.invalid does not answer"),
    ):
        with shell.client(None, host=host) as client:
            fails(shell, client, said)


#: What a host answers, and what is said of it.
ANSWERS = [
    (b"", "it is not HTTP"),
    (
        b"HTTP/1.1 421 Misdirected Request\r\n\r\nno\n",
        "the status is '421 Misdirected Request': 'no'",
    ),
    (b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[{"service": "a', "Unterminated"),
]


@may_block
def test_bad_answers(shell: Shell) -> None:
    """Whatever another machine answers, the client says who it was and what is wrong."""
    for data, said in ANSWERS:
        with served(data) as host, shell.client(None, host=host) as client:
            fails(shell, client, said)


@may_block
def test_endless_answer(shell: Shell) -> None:
    """An answer without end is given up."""
    with served(bytes(1 << 20), endless=True) as host, shell.client(None, host=host) as client:
        fails(shell, client, "the answer is too long")


@may_block
def test_silence(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that takes the connection and says nothing is given up in time."""
    monkeypatch.setattr("portmapd.client.core.remote.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        with shell.client(None, host=host) as client:
            fails(shell, client, "does not answer")
