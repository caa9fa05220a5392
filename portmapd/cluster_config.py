"""How a port mapper belongs to a cluster: one validated value."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from portmapd.errors import ConfigurationError

#: What all keys of a cluster begin with.
PREFIX = "/portmapd/"
#: Seconds that a machine's lease lasts without being kept alive; after which a copy is too old.
TTL, STALE = 10, 60.0
#: The longest and the shortest lease, in seconds: etcd extends shorter ones by itself.
SHORTEST, LONGEST = 2, 3_600

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def _members(value: str | Iterable[str]) -> tuple[str, ...]:
    found = value.split(",") if isinstance(value, str) else value
    return tuple(each.strip().rstrip("/") for each in found)


def _check_members(config: object, attribute: Any, members: tuple[str, ...]) -> None:
    for member in members:
        url = urlsplit(member)
        is_clean = member.isascii() and member.isprintable() and " " not in member
        if url.scheme not in ("http", "https") or not url.hostname or url.path or not is_clean:
            raise ConfigurationError(
                f"cluster {member!r} is not the address of a member of etcd; give it like "
                "http://192.0.2.1:2379, several with commas between them"
            )
    if len({urlsplit(member).scheme for member in members}) > 1:
        raise ConfigurationError("cluster: give https for all members, or for none")


def is_host_name(text: str) -> bool:
    """Whether a machine may be called so."""
    return _HOST.fullmatch(text) is not None


def _check_host(config: object, attribute: Any, host: str) -> None:
    if not is_host_name(host):
        raise ConfigurationError(f"cluster-host {host!r} is not a name of letters, digits, . _ -")


def _check_address(config: object, attribute: Any, address: str) -> None:
    try:
        parsed = ip_address(address)
    except ValueError:
        parsed = None
    if parsed is None or parsed.is_unspecified or parsed.is_multicast or parsed.is_loopback:
        raise ConfigurationError(
            f"cluster-address {address!r} is not an address at which other machines reach this one"
        )


def _check_prefix(config: object, attribute: Any, prefix: str) -> None:
    if not (prefix.isascii() and prefix.isprintable() and prefix.startswith("/")):
        raise ConfigurationError(f"cluster-prefix {prefix!r} is not a path such as {PREFIX}")


def _check_ttl(config: object, attribute: Any, seconds: int) -> None:
    if not SHORTEST <= seconds <= LONGEST:
        raise ConfigurationError(
            f"cluster-ttl {seconds}: give whole seconds from {SHORTEST} to {LONGEST:,}"
        )


def _check_stale(config: object, attribute: Any, seconds: float) -> None:
    if not 1 <= seconds <= 86_400:
        raise ConfigurationError(f"cluster-stale {seconds}: give seconds from 1 to 86,400")


def _programs(value: str | Iterable[int] | None) -> frozenset[int] | None:
    if value is None or value == "all":
        return None
    found = value.split(",") if isinstance(value, str) else value
    try:
        programs = frozenset(int(each) for each in found)
    except (TypeError, ValueError):
        programs = frozenset({-1})
    if any(not 0 <= program < 1 << 32 for program in programs):
        raise ConfigurationError(
            f"cluster-mappings {value!r}: give numbers of programs with commas, or all"
        )
    return programs


@frozen(kw_only=True)
class ClusterConfig:
    """How a port mapper belongs to a cluster.

    :param members: the URLs of members of etcd, as a sequence or with commas between them.
    :param host: what this machine is called in the cluster.
    :param address: where other machines reach it; empty: the address from which it reaches a
        member that is given as an address.
    :param prefix: what all keys of the cluster begin with.
    :param ttl: seconds that what this machine shares is there after it has died.
    :param stale: seconds after which what is known of other machines is not to be relied upon.
    :param mappings: the programs whose RPC mappings it shares, as numbers or as a text with
        commas; ``all``, or None: all of them.
    :param user: who it is for etcd; empty: nobody.
    :param password_file: the file of that user's password; None: there is none.
    :param ca: the file of the authorities of etcd's certificates; None: those that this host
        trusts.
    :param cert: the file of this machine's certificate; None: it has none.
    :param key: the file of its key.
    :raises ConfigurationError: a value cannot be used. The message names its option.
    """

    members: tuple[str, ...] = field(converter=_members, validator=_check_members)
    host: str = field(factory=socket.gethostname, validator=_check_host)
    address: str = field(default="")
    prefix: str = field(default=PREFIX, validator=_check_prefix)
    ttl: int = field(default=TTL, validator=_check_ttl)
    stale: float = field(default=STALE, validator=_check_stale)
    mappings: frozenset[int] | None = field(default=frozenset(), converter=_programs)
    user: str = ""
    password_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def __attrs_post_init__(self) -> None:
        if not self.members or not all(self.members):
            raise ConfigurationError("cluster: give at least one member of etcd")
        if bool(self.user) != bool(self.password_file):
            raise ConfigurationError("give --cluster-user and --cluster-password-file together")
        if bool(self.cert) != bool(self.key):
            raise ConfigurationError("give --cluster-cert and --cluster-key together")
        if self.address:
            _check_address(self, None, self.address)

    @property
    def root(self) -> str:
        """What all keys begin with, with a slash at its end."""
        return self.prefix if self.prefix.endswith("/") else f"{self.prefix}/"

    def password(self) -> str:
        """The password, from its file.

        :raises ConfigurationError: the file cannot be read, or others may read it.
        """
        if self.password_file is None:
            return ""
        try:
            mode = os.stat(self.password_file).st_mode
            text = Path(self.password_file).read_text().strip("\n")
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"cluster-password-file {self.password_file} cannot be read: {error}"
            ) from error
        if stat.S_IMODE(mode) & 0o044:
            raise ConfigurationError(
                f"cluster-password-file {self.password_file} can be read by others: chmod 600"
            )
        return text

    def reached(self) -> str:
        """The address at which other machines reach this one.

        :raises ConfigurationError: it is not given, and cannot be found out.
        """
        return self.address or next(filter(None, map(_address_towards, self.members)), "") or _no()


def _no() -> str:
    raise ConfigurationError(
        "give --cluster-address: at which address other machines reach this one is not known"
    )


def _address_towards(member: str) -> str:
    """The address from which a member is reached; empty if it is this machine, or has a name.

    To look a name up would make the start wait for a name server.
    """
    host = urlsplit(member).hostname or ""
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Nothing is sent.
            probe.connect((host, 9))
            found = str(probe.getsockname()[0])
    except (OSError, ValueError):
        return ""
    return "" if ip_address(found.partition("%")[0]).is_loopback else found
