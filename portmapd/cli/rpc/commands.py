"""The group ``portmapctl rpc``."""

from __future__ import annotations

from typing import Any

import click

from portmapd.cli.exit import RPC_ADVICE, exit_for
from portmapd.cli.group import Commands
from portmapd.errors import PortmapdError

#: Where each command is.
TABLE = {
    "list": "portmapd.cli.rpc.listing:listing",
    "ping": "portmapd.cli.rpc.ping:ping",
    "addresses": "portmapd.cli.rpc.listing:addresses",
    "stats": "portmapd.cli.rpc.stats:stats",
    "broadcast": "portmapd.cli.rpc.broadcast:broadcast",
    "set": "portmapd.cli.rpc.registering:set_address",
    "unset": "portmapd.cli.rpc.registering:unset_address",
}


class RpcCommands(Commands):
    """Commands whose errors are those of another host's port mapper."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(context)
        except PortmapdError as error:
            raise exit_for(error, RPC_ADVICE) from error


@click.group(cls=RpcCommands, table=TABLE, no_args_is_help=False)
def rpc() -> None:
    """Ask any port mapper, as rpcinfo does: portmapd, rpcbind, on this host or another one.

    HOST is a name or an address, of a port mapper on port 111. HOST:PORT names another port, and a
    path its rpcbind socket. Without HOST, this host's is asked: over its socket if there is one.
    PROGRAM is a number, or a name of /etc/rpc.
    """
