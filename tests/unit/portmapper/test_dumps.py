"""Lists of all mappings in parts: complete, shared, and encoded again only where they changed."""

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.program import read_pmap
from portmapd.oncrpc.xdr import Reader
from portmapd.portmapper import dumps
from portmapd.portmapper.dumps import PART, Dumps
from portmapd.portmapper.v2 import encode_items
from portmapd.registry.mapping import MAX_RUN, Mapping, Mappings, mapping

COUNT = 20 * MAX_RUN


def udp(program: int) -> Mapping:
    """A mapping over UDP."""
    return mapping(program, 1, "udp", "0.0.0.0.0.9")


class DumpsTests(SynchronousTestCase):
    """Many mappings, in full runs.

    :ivar encoded: how many mappings were encoded.
    """

    def setUp(self) -> None:
        self.mappings = Mappings()
        self.dumps = Dumps(self.mappings)
        self.encoded = 0
        for program in range(COUNT):
            self.mappings.add(udp(2 * program))

    def encode(self, mappings: Sequence[Mapping]) -> bytes:
        """Encode mappings, and count them."""
        self.encoded += len(mappings)
        return encode_items(mappings)

    def parts(self) -> list[bytes]:
        """A whole list, in its parts."""
        return list(self.dumps.parts(2, self.encode))

    def programs(self, parts: list[bytes]) -> list[int]:
        """The programs in a list."""
        return [row.program for row in Reader(b"".join(parts)).sequence(read_pmap)]

    def test_parts(self) -> None:
        """The parts together are the list, and each has a bounded size."""
        parts = self.parts()
        self.assertEqual(self.programs(parts), [m.program for m in self.mappings])
        self.assertLess(max(map(len, parts)), PART + 24 * MAX_RUN)
        self.assertGreaterEqual(min(map(len, parts[:-1])), PART)

    def test_empty(self) -> None:
        """The list of nothing is its end."""
        self.assertEqual(list(Dumps(Mappings()).parts(2, self.encode)), [bytes(4)])

    def test_after_a_change(self) -> None:
        """A change has one run encoded again; a second list shares everything."""
        self.parts()
        self.assertEqual(self.encoded, COUNT)
        self.parts()
        self.assertEqual(self.encoded, COUNT)
        self.mappings.add(udp(1))
        self.assertEqual(self.programs(self.parts())[:3], [0, 1, 2])
        self.assertLessEqual(self.encoded, COUNT + MAX_RUN + 1)
        self.mappings.discard(udp(0))
        self.assertEqual(self.programs(self.parts())[:2], [1, 2])
        self.assertLessEqual(self.encoded, COUNT + 2 * MAX_RUN + 2)

    def test_changes_meanwhile(self) -> None:
        """What is registered all the time is in a list once, whatever comes and goes."""
        parts: list[bytes] = []
        for number, part in enumerate(self.dumps.parts(2, self.encode)):
            parts.append(part)
            for program in range(number, COUNT, 50):
                if self.mappings.get(4 * program + 2, 1, "udp") is not None:
                    self.mappings.discard(udp(4 * program + 2))
                elif self.mappings.get(2 * program + 1, 1, "udp") is None:
                    self.mappings.add(udp(2 * program + 1))
        always = [program for program in self.programs(parts) if program % 4 == 0]
        self.assertEqual(always, list(range(0, 2 * COUNT, 4)))
        found = self.programs(parts)
        self.assertEqual(found, sorted(set(found)))

    def test_too_many_to_keep(self) -> None:
        """Of very many mappings nothing is kept; each list is encoded anew."""
        self.patch(dumps, "MAX_KEPT", COUNT - 1)
        self.parts()
        self.parts()
        self.assertEqual(self.encoded, 2 * COUNT)

    def test_versions(self) -> None:
        """Each version has an encoding of its own."""
        self.parts()
        (other,) = self.dumps.parts(3, lambda mappings: b"")
        self.assertEqual(other, bytes(4))
