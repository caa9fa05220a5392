"""The way of a message from a transport to its reply."""

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.message import XID
from portmapd.oncrpc.netid import UDP
from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.caller import Audience
from portmapd.registry.mapping import mapping
from portmapd.server.call_server import MAX_HOSTS, CallServer
from portmapd.server.liveness import Liveness
from portmapd.server.rate_limited_log import RateLimitedLog
from tests.support.rpc_samples import FALSE, TRUE, call, local, loopback, pmap, remote
from tests.support.rpc_server import Serving
from tests.unit.server.test_bound_sockets import UDP as DATAGRAMS
from tests.unit.server.test_bound_sockets import opened

GETPORT = call(2, 3, pmap(7, 1))


class CallServerTests(SynchronousTestCase):
    """A port mapper without sockets."""

    def setUp(self) -> None:
        self.serving = Serving()
        self.call_server = self.serving.call_server
        self.serving.registry.map(mapping(7, 1, "udp", "0.0.0.0.0.9"))

    def test_caller(self) -> None:
        """A caller is what its transport and the policy say of it."""
        caller = self.call_server.caller(UDP, "192.0.2.1", 5, "127.0.0.9", from_this_host=True)
        self.assertEqual((caller.audience, caller.reached), (Audience.LOCAL, "127.0.0.9"))
        forged = self.call_server.caller(UDP, "127.0.0.1", 5, "192.0.2.1")
        self.assertIs(forged.audience, Audience.EXCLUDED)

    def test_audience(self) -> None:
        """Hosts are looked up in the policy, however many ask."""
        for number in range(MAX_HOSTS + 10):
            host = f"10.0.{number >> 8}.{number & 255}"
            self.assertIs(self.call_server.audience(host), Audience.STRANGER)
        for _ in range(2):
            self.assertIs(self.call_server.audience("10.0.0.1", True), Audience.LOCAL)
            self.assertIs(self.call_server.audience("10.0.0.1"), Audience.STRANGER)

    def test_table(self) -> None:
        """The table has what was served, for callers of that kind."""
        reply = self.call_server.serve(GETPORT, loopback(), self.fail)
        known = self.call_server.table(loopback(port=5)).find(GETPORT[XID:])
        assert known is not None
        self.assertEqual(GETPORT[:XID] + known.body, reply)
        self.assertIsNone(self.call_server.table(local()).find(GETPORT[XID:]))

    def test_failure(self) -> None:
        """A failure of ours is logged, and costs that message alone."""
        self.serving.mapper.ask(local(), 2, 1, pmap(PROGRAM + 1, 1, 17, 9))
        self.patch(self.serving.mapper, "bound", None)
        failing = call(2, 1, pmap(PROGRAM + 1, 1, 17, 10))
        self.assertIsNone(self.call_server.serve(failing, local(), self.fail))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertIsNotNone(self.call_server.serve(GETPORT, loopback(), self.fail))
        self.assertEqual(self.serving.statistics.malformed, 0)

    def test_before_reply(self) -> None:
        """A service that ends as soon as it has the reply to its SET has been seen bound."""
        liveness = Liveness(self.serving.registry, self.serving.reactor, 1.0)
        call_server = CallServer(
            self.serving.mapper.context.policy,
            self.serving.mapper.dispatcher,
            self.serving.cache,
            self.serving.forwarder,
            RateLimitedLog(self.serving.reactor),
            liveness.look_at_new,
        )
        with opened(DATAGRAMS, "127.0.0.1") as skt:
            setting = call(2, 1, pmap(8, 1, 17, skt.getsockname()[1]))
            reply = call_server.serve(setting, loopback(), self.fail)
        assert reply is not None
        self.assertTrue(reply.endswith(TRUE))
        liveness.look()
        self.assertEqual([m.program for m in self.serving.registry.mappings], [7])

    def test_refused(self) -> None:
        """Who is refused what is logged."""
        setting = call(2, 1, pmap(8, 1, 17, 0))
        with capturedLogs() as events:
            reply = self.call_server.serve(setting, loopback(), self.fail)
        assert reply is not None
        self.assertTrue(reply.endswith(FALSE))
        (line,) = map(formatEvent, events)
        start = "refused for 127.0.0.1 port 40000 over udp: SET of program 8 version 1 on protocol"
        self.assertTrue(str(line).startswith(start), line)

    def test_malformed(self) -> None:
        """Malformed messages are logged for their caller."""
        for message in (b"", b"junk"):
            self.assertIsNone(self.call_server.serve(message, remote(), self.fail))
        self.assertEqual(self.serving.statistics.malformed, 2)
