"""SET and UNSET: what is refused, and with which words; limits; services that pause."""

from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.message import decode_reply
from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.access import Policy
from portmapd.portmapper.caller import Caller
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import (
    FALSE,
    TRUE,
    PortMapper,
    call,
    local,
    loopback,
    pmap,
    remote,
    rpcb,
)

ROOT, USER, OTHER = local(0), local(104), local(105)
HTTP, HTTP_ALT = "127.0.0.1.0.80", "127.0.0.1.0.81"


class SetTestCase(SynchronousTestCase):
    """A port mapper for callers of several users."""

    policy = Policy()

    def setUp(self) -> None:
        self.mapper = PortMapper(self.policy)

    def set(self, caller: Caller, program: int, address: str = HTTP, netid: str = "tcp") -> str:
        """SET; why it is refused, empty if it is not."""
        return self.said(caller, call(4, 1, rpcb(program, 1, netid, address)))

    def unset(self, caller: Caller, program: int) -> str:
        """UNSET; why it is refused, empty if it is not."""
        return self.said(caller, call(4, 2, rpcb(program, 1)))

    def said(self, caller: Caller, message: bytes) -> str:
        """Why a call is refused; its result must agree."""
        outcome = self.mapper.dispatch(message, caller)
        assert outcome.reply is not None
        self.assertEqual(decode_reply(outcome.reply), FALSE if outcome.refused else TRUE)
        return outcome.refused

    def pause(self, program: int) -> None:
        """Have the service of a program pause."""
        found = self.mapper.registry.mappings.get(program, 1, "tcp")
        assert found is not None
        self.mapper.registry.suspend(found)

    def addresses(self) -> list[str]:
        """What is registered."""
        return [m.address for m in self.mapper.registry.mappings]


class RefusalTests(SetTestCase):
    """Why a mapping is not registered."""

    def test_fields(self) -> None:
        """What is not valid is named, with the mapping that was to be set."""
        for address, netid, said in (
            ("127.0.0.1.0.0", "tcp", "address '127.0.0.1.0.0' has port 0"),
            ("::1.0.80", "tcp", "'::1' in address '::1.0.80' is not an inet address"),
            (HTTP, "sctp", "netid 'sctp' is none of udp, tcp, udp6, tcp6, local"),
            ("run/s", "local", "address 'run/s' is not an absolute path"),
        ):
            what = f"SET of program 7 version 1 on '{netid}' at '{address}'"
            self.assertEqual(self.set(USER, 7, address, netid), f"{what}: {said}")

    def test_long_fields(self) -> None:
        """What a caller sends neither makes the log long, nor breaks its lines."""
        said = self.set(USER, 7, "\n" * 200, "x" * 200)
        self.assertLess(len(said), 1000)
        self.assertNotIn("\n", said)

    def test_version_2(self) -> None:
        """So it is in version 2."""
        for protocol, port in ((17, 0), (17, 65_536), (132, 80)):
            said = self.said(USER, call(2, 1, pmap(7, 1, protocol, port)))
            what = f"SET of program 7 version 1 on protocol {protocol} at port {port}: "
            self.assertTrue(said.startswith(what), said)

    def test_its_own_program(self) -> None:
        """Program 100000 is the port mapper's."""
        self.assertIn("the program is the port mapper's own", self.set(ROOT, PROGRAM))

    def test_another_owner(self) -> None:
        """It is said whose a mapping is that cannot be replaced or removed."""
        self.assertEqual(self.set(USER, 7), "")
        self.assertIn(f"{HTTP} is registered, by owner 104", self.set(OTHER, 7, HTTP_ALT))
        said = "UNSET of program 7 version 1 on tcp: it is registered by owner 104"
        self.assertEqual(self.unset(OTHER, 7), said)

    def test_bound(self) -> None:
        """So it is if its address is still bound."""
        self.assertEqual(self.set(USER, 7), "")
        self.mapper.bound.add(HTTP)
        self.assertIn(f"{HTTP} is registered, and still bound", self.set(USER, 7, HTTP_ALT))

    def test_elsewhere(self) -> None:
        """A caller on another host is refused in the log, too."""
        outcome = self.mapper.dispatch(call(4, 1, rpcb(7, 1, "tcp", HTTP)), remote())
        said = "program 7 version 1: SET and UNSET are taken from this host only"
        self.assertEqual(outcome.refused, said)

    def test_nothing_else(self) -> None:
        """What is done, and what only fails, is not refused."""
        for message in (call(4, 1, rpcb(7, 1, "tcp", HTTP)), call(2, 3, pmap(9, 1)), call(9, 1)):
            self.assertEqual(self.mapper.dispatch(message, loopback()).refused, "")

    def test_every_spelling(self) -> None:
        """All spellings of an address are the same one: nothing is replaced."""
        self.assertEqual(self.set(ROOT, 7, "::.19.136", "tcp6"), "")
        for spelling in ("0:0:0:0:0:0:0:0.19.136", "0::0.19.136", "::0.0.0.0.19.136"):
            self.assertEqual(self.set(ROOT, 7, spelling, "tcp6"), "", spelling)
        self.assertEqual(self.addresses(), ["::.19.136"])


class LimitTests(SetTestCase):
    """How many mappings there may be."""

    policy = Policy(max_user_mappings=3, max_total_mappings=8)

    def fill(self, caller: Caller, first: int, count: int) -> None:
        """SET so many programs."""
        for program in range(first, first + count):
            self.assertEqual(self.set(caller, program), "")

    def test_user(self) -> None:
        """A user may set so many and not one more; others may, and root has no such limit."""
        self.fill(USER, 1, 3)
        said = self.set(USER, 4)
        self.assertIn("owner 104 has 3 mappings, and may have no more (--max-user-mappings)", said)
        self.fill(OTHER, 11, 1)
        self.fill(ROOT, 21, 4)
        self.assertEqual(self.unset(ROOT, 1), "")
        self.fill(USER, 4, 1)

    def test_unknown(self) -> None:
        """Callers whose user is not known share a limit."""
        self.fill(loopback(), 1, 3)
        self.assertIn("--max-user-mappings", self.set(loopback(port=50_000), 4))

    def test_total(self) -> None:
        """All together may set so many, root included."""
        self.fill(ROOT, 1, 6)
        self.fill(USER, 11, 2)
        said = "there are 8 mappings, and may be no more (--max-total-mappings)"
        for caller in (USER, ROOT):
            self.assertIn(said, self.set(caller, 21))
        self.assertEqual(self.unset(ROOT, 1), "")
        self.fill(ROOT, 21, 1)

    def test_set_again(self) -> None:
        """A service that registers again, at its address or another one, needs no room."""
        self.fill(USER, 1, 3)
        self.assertEqual(self.set(USER, 3), "")
        self.assertEqual(self.set(USER, 3, HTTP_ALT), "")
        self.pause(3)
        self.assertEqual(self.set(USER, 3, "127.0.0.1.0.82"), "")
        self.assertIn("--max-user-mappings", self.set(USER, 4))

    def test_suspended_counts(self) -> None:
        """What is remembered of services that pause counts, too."""
        self.fill(USER, 1, 3)
        for program in (1, 2, 3):
            self.pause(program)
        self.assertIn("--max-user-mappings", self.set(USER, 4))

    def test_held_does_not_count(self) -> None:
        """What is registered over the local channel counts there."""
        holder = self.mapper.registry.open(Holder(104, 1))
        for program in range(100, 120):
            self.mapper.registry.map(mapping(program, 1, "tcp", HTTP, "104", holder))
        self.fill(USER, 1, 3)


class PauseTests(SetTestCase):
    """Services that do not listen just now."""

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.set(USER, 7), "")
        self.pause(7)
        self.assertEqual(self.addresses(), [])

    def remembered(self) -> list[str]:
        """What is remembered."""
        return [m.address for m in self.mapper.registry.suspended.values()]

    def test_set(self) -> None:
        """The owner, or root, registers it anew; what was remembered is not any more."""
        for caller in (USER, ROOT):
            self.assertEqual(self.set(caller, 7, HTTP_ALT), "")
            self.assertEqual((self.addresses(), self.remembered()), ([HTTP_ALT], []))
            self.pause(7)

    def test_set_by_another(self) -> None:
        """Another user cannot take its place meanwhile."""
        for caller in (OTHER, loopback()):
            said = self.set(caller, 7, HTTP_ALT)
            self.assertIn(f"{HTTP} by owner 104, whose service is not listening", said)
        self.assertEqual((self.addresses(), self.remembered()), ([], [HTTP]))

    def test_unset(self) -> None:
        """The owner, or root, makes it forgotten; another user does not."""
        self.assertIn("it is registered by owner 104", self.unset(OTHER, 7))
        self.assertEqual(self.remembered(), [HTTP])
        for caller in (USER, ROOT):
            self.assertEqual(self.unset(caller, 7), "")
            self.assertEqual(self.remembered(), [])
            self.set(USER, 7)
            self.pause(7)

    def test_not_listed(self) -> None:
        """No caller sees it."""
        for version, procedure, arguments in ((2, 3, pmap(7, 1, 6)), (2, 4, b""), (4, 4, b"")):
            self.assertEqual(self.mapper.ask(local(), version, procedure, arguments), FALSE)
