"""Text for terminals."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.cli.text import cell, columns, line, table
from tests.support.rpc_samples import PROPERTY


class EscapeTests(SynchronousTestCase):
    """Nothing that comes from the daemon steers a terminal."""

    def test_line(self) -> None:
        """Control characters, directions and lone surrogates become escapes; text stays."""
        self.assertEqual(line("a\x1b[31m\n\r\0é短"), r"a\x1b[31m\n\r\x00é短")
        self.assertEqual(
            line("\u202e\x9b\u2028\ud800\U000e0001"), r"\u202e\x9b\u2028\ud800\U000e0001"
        )
        self.assertEqual(line("C:\\x1b"), "C:\\x1b")

    def test_cell(self) -> None:
        """In a cell, an escape cannot be mistaken for text that looks like one."""
        self.assertEqual(cell("\\x1b\x1b"), r"\\x1b\x1b")
        self.assertEqual(cell(80), "80")

    @PROPERTY
    @given(st.text())
    def test_cells_are_printable_and_differ(self, text: str) -> None:
        """Every text becomes printable, and can be got back."""
        shown = cell(text)
        self.assertTrue(shown.isprintable())
        self.assertEqual(
            shown.encode("ascii", "backslashreplace").decode("unicode_escape"),
            text,
        )


class TableTests(SynchronousTestCase):
    """Columns are aligned."""

    def test_table(self) -> None:
        """Each column is as wide as its widest cell; wide and combining characters count so."""
        rows = [("短い", 1), ("e\u0301e", 2), ("abcdef", "\n")]
        self.assertEqual(
            list(table(("A", "B"), rows)),
            ["A       B", "短い    1", "e\u0301e      2", "abcdef  \\n"],
        )

    def test_no_rows(self) -> None:
        """A table may have a head alone."""
        self.assertEqual(list(table(("A", "B"), [])), ["A  B"])

    def test_columns(self) -> None:
        """A line on its own has the widths that it is given, or more; nothing trails."""
        self.assertEqual(columns(["abc", "d", ""], [2, 3, 9]), "abc  d")
