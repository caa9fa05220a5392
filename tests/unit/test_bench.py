"""How the benchmark makes rows of rounds."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from bench.measure import QUICK, Goal, Measure, Row
from bench.rpc import TCP
from bench.servers import THIS
from bench.table import table

ROW = Row("GETPORT", "/s", "portmapd", "rpcbind", Goal("≥", 2))
CALM = [{"rate": rate, "waited": 0.0} for rate in (300.0, 400.0, 500.0)]
PEER = [{"rate": 100.0, "waited": waited} for waited in (0.0, 0.0, 0.9)]


class RowTests(SynchronousTestCase):
    """A row of what two turns gave."""

    def test_disturbed_rounds_are_set_aside(self) -> None:
        """They do not count while enough calm ones remain, and a note says so."""
        record = ROW.record({"portmapd": CALM, "rpcbind": PEER}, calm_rounds=2)
        self.assertEqual((record["portmapd"], record["peer_figure"]), (350, 100))
        self.assertEqual((record["ratio"], record["ratios"]), (3.5, [3, 4]))
        self.assertEqual(record["ratios_set_aside"], [5])
        self.assertEqual(record["note"], "1 of 3 rounds were disturbed and set aside")

    def test_too_few_calm_rounds(self) -> None:
        """All rounds count then."""
        record = ROW.record({"portmapd": CALM, "rpcbind": PEER}, calm_rounds=3)
        self.assertEqual((record["ratios"], record["ratios_set_aside"]), ([3, 4, 5], []))
        self.assertIn("counted", record["note"])

    def test_goal(self) -> None:
        """It is met by the median of the ratios, or by the figure if it has its unit."""
        seen = {"portmapd": CALM, "rpcbind": PEER}
        for goal, met in (
            (Goal("≥", 4), True),
            (Goal("≥", 4.5), False),
            (Goal("≥", 4.5, best=True), True),
            (Goal("<", 500, "/s"), True),
            (Goal("<", 400, "/s"), False),
        ):
            record = evolve(ROW, goal=goal).record(seen, calm_rounds=3)
            self.assertEqual(record["met"], met, goal)

    def test_doubts(self) -> None:
        """Calls sent again, and a generator that was never idle, are noted."""
        busy = [{**each, "lost": 2.0, "busy": 0.95} for each in CALM]
        note = ROW.record({"portmapd": CALM, "rpcbind": busy}, calm_rounds=1)["note"]
        self.assertEqual(
            note,
            "6 calls to rpcbind sent again; the load generator may have been slower than rpcbind",
        )


class MeasureTests(SynchronousTestCase):
    """A measurement."""

    def setUp(self) -> None:
        self.taken: list[int] = []
        self.measure = Measure(
            2, [ROW], lambda stack, checkout: {"portmapd": lambda: self.take(checkout.port)}
        )

    def take(self, port: int) -> dict[str, float]:
        """A turn whose rate is the port."""
        self.taken.append(port)
        return {"rate": port}

    def test_beside_another_checkout(self) -> None:
        """Both take turns, in another order each round; the row is after beside before."""
        (record,) = self.measure.records(QUICK, evolve(THIS, port=100))
        self.assertEqual(self.taken, [211, 100, 100, 211])
        self.assertEqual((record["portmapd"], record["peer_figure"]), (211, 100))
        self.assertEqual((record["peer"], record["ratio"], record["met"]), ("before", 2.11, True))

    def test_a_fall(self) -> None:
        """A row fails when every round is more than 5 % worse."""
        (record,) = self.measure.records(QUICK, evolve(THIS, port=240))
        self.assertEqual((record["goal"], record["met"]), ("≥ 0.95 times", False))


class TableTests(SynchronousTestCase):
    """The table."""

    def test_lines(self) -> None:
        """Heads, a rule, a line for each row, and the notes."""
        record = ROW.record({"portmapd": CALM, "rpcbind": PEER}, calm_rounds=2)
        self.assertEqual(
            table([record]),
            [
                "what     portmapd      peer           ratio   (rounds)  goal       met",
                "-" * 70,
                "GETPORT  350.0 /s  100.0 /s  rpcbind   3.50  3.00-4.00  ≥ 2 times  yes",
                "GETPORT (beside rpcbind): 1 of 3 rounds were disturbed and set aside",
            ],
        )

    def test_a_load_has_its_rows(self) -> None:
        """A load's rate is beside rpcbind's."""
        (row,) = TCP.measure(QUICK).rows
        self.assertEqual((row.ours, row.theirs), ("portmapd", "rpcbind"))
