"""Print the time of day, as the server tells it."""

from portmapd.client.blocking import Portmapper


def main() -> None:
    """Connect to the server and print its answer."""
    with Portmapper() as portmapper, portmapper.connect_any("clock.example.com") as clock:
        print(clock.recv(100).decode(), end="")


if __name__ == "__main__":
    main()
