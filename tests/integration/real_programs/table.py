"""What ``rpcinfo`` prints, as values."""

from typing import Self

from attrs import frozen

PORTMAPPER = 100_000


@frozen
class Row:
    """One mapping as ``rpcinfo`` shows it."""

    program: int
    version: int
    netid: str
    address: str
    owner: str

    @property
    def port(self) -> int:
        """The port in the universal address (RFC 5665, 5.2.3.3)."""
        high, low = self.address.split(".")[-2:]
        return int(high) * 256 + int(low)


@frozen
class Table:
    """Every mapping that ``rpcinfo`` showed, in its order."""

    rows: tuple[Row, ...]

    @classmethod
    def parse(cls, said: str) -> Self:
        """Read the output of ``rpcinfo`` without options."""
        fields = [line.split() for line in said.splitlines()[1:]]
        return cls(tuple(Row(int(f[0]), int(f[1]), f[2], f[3], f[5]) for f in fields))

    def of(self, program: int) -> set[tuple[int, str]]:
        """Give the version and netid of each mapping of *program*."""
        return {(row.version, row.netid) for row in self.rows if row.program == program}

    def owners(self, program: int) -> set[str]:
        """Give the owners of the mappings of *program*."""
        return {row.owner for row in self.rows if row.program == program}

    def others(self) -> set[int]:
        """Give every program but the port mapper itself."""
        return {row.program for row in self.rows} - {PORTMAPPER}


def every(versions: str, netids: str) -> set[tuple[int, str]]:
    """Give each of *versions* on each of *netids*; both are words."""
    return {(int(version), netid) for version in versions.split() for netid in netids.split()}


ALL_NETIDS = "udp tcp udp6 tcp6"
