"""``portmapctl run``: a command that has a name while it runs."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from threading import Thread

import click

from portmapd.channel.socket_path import asking_socket
from portmapd.cli import parameters
from portmapd.cli.child import Child, ChildDialer
from portmapd.cli.exit import REFUSED, Exit, exit_for
from portmapd.cli.text import line
from portmapd.client.blocking import Flags, Group, Portmapper
from portmapd.errors import PortmapdError

#: What stands for the port in the words of a command, and the variable that has it.
_PLACE, _VARIABLE = "{port}", "PORT"
#: How many ports are tried until one is free over UDP, too.
_TRIES = 16


@click.command()
@click.argument("name", callback=parameters.service_name)
@click.argument("port", callback=parameters.port_or_auto)
@click.option("--exclusive", is_flag=True, help="No other process of the user may have the name.")
@click.option("--public", is_flag=True, help="Show COMMAND's executable in listings.")
@click.option("--shared", is_flag=True, help="All machines of the cluster list it.")
@click.option(
    "--rpc",
    metavar="PROG:VERS",
    callback=parameters.program,
    help="Map an RPC program to the port as well.",
)
@click.argument(
    "command", nargs=-1, required=True, type=click.UNPROCESSED, callback=parameters.command_line
)
@click.pass_obj
def run(
    path: str | None,
    name: str,
    port: str,
    exclusive: bool,
    public: bool,
    shared: bool,
    rpc: tuple[int, int] | None,
    command: Sequence[str],
) -> int:
    """Register NAME for PORT, a number or a path, while COMMAND runs.

    With auto for PORT, a free one is chosen: COMMAND finds it in its variable PORT, and in place of
    {port} among its words. The registration is COMMAND's own: it has its pid, and ends with it. The
    exit status is that of COMMAND, or 128 plus the number of the signal that ended it. Signals are
    passed on to COMMAND, which gets SIGTERM if portmapctl is killed.
    """
    variables: dict[str, str] = {}
    if port == parameters.AUTO:
        port = variables[_VARIABLE] = str(free_port())
        command = [word.replace(_PLACE, port) for word in command]
    flags = exclusive * Flags.EXCLUSIVE | public * Flags.PUBLIC | shared * Flags.SHARED
    with (
        Child(command, variables, asking_socket(path)) as child,
        _ChildPortmapper(child, path, public) as portmapper,
    ):
        portmapper.reg(name, port, flags, rpc=rpc)
        if not public:
            child.permit()
            child.check()
        # Keep the name registered when the daemon restarts.
        Thread(target=portmapper.hold, daemon=True).start()
        return child.wait()


class _ChildPortmapper(Portmapper):
    """Registers for a child.

    The executable of a process is read when it registers the first public service: if the name is
    to be public, the child must execute its command before.
    """

    def __init__(self, child: Child, path: str | None, public: bool) -> None:
        super().__init__(path, lost=_tell_lost)
        self._shared.dialer = lambda deadline: ChildDialer(deadline, child, public)


def free_port() -> int:
    """A port that is free over TCP and UDP, at every address.

    Nothing keeps it free until it is bound.

    :raises Exit: none is found.
    """
    for _ in range(_TRIES):
        try:
            return _try_port()
        except OSError:
            continue
    raise Exit(REFUSED, f"no free port was found in {_TRIES} tries; give one in place of auto")


def _try_port() -> int:
    """A port that the kernel gives.

    :raises OSError: it gives none, or that is taken over UDP.
    """
    has_both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if has_both else socket.AF_INET
    with (
        socket.create_server(("", 0), family=family, dualstack_ipv6=has_both) as tcp,
        socket.socket(family, socket.SOCK_DGRAM) as udp,
    ):
        port: int = tcp.getsockname()[1]
        udp.bind(("", port))
        return port


def _tell_lost(group: Group, why: PortmapdError) -> None:
    names = ", ".join(dict.fromkeys(name for name, _, _ in group.services))
    said = f"{names} is not registered any more: {exit_for(why).why}"
    click.echo(f"portmapctl: {line(said)}", err=True)
