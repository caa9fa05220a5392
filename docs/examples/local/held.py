"""Greets whoever connects, and stays registered when the daemon is started again."""

import socket
from threading import Thread

from portmapd.client.blocking import Group, Portmapper
from portmapd.errors import PortmapdError


def lost(group: Group, why: PortmapdError) -> None:
    """Tell of what could not be registered again."""
    print(f"not registered any more: {group.services}: {why}", flush=True)


def main() -> None:
    """Serve until it is killed."""
    server = socket.create_server(("127.0.0.1", 0))
    portmapper = Portmapper(lost=lost)
    portmapper.reg("greeter.example.com", server)
    Thread(target=portmapper.hold, daemon=True).start()
    print("registered greeter.example.com", flush=True)
    while True:
        client, _ = server.accept()
        with client:
            client.sendall(b"hello\n")


if __name__ == "__main__":
    main()
