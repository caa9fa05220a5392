"""Who may do what: :func:`permits`, a pure function of policy, caller and operation."""

from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from attrs import frozen

from portmapd.portmapper.caller import RESERVED_PORTS, Audience, Caller
from portmapd.registry.mapping import SUPERUSER, Mapping

Network = IPv4Network | IPv6Network

#: The port mapper's own program number.
PROGRAM = 100000


class Callit(Enum):
    """Which calls are forwarded."""

    OFF = "off"
    LOCAL = "local"
    NULL = "null"
    ALL = "all"


@frozen
class Policy:
    """What the administrator allows.

    :param trusted: networks whose callers may get replies larger than their requests over UDP.
    :param allowed: networks that may ask at all, beside this host; empty: everyone may.
    :param insecure: SET and UNSET are taken from everywhere.
    :param callit: which calls are forwarded; callers on this host are served unless it is OFF,
        others nothing (LOCAL), procedure 0 (NULL), or as callers on this host (ALL).
    :param reserved_ports: a port of this host below this number is the superuser's to bind.
    """

    trusted: tuple[Network, ...] = ()
    allowed: tuple[Network, ...] = ()
    insecure: bool = False
    callit: Callit = Callit.LOCAL
    reserved_ports: int = RESERVED_PORTS

    def audience(self, host: str, from_outside: bool = False) -> Audience:
        """The audience that a caller at *host* belongs to.

        An IPv4-mapped address is nobody's source: sockets of IPv6 serve IPv6 alone, and the
        kernel delivers what claims such a source all the same.

        :param host: IPv4 or IPv6 address, which a sender over UDP chooses.
        :param from_outside: the message came in over another interface than loopback, so that a
            loopback address is forged.
        """
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            return Audience.EXCLUDED
        if address.is_loopback:
            return Audience.EXCLUDED if from_outside else Audience.LOCAL
        if self.allowed and not any(address in network for network in self.allowed):
            return Audience.EXCLUDED
        trusted = any(address in network for network in self.trusted)
        return Audience.TRUSTED if trusted else Audience.STRANGER


@frozen
class Ask:
    """To ask anything at all."""


@frozen
class Modify:
    """To call SET or UNSET at all."""


@frozen
class Register:
    """To SET a mapping of *program* where there is none."""

    program: int


@frozen
class Replace:
    """To SET another address in the place of *standing*, which leads nowhere any more."""

    standing: Mapping


@frozen
class Remove:
    """To UNSET *standing*."""

    standing: Mapping


@frozen
class Forward:
    """To have a procedure of another program called."""

    program: int
    procedure: int


@frozen
class Answer:
    """To be sent a reply.

    :param asked: the size of the request in bytes.
    :param answered: the size of the reply in bytes.
    """

    asked: int
    answered: int


Operation = Ask | Modify | Register | Replace | Remove | Forward | Answer


def permits(policy: Policy, caller: Caller, operation: Operation) -> bool:
    """May *caller* do *operation* under *policy*?"""
    if caller.audience is Audience.EXCLUDED:
        return False
    return _RULES[type(operation)](policy, caller, operation)


def _may_ask(policy: Policy, caller: Caller, operation: Ask) -> bool:
    return True


def _may_modify(policy: Policy, caller: Caller, operation: Modify) -> bool:
    return policy.insecure or caller.audience is Audience.LOCAL


def _may_register(policy: Policy, caller: Caller, operation: Register) -> bool:
    return operation.program != PROGRAM


def _may_replace(policy: Policy, caller: Caller, operation: Replace) -> bool:
    """What a connection holds is nobody else's to replace."""
    standing = operation.standing
    return standing.holder is None and caller.owner in (SUPERUSER, standing.owner)


def _may_remove(policy: Policy, caller: Caller, operation: Remove) -> bool:
    """What a connection holds, the superuser alone may remove from elsewhere."""
    standing = operation.standing
    if standing.program == PROGRAM:
        return False
    return caller.owner == SUPERUSER or (standing.holder is None and caller.owner == standing.owner)


def _may_be_answered(policy: Policy, caller: Caller, operation: Answer) -> bool:
    """A UDP source address may be forged: its owner must not get more than the forger spent."""
    if caller.netid.protocol != "udp" or caller.audience is not Audience.STRANGER:
        return True
    return operation.answered <= operation.asked


def _may_forward(policy: Policy, caller: Caller, operation: Forward) -> bool:
    if operation.program == PROGRAM or policy.callit is Callit.OFF:
        return False
    if caller.audience is not Audience.LOCAL and policy.callit is not Callit.ALL:
        return policy.callit is Callit.NULL and operation.procedure == 0
    return operation.procedure == 0 or not _is_shielded(operation)


def _is_shielded(operation: Forward) -> bool:
    shielded = _SHIELDED.get(operation.program, ())
    return shielded is None or operation.procedure in shielded


#: Programs that trust callers of this host, and their procedures that a call from here would
#: open to others (None: all of them); as rpcbind's check_callit has them.
_SHIELDED: dict[int, tuple[int, ...] | None] = {
    100003: None,  # NFS
    100004: (3, 4, 5, 8),  # NIS: MATCH, FIRST, NEXT, ALL
    100005: (1, 3),  # mount: MNT, UMNT
    100007: (2,),  # NIS binding: SETDOM
    100009: None,  # yppasswd
    100011: None,  # rquota
}

_RULES: dict[type[Operation], Callable[[Policy, Caller, Any], bool]] = {
    Ask: _may_ask,
    Modify: _may_modify,
    Register: _may_register,
    Replace: _may_replace,
    Remove: _may_remove,
    Forward: _may_forward,
    Answer: _may_be_answered,
}
