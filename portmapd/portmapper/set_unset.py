"""SET and UNSET: one meaning in every version."""

from portmapd.errors import AuthRefused, InvalidMapping
from portmapd.oncrpc.message import AUTH_TOOWEAK
from portmapd.portmapper.access import Modify, Register, Remove, Replace, permits
from portmapd.portmapper.caller import Caller
from portmapd.portmapper.procedure import Context
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

    :return: is it registered now? It is not where a field is not valid, or where another address
        is registered that is bound, or is not the caller's to replace.
    """
    try:
        new = mapping(program, version, netid, address, caller.owner)
    except InvalidMapping:
        return False
    standing = context.registry.mappings.get(*new.key)
    if standing is None:
        return _register(context, caller, new)
    if standing.address == new.address:
        return True
    return _replace(context, caller, standing, new)


def _register(context: Context, caller: Caller, new: Mapping) -> bool:
    if not permits(context.policy, caller, Register(new.program)):
        return False
    context.registry.map(new)
    return True


def _replace(context: Context, caller: Caller, standing: Mapping, new: Mapping) -> bool:
    if not permits(context.policy, caller, Replace(standing)) or context.bound(standing):
        return False
    context.registry.replace(standing, new)
    return True


def unset_mappings(
    context: Context, caller: Caller, program: int, version: int, netids: tuple[str, ...]
) -> bool:
    """Remove a program's version from these netids, from all or none.

    :return: is it registered on none of them now? It is, where one is not the caller's to remove.
    """
    found = (context.registry.mappings.get(program, version, netid) for netid in netids)
    standing = [m for m in found if m is not None]
    if not all(permits(context.policy, caller, Remove(m)) for m in standing):
        return False
    context.registry.unmap(*standing)
    return True
