"""What another machine says of its services."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel import commands as c
from portmapd.client.blocking.connection import run
from portmapd.client.core.remote import MAX_FORM, PORT, RemoteConnection, RemoteHost
from portmapd.errors import DaemonUnreachable, UnknownCommand
from tests.support.rpc_samples import PROPERTY

#: What may be given as a host, and what that is.
HOSTS = [
    ("www.example.com", ("www.example.com", PORT)),
    ("www.example.com:8080", ("www.example.com", 8080)),
    ("192.0.2.1", ("192.0.2.1", PORT)),
    ("192.0.2.1:1", ("192.0.2.1", 1)),
    ("2001:db8::1", ("2001:db8::1", PORT)),
    ("[2001:db8::1]", ("2001:db8::1", PORT)),
    ("[2001:db8::1]:65535", ("2001:db8::1", 65_535)),
    ("bücher.example", ("bücher.example", PORT)),
]
NO_HOSTS = [
    "", ":80", "a:", "a:0", "a:65536", "a:http", "a b", "a/b", "a@b", "http://a", "[::1", "::1]",
    "[::1]:", "[a]:80", "[1:2]", "a\r\nX: y", "-a", "x" * 300, "a:80:80",
]  # fmt: skip

ROW = {"service": "printer", "user": 5, "pid": 7, "port": 9100, "prog": "/bin/x"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"

#: What another machine may answer, and what is said of it.
MALFORMED = [
    (b"", "it is not HTTP"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "it is not HTTP"),
    (HEAD[:-2], "it is not HTTP"),
    (b"HTTP/1.1 404 Not Found\r\n\r\n", "the status is '404 Not Found'"),
    (b"HTTP/1.1 301 Moved\r\nLocation: https://x/\r\n\r\n", "the status is '301 Moved'"),
    (b"HTTP/1.1 200 OK\r\n\r\n[]", "it is not JSON"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n[]", "it is not JSON"),
    (HEAD[:-2] + b"Content-Length: 3\r\n\r\n[]", "it is not whole"),
    (HEAD, "Expecting value"),
    (HEAD + b'[{"service": "prin', "Unterminated"),
    (HEAD + b"\xff", "codec can't decode"),
    (HEAD + b"[" * 100_000, "recursion"),
    (HEAD + b"{}", "it is no list"),
    (HEAD + b"[[]]", "a service has no fields"),
    (HEAD + b"[{}]", "a service has no user"),
]
#: A field of a service, a value that it cannot have, and what is said of that.
WRONG: list[tuple[str, Any, str]] = [
    ("service", 5, "no name"),
    ("service", "", "1 to 255 bytes"),
    ("service", "a b", "no space"),
    ("service", "x" * 256, "1 to 255 bytes"),
    ("service", "\ud800", "codec can't encode|control character"),
    ("user", -1, "no user"),
    ("user", 1 << 32, "no user"),
    ("user", True, "no user"),
    ("user", "root", "no user"),
    ("pid", 1.5, "no pid"),
    ("port", 0, "from 1 to 65535"),
    ("port", 65_536, "from 1 to 65535"),
    ("port", True, "no port"),
    ("port", None, "no port"),
    ("prog", None, "no name"),
    ("prog", "x" * 5_000, "no name"),
]


def answer(*rows: object) -> bytes:
    """A listing."""
    return HEAD + json.dumps(rows).encode()


class HostTests(SynchronousTestCase):
    """How another machine is named."""

    def test_hosts(self) -> None:
        """A name or an address, with a port or without."""
        for text, found in HOSTS:
            host = RemoteHost(text)
            self.assertEqual((host.name, host.port), found)

    def test_no_hosts(self) -> None:
        """Anything else is refused."""
        for text in NO_HOSTS:
            with self.assertRaisesRegex(ValueError, "neither the name of a host nor", msg=text):
                RemoteHost(text)


class RemoteTests(SynchronousTestCase):
    """Listings."""

    def setUp(self) -> None:
        self.host = RemoteHost("www.example.com:8080")

    def rows(self, data: bytes, **wanted: Any) -> list[Any]:
        """The services in an answer."""
        return list(self.host.rows(data, wanted))

    def test_request(self) -> None:
        """Filters are sent as a form, in a request whose answer ends with the connection."""
        request = self.host.request({"names": ["a&b", "é"], "users": [5], "pids": None})
        head, body = request.split(b"\r\n\r\n")
        self.assertTrue(
            head.startswith(b"POST /portmap HTTP/1.0\r\nHost: www.example.com:8080\r\n")
        )
        self.assertEqual(body, b"service=a%26b&service=%C3%A9&user=5")
        self.assertIn(f"Content-Length: {len(body)}".encode(), head)

    def test_hosts_in_requests(self) -> None:
        """An address of IPv6 has brackets there, and a name of other letters their ASCII form."""
        for text, sent in (("::1", b"[::1]:80"), ("bücher.example", b"xn--bcher-kva.example:80")):
            self.assertIn(b"Host: " + sent + b"\r\n", RemoteHost(text).request({}))

    def test_long_request(self) -> None:
        """Filters that are too long are not sent, but count all the same."""
        names = ["x" * 200 + str(number) for number in range(MAX_FORM // 200)]
        self.assertTrue(self.host.request({"names": names}).endswith(b"\r\n\r\n"))
        self.assertEqual(self.rows(answer(ROW), names=names), [])

    def test_rows(self) -> None:
        """Services with a port are listed, those on UNIX sockets are not."""
        listed = answer(ROW, {**ROW, "port": "/run/x"}, {**ROW, "prog": ""})
        row = ("printer", 5, 7, "9100", "/bin/x")
        self.assertEqual(self.rows(listed), [row, (*row[:4], "")])

    def test_filters(self) -> None:
        """What was not asked for is left out: the other machine may say anything."""
        listed = answer(ROW, {**ROW, "service": "a"}, {**ROW, "user": 6}, {**ROW, "pid": 8})
        self.assertEqual(len(self.rows(listed, names=["printer"])), 3)
        self.assertEqual(len(self.rows(listed, users=[6, 7])), 1)
        self.assertEqual(len(self.rows(listed, names=["printer"], users=[5], pids=[7])), 1)

    def test_malformed(self) -> None:
        """What is no listing is an error that says who answered what."""
        for data, said in MALFORMED:
            with self.assertRaisesRegex(DaemonUnreachable, f"www.example.com:8080 .*{said}"):
                self.rows(data)

    def test_wrong_fields(self) -> None:
        """A service with a field that no service can have makes the listing useless."""
        for name, value, said in WRONG:
            with self.assertRaisesRegex(DaemonUnreachable, said, msg=f"{name} {value!r}"):
                self.rows(answer({**ROW, name: value}))

    @given(st.binary() | st.binary().map(lambda body: HEAD + body))
    @PROPERTY
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever comes, it is services or one kind of error."""
        try:
            self.rows(data)
        except DaemonUnreachable:
            pass

    def test_other_commands(self) -> None:
        """Nothing can be registered there: nothing is even sent."""

        async def exchange(request: bytes) -> bytes:
            raise AssertionError(request)

        connection = RemoteConnection(self.host, exchange)
        for command in c.COMMANDS.values():
            if command is not c.LIST:
                with self.assertRaisesRegex(UnknownCommand, f"{command.name}: the services of an"):
                    run(connection.ask(command, {}))
