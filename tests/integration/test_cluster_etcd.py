"""etcd as it may be: with users, with certificates, full, and something else altogether."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.etcd import Member
from tests.support.machines import SOCKET, Machine, Network
from tests.support.namespace import eventually

pytestmark = pytest.mark.programs("etcd", "etcdctl", "curl", "openssl")

EXCLUSIVE, SHARED = 1, 4
PORTMAPCTL = str(Path(sys.executable).with_name("portmapctl"))

#: An authority, and a certificate of both ends; etcd's gateway is a client of etcd itself.
CERTIFICATES = """
set -e
cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -keyout ca.key -out ca.pem -days 9
printf 'subjectAltName=IP:10.9.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >names
for each in member machine; do
  openssl req -newkey rsa:2048 -nodes -subj "/CN=$each" -keyout $each.key -out $each.req
  openssl x509 -req -in $each.req -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names \\
    -days 9 -out $each.pem
done
chmod 644 *.key
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Give a machine without etcd."""
    network = Network(tmp_path, ("one",))
    yield network.machines[0]
    network.close()


def member(machine: Machine, folder: Path, *options: str) -> Member:
    """Start the one member of an etcd."""
    place = {machine.name: machine.address}
    machine.etcd = Member(machine.namespace, machine.address, machine.name, folder, place, options)
    return machine.etcd


def state(machine: Machine) -> tuple[str, str]:
    """How the machine stands in its cluster, and why."""
    asked = (PORTMAPCTL, "--socket", SOCKET, "cluster", "--json")
    said = machine.namespace.run(*asked, status=None)
    told = json.loads(said[: said.rindex("}") + 1])
    return told["state"], told["why"]


def becomes(machine: Machine, expected: str) -> str:
    """Wait until it stands so, and say why."""
    eventually(lambda: state(machine)[0] == expected, f"the state is {expected}")
    return state(machine)[1]


def test_users(machine: Machine, tmp_path: Path) -> None:
    """With etcd's users the password counts, and so do the rights of the user."""
    etcd = member(machine, tmp_path)
    etcd.wait()
    for words in (
        "user add root:secret",
        "user add portmapd:right",
        "role add portmapd",
        "role grant-permission portmapd readwrite --prefix=true /portmapd/",
        "user grant-role root root",
        "user grant-role portmapd portmapd",
        "auth enable",
    ):
        etcd.control(*words.split())
    password = tmp_path / "password"
    password.write_text("wrong\n")
    password.chmod(0o600)
    options = ("--cluster-user", "portmapd", "--cluster-password-file", str(password))
    machine.start([etcd.url], *options)
    assert "authentication failed" in becomes(machine, "refused")
    assert machine.daemon is not None
    machine.daemon.stop()
    password.write_text("right\n")
    machine.start([etcd.url], *options)
    becomes(machine, "joined")
    machine.daemon.stop()
    machine.start([etcd.url], *options, "--cluster-prefix", "/others/")
    assert "permission denied" in becomes(machine, "refused")


def test_certificates(machine: Machine, tmp_path: Path) -> None:
    """With certificates of both ends etcd is asked; without them, or without trust, it is not."""
    machine.namespace.run("sh", "-c", CERTIFICATES, "sh", str(tmp_path))
    files = {each: str(tmp_path / each) for each in ("ca.pem", "member.pem", "member.key")}
    https = f"https://{machine.address}:2379"
    member(
        machine,
        tmp_path,
        *("--listen-client-urls", https, "--advertise-client-urls", https, "--client-cert-auth"),
        *("--trusted-ca-file", files["ca.pem"], "--cert-file", files["member.pem"]),
        *("--key-file", files["member.key"]),
    )
    own = ("--cluster-cert", str(tmp_path / "machine.pem"), "--cluster-key")
    whole = ("--cluster-ca", files["ca.pem"], *own, str(tmp_path / "machine.key"))
    machine.start([https], *whole)
    becomes(machine, "joined")
    machine.drive()
    machine.do("reg", by="a", name="safe", port=4711, flags=SHARED)
    machine.do("until", name="safe", count=1)
    assert machine.daemon is not None
    for options in (("--cluster-ca", files["ca.pem"]), ()):
        machine.daemon.stop()
        machine.start([https], *options)
        becomes(machine, "unreachable")


def test_full(machine: Machine, tmp_path: Path) -> None:
    """A full etcd takes nothing new: that is said, and what was to be written is written later."""
    etcd = member(machine, tmp_path, "--quota-backend-bytes", "100000")
    etcd.wait()
    machine.start([etcd.url])
    machine.drive()
    machine.joined()
    filled = (
        "sh",
        "-c",
        f"head -c 60000 /dev/zero | tr '\\0' x | etcdctl --endpoints {etcd.url} put k",
    )
    environment = {"ETCDCTL_API": "3"}
    eventually(
        lambda: "space exceeded" in machine.namespace.run(*filled, status=None, env=environment),
        "etcd is full",
    )
    machine.do("reg", by="a", name="late", port=4711, flags=SHARED)
    assert "space exceeded" in becomes(machine, "full")
    assert machine.do("listed", name="late")["rows"] == []
    etcd.control("del", "k")
    revision = json.loads(etcd.control("endpoint", "status", "--write-out", "json"))
    etcd.control("compaction", str(revision[0]["Status"]["header"]["revision"]))
    etcd.control("defrag")
    etcd.control("alarm", "disarm")
    machine.do("until", name="late", count=1)
    becomes(machine, "joined")


def test_garbage(machine: Machine, tmp_path: Path) -> None:
    """What is not etcd is told apart from etcd; the local channel does not care."""
    other = machine.namespace.start(
        *(sys.executable, "-m", "http.server", "2379", "--bind", machine.address),
        log=tmp_path / "http.log",
    )
    machine.start([f"http://{machine.address}:2379"])
    becomes(machine, "garbage")
    machine.drive()
    machine.do("reg", by="a", name="local", port=4711, flags=SHARED)
    assert machine.refused("listed")[0] == "ClusterUnreachable"
    other.stop()
    becomes(machine, "unreachable")
    assert machine.log.read_text().count("is cut off from its cluster") <= 3


def test_handover_before_joining(machine: Machine) -> None:
    """Who asks for a name before the cluster is joined is answered in a hand-over."""
    # Nobody is there: each of them takes two seconds.
    machine.start([f"http://10.9.0.{number}:2379" for number in range(70, 78)])
    machine.drive()
    asking = machine.begin("reg", by="a", name="early", port=4711, flags=EXCLUSIVE | SHARED)
    assert machine.state() == "joining"
    machine.namespace.run(PORTMAPCTL, "restart")
    assert machine.outcome(asking, 5)["error"] == "ClusterUnreachable"
