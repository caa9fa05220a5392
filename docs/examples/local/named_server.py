"""Send the time of day to every client."""

import socket
import time
from threading import Thread

from portmapd.client.blocking import Flags, Portmapper


def main() -> None:
    """Serve until the process is killed."""
    server = socket.create_server(("127.0.0.1", 0))
    portmapper = Portmapper()
    portmapper.reg("clock.example.com", server, Flags.EXCLUSIVE)
    Thread(target=portmapper.hold, daemon=True).start()
    print("serving", flush=True)
    while True:
        client, _ = server.accept()
        with client:
            client.sendall(time.strftime("it is %H:%M\n").encode())


if __name__ == "__main__":
    main()
