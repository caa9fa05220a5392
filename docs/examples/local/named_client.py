"""Prints the time of day."""

from portmapd.client.blocking import Portmapper


def main() -> None:
    """Ask, and print the answer."""
    with Portmapper() as portmapper, portmapper.connect_root("clock.example.com") as clock:
        print(clock.recv(100).decode(), end="")


if __name__ == "__main__":
    main()
