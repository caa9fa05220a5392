"""Print the time of day, as the server tells it."""

import socket


def main() -> None:
    """Connect to the server and print its answer."""
    with socket.create_connection(("127.0.0.1", 3700)) as clock:
        print(clock.recv(100).decode(), end="")


if __name__ == "__main__":
    main()
