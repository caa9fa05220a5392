"""A service manager that keeps descriptors."""

import os
from collections.abc import Sequence

from portmapd.server.handed_in_sockets import HandedInDescriptor
from portmapd.server.handover.store import VARIABLE

#: What it says in the environment.
THERE = {VARIABLE: "4", "NOTIFY_SOCKET": "/run/systemd/notify"}


class Manager:
    """A service manager's store.

    :param is_there: whether it takes what it is sent.
    """

    def __init__(self, *, is_there: bool = True) -> None:
        self.is_there = is_there
        self.kept: list[HandedInDescriptor] = []

    def send(self, *lines: str, descriptors: Sequence[int] = ()) -> bool:
        """Do what the lines say."""
        fields = dict(line.split("=") for line in lines)
        if not self.is_there:
            return False
        if "FDSTOREREMOVE" in fields:
            self.close(fields["FDNAME"])
        for number in descriptors:
            assert fields["FDPOLL"] == "0"
            self.kept.append(HandedInDescriptor(os.dup(number), fields["FDNAME"]))
        return True

    def close(self, name: str) -> None:
        """Close what is called so."""
        for each in self.kept:
            if each.name == name:
                os.close(each.number)
        self.kept = [each for each in self.kept if each.name != name]
