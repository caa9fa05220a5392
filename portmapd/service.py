"""The port mapper as a Twisted service: one configuration value in, child services out."""

from typing import Any

from twisted.application.service import MultiService

from portmapd.config import Config
from portmapd.registry.registry import Registry
from portmapd.server.channel_service import ChannelService
from portmapd.server.liveness import Liveness
from portmapd.server.rpc_service import RpcService


class PortmapperService(MultiService):
    """A port mapper inside an application.

    Its sockets are bound in ``privilegedStartService``, or in ``startService`` if that was not
    called; :exc:`~portmapd.errors.ConfigurationError` is raised there if one cannot be.

    :param config: what it is to do.
    :param reactor: the application's reactor.
    :ivar registry: what is registered; it may be read, changed and followed directly.
    """

    def __init__(self, config: Config, reactor: Any) -> None:
        super().__init__()
        self.setName("portmapd")
        self.config = config
        self.registry = Registry()
        liveness = Liveness(self.registry, reactor, config.liveness)
        self._rpc = RpcService(config, self.registry, reactor, liveness)
        self._rpc.setServiceParent(self)
        liveness.setServiceParent(self)
        if config.local_socket is not None:
            ChannelService(
                config.local_socket,
                reactor,
                self.registry,
                config.max_services,
                self._rpc.epoll_group,
            ).setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Bind every socket, or none.

        :raises ConfigurationError: one cannot be bound; the message says what to do.
        """
        try:
            super().privilegedStartService()
        except BaseException:
            super().stopService()
            raise

    def startService(self) -> None:
        """Serve, once every socket is bound; see :meth:`privilegedStartService`."""
        self.privilegedStartService()
        super().startService()

    @property
    def port(self) -> int:
        """The port that is served over UDP and TCP, once it is bound."""
        return self._rpc.port
