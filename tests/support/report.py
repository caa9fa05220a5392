"""What comes of something that is done to a daemon again and again."""

import sys
from typing import Generic, TypeVar

from attrs import define, field

F = TypeVar("F")


@define
class Report(Generic[F]):
    """What came of it so far, as text.

    :param faults: what should not have been; with the first one it ends.
    """

    faults: list[F] = field(factory=list, kw_only=True)

    def show(self) -> None:
        """Show it to who waits at a terminal."""
        if sys.stderr.isatty():
            print(f"\r{self}", end="", file=sys.stderr, flush=True)

    def conclude(self) -> int:
        """Print it with its faults.

        :return: the exit status: 1 if there are any.
        """
        print(self)
        for fault in self.faults:
            print(fault)
        return bool(self.faults)
