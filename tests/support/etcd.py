"""etcd, as Debian has it: the members of one, each of them in a place of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.namespace import Namespace, Started, eventually

CLIENT, PEER = 2379, 2380


class Member:
    """A member of etcd.

    :param namespace: where it runs.
    :param address: at which it serves.
    :param name: what it is called.
    :param folder: where its log is; its data is in the namespace's own memory.
    :param cluster: the addresses of all members, by their names.
    :param options: further options of etcd.
    """

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        name: str,
        folder: Path,
        cluster: dict[str, str],
        options: Sequence[str] = (),
    ) -> None:
        self._namespace = namespace
        self._address = address
        self._log = folder / f"{name}.log"
        peers = ",".join(f"{each}=http://{host}:{PEER}" for each, host in cluster.items())
        self._command = (
            *("etcd", "--name", name, "--data-dir", f"/run/etcd-{name}", "--log-level", "error"),
            *("--listen-client-urls", f"http://{address}:{CLIENT}"),
            *("--advertise-client-urls", f"http://{address}:{CLIENT}"),
            *("--listen-peer-urls", f"http://{address}:{PEER}"),
            *("--initial-advertise-peer-urls", f"http://{address}:{PEER}"),
            # As it is in every etcd from 3.5 on: a member that was cut off ends no leadership.
            *("--initial-cluster", peers, "--pre-vote"),
            *options,
        )
        self.process = self._start()

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://{self._address}:{CLIENT}"

    def _start(self) -> Started:
        return self._namespace.start(*self._command, log=self._log)

    def again(self) -> None:
        """Start it again, with its data."""
        self.process = self._start()

    def control(self, *words: str) -> str:
        """What etcdctl prints."""
        command = ("etcdctl", "--endpoints", self.url, *words)
        return self._namespace.run(*command, env={"ETCDCTL_API": "3"})

    def is_healthy(self) -> bool:
        """Whether it serves, and has a leader."""
        asked = ("curl", "-s", "-m", "2", f"{self.url}/health")
        try:
            return bool(json.loads(self._namespace.run(*asked, status=None))["health"] == "true")
        except (ValueError, KeyError, subprocess.TimeoutExpired):
            return False

    def wait(self) -> None:
        """Wait until it is healthy."""
        eventually(self.is_healthy, f"{self.url} is healthy")
