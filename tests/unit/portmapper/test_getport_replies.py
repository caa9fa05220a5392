"""GETPORT of version 2, answered from the registry without dispatch."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.message import XID
from portmapd.oncrpc.record import mark
from portmapd.portmapper.caller import Audience
from portmapd.portmapper.statistics import MAX_SUBJECTS
from portmapd.portmapper.v2 import GetportReplies
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import PROPERTY, call, loopback, pmap, remote
from tests.support.rpc_server import Serving

HERE = loopback()
#: Programs from here on share a count.
OTHERS = 400_000


class GetportTests(SynchronousTestCase):
    """A port mapper with look-ups of so many programs that further ones share a count."""

    def setUp(self) -> None:
        self.serving = Serving()
        for version, netid, port in ((1, "udp", 9), (2, "udp", 10), (2, "tcp", 11)):
            address = f"0.0.0.0.0.{port}"
            self.serving.registry.map(mapping(OTHERS, version, netid, address))
        for program in range(MAX_SUBJECTS):
            self.dispatched(call(2, 3, pmap(program, 1)))
        self.serving.cache.clear()
        self.replies = GetportReplies(self.serving.registry, self.serving.statistics)

    def dispatched(self, message: bytes) -> bytes | None:
        """The reply that dispatch makes."""
        return self.serving.mapper.dispatch(message, HERE).reply

    def direct(self, message: bytes) -> bytes | None:
        """The reply that is made without it; None if there is none."""
        reply = self.replies.find(message[XID:])
        if reply is None:
            return None
        reply.count.value += 1
        return message[:XID] + reply.body

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
            self.assertIsNone(self.direct(message))

    def test_counted(self) -> None:
        """GETSTAT counts these answers, too."""
        before = self.serving.statistics.calls(2, 3)
        for _ in range(3):
            self.direct(call(2, 3, pmap(OTHERS, 1)))
        self.assertEqual(self.serving.statistics.calls(2, 3), before + 3)

    def test_marks(self) -> None:
        """The record marks are those of this request and of its reply."""
        question = call(2, 3, pmap(OTHERS, 1))
        reply = self.replies.find(question[XID:])
        assert reply is not None
        self.assertEqual(reply.request_mark + question, mark(question))
        whole = mark(self.direct(question) or b"")
        self.assertEqual(reply.mark + question[:XID] + reply.body, whole)

    def test_served(self) -> None:
        """The tables of the reply cache find these replies."""
        question = call(2, 3, pmap(OTHERS, 1))
        self.assertIsNotNone(self.serving.call_server.table(HERE).find(question[XID:]))
        self.assertEqual(len(self.serving.call_server.table(HERE)), 0)

    def test_excluded(self) -> None:
        """Callers that may not ask get no reply this way either."""
        caller = remote(audience=Audience.EXCLUDED)
        table = self.serving.call_server.table(caller)
        self.assertIsNone(table.find(call(2, 3, pmap(OTHERS, 1))[XID:]))
