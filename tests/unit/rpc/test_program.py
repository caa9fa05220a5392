"""Programs as tables of procedures."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.message import Call
from portmapd.rpc import UINT, Procedure, Program, Request
from portmapd.rpc.program import NULL, table_of


def same(value: int, request: Request) -> int:
    """Give the argument back."""
    return value


ONE = Procedure("ONE", 1, UINT, UINT, same)


class ProgramTests(SynchronousTestCase):
    """What can be served."""

    def test_procedures(self) -> None:
        """Every program has procedure 0, its own or one that does nothing."""
        self.assertEqual(Program("p", 7, 1, ONE).procedures, {0: NULL, 1: ONE})
        own = Procedure("NULL", 0, UINT, UINT, same)
        self.assertEqual(Program("p", 7, 1, own).procedures, {0: own})

    def test_table(self) -> None:
        """Versions of a program are served together."""
        first, second = Program("p", 7, 1), Program("p", 7, 2, ONE)
        table = table_of((first, second))
        self.assertIs(table.find(Call(0, 7, 2, 1)), ONE)
        self.assertIs(table.find(Call(0, 7, 1, 0)), NULL)

    def test_refused(self) -> None:
        """Numbers that no call can have, and numbers twice, are the programmer's errors."""
        self.assertRaises(ValueError, Procedure, "p", -1, UINT, UINT, same)
        self.assertRaises(ValueError, Program, "p", 1 << 32, 1)
        self.assertRaises(ValueError, Program, "p", 7, -1)
        self.assertRaises(ValueError, Program, "p", 7, 1, ONE, ONE)
        self.assertRaises(ValueError, table_of, (Program("p", 7, 1), Program("q", 7, 1)))
        self.assertRaises(ValueError, table_of, ())
