"""SET and UNSET: what they mean in every version."""

from portmapd.errors import AuthRefused, InvalidMapping
from portmapd.oncrpc.message import AUTH_TOOWEAK
from portmapd.portmapper.access import Modify, Register, Remove, Replace, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.context import Context
from portmapd.registry.mapping import Mapping, mapping


def check_modify(context: Context, caller: Caller) -> None:
    """Refuse callers that may not change anything.

    :raises AuthRefused: AUTH_TOOWEAK.
    """
    if not permits(context.policy, caller, Modify()):
        raise AuthRefused(AUTH_TOOWEAK, "SET and UNSET are taken from this host only")


def set_mapping(
    context: Context, caller: Caller, program: int, version: int, netid: str, address: str
) -> bool:
    """Register a mapping.

    :return: whether it is registered now. It is not if a field is not valid, or if another address
        is registered that is bound or is not the caller's to replace.
    """
    try:
        new = mapping(program, version, netid, address, caller.owner)
    except InvalidMapping:
        return False
    existing = context.registry.mappings.get(*new.key)
    if existing is None:
        return _register(context, caller, new)
    if existing.address == new.address:
        return True
    return _replace(context, caller, existing, new)


def _register(context: Context, caller: Caller, new: Mapping) -> bool:
    if not permits(context.policy, caller, Register(new.program)):
        return False
    context.registry.map(new)
    return True


def _replace(context: Context, caller: Caller, existing: Mapping, new: Mapping) -> bool:
    if not permits(context.policy, caller, Replace(existing)) or context.bound(existing):
        return False
    context.registry.replace(existing, new)
    return True


def unset_mappings(
    context: Context, caller: Caller, program: int, version: int, netids: tuple[str, ...]
) -> bool:
    """Remove a program's version from these netids, from all or none.

    :return: whether it is registered on none of them now. It still is if the caller may not
        remove it from one of them.
    """
    found = (context.registry.mappings.get(program, version, netid) for netid in netids)
    existing = [m for m in found if m is not None]
    if not all(permits(context.policy, caller, Remove(m)) for m in existing):
        return False
    context.registry.unmap(*existing)
    return True
