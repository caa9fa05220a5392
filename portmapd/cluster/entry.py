"""What machines share, as keys and values of etcd.

Below the prefix of the cluster, names of hosts and services being percent-encoded::

    hosts/HOST                          {"address": …, "machine": …, "release": …}
    services/HOST/NAME/UID/PID/PORT     {"address": …, "exe": …}
    mappings/HOST/PROGRAM/VERSION/NETID {"address": …, "owner": …}
    names/UID/NAME                      {"host": …, "pid": …, "port": …}

The first three are entries: every machine has a copy of them. The last ones are claims: who has a
name for a user in the whole cluster. All of them are under the lease of the machine that wrote
them, so that they end with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from sys import intern
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from attrs import frozen

from portmapd.channel.service import check_service
from portmapd.errors import InvalidService
from portmapd.etcd.messages import GARBAGE
from portmapd.registry.mapping import Mapping
from portmapd.registry.service import NamedService
from portmapd.registry.shared import ClusterHost, Shared, SharedMapping, SharedService

T = TypeVar("T")

#: The parts of the keys of entries, and of claims.
HOSTS, SERVICES, MAPPINGS, NAMES = "hosts", "services", "mappings", "names"
#: Only members of the cluster write there, but a mistake must not take all memory.
MAX_VALUE = 8_192


@frozen
class Claim:
    """Who has a name for a user in the whole cluster.

    :param host: the machine.
    :param pid: the process there.
    :param port: its port.
    """

    host: str
    pid: int
    port: str

    def encode(self) -> bytes:
        """As a value of etcd."""
        return _encode(host=self.host, pid=self.pid, port=self.port)

    @classmethod
    def decode(cls, value: bytes) -> Claim | None:
        """Read what :meth:`encode` gave; None: it is something else."""
        return _read(
            lambda found: cls(_text(found["host"]), int(found["pid"]), _text(found["port"])), value
        )


@frozen
class Layout:
    """The keys of a cluster.

    :param prefix: what all of them begin with; it ends with a slash.
    """

    prefix: str

    def host(self, name: str) -> str:
        """The key of a machine."""
        return self._key(HOSTS, name)

    def service(self, service: NamedService, host: str) -> str:
        """The key of a service of that machine."""
        return self._key(SERVICES, host, service.name, service.uid, service.pid, service.port)

    def mapping(self, mapping: Mapping, host: str) -> str:
        """The key of a mapping of that machine."""
        return self._key(MAPPINGS, host, *mapping.key)

    def name(self, service: NamedService) -> str:
        """The key of the claim of a service's name."""
        return self._key(NAMES, service.uid, service.name)

    def of_host(self, host: str) -> Sequence[str]:
        """The prefixes of all entries of a machine but its own."""
        return [self._key(kind, host) + "/" for kind in (SERVICES, MAPPINGS)]

    @property
    def names(self) -> str:
        """The prefix of all claims."""
        return f"{self.prefix}{NAMES}/"

    @property
    def entries(self) -> Sequence[str]:
        """The prefixes of all entries."""
        return [f"{self.prefix}{kind}/" for kind in _READERS]

    def _key(self, *parts: str | int) -> str:
        return self.prefix + "/".join(quote(str(part), safe="") for part in parts)

    def read(self, key: str, value: bytes) -> Shared | None:
        """Read an entry.

        :return: None: it is no entry of a cluster.
        """
        if not key.startswith(self.prefix) or len(value) > MAX_VALUE:
            return None
        kind, *parts = map(unquote, key[len(self.prefix) :].split("/"))
        reader = _READERS.get(kind)
        return None if reader is None else _read(lambda found: reader(parts, found), value)


def encode_host(host: ClusterHost) -> bytes:
    """The value of a machine."""
    return _encode(address=host.address, machine=host.machine, release=host.release)


def encode_service(service: NamedService, address: str) -> bytes:
    """The value of a service of a machine at that address."""
    return _encode(address=address, exe=service.exe)


def encode_mapping(address: str, owner: str) -> bytes:
    """The value of a mapping, whose address is that for callers of other machines."""
    return _encode(address=address, owner=owner)


def _encode(**fields: str | int) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _read(make: Callable[[dict[str, Any]], T], value: bytes) -> T | None:
    try:
        return make(json.loads(value))
    except (*GARBAGE, RecursionError, InvalidService):
        return None


def _text(found: object) -> str:
    """A text, of which many entries have the same one."""
    if not isinstance(found, str):
        raise TypeError(found)
    return intern(found)


def _read_host(parts: Sequence[str], found: dict[str, Any]) -> ClusterHost:
    (name,) = parts
    return ClusterHost(name, *[_text(found[key]) for key in ("address", "machine", "release")])


def _read_service(parts: Sequence[str], found: dict[str, Any]) -> SharedService:
    host, name, uid, pid, port = parts
    check_service(name, port, 0)
    if port.startswith("/"):
        raise ValueError("a path")
    address, exe = _text(found["address"]), _text(found["exe"])
    return SharedService(name, int(uid), int(pid), port, exe, intern(host), address)


def _read_mapping(parts: Sequence[str], found: dict[str, Any]) -> SharedMapping:
    host, program, version, netid = parts
    address, owner = _text(found["address"]), _text(found["owner"])
    return SharedMapping(int(program), int(version), netid, address, owner, intern(host))


_READERS: dict[str, Callable[[Sequence[str], dict[str, Any]], Shared]] = {
    HOSTS: _read_host,
    SERVICES: _read_service,
    MAPPINGS: _read_mapping,
}
