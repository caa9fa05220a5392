"""An application that knows its workers: they register with it, for as long as they run.

Run it with ``twistd -ny dispatcher.py``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.logger import Logger

from portmapd import (
    ChangeKind,
    ChangeRecord,
    Config,
    Flags,
    Holder,
    NamedService,
    PortmapperService,
    Registry,
)

WORKER = "worker.example.com"
FRONT = "front.example.com"


class Dispatcher(Service):
    """The application's own service.

    :param registry: where the workers register.
    """

    log = Logger()

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._holder = Holder(os.getuid(), os.getpid())
        registry.follow(self._changed, ChangeKind.REGISTERED, ChangeKind.DEREGISTERED)

    def startService(self) -> None:
        super().startService()
        self._registry.open(self._holder)
        self._registry.register(self._holder.new_service(FRONT, "9100", Flags.EXCLUSIVE))

    def stopService(self) -> None:
        self._registry.close(self._holder)
        super().stopService()

    def ports(self) -> list[str]:
        """The ports of the workers that are there now."""
        return [service.port for service in self._registry.names.of(WORKER)]

    def _changed(self, changes: Sequence[ChangeRecord]) -> None:
        if any(isinstance(c.subject, NamedService) and c.subject.name == WORKER for c in changes):
            self.log.info("the workers are on ports {ports}", ports=self.ports())


config = Config(
    interfaces=(),
    rpc_socket=None,
    local_socket=str(Path("dispatcher.sock").resolve()),
    max_services=2,
)
channel = PortmapperService(config, reactor)
application = Application("dispatcher")
channel.setServiceParent(application)
Dispatcher(channel.registry).setServiceParent(application)
