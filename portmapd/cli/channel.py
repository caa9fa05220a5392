"""The local channel as commands use it."""

from __future__ import annotations

import pwd
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from portmapd.client.blocking import Portmapper, RpcMapping, Service
from portmapd.client.values import ClusterService, Subject
from portmapd.errors import PortmapdError

#: The headings of tables of services, and of mappings.
SERVICES = ("NAME", "USER", "PID", "PORT", "EXE")
MAPPINGS = ("PROGRAM", "VERSION", "NETID", "ADDRESS", "OWNER")
CLUSTER_SERVICES = ("NAME", "USER", "HOST", "ADDRESS", "PORT", "PID", "EXE")
CLUSTER_MAPPINGS = (*MAPPINGS, "HOST")
#: Somebody waits for a completion: it takes no longer, in seconds.
_COMPLETION = 1.0


def service_cells(service: Service) -> Sequence[object]:
    """A service as a row of a table."""
    return service.name, user_name(service.user), service.pid, service.port, service.exe


def mapping_cells(mapping: RpcMapping) -> Sequence[object]:
    """A mapping as a row of a table."""
    return mapping.program, mapping.version, mapping.netid, mapping.address, mapping.owner


def cluster_service_cells(service: ClusterService) -> Sequence[object]:
    """A service of the cluster as a row of a table; its user is another machine's."""
    where = service.host, service.address, service.port
    return service.name, service.user, *where, service.pid, service.exe


def subject_cells(subject: Subject) -> Sequence[object]:
    """Whatever may change, as a row of a table."""
    if isinstance(subject, Service):
        return service_cells(subject)
    if isinstance(subject, ClusterService):
        return cluster_service_cells(subject)
    return tuple(subject)


def user_name(uid: int) -> str:
    """The name of a user; the uid, if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def complete_name(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of services that begin so; none if the daemon does not answer."""
    try:
        with Portmapper(context.find_root().params.get("socket"), _COMPLETION) as portmapper:
            names = {service.name for service in portmapper.list()}
    except (PortmapdError, OSError):
        return []
    # A shell reads them line by line, and a terminal shows them.
    clean = sorted(name for name in names if name.isprintable() and " " not in name)
    return [CompletionItem(name) for name in clean if name.startswith(incomplete)]
