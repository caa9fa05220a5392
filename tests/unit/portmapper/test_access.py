"""Who may do what: a table over callers, permissions and policies."""

from ipaddress import ip_network

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from portmapd.oncrpc.netid import LOCAL, TCP, TCP6, UDP, UDP6
from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.access import (
    Ask,
    Callit,
    Forward,
    Modify,
    Permission,
    Policy,
    Register,
    Remove,
    Replace,
    Reply,
    permits,
)
from portmapd.portmapper.caller import Audience, Caller
from portmapd.registry.holder import Holder
from portmapd.registry.mapping import mapping
from tests.support.rpc_samples import CALLERS, local, loopback, remote

ROOT, USER = local(0), local(104)
#: Loopback, from a reserved port and from another one.
RESERVED, ORDINARY = loopback(port=1023), loopback(port=1024)
TRUSTED, STRANGER = remote(TCP, Audience.TRUSTED), remote(TCP)
EXCLUDED = remote(TCP, Audience.EXCLUDED)
NAMES = {
    "root": ROOT,
    "user": USER,
    "reserved": RESERVED,
    "ordinary": ORDINARY,
    "trusted": TRUSTED,
    "stranger": STRANGER,
    "excluded": EXCLUDED,
}

HERE = {"root", "user", "reserved", "ordinary"}
EVERYONE = HERE | {"trusted", "stranger"}

PLAIN, INSECURE = Policy(), Policy(insecure=True)


def owned(owner: str, holder: Holder | None = None, program: int = 7) -> Replace:
    """To replace a mapping of *owner*."""
    return Replace(mapping(program, 1, "udp", "0.0.0.0.0.111", owner, holder))


def removed(owner: str, holder: Holder | None = None, program: int = 7) -> Remove:
    """To remove a mapping of *owner*."""
    return Remove(owned(owner, holder, program).existing)


CONNECTION = Holder(104, 1)

#: Policy, permission, who has it.
TABLE: list[tuple[Policy, Permission, set[str]]] = [
    (PLAIN, Ask(), EVERYONE),
    (INSECURE, Ask(), EVERYONE),
    (PLAIN, Modify(), HERE),
    (INSECURE, Modify(), EVERYONE),
    (PLAIN, Register(7), EVERYONE),
    (PLAIN, Register(PROGRAM), set()),
    (PLAIN, owned("superuser"), {"root", "reserved"}),
    (PLAIN, owned("104"), {"root", "reserved", "user"}),
    (PLAIN, owned("105"), {"root", "reserved"}),
    (PLAIN, owned("unknown"), {"root", "reserved", "ordinary", "trusted", "stranger"}),
    (PLAIN, owned("104", CONNECTION), set()),
    (PLAIN, owned("superuser", CONNECTION), set()),
    (PLAIN, removed("superuser"), {"root", "reserved"}),
    (PLAIN, removed("104"), {"root", "reserved", "user"}),
    (PLAIN, removed("105"), {"root", "reserved"}),
    (PLAIN, removed("unknown"), {"root", "reserved", "ordinary", "trusted", "stranger"}),
    (PLAIN, removed("104", CONNECTION), {"root", "reserved"}),
    (PLAIN, removed("superuser", None, PROGRAM), set()),
    (PLAIN, removed("superuser", CONNECTION, PROGRAM), set()),
    (Policy(callit=Callit.OFF), Forward(7, 0), set()),
    (Policy(callit=Callit.OFF), Forward(7, 1), set()),
    (Policy(callit=Callit.LOCAL), Forward(7, 0), HERE),
    (Policy(callit=Callit.LOCAL), Forward(7, 1), HERE),
    (Policy(callit=Callit.NULL), Forward(7, 0), EVERYONE),
    (Policy(callit=Callit.NULL), Forward(7, 1), HERE),
    (Policy(callit=Callit.ALL), Forward(7, 0), EVERYONE),
    (Policy(callit=Callit.ALL), Forward(7, 1), EVERYONE),
]

#: Program, procedure, is it kept from being called for others? As rpcbind has it.
SHIELDED = [
    (100003, 1, True),
    (100003, 0xFFFF_FFFF, True),
    (100004, 1, False),
    (100004, 2, False),
    (100004, 3, True),
    (100004, 4, True),
    (100004, 5, True),
    (100004, 6, False),
    (100004, 7, False),
    (100004, 8, True),
    (100004, 9, False),
    (100005, 1, True),
    (100005, 2, False),
    (100005, 3, True),
    (100005, 4, False),
    (100005, 5, False),
    (100007, 1, False),
    (100007, 2, True),
    (100009, 1, True),
    (100011, 1, True),
    (100002, 1, False),
    (100024, 1, False),
]


class PermitsTests(SynchronousTestCase):
    """The rules."""

    def test_table(self) -> None:
        """Every row is so for every caller."""
        for policy, permission, allowed in TABLE:
            found = {name for name, who in NAMES.items() if permits(policy, who, permission)}
            self.assertEqual(found, allowed, f"{permission} under {policy}")

    def test_shielded(self) -> None:
        """What trusts this host is not called for anyone, under any policy; procedure 0 is."""
        for callit in (Callit.LOCAL, Callit.NULL, Callit.ALL):
            policy = Policy(callit=callit)
            for program, procedure, shielded in SHIELDED:
                permitted = permits(policy, ROOT, Forward(program, procedure))
                self.assertEqual(permitted, not shielded, f"{program}, {procedure}")
                self.assertTrue(permits(policy, ROOT, Forward(program, 0)))
        for program, procedure, shielded in SHIELDED:
            permitted = permits(Policy(callit=Callit.ALL), STRANGER, Forward(program, procedure))
            self.assertEqual(permitted, not shielded, f"{program}, {procedure}")

    def test_never_itself(self) -> None:
        """The port mapper does not call itself, for it trusts this host, too."""
        for callit in Callit:
            for caller in CALLERS:
                for procedure in (0, 1):
                    self.assertFalse(
                        permits(Policy(callit=callit), caller, Forward(PROGRAM, procedure))
                    )

    def test_size_of_answers(self) -> None:
        """Strangers over UDP, and only they, get no more than they sent, or 80 bytes."""
        for caller in CALLERS:
            if caller.audience is Audience.EXCLUDED:
                continue
            bounded = caller.audience is Audience.STRANGER and caller.netid in {UDP, UDP6}
            for insecure in (PLAIN, INSECURE):
                for request, most in ((0, 80), (40, 80), (80, 80), (81, 81), (400, 400)):
                    self.assertTrue(permits(insecure, caller, Reply(request, most)))
                    larger = Reply(request, most + 1)
                    self.assertEqual(permits(insecure, caller, larger), not bounded)

    def test_excluded(self) -> None:
        """Who may not ask may do nothing."""
        policy = Policy(insecure=True, callit=Callit.ALL)
        permissions = {type(permission): permission for _, permission, _ in TABLE}
        for permission in (*permissions.values(), Reply(40, 24)):
            self.assertFalse(permits(policy, EXCLUDED, permission))


#: Host on the wire, and its audience if 10.0.0.0/8 and 2001:db8:1::/48 are trusted, and
#: if those and 192.0.2.0/24 are also all that is allowed.
AUDIENCES = [
    ("127.0.0.1", Audience.EXCLUDED, Audience.EXCLUDED),
    ("127.255.255.254", Audience.EXCLUDED, Audience.EXCLUDED),
    ("::1", Audience.EXCLUDED, Audience.EXCLUDED),
    ("::ffff:127.0.0.1", Audience.EXCLUDED, Audience.EXCLUDED),
    ("10.1.2.3", Audience.TRUSTED, Audience.TRUSTED),
    ("::ffff:10.1.2.3", Audience.EXCLUDED, Audience.EXCLUDED),
    ("2001:db8:1::7", Audience.TRUSTED, Audience.TRUSTED),
    ("192.0.2.7", Audience.STRANGER, Audience.STRANGER),
    ("198.51.100.1", Audience.STRANGER, Audience.EXCLUDED),
    ("2001:db8:2::7", Audience.STRANGER, Audience.EXCLUDED),
    ("fe80::1%eth0", Audience.STRANGER, Audience.EXCLUDED),
    ("0.0.0.0", Audience.STRANGER, Audience.EXCLUDED),
    ("::", Audience.STRANGER, Audience.EXCLUDED),
]


class AudienceTests(SynchronousTestCase):
    """Which audience a host belongs to."""

    trusted = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))

    def test_open(self) -> None:
        """Without allowed networks, all others are strangers."""
        policy = Policy(self.trusted)
        for host, audience, _ in AUDIENCES:
            self.assertIs(policy.audience(host), audience, host)

    def test_allowed(self) -> None:
        """With them, those outside are excluded."""
        policy = Policy(self.trusted, (*self.trusted, ip_network("192.0.2.0/24")))
        for host, _, audience in AUDIENCES:
            self.assertIs(policy.audience(host), audience, host)

    def test_from_this_host(self) -> None:
        """This host is local whatever address it uses, but for those that are always forged."""
        policy = Policy(self.trusted, (ip_network("192.0.2.0/24"),))
        for host, _, _ in AUDIENCES:
            mapped = host.startswith("::ffff:")
            expected = Audience.EXCLUDED if mapped else Audience.LOCAL
            self.assertIs(policy.audience(host, from_this_host=True), expected, host)

    def test_trusted_is_not_allowed(self) -> None:
        """To be trusted does not let one in."""
        policy = Policy(self.trusted, (ip_network("192.0.2.0/24"),))
        self.assertIs(policy.audience("10.1.2.3"), Audience.EXCLUDED)

    def test_link_local(self) -> None:
        """A scope does not matter to a network."""
        policy = Policy((ip_network("fe80::/10"),))
        self.assertIs(policy.audience("fe80::1%eth0"), Audience.TRUSTED)


#: Caller, its owner.
OWNERS = [
    (local(0), "superuser"),
    (local(104), "104"),
    (loopback(UDP, 0), "superuser"),
    (loopback(TCP, 1023), "superuser"),
    (loopback(TCP6, 1023), "superuser"),
    (loopback(TCP, 1024), "unknown"),
    (loopback(UDP6, 65535), "unknown"),
    (remote(UDP, Audience.TRUSTED, 1), "unknown"),
    (remote(TCP, Audience.STRANGER, 1023), "unknown"),
    (remote(TCP6, Audience.STRANGER, 5000), "unknown"),
]


class CallerTests(SynchronousTestCase):
    """What a caller is called."""

    def test_owner(self) -> None:
        """Owners are derived as rpcbind derives them."""
        for caller, owner in OWNERS:
            self.assertEqual(caller.owner, owner, str(caller))

    def test_owner_without_reserved_ports(self) -> None:
        """Where anybody may bind a port, it makes nobody superuser."""
        free = [evolve(loopback(UDP, port), reserved_ports=80) for port in (79, 80, 700)]
        self.assertEqual([caller.owner for caller in free], ["superuser", "unknown", "unknown"])

    def test_owner_over_the_socket(self) -> None:
        """Over the rpcbind socket, the user counts and nothing else."""
        caller = Caller(LOCAL, Audience.LOCAL, uid=104)
        self.assertEqual(evolve(caller, port=1).owner, "104")

    def test_text(self) -> None:
        """Log lines name the peer."""
        self.assertEqual(str(local(104)), "uid 104")
        self.assertEqual(str(remote(port=999)), "192.0.2.7 port 999")
