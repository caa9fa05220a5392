"""Prints how many shouters there are, until it is interrupted."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from portmapd import Change, Portmapper
from portmapd.client.values import Subject

present: set[Subject] = set()


def take(change: Change) -> None:
    """Keep the set up to date."""
    if change.kind == "registered":
        present.add(change.subject)
    else:
        present.discard(change.subject)


async def main(reactor: Any) -> None:
    """Follow the changes of one name."""
    portmapper = Portmapper(reactor)
    async for change in portmapper.watch("shouter.example.com"):
        take(change)
        print(change.kind, len(present), flush=True)


react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
