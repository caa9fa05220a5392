"""SET and UNSET: what they mean in every version."""

from portmapd.errors import (
    AlreadyRegistered,
    AuthRefused,
    InvalidMapping,
    LimitExceeded,
    Refusal,
)
from portmapd.oncrpc.message import AUTH_TOOWEAK
from portmapd.portmapper.access import Modify, Register, Remove, Replace, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.context import Context, Event
from portmapd.registry.mapping import SUPERUSER, Mapping, mapping

#: The most characters of a netid or an address in a message.
_MAX_SHOWN = 120


def check_modify(context: Context, caller: Caller, program: int, version: int) -> None:
    """Refuse callers that may not change anything.

    :raises AuthRefused: AUTH_TOOWEAK.
    """
    if not permits(context.policy, caller, Modify()):
        raise AuthRefused(
            AUTH_TOOWEAK,
            f"program {program} version {version}: SET and UNSET are taken from this host only",
        )


def set_mapping(
    context: Context, caller: Caller, program: int, version: int, netid: str, address: str
) -> None:
    """Register a mapping.

    :raises Refusal: it is not registered, because a field is not valid, because another address is
        registered that is bound or is not the caller's to replace, or because there would be too
        many.
    """
    try:
        _set(context, caller, mapping(program, version, netid, address, caller.owner))
    except Refusal as refusal:
        what = f"program {program} version {version} on {_shown(netid)} at {_shown(address)}"
        raise type(refusal)(f"SET of {what}: {refusal}") from None


def _set(context: Context, caller: Caller, new: Mapping) -> None:
    existing = context.registry.mappings.get(*new.key)
    if existing is None:
        _register(context, caller, new)
    elif existing.address != new.address:
        _replace(context, caller, existing, new)
    elif permits(context.policy, caller, Replace(existing)):
        context.registry.confirm(existing)


def _register(context: Context, caller: Caller, new: Mapping) -> None:
    if not permits(context.policy, caller, Register(new.program)):
        raise InvalidMapping("the program is the port mapper's own")
    if new.key not in context.registry.suspended:
        _check_limits(context, new.owner)
    context.registry.map(new)
    context.report(Event.SET, caller, new)


def _check_limits(context: Context, owner: str) -> None:
    policy, registry = context.policy, context.registry
    if owner != SUPERUSER and registry.unheld(owner) >= policy.max_user_mappings:
        raise LimitExceeded(
            f"owner {owner} has {policy.max_user_mappings} mappings, and may have no more "
            "(--max-user-mappings)"
        )
    if registry.all_unheld >= policy.max_total_mappings:
        raise LimitExceeded(
            f"there are {policy.max_total_mappings} mappings, and may be no more "
            "(--max-total-mappings)"
        )


def _replace(context: Context, caller: Caller, existing: Mapping, new: Mapping) -> None:
    if not permits(context.policy, caller, Replace(existing)):
        raise AlreadyRegistered(f"{existing.address} is registered, by owner {existing.owner}")
    if context.bound(existing):
        raise AlreadyRegistered(f"{existing.address} is registered, and still bound")
    context.registry.replace(existing, new)
    context.report(Event.REPLACED, caller, new, old=existing.address)


def unset_mappings(
    context: Context, caller: Caller, program: int, version: int, netids: tuple[str, ...]
) -> None:
    """Remove a program's version from these netids, from all or none; suspended mappings, too.

    :raises AlreadyRegistered: it is still registered, because the caller may not remove it from one
        of them.
    """
    registry = context.registry
    keys = [(program, version, netid) for netid in netids]
    existing = [m for m in (registry.mappings.get(*key) for key in keys) if m is not None]
    suspended = [registry.suspended[key] for key in keys if key in registry.suspended]
    for m in (*existing, *suspended):
        if not permits(context.policy, caller, Remove(m)):
            raise AlreadyRegistered(
                f"UNSET of program {program} version {version} on {m.netid}: it is registered by "
                f"owner {m.owner}"
            )
    registry.unmap(*existing)
    registry.forget(*suspended)
    for m in (*existing, *suspended):
        # What a connection held is logged with that.
        if m.holder is None:
            context.report(Event.UNSET, caller, m)


def _shown(text: str) -> str:
    """*text*, which a caller chose, on one line and not too long."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")
