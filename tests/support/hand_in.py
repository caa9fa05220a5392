"""A service manager as small as can be: binds sockets, and becomes the daemon that serves them.

``python -m tests.support.hand_in [NAME=]KIND:ADDRESS... -- COMMAND...``, where KIND is ``udp`` or
``tcp`` with ``HOST@PORT`` as the address, or ``unix`` or ``dgram`` with a path, ``@`` for an
abstract one. An address given twice is shared. Names are passed if the first one has any.
"""

import os
import socket
import sys

FIRST = 3


def bound(what: str, shared: bool) -> socket.socket:
    """The socket of that kind at that address; streams listen."""
    kind, address = what.split(":", 1)
    if kind in {"unix", "dgram"}:
        skt = socket.socket(socket.AF_UNIX, _TYPES[kind])
        skt.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        if address[0] == "/":
            os.chmod(address, 0o666)
    else:
        host, port = address.split("@")
        skt = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, _TYPES[kind])
        if ":" in host:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # As systemd does.
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        skt.bind((host, int(port)))
    if skt.type == socket.SOCK_STREAM:
        skt.listen()
    return skt


_TYPES = {
    "udp": socket.SOCK_DGRAM,
    "dgram": socket.SOCK_DGRAM,
    "tcp": socket.SOCK_STREAM,
    "unix": socket.SOCK_STREAM,
}


def main() -> None:
    """Bind, and become the command."""
    cut = sys.argv.index("--")
    words, command = sys.argv[1:cut], sys.argv[cut + 1 :]
    names = [word.rpartition("=")[0] for word in words]
    what = [word.rpartition("=")[2] for word in words]
    sockets = [bound(each, shared=what.count(each) > 1) for each in what]
    # Above those that are handed in, so that none of them overwrites another.
    copies = [os.dup(skt.fileno()) for skt in sockets]
    high = max(FIRST + len(words), *copies) + 1
    moved = [os.dup2(copy, high + at) for at, copy in enumerate(copies)]
    for at, number in enumerate(moved):
        os.dup2(number, FIRST + at)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(words))}
    if any(names):
        os.environ["LISTEN_FDNAMES"] = ":".join(names)
    os.closerange(FIRST + len(words), high + len(words))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
