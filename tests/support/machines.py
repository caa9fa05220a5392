"""Machines of a cluster: each a namespace with a member of etcd, a daemon, and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from select import select
from typing import Any

from tests.support.daemon import TWISTD
from tests.support.etcd import Member
from tests.support.namespace import PATIENCE, TOP, Namespace, Started, eventually

#: The lease of a daemon that a test waits for, in seconds.
TTL = 3
SOCKET = "/run/portmapd/portmapd.sock"


class Machine:
    """A machine.

    :param name: what it is called.
    :param address: where it is reached.
    :param folder: where its logs go.
    """

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        self.namespace = Namespace()
        self.log = folder / f"portmapd-{name}.log"
        self.etcd: Member | None = None
        self.daemon: Started | None = None
        self._driver: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._serials = count()
        self._said: dict[int, dict[str, Any]] = {}

    def start(self, members: Sequence[str], *options: str, program: Sequence[str] = ()) -> None:
        """Start the daemon.

        :param members: the URLs of members of etcd.
        :param program: what is run in place of twistd.
        """
        words = program or (TWISTD,)
        self.daemon = self.namespace.start(
            *(*words, "-n", "--pidfile=", "portmapd", "--port", "10111", "--rpc-socket", "none"),
            *("--cluster", ",".join(members), "--cluster-host", self.name),
            *("--cluster-address", self.address, "--cluster-ttl", str(TTL)),
            *("--max-services", "1000"),
            *options,
            log=self.log,
        )
        asked = (str(Path(TWISTD).with_name("portmapctl")), "--socket", SOCKET, "services")
        eventually(
            lambda: "portmapd.portmapd" in self.namespace.run(*asked, status=None), "it serves"
        )

    def drive(self) -> None:
        """Start the processes of the machine."""
        self._driver = subprocess.Popen(
            self.namespace.enter(sys.executable, "-m", "tests.support.machine_driver"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=TOP,
        )

    def begin(self, operation: str, **arguments: Any) -> int:
        """Have an operation done, and give its serial."""
        assert self._driver is not None
        assert self._driver.stdin is not None
        serial = next(self._serials)
        asked = {"serial": serial, "operation": operation, **arguments}
        self._driver.stdin.write(json.dumps(asked).encode() + b"\n")
        return serial

    def outcome(self, serial: int, patience: float = PATIENCE) -> dict[str, Any]:
        """What came of an operation."""
        assert self._driver is not None
        assert self._driver.stdout is not None
        ends = time.monotonic() + patience
        while serial not in self._said:
            ready, _, _ = select([self._driver.stdout], [], [], max(ends - time.monotonic(), 0))
            assert ready, f"{self.name}: operation {serial} has not ended"
            *lines, self._buffer = (self._buffer + os.read(ready[0].fileno(), 1 << 20)).split(b"\n")
            for said in map(json.loads, lines):
                self._said[said["serial"]] = said
        return self._said.pop(serial)

    def do(self, operation: str, **arguments: Any) -> Any:
        """Do an operation, and give its value.

        :raises AssertionError: it fails.
        """
        outcome = self.outcome(self.begin(operation, **arguments))
        assert "error" not in outcome, outcome
        return outcome["value"]

    def refused(self, operation: str, **arguments: Any) -> tuple[str, str]:
        """Do an operation that fails, and give its error and why."""
        outcome = self.outcome(self.begin(operation, **arguments))
        return outcome["error"], outcome["why"]

    def state(self) -> str:
        """How it stands in its cluster."""
        state: str = self.do("cluster")["state"]
        return state

    def joined(self) -> None:
        """Wait until it has joined."""
        eventually(lambda: self.state() == "joined", f"{self.name} has joined")

    def end_processes(self) -> None:
        """Kill all processes of the machine but its daemon."""
        if self._driver is not None:
            self._driver.kill()
            # It closes both pipes.
            self._driver.communicate()

    def close(self) -> None:
        """End everything on it."""
        self.namespace.close()
        self.end_processes()


class Network:
    """Machines on one wire.

    :param folder: for their logs.
    :param names: of the machines.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.hub = Namespace()
        self.hub.run("ip", "link", "add", "wire", "type", "bridge")
        self.hub.run("ip", "link", "set", "wire", "up")
        self.machines = [
            Machine(name, f"10.9.0.{number}", folder) for number, name in enumerate(names, 1)
        ]
        for machine in self.machines:
            self._plug(machine)

    def _plug(self, machine: Machine) -> None:
        pid, end = str(machine.namespace.pid), f"to-{machine.name}"
        peer = ("type", "veth", "peer", "name", "eth0", "netns", pid)
        self.hub.run_here("ip", "link", "add", end, *peer)
        self.hub.run("ip", "link", "set", end, "master", "wire", "up")
        machine.namespace.run("ip", "addr", "add", f"{machine.address}/24", "dev", "eth0")
        machine.namespace.run("ip", "link", "set", "eth0", "up")

    def cut(self, machine: Machine) -> None:
        """Cut a machine off."""
        self.hub.run("ip", "link", "set", f"to-{machine.name}", "down")

    def mend(self, machine: Machine) -> None:
        """Join it again."""
        self.hub.run("ip", "link", "set", f"to-{machine.name}", "up")

    def close(self) -> None:
        """End everything."""
        for machine in self.machines:
            machine.close()
        self.hub.close()


@contextmanager
def cluster(
    folder: Path, *options: str, program: Sequence[str] = (), members: int = 3
) -> Iterator[Network]:
    """Three machines with as many members of etcd, whose daemons have joined.

    :param options: further options of the daemons.
    :param program: what is run in place of twistd.
    """
    network = Network(folder, ("one", "two", "three"))
    try:
        machines = network.machines
        places = {each.name: each.address for each in machines[:members]}
        for each in machines[:members]:
            each.etcd = Member(each.namespace, each.address, each.name, folder, places)
        found = [each.etcd for each in machines if each.etcd]
        for member in found:
            member.wait()
        for each in machines:
            each.start([member.url for member in found], *options, program=program)
            each.drive()
        for each in machines:
            each.joined()
        yield network
    finally:
        network.close()
