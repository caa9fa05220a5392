"""``portmapctl status``: is everything served? For people, scripts and health checks."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click
from attrs import asdict, define, field, frozen

from portmapd.cli.exit import REFUSED, RPC_ADVICE, Exit, exit_for
from portmapd.cli.output import as_json, encoded
from portmapd.cli.rpc import parameters
from portmapd.cli.rpc.server import LOOPBACK, Server, reachable, transport_of, universal_server
from portmapd.cli.text import line
from portmapd.client.blocking import Portmapper, RpcMapping
from portmapd.client.rpc.blocking import call_program
from portmapd.errors import CallTimedOut, PortmapdError, UnknownCommand
from portmapd.oncrpc.host import is_address
from portmapd.oncrpc.message import Call
from portmapd.oncrpc.netid import NETIDS
from portmapd.oncrpc.program import PROGRAM, Rpcb

#: A file of mappings that is further behind, in seconds, cannot be written: it is tried more often.
LATE = 30
#: The most addresses of a port mapper that are called; portmapd has one for each version and netid.
MAX_CALLED = 64
#: Where a server on every address of this host is called.
_LOOPBACKS = {"inet": LOOPBACK, "inet6": "::1", "loopback": ""}

Mapping = Rpcb | RpcMapping


@frozen
class Served:
    """What a version of the port mapper serves, as it says itself.

    :param error: why it does not answer there; empty if it does.
    """

    version: int
    netid: str
    address: str
    error: str


@define
class Health:
    """How the port mapper and the daemon are.

    :ivar release: the daemon's version of portmapd; None if there is no local channel, or it is too
        old to tell.
    :ivar services: how many services are registered; None: there is no local channel.
    :ivar mappings: how many RPC mappings there are.
    :ivar behind: for how many seconds the file of mappings has lacked the newest; None: there is
        none.
    :ivar served: what the port mapper serves.
    :ivar problems: what is wrong, each as a sentence; empty: nothing is.
    """

    release: str | None = None
    services: int | None = None
    mappings: int | None = None
    behind: int | None = None
    served: list[Served] = field(factory=list)
    problems: list[str] = field(factory=list)

    @property
    def line(self) -> str:
        """What is said of one that has no problems."""
        parts = [f"portmapd {self.release}" if self.release else "the port mapper"]
        if self.services is not None:
            parts.append(f"{self.services} service{'s' * (self.services != 1)}")
        parts.append(f"{self.mappings} mappings")
        if self.served:
            parts.append(f"answers on {', '.join(sorted({each.netid for each in self.served}))}")
        if self.behind is not None:
            parts.append(f"state {self.behind} s behind" if self.behind else "state written")
        return "; ".join(parts)


def _ask_daemon(path: str | None, timeout: float) -> tuple[Health, Iterable[Mapping]]:
    """Ask this host's daemon over the local channel: how it is, and its mappings.

    :raises PortmapdError: it does not answer.
    """
    with Portmapper(path, timeout) as portmapper:
        mappings = portmapper.mappings()
        try:
            told = portmapper.status()
        except UnknownCommand:
            return Health(services=len(portmapper.list()), mappings=len(mappings)), mappings
    health = Health(told.release, told.services, told.mappings, told.behind)
    if told.behind is not None and told.behind > LATE:
        health.problems.append(
            f"the mappings of the last {told.behind} s are not in the daemon's file; its log says "
            "why"
        )
    return health, mappings


def _ask_port_mapper(host: Server, timeout: float) -> tuple[Health, Iterable[Mapping]]:
    """Ask any port mapper for its mappings.

    :raises Exit: it does not answer.
    """
    try:
        with parameters.client(host, timeout) as client:
            mappings = client.dump_addresses()
    except PortmapdError as error:
        raise exit_for(error, RPC_ADVICE) from error
    health = Health(mappings=len(mappings))
    if not any(mapping.program == PROGRAM for mapping in mappings):
        health.problems.append("the port mapper does not list itself")
    return health, mappings


def _call(health: Health, mappings: Iterable[Mapping], host: Server | None, ends: float) -> None:
    """Call every address that the port mapper says it serves itself."""
    own = [mapping for mapping in mappings if mapping.program == PROGRAM]
    for mapping in own[:MAX_CALLED]:
        if not _is_reachable(mapping.netid, host):
            continue
        error = _error(mapping, host, ends)
        health.served.append(Served(mapping.version, mapping.netid, mapping.address, error))
        if error:
            health.problems.append(
                f"version {mapping.version} does not answer on {mapping.netid}: {error}"
            )


def _is_reachable(netid: str, host: Server | None) -> bool:
    """Whether it can be called from here: another host's sockets cannot, nor can another family."""
    if host is None or host.is_local:
        return True
    kind = NETIDS.get(netid)
    if kind is None or kind.family == "loopback":
        return False
    return not is_address(host.host) or (":" in host.host) == (kind.family == "inet6")


def _error(mapping: Mapping, host: Server | None, ends: float) -> str:
    """Why the port mapper does not answer there; empty if it does."""
    left = ends - time.monotonic()
    try:
        if left <= 0:
            raise CallTimedOut("there was no time left to call it")
        server = universal_server(mapping.netid, mapping.address)
        if host is None or host.is_local:
            server = reachable(server, _LOOPBACKS[NETIDS[mapping.netid].family])
        else:
            server = reachable(server, host.host)
        call = Call(0, PROGRAM, mapping.version, 0)
        call_program(server.host, server.port, transport_of(mapping.netid), call, left)
    except PortmapdError as error:
        return str(error)
    return ""


@click.command()
@parameters.host
@parameters.timeout
@as_json
@click.pass_obj
def status(path: str | None, host: Server | None, timeout: float, as_json: bool) -> None:
    """Say in one line whether everything that is to be served answers, for health checks.

    Without HOST, this host's portmapd is asked over the local channel, and called wherever it
    serves. With HOST, any port mapper is. The exit status is 1 if something does not answer as it
    should, and 3 if nothing does.
    """
    ends = time.monotonic() + timeout
    ask = _ask_daemon(path, timeout) if host is None else _ask_port_mapper(host, timeout)
    health, mappings = ask
    _call(health, mappings, host, ends)
    if as_json:
        click.echo(encoded({"healthy": not health.problems, **asdict(health)}, indent=2))
    elif not health.problems:
        click.echo(line(health.line))
    if health.problems:
        raise Exit(REFUSED, "; ".join(health.problems))
