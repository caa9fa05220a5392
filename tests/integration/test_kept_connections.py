"""Local connections over the end of the service: systemd keeps them for the next process."""

import re
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from attrs import frozen

from tests.integration.test_systemd import LOG, LOGGED, show
from tests.support.namespace import Namespace, Started, eventually
from tests.support.systemd import booted

#: Registers a name exclusively, watches two, and prints what it is told. At a signal, it registers
#: another one, and kills the daemon, sooner than its connection can be kept again.
CLIENT = """
import asyncio, os, signal
from portmapd.client import Flags
from portmapd.client.aio import Portmapper

async def main():
    client = Portmapper("/run/portmapd/portmapd.sock")
    await client.reg("kept", 4711, flags=Flags.EXCLUSIVE)
    begin = lambda: tasks.append(asyncio.ensure_future(more(client)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, begin)
    async for change in client.watch(["kept", "other"]):
        print(change.kind, change.subject.name, flush=True)

async def more(client):
    (daemon,) = await client.list("portmapd.portmapd")
    await client.reg("more", 4713)
    os.kill(daemon.pid, signal.SIGKILL)

tasks = []
asyncio.run(main())
"""
#: Registers a name for a moment.
OTHER = """
from portmapd.client.blocking import Portmapper

with Portmapper("/run/portmapd/portmapd.sock") as client:
    client.reg("other", 4712)
"""
#: What it prints then.
TOLD = ["registered kept", "registered other", "deregistered other"]
#: Seconds after which a connection has been kept.
KEPT = 2.5


@frozen
class Host:
    """A host with a client that has a name and watches.

    :param client: its process.
    :param log: what it prints.
    """

    namespace: Namespace
    client: Started
    log: Path

    def sockets(self) -> list[str]:
        """The client's sockets, which are others once it has connected again."""
        listed = self.namespace.run("ls", "-l", f"/proc/{self.client.pid}/fd")
        return re.findall(r"socket:\[\d+\]", listed)

    def said(self) -> list[str]:
        """What the client has printed."""
        return self.log.read_text().splitlines()

    def holders(self, name: str) -> str:
        """Who has a name, as the port mapper lists it."""
        program = "/opt/portmapd/bin/portmapctl"
        return self.namespace.run(program, "port", name, status=None)

    def has(self, name: str, port: str) -> bool:
        """Whether that port is listed for a name."""
        return self.holders(name) == port

    def serves(self, *not_these: str) -> str:
        """Wait until another process serves, and give its pid."""
        pids = {*not_these, "0"}
        eventually(lambda: show(self.namespace, "MainPID") not in pids, "another process")
        active = ("systemctl", "is-active", "portmapd.service")
        eventually(lambda: self.namespace.run(*active, status=None) == "active\n", "it is ready")
        return show(self.namespace, "MainPID")

    def change(self) -> None:
        """Have another service come and go."""
        self.namespace.run(sys.executable, "-c", OTHER)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Give a host whose client has been connected for a while."""
    with booted(tmp_path, {"portmapd.service.d/log.conf": LOGGED}) as namespace:
        eventually(lambda: show(namespace, "ActiveState") == "active", "the service is ready")
        log = tmp_path / "client"
        client = namespace.start(sys.executable, "-c", CLIENT, log=log)
        made = Host(namespace, client, log)
        eventually(lambda: made.said() == TOLD[:1], "it has its name, and watches")
        yield made


@pytest.mark.programs("systemctl")
def test_restart(host: Host) -> None:
    """A restart is not noticed: the same connections, the same names, and no change is missed."""
    sockets, pid = host.sockets(), ""
    for _ in range(3):
        pid = show(host.namespace, "MainPID")
        host.namespace.run("systemctl", "restart", "portmapd.service")
        pid = host.serves(pid)
    host.change()
    eventually(lambda: host.said() == TOLD, "the changes are told")
    assert host.sockets() == sockets
    assert host.holders("kept") == "4711\n"
    assert "left with the service manager" not in host.namespace.run("cat", LOG)


@pytest.mark.programs("systemctl")
def test_killed(host: Host) -> None:
    """After a crash a quiet connection goes on, and who watches lists again: nothing is missed."""
    time.sleep(KEPT)
    sockets, pid = host.sockets(), show(host.namespace, "MainPID")
    host.namespace.run("systemctl", "kill", "-s", "KILL", "portmapd.service")
    pid = host.serves(pid)
    assert host.holders("kept") == "4711\n"
    host.change()
    eventually(lambda: host.said() == TOLD, "the changes are told")
    assert host.sockets() == sockets

    # And once more: the new process has had them kept, too.
    time.sleep(KEPT)
    host.namespace.run("systemctl", "kill", "-s", "KILL", "portmapd.service")
    host.serves(pid)
    assert host.sockets() == sockets
    host.client.stop()
    eventually(lambda: host.holders("kept") != "4711\n", "the name ends with its process")


@pytest.mark.programs("systemctl")
def test_killed_at_once(host: Host) -> None:
    """Connections that a crash leaves unsure are closed: their clients register again."""
    time.sleep(KEPT)
    sockets, pid = host.sockets(), show(host.namespace, "MainPID")
    host.namespace.run("kill", "-USR1", str(host.client.pid))
    host.serves(pid)
    for name, port in (("kept", "4711\n"), ("more", "4713\n")):
        eventually(partial(host.has, name, port), "the name is registered again")
    assert host.sockets() != sockets


@pytest.mark.programs("systemctl")
def test_stopped(host: Host) -> None:
    """A stop ends every connection, as the client sees; after a start it registers again."""
    sockets, pid = host.sockets(), show(host.namespace, "MainPID")
    host.namespace.run("systemctl", "stop", "portmapd.service")
    eventually(lambda: host.sockets() != sockets, "its connection has ended")
    host.serves(pid)
    eventually(lambda: host.holders("kept") == "4711\n", "the name is registered again")


@pytest.mark.programs("systemctl")
def test_another_version(host: Host) -> None:
    """What a later version cannot read costs one line: the clients connect again."""
    sockets, pid = host.sockets(), show(host.namespace, "MainPID")
    image = "/opt/portmapd/lib/portmapd/server/handover/image.py"
    host.namespace.run("sed", "-i", r"s/^READ = .*/READ = (2,)/", image)
    host.namespace.run("systemctl", "restart", "portmapd.service")
    host.serves(pid)
    eventually(lambda: host.holders("kept") == "4711\n", "the name is registered again")
    assert host.sockets() != sockets
    log = host.namespace.run("cat", LOG)
    assert log.count("what the process before has left with the service manager is not used") == 1


@pytest.mark.programs("systemctl", "rpcinfo")
def test_sockets_are_made_anew(host: Host) -> None:
    """A restart of the socket unit binds its sockets anew: nothing that is kept is in the way."""
    sockets, pid = host.sockets(), show(host.namespace, "MainPID")
    host.namespace.run("systemctl", "restart", "portmapd.socket", "portmapd.service")
    host.serves(pid)
    assert host.holders("kept") == "4711\n"
    assert host.sockets() == sockets
    for transport in ("tcp", "udp"):
        asked = ("rpcinfo", "-T", transport, "127.0.0.1", "100000", "2")
        assert "ready and waiting" in host.namespace.run(*asked)
