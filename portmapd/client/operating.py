"""One operation of a blocking client on the channel; no Twisted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from portmapd.channel import commands as c
from portmapd.client.exchange import Exchange
from portmapd.client.patience import Patience
from portmapd.client.standing import PASSING, RETRIES, RETRY_WAIT, Group, Refused, Standing
from portmapd.errors import NotRegistered, Refusal

if TYPE_CHECKING:
    from portmapd.client.registration import MappingFields

T = TypeVar("T")


class Operation(NamedTuple):
    """One operation: its connection, its time, and what stands on that connection."""

    exchange: Exchange
    patience: Patience
    standing: Standing

    def ask(self, command: c.Command, values: Mapping[str, Any]) -> Any:
        """Ask *command*; see :meth:`~portmapd.client.exchange.Exchange.ask`."""
        return self.exchange.ask(command, values, self.patience)

    def pages(
        self,
        command: c.Command,
        column: str,
        wanted: Mapping[str, Any],
        make: Callable[[tuple[Any, ...]], T],
    ) -> Iterator[Sequence[T]]:
        """The pages of a listing, each when it comes.

        :param column: what the answer has the rows in.
        :param make: makes a value of a row.
        """
        more: str | None = None
        while True:
            answer = self.ask(command, {**wanted, "after": more})
            yield [make(row) for row in answer[column]]
            more = answer["more"]
            if more is None:
                return

    def register(self, group: Group) -> None:
        """Register *group*, all or nothing.

        :raises Refusal: the daemon refuses; nothing of it is registered.
        """
        if group.services:
            self.ask(c.REGISTER, {"services": group.services})
        if not group.mappings:
            return
        try:
            self.ask(c.SET_MAPPINGS, {"mappings": group.mappings})
        except Refusal:
            if group.services:
                keys = [registration[:2] for registration in group.services]
                self.ask(c.DEREGISTER, {"services": keys})
            raise

    def unset(self, mappings: Sequence[MappingFields]) -> None:
        """Unset *mappings*, each of which the superuser may have unset already."""
        for mapping in mappings:
            with suppress(NotRegistered):
                self.ask(c.UNSET_MAPPINGS, {"mappings": [mapping]})

    def restore(self) -> list[Refused]:
        """Register what stands on a new connection, each group all or nothing.

        :return: the groups that are refused for good, which do not stand any more.
        """
        refused = self._register_each(self.standing)
        for _ in range(RETRIES):
            again = [group for group, why in refused if isinstance(why, PASSING)]
            if not again:
                break
            self.patience.pause(RETRY_WAIT)
            for_good = [(group, why) for group, why in refused if not isinstance(why, PASSING)]
            refused = for_good + self._register_each(again)
        for group, _ in refused:
            self.standing.discard(group)
        return refused

    def _register_each(self, groups: Iterable[Group]) -> list[Refused]:
        refused = []
        for group in groups:
            try:
                self.register(group)
            except Refusal as refusal:
                refused.append((group, refusal))
        return refused
