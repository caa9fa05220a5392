"""Send the time of day to every client."""

import socket
import time


def main() -> None:
    """Serve until the process is killed."""
    server = socket.create_server(("127.0.0.1", 3700))
    print("serving", flush=True)
    while True:
        client, _ = server.accept()
        with client:
            client.sendall(time.strftime("it is %H:%M\n").encode())


if __name__ == "__main__":
    main()
