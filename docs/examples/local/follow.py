"""Prints who greets, until it gets SIGTERM: ``python follow.py``."""

import os
import signal

from portmapd.client.blocking import Portmapper
from portmapd.errors import Terminated


def main() -> None:
    """Follow the changes of one name."""
    readable, writable = os.pipe()
    signal.signal(signal.SIGTERM, lambda number, frame: os.close(writable))
    with Portmapper() as portmapper:
        try:
            for change in portmapper.watch("greeter.example.com", terminator=readable):
                print(change.kind, change.subject, flush=True)
        except Terminated:
            print("terminated")


if __name__ == "__main__":
    main()
