"""RPC servers: programs as tables of procedures, served over UDP and TCP, and registered.

::

    ADD = Procedure("ADD", 1, struct(Pair, UINT, UINT), UINT, lambda pair, request: sum(pair))
    server = Server(reactor, Program("adder", 0x20000099, 1, ADD))
    server.startService()
    await server.register()
"""

from portmapd.oncrpc.types import (
    BOOL,
    BYTES,
    HYPER,
    INT,
    OPAQUE,
    STRING,
    UHYPER,
    UINT,
    VOID,
    Type,
    array,
    chain,
    fields,
    fixed,
    opaque,
    optional,
    string,
    struct,
    union,
)
from portmapd.portmapper.context import Request
from portmapd.rpc.program import Procedure, Program
from portmapd.rpc.server import Server, run

__all__ = [
    "BOOL",
    "BYTES",
    "HYPER",
    "INT",
    "OPAQUE",
    "STRING",
    "UHYPER",
    "UINT",
    "VOID",
    "Procedure",
    "Program",
    "Request",
    "Server",
    "Type",
    "array",
    "chain",
    "fields",
    "fixed",
    "opaque",
    "optional",
    "run",
    "string",
    "struct",
    "union",
]
