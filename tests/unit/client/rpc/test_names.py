"""Hosts by name: look-ups, and which address is called for how long."""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IResolutionReceiver
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from portmapd.client.rpc.names import NamedTransport
from portmapd.client.rpc.wire import MAX_ADDRESSES, check_host
from portmapd.errors import CallTimedOut, DaemonUnreachable


class Resolver:
    """A resolver whose look-ups end when a test says so."""

    def __init__(self) -> None:
        self.receivers: list[IResolutionReceiver] = []

    def resolveHostName(self, receiver: IResolutionReceiver, *args: Any, **kwargs: Any) -> None:
        """Begin a look-up."""
        self.receivers.append(receiver)

    def resolve(self, *hosts: str) -> None:
        """End the first look-up that has not ended."""
        receiver = self.receivers.pop(0)
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("UDP", host, 0))
        receiver.resolutionComplete()


class AddressTransport:
    """A transport to one address, whose calls end when a test says so."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.netid = "udp6" if ":" in host else "udp"
        self.calls: list[tuple[float, Deferred[bytes]]] = []
        self.closed = False

    def call(self, tail: bytes, timeout: float) -> Deferred[bytes]:
        """Begin a call."""
        reply: Deferred[bytes] = Deferred()
        self.calls.append((timeout, reply))
        return reply

    def close(self) -> Deferred[None]:
        """End every call."""
        self.closed = True
        calls, self.calls = self.calls, []
        for _, reply in calls:
            reply.errback(DaemonUnreachable("the client was closed"))
        return succeed(None)

    def end(self, result: Any) -> float:
        """End the first call under way, and give its timeout."""
        timeout, reply = self.calls.pop(0)
        reply.errback(result) if isinstance(result, Exception) else reply.callback(result)
        return timeout


class NamedTransportTests(SynchronousTestCase):
    """Calls to a host by its name."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.resolver = Resolver()
        self.reactor.nameResolver = self.resolver  # type: ignore[assignment]
        self.made: dict[str, AddressTransport] = {}
        self.named = NamedTransport(self.reactor, "here.test", "the server", self.make)

    def make(self, host: str) -> Any:
        """A transport to that address."""
        self.made[host] = AddressTransport(host)
        return self.made[host]

    def test_one_look_up(self) -> None:
        """All calls that wait for the addresses share one look-up, and later ones need none."""
        replies = [self.named.call(b"", 8) for _ in range(3)]
        self.assertEqual(len(self.resolver.receivers), 1)
        self.resolver.resolve("192.0.2.1")
        for reply in [*replies, self.named.call(b"", 8)]:
            self.made["192.0.2.1"].end(b"reply")
            self.assertEqual(self.successResultOf(reply), b"reply")
        self.assertEqual(self.resolver.receivers, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_shares(self) -> None:
        """Each address has its share of the time that is left; the one that replies is kept."""
        reply = self.named.call(b"", 8)
        self.reactor.advance(2)
        self.resolver.resolve("2001:db8::1", "192.0.2.1", "192.0.2.2")
        self.reactor.advance(2)
        self.assertEqual(self.made["2001:db8::1"].end(CallTimedOut()), 2)
        self.assertEqual(self.made["192.0.2.1"].end(b"reply"), 2)
        self.assertEqual(self.successResultOf(reply), b"reply")
        self.assertEqual((self.named.netid, self.named.host), ("udp", "192.0.2.1"))
        again = self.named.call(b"", 8)
        self.assertEqual(self.made["192.0.2.1"].end(b"again"), 8)
        self.assertEqual(self.successResultOf(again), b"again")

    def test_kept_address_is_silent(self) -> None:
        """A call to the address that replied before is not made elsewhere when it times out."""
        self.test_shares()
        reply = self.named.call(b"", 8)
        self.made["192.0.2.1"].end(CallTimedOut())
        said = str(self.failureResultOf(reply, CallTimedOut).value)
        self.assertEqual(said, "the server did not answer within 8 s")
        self.named.call(b"", 8).addErrback(lambda _: None)
        self.assertEqual(len(self.resolver.receivers), 1)

    def test_kept_address_is_gone(self) -> None:
        """Where the address that replied before is refused, the others are tried."""
        self.test_shares()
        reply = self.named.call(b"", 8)
        self.made["192.0.2.1"].end(DaemonUnreachable("refused"))
        self.made["2001:db8::1"].end(b"reply")
        self.assertEqual(self.successResultOf(reply), b"reply")

    def test_all_refused(self) -> None:
        """The last error is told; a silent address is told rather than a refused one."""
        for first, second, kind in (
            (DaemonUnreachable("one"), DaemonUnreachable("two"), DaemonUnreachable),
            (CallTimedOut(), DaemonUnreachable("two"), CallTimedOut),
        ):
            reply = self.named.call(b"", 8)
            self.resolver.resolve("192.0.2.1", "192.0.2.2")
            self.made["192.0.2.1"].end(first)
            self.made["192.0.2.2"].end(second)
            self.failureResultOf(reply, kind)

    def test_addresses_change(self) -> None:
        """A new look-up keeps the addresses that are still there, and closes the others."""
        self.test_all_refused()
        before = dict(self.made)
        reply = self.named.call(b"", 8)
        self.resolver.resolve("192.0.2.2", "192.0.2.3")
        self.assertTrue(before["192.0.2.1"].closed)
        self.assertIs(self.made["192.0.2.2"], before["192.0.2.2"])
        self.made["192.0.2.2"].end(b"reply")
        self.successResultOf(reply)

    def test_no_address(self) -> None:
        """A name without an address is an error, and is looked up again for the next call."""
        for _ in range(2):
            reply = self.named.call(b"", 8)
            self.resolver.resolve()
            said = str(self.failureResultOf(reply, DaemonUnreachable).value)
            self.assertEqual(said, "the server cannot be reached: the name has no address")

    def test_many_addresses(self) -> None:
        """Of very many addresses, not all are tried, and each of them once."""
        self.named.call(b"", 8).addErrback(lambda _: None)
        hosts = [f"192.0.2.{number}" for number in range(1, 100)]
        self.resolver.resolve(*hosts, *hosts)
        self.assertEqual(list(self.made), hosts[:MAX_ADDRESSES])

    def test_look_up_takes_too_long(self) -> None:
        """The look-up counts towards the timeout; it may end later."""
        reply = self.named.call(b"", 8)
        self.reactor.advance(8)
        said = str(self.failureResultOf(reply, CallTimedOut).value)
        self.assertEqual(said, "the address of here.test was not found within 8 s")
        self.resolver.resolve("192.0.2.1")
        reply = self.named.call(b"", 8)
        self.made["192.0.2.1"].end(b"reply")
        self.successResultOf(reply)

    def test_close(self) -> None:
        """``close`` ends what waits for the addresses, and what was sent; nothing else is tried."""
        waiting = self.named.call(b"", 8)
        self.successResultOf(self.named.close())
        self.failureResultOf(waiting, DaemonUnreachable)
        self.resolver.resolve("192.0.2.9")
        sent = self.named.call(b"", 8)
        self.resolver.resolve("192.0.2.1", "192.0.2.2")
        self.successResultOf(self.named.close())
        self.failureResultOf(sent, DaemonUnreachable)
        self.assertEqual(self.made["192.0.2.2"].calls, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_too_long(self) -> None:
        """A call that no datagram carries is refused before anything is looked up."""
        self.assertRaises(ValueError, self.named.call, bytes(65_536), 8)
        self.assertEqual(self.resolver.receivers, [])


class NameTests(SynchronousTestCase):
    """What may be a host."""

    def test_hosts(self) -> None:
        """Addresses, with and without a zone, and names, of any script, are hosts."""
        for host in ("127.0.0.1", "::1", "fe80::1%eth0", "localhost", "a.b.test.", "büro.test"):
            check_host(host)
