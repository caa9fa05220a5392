"""GETPORT of version 2, answered from the registry without dispatch."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.message import XID
from portmapd.portmapper.caller import Audience
from portmapd.portmapper.statistics import MAX_PROGRAMS
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import PROPERTY, call, loopback, pmap, remote
from tests.support.rpc_server import Serving

HERE = loopback()
#: So many programs are counted apart: of the others, answers need no dispatch.
OTHERS = 400_000


class GetportTests(SynchronousTestCase):
    """A port mapper that counts as many programs apart as it may."""

    def setUp(self) -> None:
        self.serving = Serving()
        for version, netid, port in ((1, "udp", 9), (2, "udp", 10), (2, "tcp", 11)):
            address = f"0.0.0.0.0.{port}"
            self.serving.registry.map(mapping(OTHERS, version, netid, address))
        for program in range(MAX_PROGRAMS):
            self.dispatched(call(2, 3, pmap(program, 1)))
        self.shelf = self.serving.call_server.shelf(HERE.netid, HERE.audience, HERE.reached)

    def dispatched(self, message: bytes) -> bytes | None:
        """What dispatch answers."""
        return self.serving.call_server.answer(message, HERE, self.fail)

    def direct(self, message: bytes) -> bytes | None:
        """What is answered without it; None: nothing."""
        try:
            answer = self.shelf[message[XID:]]
        except KeyError:
            return None
        answer.hits += 1
        return message[:XID] + answer.reply

    @PROPERTY
    @given(
        st.sampled_from((OTHERS, OTHERS + 1)),
        st.integers(0, 4),
        st.sampled_from((6, 17)),
        st.integers(0, 0xFFFF_FFFF),
    )
    def test_same_as_dispatch(self, program: int, version: int, protocol: int, port: int) -> None:
        """Both ways give the same answer, of versions that are registered and of others."""
        question = call(2, 3, pmap(program, version, protocol, port))
        found = self.direct(question)
        self.assertIsNotNone(found)
        self.assertEqual(found, self.dispatched(question))

    def test_follows_the_registry(self) -> None:
        """What changes is answered at once."""
        question = call(2, 3, pmap(OTHERS + 5, 1))
        before = self.direct(question)
        self.serving.registry.map(mapping(OTHERS + 5, 1, "udp", "0.0.0.0.0.77"))
        after = self.direct(question)
        assert before is not None
        assert after is not None
        self.assertEqual((before[-1], after[-1]), (0, 77))

    def test_other_questions(self) -> None:
        """Everything else is left to dispatch: other procedures, protocols, lengths, programs."""
        plain = call(2, 3, pmap(OTHERS, 1))
        others = (
            call(2, 0),
            call(3, 3, pmap(OTHERS, 1)),
            call(2, 3, pmap(OTHERS, 1, 132)),
            plain + b"more",
            plain[:-1],
            plain[:20],
            b"",
            call(2, 3, pmap(0, 1)),
        )
        for message in others:
            self.shelf.clear()
            self.assertIsNone(self.direct(message))

    def test_counted(self) -> None:
        """GETSTAT counts these answers, too."""
        before = self.serving.statistics.calls(2, 3)
        for _ in range(3):
            self.direct(call(2, 3, pmap(OTHERS, 1)))
        self.assertEqual(self.serving.statistics.calls(2, 3), before + 3)

    def test_excluded(self) -> None:
        """Who may not ask gets no answer this way either."""
        caller = remote(audience=Audience.EXCLUDED)
        shelf = self.serving.call_server.shelf(caller.netid, caller.audience, caller.reached)
        with self.assertRaises(KeyError):
            shelf[call(2, 3, pmap(OTHERS, 1))[XID:]]
