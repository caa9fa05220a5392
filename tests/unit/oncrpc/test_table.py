"""Procedures by their numbers."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.errors import ProcedureUnavailable, ProgramMismatch, ProgramUnavailable
from portmapd.oncrpc.message import Call
from portmapd.oncrpc.table import ProcedureTable

TABLE = ProcedureTable({7: {2: {0: "null of 2"}, 4: {0: "null of 4", 1: "one"}}})


class TableTests(SynchronousTestCase):
    """A program in two versions."""

    def test_found(self) -> None:
        """A procedure is found by all of its numbers."""
        self.assertEqual(TABLE.find(Call(0, 7, 4, 1)), "one")
        self.assertEqual(TABLE.find(Call(0, 7, 2, 0)), "null of 2")

    def test_not_found(self) -> None:
        """The error says which number is not there; that of a version, which there are."""
        self.assertRaises(ProgramUnavailable, TABLE.find, Call(0, 8, 2, 0))
        self.assertRaises(ProcedureUnavailable, TABLE.find, Call(0, 7, 2, 1))
        error = self.assertRaises(ProgramMismatch, TABLE.find, Call(0, 7, 3, 0))
        self.assertEqual((error.low, error.high), (2, 4))
