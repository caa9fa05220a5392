"""The port mapper as a Twisted service: one configuration value in, listening sockets out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IReactorFromThreads,
    IReactorThreads,
    IReactorTime,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from portmapd.config import Config
from portmapd.errors import ConfigurationError, InvalidState
from portmapd.registry.holder import Holder
from portmapd.registry.image import read_image, take_held, take_image
from portmapd.registry.mapping import Mapping as RpcMapping
from portmapd.registry.mapping import Users
from portmapd.registry.registry import Registry
from portmapd.server.boot import this_boot
from portmapd.server.channel import ChannelProtocol
from portmapd.server.engine import Engine, make_engine
from portmapd.server.fast.engine import FastEngine
from portmapd.server.handed_in_sockets import HandedInSockets
from portmapd.server.handover.passed import Descriptors, PassedStream
from portmapd.server.handover.taken_over import TakenOver
from portmapd.server.liveness import Liveness
from portmapd.server.log_events import RPCBIND_IMPORTED, RPCBIND_NOT_IMPORTED, SERVING
from portmapd.server.own_entries import OwnEntries
from portmapd.server.persistence import Persistence
from portmapd.server.pipelining import PipelinedProtocol
from portmapd.server.portmap_server import PortmapServer
from portmapd.server.restoring import Restorer
from portmapd.server.rpcbind_files import RpcbindFiles, read_rpcbind_files
from portmapd.server.sockets import Sockets
from portmapd.server.state_file import StateFile

if TYPE_CHECKING:
    from portmapd.cluster.cluster import EtcdCluster
    from portmapd.cluster_config import ClusterConfig
    from portmapd.joined import JoinedPortMapper
    from portmapd.web.server import WebServer


#: How long requests that have arrived when the service stops are answered, in seconds.
REST = 0.2


class PortmapperService(MultiService):
    """A port mapper inside an application.

    Its sockets are bound in ``privilegedStartService``, or in ``startService`` if that was not
    called.

    :param config: what it is to do.
    :param reactor: the application's reactor.
    :param registry: what is served; None: a registry of its own.
    :param handed_in: sockets that are bound already, in place of those that would be made; they are
        closed when the service stops.
    :param uid: the user who serves once the sockets are bound; None: the one who binds them.
    :param mode: ``serve``: it is the port mapper. ``auto``: it is that where the port is free;
        where another port mapper has it, or has port 111, it joins that one: no socket is bound,
        and what is in the registry is registered there, again when that one is restarted.
    :ivar config: what it is to do.
    :ivar registry: what is registered; it may be read, changed and followed directly.
    :ivar port: the port that is served over UDP and TCP, once it is bound; in mode ``auto`` that of
        the port mapper that was joined.
    """

    _log = Logger()
    #: Has another process take the place of this one; None: nobody can ask for that. And what
    #: another one has passed on whose place this one takes, but for its listening sockets, which
    #: are handed in. A daemon sets them before anything else.
    _restart: Callable[[], object] | None = None
    _taken_over: TakenOver | None = None

    def __init__(
        self,
        config: Config,
        reactor: IReactorTime,
        registry: Registry | None = None,
        handed_in: HandedInSockets | None = None,
        uid: int | None = None,
        *,
        mode: Literal["serve", "auto"] = "serve",
    ) -> None:
        if mode not in ("serve", "auto"):
            raise ConfigurationError(f"mode {mode!r} is neither serve nor auto")
        super().__init__()
        self._mode = mode
        self._joined: JoinedPortMapper | None = None
        self.setName("portmapd")
        self.config = config
        self.registry = Registry() if registry is None else registry
        self.port = config.port
        self._reactor = reactor
        self._engine: Engine = make_engine(reactor)
        self._server: PortmapServer | None = None
        self._web: WebServer | None = None
        self._cluster: EtcdCluster | None = None
        handed_in = HandedInSockets() if handed_in is None else handed_in
        self._sockets = Sockets(config, self._engine, handed_in, uid)
        #: The streams that another process has had, and what they were there.
        self._resumed: list[tuple[PipelinedProtocol[Any], PassedStream]] = []
        self._own: OwnEntries | None = None
        # A server lives from a start to a stop; what is known of dead services lives on.
        self._liveness: Liveness | None = None
        if config.liveness is not None:
            self._liveness = Liveness(self.registry, reactor, config.liveness, config.forget)
            self._liveness.setServiceParent(self)
        self._restorer = Restorer(self.registry, self._liveness, config.forget)
        self._state: StateFile | None = None
        self._persistence: Persistence | None = None
        if config.state is not None:
            lock = None if self._taken_over is None else self._taken_over.lock(config.state)
            self._state = StateFile(config.state, lock)
            self._persistence = self._make_persistence(self._state)
            self._persistence.setServiceParent(self)
        self._rpcbind = RpcbindFiles([])

    def _make_cluster(self, config: ClusterConfig) -> EtcdCluster:
        # Few belong to a cluster, and it takes memory and time to import.
        try:
            from portmapd.cluster.joining import join_cluster
        except ImportError as error:
            raise ConfigurationError(
                f"--cluster needs treq ({error}): pip install 'portmapd[cluster]', or on Debian "
                "apt install python3-treq"
            ) from error
        place = f"{self.config.local_socket} {self.config.port}"
        return join_cluster(config, self.registry, self._reactor, place)

    def _make_persistence(self, file: StateFile) -> Persistence:
        return Persistence(
            file,
            self.registry,
            self._liveness,
            self._restorer,
            this_boot(),
            self._reactor,
            self._in_thread,
            is_read=not self._has_all,
        )

    def _behind(self) -> float | None:
        """For how long the file of mappings has lacked the newest changes; None: there is none."""
        return None if self._persistence is None else self._persistence.behind

    def _in_thread(self, call: Callable[[], None]) -> Deferred[None]:
        """Call a function in a thread of the reactor's."""
        pool = IReactorThreads(self._reactor).getThreadPool()
        return deferToThreadPool(IReactorFromThreads(self._reactor), pool, call)

    def privilegedStartService(self) -> None:
        """Bind every socket, or none.

        :raises ConfigurationError: one cannot be bound; the message says what to do.
        """
        if self._server is not None or self._joined is not None:
            return
        try:
            self._listen_or_join()
            self._read_rpcbind()
            super().privilegedStartService()
        except BaseException:
            self._close()
            raise

    def _listen_or_join(self) -> None:
        if self._mode == "serve":
            self._listen()
            return
        # Only a service that may join another port mapper needs a client.
        from portmapd.joined import JoinedPortMapper, taken_port

        taken = taken_port(self.config.port)
        if taken is None:
            self._listen()
        else:
            self.port = taken
            self._joined = JoinedPortMapper(self.registry, self._reactor, taken)

    def whenRegistered(self) -> Deferred[str]:
        """Wait until everything that is in the registry now is registered.

        :return: fires with a few words on the port mapper: at once, unless another one was joined.
            It fails with :exc:`~portmapd.errors.Refusal` if that has something in the place of a
            mapping, and with :exc:`~portmapd.errors.DaemonUnreachable` if it does not answer; both
            are tried again and again.
        """
        if self._joined is None:
            return succeed(f"a port mapper of its own at port {self.port}")
        return self._joined.settled()

    def startService(self) -> None:
        """Serve, once every socket is bound; see :meth:`privilegedStartService`."""
        self.privilegedStartService()
        if self._taken_over is not None:
            self._take_over(self._taken_over)
        try:
            if self._own is not None:
                self._own.register()
        except BaseException:
            self._close()
            raise
        if self._cluster is not None:
            self._cluster.startService()
        # Before the file is written anew.
        written = 0.0 if self._state is None else self._state.modified()
        super().startService()
        self._import_rpcbind(written)
        SERVING.emit(self._log, what=self._served())

    @property
    def http_addresses(self) -> list[IAddress]:
        """Where the status page is served, once it is."""
        return [] if self._web is None else self._web.addresses

    def status(self) -> str:
        """What is served, and how many mappings are registered, for people."""
        count = len(self.registry.mappings)
        return f"serving {self._served()}; {count} mapping{'' if count == 1 else 's'}"

    def _read_rpcbind(self) -> None:
        """Read what rpcbind left, while the right to do so is there."""
        folder = self.config.import_rpcbind
        if folder is None or self._has_all:
            return
        try:
            self._rpcbind = read_rpcbind_files(folder)
        except (OSError, InvalidState) as error:
            RPCBIND_NOT_IMPORTED.emit(self._log, path=folder, why=error)

    def _import_rpcbind(self, written: float) -> None:
        """Take over what rpcbind left.

        :param written: when the mappings were written here for the last time: what rpcbind left
            before that has been taken over, and may have been unset since.
        """
        found, self._rpcbind = self._rpcbind, RpcbindFiles([])
        if found.modified > written:
            count = self._restorer.adopt(found.mappings)
            RPCBIND_IMPORTED.emit(self._log, count=count, path=self.config.import_rpcbind)

    def _served(self) -> str:
        if self._joined is not None:
            return f"through the port mapper that has port {self.port}"
        hosts = self._sockets.hosts
        where = [*hosts, *filter(None, [self.config.rpc_socket])]
        port = f"port {self.port} on " if hosts else ""
        places = [port + _listed(where)] if where else []
        if self.config.local_socket is not None:
            places.append(f"local channel at {self.config.local_socket}")
        if self.config.cluster is not None:
            places.append(f"{self.config.cluster.host} in a cluster")
        if self.config.http is not None:
            places.append(f"status page at {self.config.http}")
        return "; ".join(places) or "nothing"

    def stopService(self) -> Deferred[Any]:
        """Answer what has arrived, and close every socket and connection.

        :return: fires when they are closed.
        """
        self._answer_rest()
        return gatherResults([self._leave_cluster(), self._stop_children(), self._close()])

    def _leave_cluster(self) -> Deferred[None]:
        """Give back what this machine shares; fires when that is done, or takes too long."""
        cluster, self._cluster = self._cluster, None
        return succeed(None) if cluster is None else cluster.stopService()

    def _stop_children(self) -> Deferred[Any]:
        """Stop everything but the sockets; fires when that is done."""
        return maybeDeferred(super().stopService)

    def _answer_rest(self) -> None:
        """Answer what has arrived by now; more may be arriving without end."""
        ends = monotonic() + REST
        while self._server is not None and monotonic() < ends:
            if not (self._engine.serve() or self._server.give_turns()):
                break

    def _listen(self) -> None:
        """Make what is served, and bind the sockets."""
        config = self.config
        if config.cluster is not None and self._cluster is None:
            self._cluster = self._make_cluster(config.cluster)
        self._server = server = PortmapServer(
            self.registry,
            config.policy,
            self._reactor,
            idle=config.idle,
            max_streams=config.max_streams,
            max_services=config.max_services,
            max_mappings=config.max_mappings,
            liveness=self._liveness,
            descriptors=self._engine.descriptors,
            advertisements=config.advertise,
            behind=self._behind,
            restart=self._restart,
            cluster=self._cluster,
        )
        self._sockets.bind(server)
        self.port = self._sockets.port
        self._own = OwnEntries(self.registry, self._sockets.addresses, config.local_socket)
        if config.http is not None:
            self._listen_http(config.http, server)

    def _listen_http(self, endpoint: str, server: PortmapServer) -> None:
        # Few have a status page, and it takes memory and time to import.
        from portmapd.web.server import WebServer

        self._web = WebServer(
            endpoint,
            self.registry,
            server,
            self.config,
            self._reactor,
            self._persistence,
            self._cluster,
        )
        # The process whose place this one takes has the endpoint until it ends.
        self._web.listen(patiently=self._taken_over is not None)

    # In favour of another process, and in place of one

    @property
    def is_passable(self) -> bool:
        """Whether another process can take the place of this one."""
        return isinstance(self._engine, FastEngine)

    @property
    def _has_all(self) -> bool:
        """Whether another process has passed on all that it had."""
        return self._taken_over is not None and self._taken_over.is_whole

    @property
    def passed_on(self) -> Mapping[str, Any]:
        """What another process has passed on; empty if this one takes nobody's place."""
        return {} if self._taken_over is None else self._taken_over.data

    def settle(self) -> Deferred[None]:
        """Begin nothing that takes long until :meth:`resume`; fires when nothing is under way."""
        parts = [each for each in (self._persistence, self._cluster) if each is not None]
        return gatherResults([each.pause() for each in parts]).addCallback(lambda _: None)

    def resume(self) -> None:
        """Have mappings written to the disk again."""
        for each in (self._persistence, self._cluster):
            if each is not None:
                each.resume()

    def pass_on(self, descriptors: Descriptors, *, has_manager: bool = False) -> dict[str, Any]:
        """All that another process needs to go on in place of this one, as a value of JSON.

        :param has_manager: whether a service manager hands its sockets to that process, too. They
            are not passed on then: the manager may have closed them meanwhile, to bind them anew.
        """
        assert self._server is not None
        assert self._own is not None
        # Connections of processes that have ended are ended first, with what they hold.
        listening = self._sockets.pass_on(descriptors, has_manager=has_manager)
        lock = None if self._state is None else self._state.lock
        return {
            "listening": listening,
            "registry": take_image(self.registry, self._unheld()),
            "own": self._own.serial,
            "statistics": self._server.statistics.rows(),
            "lock": None if lock is None else [self.config.state, descriptors.add(lock)],
            "cluster": None if self._cluster is None else self._cluster.pass_on(),
        }

    def keepable(self, limit: int) -> Mapping[ChannelProtocol, Holder]:
        """The local connections that hold or watch anything, each with its holder."""
        return next((f.keepable(limit) for _, f in self._sockets.channels), {})

    def pass_on_local(
        self, channels: Mapping[ChannelProtocol, Holder], descriptors: Descriptors
    ) -> Mapping[str, Any]:
        """What another process needs to go on with local connections, as a value of JSON."""
        return {
            "listening": [
                each.pass_on_streams(factory.pass_on(descriptors, channels))
                for each, factory in self._sockets.channels
            ],
            "registry": take_held(self.registry, channels.values()),
        }

    def _unheld(self) -> Iterator[tuple[RpcMapping, Users, float | None]]:
        """What is known of each mapping that no connection holds."""
        if self._liveness is not None:
            return self._liveness.saved()
        return ((m, m.users, None) for m in self.registry.mappings if m.holder is None)

    def _take_over(self, taken: TakenOver) -> None:
        """Make everything anew that another process has passed on; nobody is told of it."""
        assert self._server is not None
        assert self._own is not None
        image = read_image(taken.data["registry"])
        holders = image.admit(self.registry)
        streams = self._sockets.take_over(taken, holders)
        # Before there are watchers: to them, nothing changes.
        image.register(self.registry, holders)
        taken_over = {each.serial for each in streams} | {taken.data.get("own")}
        for holder in [each for each in holders.values() if each.serial not in taken_over]:
            # Its connection is not served any more.
            self.registry.close(holder)
        self._restorer.take(image.unheld)
        self._resumed = [
            (protocol, stream.passed) for stream in streams for protocol in stream.resume()
        ]
        if taken.is_whole:
            image.count(self.registry)
            self._server.statistics.take_over(taken.data["statistics"])
            self._own.take_over(holders[taken.data["own"]])
            if self._cluster is not None and taken.data.get("cluster"):
                self._cluster.take_over(taken.data["cluster"])
        taken.received.close()

    def go_on(self) -> None:
        """Serve what another process has passed on; it serves no longer."""
        self._sockets.take_files()
        resumed, self._resumed = self._resumed, []
        for protocol, passed in resumed:
            protocol.go_on(passed)
        if self._has_all:
            assert self._own is not None
            self._own.move()

    def answer_restarts(self, answer: Callable[[bytes], bytes]) -> None:
        """A restart has ended, somehow: answer those who have asked for it.

        :param answer: makes the box that answers the request with a tag.
        """
        for _, factory in self._sockets.channels:
            factory.restarted(answer)

    def _close(self) -> Deferred[Any]:
        """Close the sockets and connections, and remove what is registered here."""
        if self._own is not None:
            self._own.close()
            self._own = None
        ended: list[Deferred[Any]] = []
        if self._web is not None:
            ended.append(self._web.close())
            self._web = None
        if self._server is not None:
            ended.append(self._server.close())
            self._server = None
        ended.append(self._sockets.close())
        if self._joined is not None:
            ended.append(self._joined.close())
            self._joined = None
        return gatherResults(ended)


def _listed(words: list[str]) -> str:
    """Words as a list in a sentence."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
