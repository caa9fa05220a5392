"""The port mapper over HTTP: what is served, and what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import LogEvent

from portmapd.client import Portmapper
from portmapd.errors import DaemonUnreachable
from portmapd.portmapper.access import Policy
from portmapd.registry.holder import Holder
from portmapd.web.query import Answer, Query, Route
from portmapd.web.site import Site
from tests.integration.conftest import OURS
from tests.support.client_shells import Receiver
from tests.support.console_session import play
from tests.support.daemon import TWISTD, portmapd
from tests.support.embedded import asynchronous, serving
from tests.support.exchange import free_port
from tests.support.handovers import dynasty
from tests.support.host import twistd
from tests.support.namespace import PATH, TOP, Namespace, eventually
from tests.support.web import WebDaemon, web_daemon


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDaemon]:
    """Give a daemon that all tests of this module ask."""
    with web_daemon(tmp_path_factory.mktemp("http"), "--max-services", "100") as running:
        yield running


def test_health(web: WebDaemon) -> None:
    """It says that it serves, and every answer tells browsers to load nothing from elsewhere."""
    answered = web.ask("/health")
    assert (answered.status, answered.text) == (200, "serving\n")
    assert answered.header["content-security-policy"].startswith("default-src 'none'; ")
    assert answered.header["x-content-type-options"] == "nosniff"
    assert web.ask("/health", "HEAD").body == b""


def test_portmap(web: WebDaemon) -> None:
    """Services are listed in each form; filters come in the query and in a form."""
    with web.client() as client:
        client.reg([("printer", 9100), ("other", 9101), ("unix", "/run/unix")])
        listed = web.ask("/portmap?service=printer&service=unix").text.splitlines()
        assert listed[0] == "service,user,pid,port,prog"
        assert [row.split(",")[0] for row in listed[1:]] == ["printer", "unix"]
        form = b"service=printer"
        kind = "application/x-www-form-urlencoded"
        posted = web.ask("/portmap", "POST", form, Content_Type=kind, Accept="application/json")
        assert [row["port"] for row in json.loads(posted.body)] == [9100]
        assert "<td>other</td>" in web.ask("/portmap", Accept="text/html").text
        proxied = web.ask("/portmap", X_Forwarded_For="192.0.2.1").text
        assert "printer" in proxied
        assert "unix" not in proxied
    assert "printer" not in web.ask("/portmap").text


#: Method, target, header, status, and what is said.
REFUSED = [
    ("GET", "/nowhere", {}, 404, "there is "),
    ("GET", "/../etc/passwd", {}, 404, "there is "),
    ("GET", "/page/", {}, 404, "there is "),
    ("PUT", "/portmap", {}, 405, "GET, HEAD, POST"),
    ("DELETE", "/portmap", {}, 405, "GET, HEAD, POST"),
    ("POST", "/health", {}, 405, "GET, HEAD"),
    ("OPTIONS", "/portmap", {}, 405, "GET, HEAD, POST"),
    ("GET", "/portmap?uid=1", {}, 400, "field 'uid' is none of service, user, pid"),
    ("GET", "/portmap?pid=x", {}, 400, "pid 'x' is not a number"),
    ("GET", "/portmap?service=%FF", {}, 400, "not in UTF-8"),
    ("GET", "/portmap", {"Accept": "image/png"}, 406, "text/csv"),
    ("GET", "/portmap", {"Host": "evil.example"}, 421, "--http-name"),
    ("POST", "/portmap", {"Origin": "http://evil.example"}, 403, "another site"),
]


@pytest.mark.parametrize(("method", "target", "header", "status", "said"), REFUSED)
def test_refused(
    web: WebDaemon, method: str, target: str, header: dict[str, str], status: int, said: str
) -> None:
    """What is refused says why, and the next request is served."""
    answered = web.ask(target, method, None, **header)
    assert answered.status == status
    assert said in answered.text
    assert ("allow" in answered.header) == (status == 405)
    assert web.ask("/health").status == 200


HOST = b"Host: localhost\r\nConnection: close\r\n"
#: What is sent, and how the answer begins.
BROKEN = [
    (b"\r\n\r\n", b"HTTP/1.1 400"),
    (b"GET\r\n\r\n", b"HTTP/1.1 400"),
    (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"HTTP/1.1 400"),
    (b"GET /health HTTP/1.1\r\n" + 2 * HOST + b"\r\n", b"HTTP/1.1 421"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 20_000, b""),
    (b"GET /" + b"x" * 20_000, b""),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"HTTP/1.1 400"),
    (b"POST /portmap HTTP/1.1\r\n" + HOST + b"Content-Length: 65537\r\n\r\n", b"HTTP/1.1 413"),
    (b"POST /portmap HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", b"HTTP/1.1 400"),
    (
        b"POST /portmap HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(17)),
        b"HTTP/1.1 413",
    ),
    (bytes(100_000), b""),
]


@pytest.mark.parametrize(("sent", "begins"), BROKEN)
def test_broken(web: WebDaemon, sent: bytes, begins: bytes) -> None:
    """What is no request within bounds ends its connection, and no other."""
    with web.connect() as skt:
        try:
            skt.sendall(sent)
            answered = skt.makefile("rb").read()
        except ConnectionError:
            # What it had not read yet when it closed the connection takes the answer with it.
            answered = begins
    assert answered.startswith(begins)
    assert web.ask("/health").status == 200


def test_not_imported() -> None:
    """Without ``--http``, nothing of it is imported."""
    code = (
        "import sys, portmapd.tap;"
        "from twisted.internet import reactor;"
        "options = portmapd.tap.Options();"
        "options.parseOptions(['--state=none', '--rpc-socket=none', '-p0', '--config=none']);"
        "service = portmapd.tap.TwistdPortmapper(options.config(), reactor);"
        "service.startService();"
        "print([n for n in sys.modules if n.startswith(('portmapd.web', 'twisted.web'))])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_endpoint_taken(web: WebDaemon) -> None:
    """An endpoint that cannot be bound, or is none, is one line, and nothing is started."""
    taken = f"tcp:{web.port}:interface=127.0.0.1"
    for endpoint, said in (
        (taken, f"the endpoint '{taken}' cannot be served: Address already in use"),
        ("8080", "http '8080' is no endpoint of Twisted (Unknown endpoint type: '8080'); give one"),
    ):
        options = ("-p0", "--rpc-socket=none", "--local-socket=none", "--http", endpoint)
        done = twistd("-n", "--pidfile=", "portmapd", *options)
        assert done.returncode == 1
        assert said in done.stdout
        assert "Traceback" not in done.stdout


def test_elsewhere(namespace: Namespace, elsewhere: Namespace, tmp_path: Path) -> None:
    """Callers of other hosts see no UNIX sockets, and none of them where they may not ask."""
    ask = (sys.executable, "-c", _ASK.format(OURS))
    listen = (sys.executable, "-c", _LISTEN.format(OURS))
    with portmapd(namespace, tmp_path, "--http", "tcp:8080"):
        assert "portmapd.portmapd" in namespace.run(*ask)
        assert elsewhere.run(*ask) == "service,user,pid,port,prog\n"
        assert "portmapd.portmapd" in namespace.run(*listen)
        told = elsewhere.run(*listen)
        assert '"portmapper"' in told
        assert "portmapd.portmapd" not in told
    with portmapd(namespace, tmp_path, "--http", "tcp:8080", "--allow", "192.0.2.0/24"):
        assert "portmapd.portmapd" in namespace.run(*ask)
        assert "no answer" in elsewhere.run(*ask, status=1)


_LISTEN = """
from urllib.request import urlopen
for line in urlopen("http://{}:8080/events"):
    print(line.decode(), end="")
    if b"ready" in line:
        break
"""
_ASK = """
from urllib.request import urlopen
try:
    print(urlopen("http://{}:8080/portmap").read().decode().replace("\\r", ""), end="")
except OSError:
    exit("no answer")
"""


def test_restart_without_interruption() -> None:
    """The process that takes the place of another one serves the page, too."""
    port = free_port()
    with dynasty("--http", f"tcp:{port}:interface=127.0.0.1") as host:
        host.hand_over()

        def served() -> bool:
            try:
                return bool(urlopen(f"http://127.0.0.1:{port}/health").read())
            except OSError:
                return False

        eventually(served, "the page is served again")


@asynchronous
async def test_embedded() -> None:
    """An application has the page, too, and finds its port; at the end nothing is left."""
    async with serving(http="tcp:0:interface=127.0.0.1") as service:
        (address,) = service.http_addresses
        assert isinstance(address, IPv4Address)
        holder = service.registry.open(Holder(5, 7))
        service.registry.register(holder.new_service("printer", "9100", 0))
        client = Portmapper(reactor, host=f"127.0.0.1:{address.port}")
        assert [s.name for s in await client.list()] == ["printer"]
        await client.close()
    assert service.http_addresses == []


@asynchronous
async def test_failures(logged_errors: list[LogEvent]) -> None:
    """A page that fails is logged, and harms nothing else."""

    def fail(query: Query) -> Answer:
        raise RuntimeError("a fault of ours")

    def fail_later(query: Query) -> Answer:
        return Answer(b"x" * (1 // (n - 2)) for n in range(3))

    routes = {"/portmap": Route(fail, ("POST",)), "/later": Route(fail_later)}
    site: Any = Site(routes, (), Policy(), reactor)
    listening: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
    port = listening.getHost().port
    client = Portmapper(reactor, host=f"127.0.0.1:{port}")
    with pytest.raises(DaemonUnreachable, match="the status is '500 Internal Server Error'"):
        await client.list()
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    later: Any = await endpoint.connect(Factory.forProtocol(Receiver))
    later.transport.write(b"GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = await later.done
    # The end of the last piece is missing: what was sent is not taken for all.
    assert not data.endswith(b"0\r\n\r\n")
    assert len(logged_errors) == 2
    logged_errors.clear()
    await client.close()
    await listening.stopListening()
    await site.close()


EXAMPLES = TOP / "docs" / "examples" / "http"


@pytest.mark.programs("curl")
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.console")), ids=lambda path: path.stem)
def test_session(namespace: Namespace, tmp_path: Path, example: Path) -> None:
    """Each command of a session prints what the page shows."""
    for program in EXAMPLES.glob("*.py"):
        shutil.copy(program, tmp_path)
    play(namespace, example.read_text(), f"{Path(TWISTD).parent}:{PATH}", tmp_path)
