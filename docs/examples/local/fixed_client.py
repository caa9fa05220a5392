"""Prints the time of day."""

import socket


def main() -> None:
    """Ask, and print the answer."""
    with socket.create_connection(("127.0.0.1", 3700)) as clock:
        print(clock.recv(100).decode(), end="")


if __name__ == "__main__":
    main()
