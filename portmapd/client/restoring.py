"""Registering groups over a connection, once and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from portmapd.channel import commands as c
from portmapd.client.link import Link
from portmapd.client.standing import PASSING, RETRIES, Group, Refused
from portmapd.errors import Refusal


async def register(link: Link, group: Group) -> None:
    """Register *group* on *link*, all or nothing; :exc:`Refusal` is raised for nothing."""
    if group.services:
        await link.ask(c.REGISTER, {"services": group.services})
    if not group.mappings:
        return
    try:
        await link.ask(c.SET_MAPPINGS, {"mappings": group.mappings})
    except Refusal:
        if group.services:
            keys = [registration[:2] for registration in group.services]
            await link.ask(c.DEREGISTER, {"services": keys})
        raise


async def restore(
    link: Link, groups: Iterable[Group], pause: Callable[[], Deferred[None]]
) -> list[Refused]:
    """Register *groups* on a new connection, each all or nothing.

    :param pause: waits before what was refused is tried again.
    :return: the groups that are refused for good.
    """
    refused = await _register_each(link, list(groups))
    for _ in range(RETRIES):
        again = [group for group, why in refused if isinstance(why, PASSING)]
        if not again:
            break
        await pause()
        for_good = [(group, why) for group, why in refused if not isinstance(why, PASSING)]
        refused = for_good + await _register_each(link, again)
    return refused


async def _register_each(link: Link, groups: Sequence[Group]) -> list[Refused]:
    """Register groups, without waiting for one before the next; gives the refused ones."""
    asked = [Deferred.fromCoroutine(register(link, group)) for group in groups]
    outcomes: list[tuple[bool, Any]] = await DeferredList(asked, consumeErrors=True)
    refused: list[Refused] = []
    for group, (_, outcome) in zip(groups, outcomes, strict=True):
        if isinstance(outcome, Failure):
            if not isinstance(outcome.value, Refusal):
                outcome.raiseException()
            refused.append((group, outcome.value))
    return refused
