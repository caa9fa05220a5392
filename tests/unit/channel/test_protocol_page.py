"""What the protocol's page shows is what the channel does."""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from portmapd.channel.box import MAX_BOX, MAX_PAIRS, BoxReader
from portmapd.channel.commands import COMMANDS
from portmapd.config import MAX_MAPPINGS, MAX_SERVICES
from portmapd.registry.holder import allowances
from portmapd.registry.registry import Registry
from portmapd.server.session import ChannelContext
from portmapd.server.watchers import MAX_WAITING, Watchers
from tests.support.channel_sessions import Process

DOCS = Path(__file__).parents[3] / "docs"


class ProtocolPageTests(SynchronousTestCase):
    """``docs/protocol.rst`` beside the code."""

    def test_conversation(self) -> None:
        """The daemon says, byte for byte, what the example shows."""
        said: list[bytes] = []
        registry = Registry()
        context = ChannelContext(registry, Watchers(registry), "b1946ac9", 10)
        session = context.open(Process(104, 4711, "/usr/bin/printer", allowances(10), said))
        reader = BoxReader()
        expected: list[bytes] = []
        for line in (DOCS / "examples" / "conversation.txt").read_text().splitlines():
            who, _, text = line.partition(" ")
            if who == "C":
                for box in reader.feed(ast.literal_eval(text)):
                    # It says events on its way.
                    answer = session.answer(box)
                    said.append(answer)
            elif who == "S":
                expected.append(ast.literal_eval(text))
        self.assertEqual(said, expected)

    def test_figures(self) -> None:
        """The limits, and the commands, that the page states are those of the code."""
        page = (DOCS / "protocol.rst").read_text()
        self.assertIn(f"of more than {MAX_BOX:,} bytes", page.replace("\n", " "))
        self.assertIn(f"than {MAX_PAIRS} pairs", page)
        self.assertIn(f"{MAX_WAITING // 1024} KiB", page)
        self.assertIn(f"hold {MAX_SERVICES} services and {MAX_MAPPINGS} mappings", page)
        for command in COMMANDS.values():
            self.assertIn(f"``{command.name}``", page)
