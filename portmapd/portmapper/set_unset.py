"""SET and UNSET: what they mean in every version."""

from portmapd.errors import AuthRefused, InvalidMapping
from portmapd.oncrpc.message import AUTH_TOOWEAK
from portmapd.portmapper.access import Modify, Register, Remove, Replace, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.context import Context, Event
from portmapd.registry.mapping import Mapping, mapping

_FROM_HERE = "SET and UNSET are taken from this host only"


def check_modify(context: Context, caller: Caller) -> None:
    """Refuse callers that may not change anything.

    :raises AuthRefused: AUTH_TOOWEAK.
    """
    if not permits(context.policy, caller, Modify()):
        context.report(Event.CALL_REFUSED, caller, why=_FROM_HERE)
        raise AuthRefused(AUTH_TOOWEAK, _FROM_HERE)


def set_mapping(
    context: Context, caller: Caller, program: int, version: int, netid: str, address: str
) -> bool:
    """Register a mapping.

    :return: whether it is registered now. It is not if a field is not valid, or if another address
        is registered that is bound or is not the caller's to replace.
    """
    why = _try_set(context, caller, program, version, netid, address)
    if why:
        context.report(
            Event.SET_REFUSED,
            caller,
            program=program,
            version=version,
            netid=netid,
            address=address,
            why=why,
        )
    return not why


def _try_set(
    context: Context, caller: Caller, program: int, version: int, netid: str, address: str
) -> str:
    """Register a mapping, or say why not."""
    try:
        new = mapping(program, version, netid, address, caller.owner)
    except InvalidMapping as error:
        return str(error)
    existing = context.registry.mappings.get(*new.key)
    if existing is None:
        return _register(context, caller, new)
    if existing.address == new.address:
        return ""
    return _replace(context, caller, existing, new)


def _register(context: Context, caller: Caller, new: Mapping) -> str:
    if not permits(context.policy, caller, Register(new.program)):
        return f"{caller.owner} may not register that program"
    context.registry.map(new)
    context.report(Event.SET, caller, **_fields(new))
    return ""


def _replace(context: Context, caller: Caller, existing: Mapping, new: Mapping) -> str:
    if not permits(context.policy, caller, Replace(existing)):
        return f"it is set to {existing.address} by {existing.owner}"
    if context.bound(existing):
        return f"it is set to {existing.address}, which is bound"
    context.registry.replace(existing, new)
    context.report(Event.REPLACED, caller, old=existing.address, **_fields(new))
    return ""


def unset_mappings(
    context: Context, caller: Caller, program: int, version: int, netids: tuple[str, ...]
) -> bool:
    """Remove a program's version from these netids, from all or none.

    :return: whether it is registered on none of them now. It still is if the caller may not
        remove it from one of them.
    """
    found = (context.registry.mappings.get(program, version, netid) for netid in netids)
    existing = [m for m in found if m is not None]
    for m in existing:
        if not permits(context.policy, caller, Remove(m)):
            why = f"it is set to {m.address} by {m.owner}"
            context.report(Event.UNSET_REFUSED, caller, why=why, **_fields(m))
            return False
    context.registry.unmap(*existing)
    for m in existing:
        if m.holder is None:
            context.report(Event.UNSET, caller, **_fields(m))
    return True


def _fields(m: Mapping) -> dict[str, object]:
    """The fields of a mapping in a report."""
    return {
        "program": m.program,
        "version": m.version,
        "netid": m.netid,
        "address": m.address,
    }
