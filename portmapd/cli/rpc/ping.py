"""``portmapctl rpc ping``: does a program answer?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import click
from attrs import asdict, frozen

from portmapd.cli.exit import DONE, REFUSED, RPC_ADVICE, UNREACHABLE, Exit, exit_for
from portmapd.cli.output import as_json, show
from portmapd.cli.rpc import parameters
from portmapd.cli.rpc.address import Address, Wanted
from portmapd.cli.rpc.server import (
    LOOPBACK,
    RPC_SOCKET,
    Server,
    read_server,
    transport_of,
    universal_server,
)
from portmapd.cli.text import SHOWN
from portmapd.client.rpc.blocking import call_program
from portmapd.client.rpc.wire import MAX_PORT
from portmapd.errors import (
    CallTimedOut,
    DaemonUnreachable,
    InvalidMapping,
    PortmapdError,
    ProgramMismatch,
)
from portmapd.oncrpc.message import Call
from portmapd.oncrpc.netid import NETIDS, TCP, UDP, Netid
from portmapd.rpc_names import LARGEST, read_programs

#: The most versions that are called: a program that lies may say that it has them all.
MAX_VERSIONS = 32
_HEAD = ("program", "version", "netid", "address", "answer")


@frozen
class Answer:
    """What a version of a program answered.

    :param seconds: how long it took; None if it did not answer.
    :param error: why it did not; empty if it did.
    """

    program: int
    version: int
    netid: str
    address: str
    seconds: float | None
    error: str = ""


class NullCalls:
    """Calls procedure 0 of a program.

    :param address: where.
    :param ends: when it must be done, in the seconds of *clock*.
    """

    def __init__(
        self,
        program: int,
        address: Address,
        ends: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program = program
        self._address = address
        self._ends = ends
        self._clock = clock

    def versions(self) -> range:
        """The versions that are served, as the program itself says.

        No program has version 0, as a rule; one that answers it is asked for the largest.
        """
        for version in (0, LARGEST):
            try:
                self._call(version)
            except ProgramMismatch as served:
                return range(served.low, served.high + 1)
        return range(1)

    def answer(self, version: int) -> tuple[Answer, int]:
        """Call a version.

        :return: what it answered, and the exit status for that.
        """
        begun = self._clock()
        try:
            self._call(version)
        except PortmapdError as error:
            return self._answer(version, None, str(error)), exit_for(error, RPC_ADVICE).status
        return self._answer(version, round(self._clock() - begun, 6)), DONE

    def _answer(self, version: int, seconds: float | None, error: str = "") -> Answer:
        at = self._address
        return Answer(self._program, version, at.netid, str(at), seconds, error)

    def _call(self, version: int) -> None:
        left = self._ends - self._clock()
        if left <= 0:
            raise CallTimedOut("there was no time left to call it")
        server, transport = self._address.server, transport_of(self._address.netid)
        call = Call(0, self._program, version, 0)
        call_program(server.host, server.port, transport, call, left)


def _netids(name: str, transport: str) -> Sequence[Netid]:
    if name:
        return [NETIDS[name]]
    kinds = [transport] if transport else [TCP.protocol, UDP.protocol]
    return [netid for kind in kinds for netid in NETIDS.values() if netid.protocol == kind]


def _version_and_host(
    context: click.Context, version: str | None, host: Server | None
) -> tuple[int | None, Server | None]:
    """The two arguments; a first one that is no number is the host."""
    if version is None:
        return None, host
    if version.isascii() and version.isdecimal():
        return parameters.read_version(context, None, version), host
    if host is not None:
        raise click.BadParameter(f"VERSION {version[:SHOWN]!r} is not a number")
    return None, parameters.read_host(context, None, version)


@click.command()
@parameters.program
@click.argument("version", required=False)
@parameters.host
@parameters.over
@click.option("--netid", type=click.Choice(list(NETIDS)), help="Over this netid.")
@click.option(
    "--address",
    metavar="ADDRESS",
    help="The program's universal address, on --netid; no port mapper is asked.",
)
@click.option(
    "--port",
    type=click.IntRange(1, MAX_PORT),
    metavar="PORT",
    help="The program's port on HOST; the port mapper is not asked.",
)
@parameters.timeout
@as_json
@click.pass_context
def ping(
    context: click.Context,
    program: int,
    version: str | None,
    host: Server | None,
    udp: bool,
    tcp: bool,
    netid: str | None,
    address: str | None,
    port: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Call procedure 0 of PROGRAM, and say whether it answers.

    Without VERSION, every version that it serves is called. Without an option, it is sought over
    TCP, then over UDP. The port mapper of HOST tells where it is.
    """
    number, server = _version_and_host(context, version, host)
    transport = parameters.one_of(udp, tcp)
    if netid and transport:
        raise click.UsageError("--netid excludes --udp and --tcp")
    if address and (port or server):
        raise click.UsageError("--address excludes HOST and --port")
    ends = time.monotonic() + timeout
    if address:
        at = _given(netid or transport or "tcp", address)
    else:
        default = Server(RPC_SOCKET, 0) if netid == "local" else read_server(LOOPBACK)
        at = Wanted(
            server or default, program, number or 0, _netids(netid or "", transport), port, ends
        ).address()
    calls = NullCalls(program, at, ends)
    try:
        versions = calls.versions() if number is None else range(number, number + 1)
    except (CallTimedOut, DaemonUnreachable) as error:
        where = "check the address" if address or port else "the port mapper still lists it there"
        raise Exit(UNREACHABLE, f"program {program} does not answer: {error}; {where}") from error
    answers = [calls.answer(each) for each in versions[:MAX_VERSIONS]]
    _show(answers, as_json)
    if len(versions) not in range(1, MAX_VERSIONS + 1):
        raise Exit(
            REFUSED,
            f"it says that it serves versions {versions.start} to {versions.stop - 1}, which "
            f"cannot be true; at most {MAX_VERSIONS} were called",
        )
    _check(answers)


def _given(netid: str, address: str) -> Address:
    try:
        return Address(netid, universal_server(netid, address))
    except InvalidMapping as error:
        raise click.BadParameter(str(error)) from None


def _show(answers: Sequence[tuple[Answer, int]], as_json: bool) -> None:
    name = read_programs().name
    records = [{**asdict(each), "name": name(each.program)} for each, _ in answers]
    rows = ((e.program, e.version, e.netid, e.address, _said(e)) for e, _ in answers)
    show(as_json, records, [head.upper() for head in _HEAD], rows)


def _check(answers: Sequence[tuple[Answer, int]]) -> None:
    """Exit with the worst status, unless every version answered."""
    status = max(status for _, status in answers)
    if status != DONE:
        silent = [str(each.version) for each, status in answers if status]
        raise Exit(status, f"version {', '.join(silent)} did not answer as it should")


def _said(answer: Answer) -> str:
    return answer.error if answer.seconds is None else f"{answer.seconds * 1000:.1f} ms"
