"""Who may do what: :func:`permits`, a pure function of policy, caller and permission."""

from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from attrs import frozen

from portmapd.oncrpc.program import PROGRAM
from portmapd.portmapper.caller import RESERVED_PORTS, Audience, Caller
from portmapd.registry.mapping import SUPERUSER, Mapping

Network = IPv4Network | IPv6Network

#: The largest reply, in bytes, that a stranger gets over UDP however short its request is. The
#: longest universal address fits, in GETADDR's reply (76 bytes) and in that of a BCAST without
#: results (80 bytes); no list of any use does.
SMALL_REPLY = 80
#: The most mappings that one user, and all users, may SET. A mapping takes about 1 KiB.
MAX_USER_MAPPINGS = 1_000
MAX_TOTAL_MAPPINGS = 100_000


class Callit(Enum):
    """Which calls CALLIT, BCAST and INDIRECT forward."""

    OFF = "off"
    LOCAL = "local"
    NULL = "null"
    ALL = "all"


@frozen
class Policy:
    """What the administrator allows.

    :param trusted: networks whose callers may get large replies to small requests over UDP.
    :param allowed: networks whose callers are served, beside this host; empty means all.
    :param insecure: whether SET and UNSET are taken from other hosts.
    :param callit: which calls are forwarded. Callers on this host are served unless it is OFF;
        for others nothing is forwarded (LOCAL), procedure 0 (NULL), or the same (ALL).
    :param reserved_ports: only the superuser may bind ports of this host below this number.
    :param max_user_mappings: the most mappings that one user may SET; the superuser has no such
        limit.
    :param max_total_mappings: the most that all users together may.
    """

    trusted: tuple[Network, ...] = ()
    allowed: tuple[Network, ...] = ()
    insecure: bool = False
    callit: Callit = Callit.LOCAL
    reserved_ports: int = RESERVED_PORTS
    max_user_mappings: int = MAX_USER_MAPPINGS
    max_total_mappings: int = MAX_TOTAL_MAPPINGS

    def audience(self, host: str, from_this_host: bool = False) -> Audience:
        """The audience that a caller at *host* belongs to.

        An IPv4-mapped source address is forged: IPv6 sockets serve IPv6 only, but the kernel
        delivers such datagrams. A loopback address is forged if the message is not of this host.

        :param host: IPv4 or IPv6 address. A sender over UDP can forge it.
        :param from_this_host: whether the kernel vouches that this host sent the message.
        """
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            return Audience.EXCLUDED
        if from_this_host:
            return Audience.LOCAL
        if address.is_loopback:
            return Audience.EXCLUDED
        if self.allowed and not any(address in network for network in self.allowed):
            return Audience.EXCLUDED
        trusted = any(address in network for network in self.trusted)
        return Audience.TRUSTED if trusted else Audience.STRANGER


@frozen
class Ask:
    """To call any procedure."""


@frozen
class Modify:
    """To call SET or UNSET."""


@frozen
class Register:
    """To SET a mapping of *program* where none is registered."""

    program: int


@frozen
class Replace:
    """To SET another address in place of *existing*, whose service is gone."""

    existing: Mapping


@frozen
class Remove:
    """To UNSET *existing*."""

    existing: Mapping


@frozen
class Forward:
    """To have a procedure of another program called."""

    program: int
    procedure: int


@frozen
class Reply:
    """To be sent a reply.

    :param request_size: the size of the request, in bytes.
    :param reply_size: the size of the reply, in bytes.
    """

    request_size: int
    reply_size: int


Permission = Ask | Modify | Register | Replace | Remove | Forward | Reply


def permits(policy: Policy, caller: Caller, permission: Permission) -> bool:
    """Whether *policy* gives *caller* that permission."""
    if caller.audience is Audience.EXCLUDED:
        return False
    return _RULES[type(permission)](policy, caller, permission)


def _may_ask(policy: Policy, caller: Caller, permission: Ask) -> bool:
    return True


def _may_modify(policy: Policy, caller: Caller, permission: Modify) -> bool:
    return policy.insecure or caller.audience is Audience.LOCAL


def _may_register(policy: Policy, caller: Caller, permission: Register) -> bool:
    return permission.program != PROGRAM


def _may_replace(policy: Policy, caller: Caller, permission: Replace) -> bool:
    """Nobody may replace what a connection of the local channel holds."""
    existing = permission.existing
    return existing.holder is None and caller.owner in (SUPERUSER, existing.owner)


def _may_remove(policy: Policy, caller: Caller, permission: Remove) -> bool:
    """Only the superuser may remove what a connection of the local channel holds."""
    existing = permission.existing
    if existing.program == PROGRAM:
        return False
    return caller.owner == SUPERUSER or (existing.holder is None and caller.owner == existing.owner)


def _may_get_reply(policy: Policy, caller: Caller, permission: Reply) -> bool:
    """The source address of a datagram may be forged: a reply must not amplify its request."""
    if caller.netid.protocol != "udp" or caller.audience is not Audience.STRANGER:
        return True
    return permission.reply_size <= max(permission.request_size, SMALL_REPLY)


def _may_forward(policy: Policy, caller: Caller, permission: Forward) -> bool:
    if permission.program == PROGRAM or policy.callit is Callit.OFF:
        return False
    if caller.audience is not Audience.LOCAL and policy.callit is not Callit.ALL:
        return policy.callit is Callit.NULL and permission.procedure == 0
    return permission.procedure == 0 or not _is_shielded(permission)


def _is_shielded(call: Forward) -> bool:
    procedures = _SHIELDED.get(call.program, ())
    return procedures is None or call.procedure in procedures


#: Programs that trust callers on this host, and the procedures that a forwarded call would open
#: to others; None means all. The list is that of rpcbind's ``check_callit``.
_SHIELDED: dict[int, tuple[int, ...] | None] = {
    100003: None,  # NFS
    100004: (3, 4, 5, 8),  # NIS: MATCH, FIRST, NEXT, ALL
    100005: (1, 3),  # mount: MNT, UMNT
    100007: (2,),  # NIS binding: SETDOM
    100009: None,  # yppasswd
    100011: None,  # rquota
}

_RULES: dict[type[Permission], Callable[[Policy, Caller, Any], bool]] = {
    Ask: _may_ask,
    Modify: _may_modify,
    Register: _may_register,
    Replace: _may_replace,
    Remove: _may_remove,
    Forward: _may_forward,
    Reply: _may_get_reply,
}
