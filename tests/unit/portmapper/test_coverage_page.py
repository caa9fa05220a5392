"""The page on protocol coverage agrees with the code."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import InvalidMapping
from portmapd.oncrpc.netid import NETIDS, canonical_address
from portmapd.oncrpc.program import PmapProcedure, RpcbProcedure
from portmapd.oncrpc.record import MAX_FRAGMENTS, MAX_RECORD
from portmapd.oncrpc.xdr import MAX_STRING
from portmapd.portmapper.dispatch import TABLE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "coverage.rst").read_text()

#: A section of the page, by its title and the line below that.
SECTION = r"^{}\n[~-]+\n(.*?)(?=^[^\n]+\n[~=-]{{3,}}\n|\Z)"
#: The number and the name of a procedure.
PROCEDURE = re.compile(r"^   \* - (\d+)\n     - (\w+)$", re.MULTILINE)
#: Netid, spelling, and the text that is registered.
SPELLING = re.compile(
    r"^   \* - ``(\w+)``\n     - ``(.+)``\n     - (?:``(.+)``|refused)$", re.MULTILINE
)
NAMES = {2: PmapProcedure, 3: RpcbProcedure, 4: RpcbProcedure}


def section(title: str) -> str:
    """The text below that title."""
    found = re.search(SECTION.format(title), PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


class CoveragePageTests(SynchronousTestCase):
    """The tables of the page."""

    def test_procedures(self) -> None:
        """Every row of the dispatch table is on the page, under its name, and no other."""
        for version, served in TABLE.items():
            rows = {
                int(number): NAMES[version][name]
                for number, name in PROCEDURE.findall(section(f"Version {version}"))
            }
            self.assertEqual(rows, {number: NAMES[version](number) for number in served})

    def test_versions(self) -> None:
        """Every version that is served is on the page, and no other."""
        versions = re.findall(r"^Version (\d)\n~", PAGE, re.MULTILINE)
        self.assertEqual([int(version) for version in versions], list(TABLE))

    def test_netids(self) -> None:
        """Every netid is on the page."""
        rows = re.findall(r"^   \* - ``(\w+)``$", section("Transports"), re.MULTILINE)
        self.assertEqual(sorted(rows), sorted(NETIDS))

    def test_spellings(self) -> None:
        """Each spelling is registered as the page says, or refused."""
        rows = SPELLING.findall(section("Spellings of addresses"))
        self.assertEqual(len(rows), section("Spellings of addresses").count("* - ``"))
        for netid, spelling, registered in rows:
            if registered:
                canonical, _ = canonical_address(NETIDS[netid], spelling)
                self.assertEqual(canonical, registered)
            else:
                self.assertRaises(InvalidMapping, canonical_address, NETIDS[netid], spelling)

    def test_limits(self) -> None:
        """The figures on the page are the code's."""
        self.assertIn(f"at most {MAX_RECORD:,} bytes in {MAX_FRAGMENTS} fragments", PAGE)
        self.assertIn(f"a string of more than {MAX_STRING:,} bytes", PAGE)
