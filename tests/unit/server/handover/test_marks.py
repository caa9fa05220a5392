"""Marks in memory that outlives a process."""

import os

from twisted.trial.unittest import SynchronousTestCase

from portmapd.server.handover.marks import Marks


class MarksTests(SynchronousTestCase):
    """Marked by one process, read by the next."""

    def test_read(self) -> None:
        """The next process sees what was marked, after the memory of this one is gone."""
        marks = Marks(5)
        self.assertTrue(marks.is_blank)
        marks.mark(1)
        marks.mark(4)
        marks.mark(4)
        self.assertFalse(marks.is_blank)
        kept = os.dup(marks.fileno())
        self.addCleanup(os.close, kept)
        marks.close()
        self.assertEqual(Marks.read(kept), {1, 4})

    def test_none(self) -> None:
        """There may be no connection."""
        marks = Marks(0)
        self.addCleanup(marks.close)
        self.assertTrue(marks.is_blank)
        self.assertEqual(Marks.read(marks.fileno()), frozenset())
